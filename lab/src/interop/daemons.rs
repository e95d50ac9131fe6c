//! The daemons: how each is configured, started, and asked what it has.

use anyhow::Result;
use model::Prefix;
use serde_json::Value;

use super::TWICE;
use super::session::{PASSWORD, Session, THEIRS_V4, THEIRS_V6};

/// A release of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Debian 12.
    Bookworm,
    /// What is newest.
    Sid,
}

impl Suite {
    /// As the mirror calls it.
    pub fn name(self) -> &'static str {
        match self {
            Suite::Bookworm => "bookworm",
            Suite::Sid => "sid",
        }
    }
}

/// What a daemon says that it has: its words, and where they say how many paths there are to [`TWICE`].
#[derive(Clone, Debug, Default)]
pub struct Told {
    text: String,
    twice: usize,
}

impl Told {
    /// Is the prefix, in its usual form, among the words?
    pub fn knows(&self, prefix: &str) -> bool {
        let ends = |at: usize| !self.text[at..].starts_with(|next: char| next.is_ascii_digit());
        self.text.match_indices(prefix).any(|(at, _)| ends(at + prefix.len()))
    }

    /// How many paths there are to the prefix that is announced twice.
    pub fn paths(&self, prefix: &str) -> usize {
        if prefix == TWICE { self.twice } else { usize::from(self.knows(prefix)) }
    }
}

/// Runs a program beside the daemon and gives what it printed.
pub type Ask<'a> = &'a dyn Fn(&[&str]) -> Result<String>;

/// A BGP daemon.
pub struct Daemon {
    /// What people call it.
    pub name: &'static str,
    /// Where it comes from.
    pub suite: Suite,
    /// Its package.
    pub package: &'static str,
    /// Columns that it isn't held to, each with why not.
    pub cannot: &'static [(&'static str, &'static str)],
    /// What is in its file.
    pub config: fn(Session) -> String,
    /// How it is started; its file is `/mnt/daemon.conf`.
    pub start: fn(Session) -> &'static [&'static str],
    /// Programs of its own that have to run beside it.
    pub beside: fn(Session) -> &'static [&'static [&'static str]],
    /// What is run once it has started.
    pub after: fn(Session) -> Vec<Vec<&'static str>>,
    /// How it is asked what it has.
    pub told: fn(Ask<'_>) -> Result<Told>,
}

impl Daemon {
    /// Is it held to this column?
    pub fn can(&self, column: &str) -> bool {
        self.cannot.iter().all(|(cannot, _)| *cannot != column)
    }
}

const BIRD_START: &[&str] = &["bird", "-f", "-R", "-c", "/mnt/daemon.conf", "-s", "/mnt/bird.ctl"];
// Alone, without zebra: what it says to peers is what is tried.
const FRR_START: &[&str] = &[
    "/usr/lib/frr/bgpd",
    "-f",
    "/mnt/daemon.conf",
    "-i",
    "/mnt/bgpd.pid",
    "--vty_socket",
    "/mnt",
    "-Z",
    "-S",
    "--log",
    "stdout",
    "--log-level",
    "warnings",
];
// With BFD it needs both: sessions with its own daemon for BFD, by way of zebra. They run as their own user.
const FRR_WITH_ZEBRA: &[&str] = &[
    "sh",
    "-c",
    "while ! test -S /mnt/frr/zserv.api; do sleep 0.1; done; exec /usr/lib/frr/bgpd -f /mnt/daemon.conf -i /mnt/bgpd.pid \
     --vty_socket /mnt -z /mnt/frr/zserv.api -S --log stdout --log-level warnings",
];
const FRR_BESIDE: &[&[&str]] = &[
    &[
        "sh",
        "-c",
        "install -d -o frr -g frr /mnt/frr; exec /usr/lib/frr/zebra -i /mnt/frr/zebra.pid --vty_socket /mnt/frr \
         -z /mnt/frr/zserv.api --log stdout",
    ],
    &[
        "sh",
        "-c",
        // Older ones have a control socket there; newer ones have none, and no option for it.
        "install -d -o frr -g frr /run/frr; while ! test -S /mnt/frr/zserv.api; do sleep 0.1; done; \
         exec /usr/lib/frr/bfdd -i /mnt/frr/bfdd.pid --vty_socket /mnt/frr -z /mnt/frr/zserv.api --log stdout",
    ],
];
// As one that restarts (`-r`), which the first time means nothing.
const GOBGP_START: &[&str] = &["gobgpd", "-r", "-f", "/mnt/daemon.conf", "--api-hosts", "127.0.0.1:50051"];
const OPENBGPD_START: &[&str] = &["sh", "-c", "mkdir -p /run/openbgpd; exec bgpd -d -f /mnt/daemon.conf"];
const EXABGP_START: &[&str] =
    &["env", "exabgp_daemon_user=root", "exabgp.daemon.user=root", "exabgp", "/mnt/daemon.conf"];

fn nothing(_: Session) -> Vec<Vec<&'static str>> {
    Vec::new()
}

/// All, in the order of the table.
pub const DAEMONS: &[Daemon] = &[
    Daemon {
        name: "BIRD",
        suite: Suite::Bookworm,
        package: "bird2",
        cannot: &[],
        config: bird,
        start: |_| BIRD_START,
        beside: |_| &[],
        after: nothing,
        told: bird_told,
    },
    Daemon {
        name: "BIRD",
        suite: Suite::Sid,
        package: "bird3",
        cannot: &[],
        config: bird,
        start: |_| BIRD_START,
        beside: |_| &[],
        after: nothing,
        told: bird_told,
    },
    Daemon {
        name: "FRR",
        suite: Suite::Bookworm,
        package: "frr",
        cannot: &[],
        config: frr,
        start: frr_start,
        beside: frr_beside,
        after: nothing,
        told: frr_told,
    },
    Daemon {
        name: "FRR",
        suite: Suite::Sid,
        package: "frr",
        cannot: &[],
        config: frr,
        start: frr_start,
        beside: frr_beside,
        after: nothing,
        told: frr_told,
    },
    Daemon {
        name: "GoBGP",
        suite: Suite::Bookworm,
        package: "gobgpd",
        cannot: &[("extended", "it has no extended messages"), ("BFD", "it has no BFD")],
        config: gobgp,
        start: |_| GOBGP_START,
        beside: |_| &[],
        after: gobgp_routes,
        told: gobgp_told,
    },
    Daemon {
        name: "GoBGP",
        suite: Suite::Sid,
        package: "gobgpd",
        cannot: &[],
        config: gobgp,
        start: |_| GOBGP_START,
        beside: |_| &[],
        after: gobgp_routes,
        told: gobgp_told,
    },
    Daemon {
        name: "OpenBGPD",
        suite: Suite::Bookworm,
        package: "openbgpd",
        cannot: &[
            (
                "refresh",
                "it logs \"route refresh: AID IPv4 unicast not negotiated\" for the family that it exchanges",
            ),
            ("extended", "it has no extended messages"),
            ("restart", "it helps others, and names no families of its own that it would keep"),
            ("v4 over v6", "it takes no IPv6 next hops for IPv4"),
            ("BFD", "OpenBSD's kernel has it, the portable version doesn't"),
        ],
        config: openbgpd,
        start: |_| OPENBGPD_START,
        beside: |_| &[],
        after: nothing,
        told: openbgpd_told,
    },
    Daemon {
        name: "OpenBGPD",
        suite: Suite::Sid,
        package: "openbgpd",
        cannot: &[
            ("restart", "it helps others, and names no families of its own that it would keep"),
            ("BFD", "OpenBSD's kernel has it, the portable version doesn't"),
        ],
        config: openbgpd_new,
        start: |_| OPENBGPD_START,
        beside: |_| &[],
        after: nothing,
        told: openbgpd_told,
    },
    Daemon {
        name: "ExaBGP",
        suite: Suite::Bookworm,
        package: "exabgp",
        cannot: &[("BFD", "it has no BFD")],
        config: exabgp,
        start: |_| EXABGP_START,
        beside: |_| &[],
        after: nothing,
        told: exabgp_told,
    },
    Daemon {
        name: "ExaBGP",
        suite: Suite::Sid,
        package: "exabgp",
        cannot: &[("BFD", "it has no BFD")],
        config: exabgp,
        start: |_| EXABGP_START,
        beside: |_| &[],
        after: nothing,
        told: exabgp_told,
    },
];

/// Lines for each of the daemon's routes of a family.
fn routes(session: Session, six: bool, line: impl Fn(&Prefix) -> String) -> String {
    session.their_routes().iter().filter(|prefix| prefix.addr().is_ipv6() == six).map(line).collect()
}

fn bird(session: Session) -> String {
    let (us, them) = session.ends();
    let (our_as, their_as) = (session.our_as(), session.their_as());
    let v4 = routes(session, false, |prefix| format!("  route {prefix} blackhole;\n"));
    let v6 = routes(session, true, |prefix| format!("  route {prefix} blackhole;\n"));
    let own = "import all; export where source = RTS_STATIC; add paths rx;";
    let channels = match session {
        Session::OverIpv6 => format!("  ipv6 {{ {own} }};\n  ipv4 {{ {own} extended next hop on; }};\n"),
        _ => format!("  ipv4 {{ {own} }};\n"),
    };
    let (guard, bfd) = match session {
        Session::Md5 => (format!("  password \"{PASSWORD}\";\n"), ""),
        Session::Gtsm => ("  ttl security on;\n".to_owned(), ""),
        Session::Bfd => (
            "  bfd;\n".to_owned(),
            "protocol bfd { interface \"eth0\" { min rx interval 100 ms; min tx interval 100 ms; multiplier 3; }; }\n",
        ),
        _ => (String::new(), ""),
    };
    format!(
        "log stderr all;\nrouter id 10.77.0.2;\nprotocol device {{}}\nprotocol direct {{ ipv4; ipv6; }}\n{bfd}\
         protocol static four {{ ipv4;\n{v4}}}\nprotocol static six {{ ipv6;\n{v6}}}\n\
         protocol bgp tortie {{\n  local {them} as {their_as};\n  neighbor {us} as {our_as};\n  direct;\n{guard}\
         \x20 graceful restart on;\n  enable extended messages on;\n  connect delay time 1;\n  connect retry time 1;\n\
         \x20 error wait time 1, 2;\n{channels}}}\n"
    )
}

fn bird_told(ask: Ask<'_>) -> Result<Told> {
    let text = ask(&["birdc", "-s", "/mnt/bird.ctl", "show", "route", "protocol", "tortie"])?;
    // It fails where there is no such route.
    let twice = ask(&["birdc", "-s", "/mnt/bird.ctl", "show", "route", TWICE]).unwrap_or_default();
    Ok(Told { twice: twice.matches("[tortie").count(), text })
}

fn frr(session: Session) -> String {
    let (us, _) = session.ends();
    let (our_as, their_as) = (session.our_as(), session.their_as());
    let family = |name: &str, six: bool| {
        let networks = routes(session, six, |prefix| format!("  network {prefix}\n"));
        format!(" address-family {name} unicast\n{networks}  neighbor {us} activate\n exit-address-family\n")
    };
    let (six, extended) = match session {
        Session::OverIpv6 => (family("ipv6", true), format!(" neighbor {us} capability extended-nexthop\n")),
        _ => (String::new(), String::new()),
    };
    let external = if session == Session::Internal {
        String::new()
    } else {
        format!(" neighbor {us} disable-connected-check\n")
    };
    let guard = match session {
        Session::Md5 => format!(" neighbor {us} password {PASSWORD}\n"),
        Session::Gtsm => format!(" neighbor {us} ttl-security hops 1\n"),
        Session::Bfd => format!(" neighbor {us} bfd 3 100 100\n"),
        _ => String::new(),
    };
    format!(
        "router bgp {their_as}\n bgp router-id 10.77.0.2\n no bgp default ipv4-unicast\n no bgp ebgp-requires-policy\n\
         \x20no bgp network import-check\n bgp graceful-restart\n bgp graceful-restart preserve-fw-state\n\
         \x20neighbor {us} remote-as {our_as}\n neighbor {us} timers connect 1\n{external}{extended}{guard}\
         {}{six}exit\n",
        family("ipv4", false)
    )
}

fn frr_start(session: Session) -> &'static [&'static str] {
    if session == Session::Bfd { FRR_WITH_ZEBRA } else { FRR_START }
}

fn frr_beside(session: Session) -> &'static [&'static [&'static str]] {
    if session == Session::Bfd { FRR_BESIDE } else { &[] }
}

fn frr_told(ask: Ask<'_>) -> Result<Told> {
    let show = |what: &str| ask(&["vtysh", "--vty_socket", "/mnt", "-d", "bgpd", "-c", what]);
    let text = show("show bgp ipv4 unicast")? + &show("show bgp ipv6 unicast")?;
    let twice = show(&format!("show bgp ipv4 unicast {TWICE} json")).unwrap_or_default();
    let twice: Value = serde_json::from_str(&twice).unwrap_or_default();
    Ok(Told { text, twice: twice["paths"].as_array().map_or(0, Vec::len) })
}

fn gobgp(session: Session) -> String {
    let (us, them) = session.ends();
    let family = |name: &str| {
        format!(
            "  [[neighbors.afi-safis]]\n    [neighbors.afi-safis.config]\n      afi-safi-name = \"{name}\"\n\
             \x20   [neighbors.afi-safis.add-paths.config]\n      receive = true\n\
             \x20   [neighbors.afi-safis.mp-graceful-restart.config]\n      enabled = true\n"
        )
    };
    let families = match session {
        Session::OverIpv6 => family("ipv6-unicast") + &family("ipv4-unicast"),
        _ => family("ipv4-unicast"),
    };
    let guard = match session {
        Session::Md5 => format!("    auth-password = \"{PASSWORD}\"\n"),
        Session::Gtsm => {
            "  [neighbors.ttl-security.config]\n    enabled = true\n    ttl-min = 255\n".to_owned()
        }
        Session::Bfd => {
            "  [neighbors.bfd.config]\n    enabled = true\n    desired-minimum-tx-interval = 100000\n\
                         \x20   required-minimum-receive = 100000\n    detection-multiplier = 3\n"
                .to_owned()
        }
        _ => String::new(),
    };
    format!(
        "[global.config]\n  as = {}\n  router-id = \"10.77.0.2\"\n  local-address-list = [\"{them}\"]\n[[neighbors]]\n\
         \x20 [neighbors.config]\n    neighbor-address = \"{us}\"\n    peer-as = {}\n{guard}\
         \x20 [neighbors.graceful-restart.config]\n    enabled = true\n    restart-time = 60\n    deferral-time = 5\n{families}",
        session.their_as(),
        session.our_as()
    )
}

fn gobgp_routes(session: Session) -> Vec<Vec<&'static str>> {
    let add = |family, prefix, nexthop| {
        vec!["gobgp", "global", "rib", "add", "-a", family, prefix, "nexthop", nexthop]
    };
    let four = if session == Session::OverIpv6 { "fd77::2" } else { "10.77.0.2" };
    let mut commands: Vec<_> = THEIRS_V4.iter().map(|prefix| add("ipv4", prefix, four)).collect();
    if session == Session::OverIpv6 {
        commands.extend(THEIRS_V6.iter().map(|prefix| add("ipv6", prefix, "fd77::2")));
    }
    commands
}

fn gobgp_told(ask: Ask<'_>) -> Result<Told> {
    let text =
        ask(&["gobgp", "global", "rib", "-a", "ipv4"])? + &ask(&["gobgp", "global", "rib", "-a", "ipv6"])?;
    let twice = ask(&["gobgp", "global", "rib", TWICE, "-j"]).unwrap_or_default();
    let twice: Value = serde_json::from_str(&twice).unwrap_or_default();
    let paths = twice[TWICE].as_array().or(twice.as_array()).map_or(0, Vec::len);
    Ok(Told { text, twice: paths })
}

fn openbgpd(session: Session) -> String {
    openbgpd_with(session, "")
}

fn openbgpd_new(session: Session) -> String {
    let extended = if session == Session::OverIpv6 { "  announce extended nexthop yes\n" } else { "" };
    openbgpd_with(session, &format!("  announce extended message yes\n{extended}"))
}

fn openbgpd_with(session: Session, more: &str) -> String {
    let (us, them) = session.ends();
    let networks =
        session.their_routes().iter().map(|prefix| format!("network {prefix}\n")).collect::<String>();
    let families = match session {
        Session::OverIpv6 => "  announce IPv6 unicast\n  announce IPv4 unicast\n",
        _ => "  announce IPv4 unicast\n",
    };
    let guard = match session {
        Session::Md5 => format!("  tcp md5sig password {PASSWORD}\n"),
        Session::Gtsm => "  ttl-security yes\n".to_owned(),
        _ => String::new(),
    };
    format!(
        "AS {}\nrouter-id 10.77.0.2\nlisten on {them}\nsocket \"/mnt/bgpd.sock\"\nfib-update no\n{networks}\
         neighbor {us} {{\n  remote-as {}\n  local-address {them}\n  announce add-path recv yes\n{families}{guard}{more}}}\n\
         allow from any\nallow to any\n",
        session.their_as(),
        session.our_as()
    )
}

fn openbgpd_told(ask: Ask<'_>) -> Result<Told> {
    let text = ask(&["bgpctl", "-s", "/mnt/bgpd.sock", "show", "rib"])?;
    let twice = text.lines().filter(|line| line.split_whitespace().any(|word| word == TWICE)).count();
    Ok(Told { twice, text })
}

fn exabgp(session: Session) -> String {
    let (us, them) = session.ends();
    let (families, next_hops, capability) = match session {
        Session::OverIpv6 => {
            ("ipv6 unicast; ipv4 unicast;", "  nexthop { ipv4 unicast ipv6; }\n", " nexthop enable;")
        }
        _ => ("ipv4 unicast;", "", ""),
    };
    let route = |prefix: &Prefix| format!("    route {prefix} next-hop {them};\n");
    let statics = routes(session, false, route) + &routes(session, true, route);
    let guard = match session {
        Session::Md5 => format!("  md5-password '{PASSWORD}';\n"),
        Session::Gtsm => "  outgoing-ttl 255;\n  incoming-ttl 255;\n".to_owned(),
        _ => String::new(),
    };
    format!(
        "process log {{\n  run /bin/sh -c \"cat >> /mnt/received.json\";\n  encoder json;\n}}\n\
         neighbor {us} {{\n  router-id 10.77.0.2;\n  local-address {them};\n  local-as {};\n  peer-as {};\n{guard}\
         \x20 family {{ {families} }}\n{next_hops}\
         \x20 capability {{ add-path receive; route-refresh enable; asn4 enable; graceful-restart 60;{capability} }}\n\
         \x20 static {{\n{statics}  }}\n  api {{ processes [ log ]; receive {{ parsed; update; }} }}\n}}\n",
        session.their_as(),
        session.our_as()
    )
}

fn exabgp_told(ask: Ask<'_>) -> Result<Told> {
    let text = ask(&["cat", "/mnt/received.json"])?;
    let ids: std::collections::BTreeSet<&str> = text
        .match_indices(&format!("\"{TWICE}\""))
        .filter_map(|(at, _)| text[at..].split("path-information\": \"").nth(1)?.split('"').next())
        .collect();
    Ok(Told { twice: ids.len(), text })
}

#[cfg(test)]
mod tests {
    use super::super::REFLECTED;
    use super::*;

    #[test]
    fn a_prefix_is_known_only_as_a_whole() {
        let told = Told { text: format!("{REFLECTED} via\n10.66.2.128/25\n"), twice: 2 };
        assert!(told.knows(REFLECTED) && told.knows("10.66.2.128/25"));
        assert!(!told.knows("10.66.2.128/2") && !told.knows("10.66.1.0/24"));
        assert_eq!((told.paths(TWICE), told.paths(REFLECTED)), (2, 1));
    }

    #[test]
    fn what_a_daemon_cannot_is_a_column_and_has_its_reason() {
        for (column, why) in DAEMONS.iter().flat_map(|daemon| daemon.cannot) {
            assert!(super::super::COLUMNS.contains(column) && !why.is_empty(), "{column}");
        }
    }

    #[test]
    fn every_daemon_is_told_of_our_end_and_of_its_routes() {
        for daemon in DAEMONS {
            for session in Session::ALL {
                let config = (daemon.config)(session);
                assert!(config.contains(&session.ends().0.to_string()), "{} {session:?}", daemon.name);
                assert!(config.contains(&session.our_as().to_string()), "{} {session:?}", daemon.name);
            }
        }
    }
}
