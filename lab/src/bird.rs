//! Debian's BIRD 2, configured as a Calico node configures BIRD, or as a plain router beside one.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use model::{Family, Prefix};

use crate::netns::Namespace;
use crate::process::Process;
use crate::{Lab, command};

/// How long a question to a running BIRD may take.
const QUESTION: Duration = Duration::from_secs(60);
/// How long it may take until it answers.
const START: Duration = Duration::from_secs(90);

/// LOCAL_PREF of what a Calico node originates: 2147483647 less the kernel metric, 1024 by default
/// (`bird.cfg.template`).
const CALICO_LOCAL_PREF: u32 = 2_147_483_647 - 1024;

/// One BGP session of a BIRD.
#[derive(Clone, Debug)]
pub struct Session {
    /// The neighbor's address.
    pub neighbor: IpAddr,
    /// The neighbor's AS number.
    pub neighbor_as: u32,
    /// Our own address.
    pub source: IpAddr,
    /// Our own AS number.
    pub local_as: u32,
    /// Whether only the neighbor connects.
    pub passive: bool,
    /// `multihop` as Calico always has it, or `direct`.
    pub multihop: bool,
    /// What goes out: `all`, `none`, `filter NAME`.
    pub export: String,
}

impl Session {
    /// A session of Calico's node-to-node mesh. The higher address, compared as text, is the one that connects:
    /// `passive on` stands where the peer's address is greater than our own.
    pub fn mesh(source: IpAddr, neighbor: IpAddr, as_number: u32) -> Session {
        Session {
            neighbor,
            neighbor_as: as_number,
            source,
            local_as: as_number,
            passive: neighbor.to_string() > source.to_string(),
            multihop: true,
            export: format!("filter calico_export_{}", channel(Family::of(source))),
        }
    }

    /// A session of two routers on one link, each an address and an AS number.
    pub fn direct(own: (IpAddr, u32), neighbor: (IpAddr, u32), export: &str) -> Session {
        Session {
            neighbor: neighbor.0,
            neighbor_as: neighbor.1,
            source: own.0,
            local_as: own.1,
            passive: false,
            multihop: false,
            export: export.to_owned(),
        }
    }

    /// The protocol's name, as Calico forms it: `Mesh_192_168_0_80`.
    pub fn name(&self) -> String {
        let kind = if self.neighbor_as == self.local_as { "Mesh" } else { "Global" };
        format!("{kind}_{}", self.neighbor.to_string().replace(['.', ':'], "_"))
    }

    fn render(&self) -> String {
        let passive = if self.passive { "  passive on;\n" } else { "" };
        format!(
            "protocol bgp {} {{\n\
             \x20 local {} as {};\n\
             \x20 neighbor {} as {};\n\
             \x20 {};\n\
             {passive}\
             \x20 connect delay time 2;\n\
             \x20 connect retry time 5;\n\
             \x20 error wait time 5,30;\n\
             \x20 graceful restart;\n\
             \x20 {} {{\n\
             \x20   import all;\n\
             \x20   export {};\n\
             \x20   add paths on;\n\
             \x20   gateway {};\n\
             \x20 }};\n\
             }}\n",
            self.name(),
            self.source,
            self.local_as,
            self.neighbor,
            self.neighbor_as,
            if self.multihop { "multihop" } else { "direct" },
            channel(Family::of(self.source)),
            self.export,
            if self.multihop { "recursive" } else { "direct" },
        )
    }
}

/// What a Calico node's BIRD is told.
#[derive(Clone, Debug)]
pub struct CalicoNode {
    /// The node's IPv4 address.
    pub router_id: Ipv4Addr,
    /// The node's own blocks: blackholed, and announced as a whole.
    pub blocks: Vec<Prefix>,
    /// The pools whose routes may be announced.
    pub pools: Vec<Prefix>,
    /// Its sessions.
    pub sessions: Vec<Session>,
}

impl CalicoNode {
    /// The configuration as Calico's templates have it, in BIRD 2's words.
    pub fn render(&self) -> String {
        let mut text = preamble(self.router_id);
        text.push_str("protocol direct { ipv4; ipv6; interface -\"cali*\", \"*\"; }\n");
        for family in Family::ALL {
            let channel = channel(family);
            text.push_str(&format!(
                "protocol kernel kernel_{channel} {{\n\
                 \x20 learn;\n  persist;\n  scan time 2;\n  graceful restart;\n  merge paths on;\n\
                 \x20 {channel} {{ import all; export all; }};\n}}\n"
            ));
            let blocks: Vec<Prefix> =
                self.blocks.iter().copied().filter(|block| block.family() == family).collect();
            let routes =
                blocks.iter().map(|block| format!("  route {block} blackhole;\n")).collect::<String>();
            text.push_str(&format!("protocol static static_{channel} {{\n  {channel};\n{routes}}}\n"));
            text.push_str(&self.export_filter(family, &blocks));
        }
        for session in &self.sessions {
            text.push_str(&session.render());
        }
        text
    }

    /// Blocks go out whole, what is inside them does not, the rest of the pools does, and nothing else.
    fn export_filter(&self, family: Family, blocks: &[Prefix]) -> String {
        let mut rules = String::new();
        for block in blocks {
            rules.push_str(&format!("  if net = {block} then accept;\n  if net ~ {block} then reject;\n"));
        }
        for pool in self.pools.iter().filter(|pool| pool.family() == family) {
            rules.push_str(&format!("  if net ~ {pool} then accept;\n"));
        }
        format!(
            "filter calico_export_{} {{\n  if source != RTS_BGP then bgp_local_pref = {CALICO_LOCAL_PREF};\n{rules}  reject;\n}}\n",
            channel(family)
        )
    }
}

/// What a router that is no Calico node is told.
#[derive(Clone, Debug)]
pub struct PlainRouter {
    /// Its IPv4 address.
    pub router_id: Ipv4Addr,
    /// Static routes: `10.9.0.0/16 via 10.0.0.1`, `10.9.0.0/16 blackhole`.
    pub routes: Vec<String>,
    /// Whether what it learns goes into the kernel of its namespace.
    pub kernel: bool,
    /// Its sessions.
    pub sessions: Vec<Session>,
}

impl PlainRouter {
    /// The configuration; a session's export `filter own` sends the static routes alone.
    pub fn render(&self) -> String {
        let mut text = preamble(self.router_id);
        text.push_str("protocol direct { ipv4; ipv6; }\n");
        text.push_str("filter own { if source = RTS_STATIC then accept; reject; }\n");
        for family in Family::ALL {
            let channel = channel(family);
            let is_six = |route: &&String| route.split(' ').next().is_some_and(|prefix| prefix.contains(':'));
            let routes = self.routes.iter().filter(|route| is_six(route) == (family == Family::V6));
            let routes = routes.map(|route| format!("  route {route};\n")).collect::<String>();
            text.push_str(&format!("protocol static static_{channel} {{\n  {channel};\n{routes}}}\n"));
            if self.kernel {
                text.push_str(&format!(
                    "protocol kernel kernel_{channel} {{ persist; scan time 2; {channel} {{ import none; export all; }}; }}\n"
                ));
            }
        }
        for session in &self.sessions {
            text.push_str(&session.render());
        }
        text
    }
}

fn preamble(router_id: Ipv4Addr) -> String {
    format!(
        "log stderr all;\nrouter id {router_id};\ndebug protocols {{ states }};\nprotocol device {{ scan time 2; }}\n"
    )
}

/// BIRD's word for a family.
fn channel(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// A running BIRD.
pub struct Bird {
    namespace: Namespace,
    socket: PathBuf,
    process: Process,
}

impl Bird {
    /// Starts BIRD with this configuration in a namespace and waits until it answers.
    ///
    /// # Errors
    /// BIRD refuses its configuration, or does not answer.
    pub fn start(lab: &Lab, namespace: &Namespace, configuration: &str) -> Result<Bird> {
        let name = format!("bird-{}", namespace.name());
        let file = lab.directory().join(format!("{name}.conf"));
        let socket = lab.directory().join(format!("{name}.ctl"));
        std::fs::write(&file, configuration)?;
        let mut bird = namespace.command("bird");
        // -R: graceful restart recovery, as Calico starts it; -f: in the foreground.
        bird.args(["-f", "-R", "-c"]).arg(&file).arg("-s").arg(&socket);
        let mut bird = Bird { namespace: namespace.clone(), socket, process: lab.spawn(&name, bird)? };
        lab.wait(&format!("bird on {}", namespace.name()), START, || {
            if let Err(error) = bird.process.must_run() {
                return Ok(Some(Err(error)));
            }
            bird.ask("show status").map(|_| Some(Ok(())))
        })??;
        Ok(bird)
    }

    /// Where it runs.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// What `birdc QUESTION` prints.
    ///
    /// # Errors
    /// BIRD does not answer.
    pub fn ask(&self, question: &str) -> Result<String> {
        let mut birdc = Command::new("birdc");
        birdc.arg("-s").arg(&self.socket).args(question.split(' '));
        command::run(&mut birdc, QUESTION)
    }

    /// The command that asks this BIRD.
    pub fn show_command(&self, question: &str) -> String {
        format!("birdc -s {} {question}", self.socket.display())
    }

    /// Fails unless every BGP session of this BIRD is Established, and there are at least `expected`.
    ///
    /// # Errors
    /// As said, or BIRD does not answer.
    pub fn established(&self, expected: usize) -> Result<()> {
        let text = self.ask("show protocols")?;
        let sessions: Vec<&str> =
            text.lines().filter(|line| line.split_whitespace().nth(1) == Some("BGP")).collect();
        let up = sessions.iter().filter(|line| line.contains("Established")).count();
        if up < sessions.len() || up < expected {
            let down = sessions.iter().filter(|line| !line.contains("Established"));
            bail!("bird on {}: {}", self.namespace.name(), down.copied().collect::<Vec<_>>().join("; "));
        }
        Ok(())
    }

    /// The prefixes that a protocol of this BIRD has brought.
    ///
    /// # Errors
    /// BIRD does not answer.
    pub fn routes_from(&self, protocol: &str) -> Result<Vec<Prefix>> {
        let text = self.ask(&format!("show route protocol {protocol}"))?;
        let first_words = text.lines().filter_map(|line| line.split_whitespace().next());
        Ok(first_words.filter(|word| word.contains('/')).filter_map(|word| word.parse().ok()).collect())
    }

    /// How many routes BIRD has in all, by its own count.
    ///
    /// # Errors
    /// BIRD does not answer.
    pub fn count(&self, filter: &str) -> Result<u64> {
        let text = self.ask(&format!("show route {filter} count"))?;
        // 900 of 900 routes for 900 networks in table master4
        let counts = text.lines().filter_map(|line| line.split_once(" of ")?.0.trim().parse::<u64>().ok());
        counts.reduce(|sum, count| sum + count).with_context(|| format!("no count in: {text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_passive_side_is_chosen_by_comparing_texts() {
        let mesh = |source, neighbor| Session::mesh(addr(source), addr(neighbor), 64512);
        assert!(mesh("10.0.0.5", "10.0.0.8").passive);
        assert!(!mesh("10.0.0.8", "10.0.0.5").passive);
        // As numbers 10 is greater than 9; as texts it is not, and Calico compares texts.
        assert!(mesh("10.0.0.10", "10.0.0.9").passive);
    }

    #[test]
    fn a_calico_node_announces_its_blocks_whole_and_of_each_family_apart() {
        let node = CalicoNode {
            router_id: Ipv4Addr::new(192, 168, 0, 82),
            blocks: vec![
                "10.244.103.64/26".parse().expect("a block"),
                "fd65::3:0/122".parse().expect("a block"),
            ],
            pools: vec!["10.244.0.0/16".parse().expect("a pool")],
            sessions: vec![Session::mesh(addr("192.168.0.82"), addr("192.168.0.80"), 64512)],
        };
        let text = node.render();
        assert!(
            text.contains("if net = 10.244.103.64/26 then accept;\n  if net ~ 10.244.103.64/26 then reject;")
        );
        assert!(text.contains("bgp_local_pref = 2147482623;"));
        assert!(text.contains("protocol bgp Mesh_192_168_0_80 {"));
        let six = text.split("filter calico_export_ipv6").nth(1).expect("a filter for IPv6");
        assert!(six.starts_with(" {\n  if source != RTS_BGP") && !six.contains("net ~ 10.244"), "{six}");
    }
}
