//! Whole daemons, one at a time: each in a namespace of its own on cores of its own, the two ends in another.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::netns::Namespace;
use lab::process::{Identity, Process};
use lab::progress::Progress;
use lab::resources::Resources;
use lab::tortie::{Settings, TortieNode};
use lab::{Lab, Tools, command, link};

use super::ends::Passed;
use super::{Arguments, FEEDER_AS, ROUTER, ROUTER_AS, Results, Row, SINK, SINK_AS, feeder};

/// Where the daemon runs; the ends have the last core.
const DAEMON_CORES: &str = "0-2";
const ENDS_CORE: &str = "3";
/// How long a question about a version may take.
const QUESTION: Duration = Duration::from_secs(10);
/// How long the kernel's mirror may take for a table.
const MIRROR: Duration = Duration::from_secs(60);

/// Routes that a router has without any by BGP, beside those to its neighbours, at most.
const FEW: u64 = 16;

/// A program that speaks BGP.
#[derive(Clone, Debug)]
struct Daemon {
    kind: Kind,
    name: String,
    /// The Debian tree it is in; `/` is this machine's own.
    root: PathBuf,
    program: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tortie,
    /// Without its mirror in the kernel.
    TortieAlone,
    Bird,
    Frr,
    GoBgp,
    OpenBgpd,
}

/// Where Debian puts them, and what asks their version.
const OTHERS: [(Kind, &str, &str, &str); 4] = [
    (Kind::Bird, "bird", "usr/sbin/bird", "--version"),
    (Kind::Frr, "frr", "usr/lib/frr/bgpd", "--version"),
    (Kind::GoBgp, "gobgp", "usr/bin/gobgpd", "--version"),
    (Kind::OpenBgpd, "openbgpd", "usr/sbin/bgpd", "-V"),
];

/// Every daemon found, in rounds. One that can't be measured is named among what was skipped.
pub fn measure(arguments: &Arguments, results: &mut Results) -> Result<()> {
    lab::wait::catch_signals()?;
    let cores = std::thread::available_parallelism()?.get();
    if cores < 4 {
        println!("skipped: a daemon on three cores and its ends on one take 4 cores, here are {cores}");
        return Ok(());
    }
    let daemons = find(arguments, &mut results.skipped)?;
    results.skipped.iter().for_each(|why| println!("skipped: {why}"));
    results.rows = daemons.iter().map(|daemon| Row::new(daemon.name.clone())).collect();
    for round in 0..arguments.rounds {
        for (daemon, row) in daemons.iter().zip(&mut results.rows) {
            println!("round {} of {}: {}", round + 1, arguments.rounds, daemon.name);
            if let Err(error) = once(daemon, arguments, row) {
                println!("{}: {error:#}", daemon.name);
                results.skipped.push(format!("{} in round {}: {error:#}", daemon.name, round + 1));
            }
        }
    }
    results.rows.retain(|row| !row.load_seconds.0.is_empty());
    Ok(())
}

fn find(arguments: &Arguments, skipped: &mut Vec<String>) -> Result<Vec<Daemon>> {
    let wanted =
        |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| name.starts_with(only));
    let mut daemons = Vec::new();
    if wanted("tortie") {
        for program in &arguments.tortie {
            let missing = || format!("{}: `cargo build --release -p tortie` makes it", program.display());
            let program = fs::canonicalize(program).with_context(missing)?;
            let of_which = match arguments.tortie.len() {
                1 => String::new(),
                _ => format!(" {}", program.display()),
            };
            let daemon = |kind, name| Daemon { kind, name, root: "/".into(), program: program.clone() };
            daemons.push(daemon(Kind::Tortie, format!("tortie{of_which}")));
            if arguments.without_mirror {
                daemons.push(daemon(Kind::TortieAlone, format!("tortie{of_which}, no kernel mirror")));
            }
        }
    }
    let own = PathBuf::from("/");
    for root in std::iter::once(&own).chain(&arguments.roots) {
        for (kind, name, program, version) in OTHERS {
            if !wanted(name) {
                continue;
            }
            let program = Path::new("/").join(program);
            if !root.join(program.strip_prefix("/")?).exists() {
                skipped.push(format!("no {name} in {}", root.display()));
                continue;
            }
            let mut ask = within(root, None);
            ask.arg(&program).arg(version);
            let output = command::output(&mut ask, QUESTION)?;
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            let is_version = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
            let version = said.split_whitespace().find(is_version).unwrap_or("of an unknown version");
            daemons.push(Daemon { kind, name: format!("{name} {version}"), root: root.clone(), program });
        }
    }
    ensure!(!daemons.is_empty(), "none of {:?} was found", arguments.only);
    Ok(daemons)
}

/// A command prefix that runs within a tree, and within a namespace on the daemon's cores.
fn within(root: &Path, namespace: Option<&Namespace>) -> Command {
    // The mounts are the namespace's own, and end with the program. OpenBGPD asks /proc for its own path, and its unit makes
    // the folder that it keeps its children in.
    const MOUNTED: &str = "mount -t proc proc \"$0/proc\" && mount -t tmpfs tmpfs \"$0/run\" && mkdir \"$0/run/openbgpd\" \
                           && exec chroot \"$0\" \"$@\"";
    let mut command = match namespace {
        Some(namespace) => {
            let mut command = namespace.command("taskset");
            command.args(["-c", DAEMON_CORES, "sh", "-c", MOUNTED]);
            command
        }
        None => Command::new("chroot"),
    };
    command.arg(root);
    command
}

/// One daemon, from its start to its end.
fn once(daemon: &Daemon, arguments: &Arguments, row: &mut Row) -> Result<()> {
    let tools = Tools { tortie: daemon.program.clone(), agent: PathBuf::new() };
    let lab = Lab::raise(&tools, Progress::new(None))?;
    let (router, ends) = (lab.namespace("router")?, lab.namespace("ends")?);
    link::veth(link::End::new(&router, "eth0"), link::End::new(&ends, "eth0"))?;
    link::add_address(&router, "eth0", format!("{ROUTER}/16").parse()?)?;
    let feeders: Vec<Ipv4Addr> = (0..arguments.feeders).map(feeder).collect();
    for end in feeders.iter().chain([&SINK]) {
        link::add_address(&ends, "eth0", format!("{end}/16").parse()?)?;
    }
    link::transmit_checksums_by_software(&ends, "eth0")?;
    let running = start(daemon, &lab, &router, &feeders)?;
    let mut ends = Ends::start(&ends, arguments)?;
    row.megabytes_before.0.push(running.resident_bytes()? as f64 / 1e6);
    let loaded = ends.ask("load")?;
    row.load_seconds.0.push(loaded.seconds);
    row.ends_busy_loading.0.push(loaded.busy);
    if let Some(tortie) = running.tortie.as_ref().filter(|_| daemon.kind == Kind::Tortie) {
        let began = Instant::now();
        mirror_holds(&lab, tortie, |routes| routes >= loaded.routes as u64)?;
        row.mirror_seconds.0.push(began.elapsed().as_secs_f64());
    }
    row.megabytes.0.push(running.resident_bytes()? as f64 / 1e6);
    let before = running.tortie.as_ref().map(withdrawing_time).transpose()?;
    let withdrawn = ends.ask("withdraw")?;
    row.withdraw_seconds.0.push(withdrawn.seconds);
    row.ends_busy_withdrawing.0.push(withdrawn.busy);
    if let (Some(tortie), Some(before)) = (&running.tortie, before) {
        let began = Instant::now();
        // A neighbour is a route, too.
        table_is_empty(tortie, FEW + 2 * u64::from(arguments.feeders))?;
        row.out_of_table_seconds.0.push(began.elapsed().as_secs_f64());
        for (thread, time) in withdrawing_time(tortie)? {
            let time = time.saturating_sub(before.get(thread).copied().unwrap_or_default());
            row.withdrawing_threads.entry(thread.to_owned()).or_default().0.push(time.as_secs_f64());
        }
    }
    if let Some(tortie) = running.tortie.as_ref().filter(|_| daemon.kind == Kind::Tortie) {
        mirror_holds(&lab, tortie, |routes| routes < FEW)?;
    }
    row.megabytes_peak.0.push(running.peak_bytes()? as f64 / 1e6);
    row.processor_seconds.0.push(running.processor_time()?.as_secs_f64());
    if let Some(tortie) = &running.tortie {
        for (thread, time) in tortie.identity()?.processor_time_of_threads()? {
            row.threads.entry(thread).or_default().0.push(time.as_secs_f64());
        }
    }
    row.wrong += loaded.missing + loaded.wrong + withdrawn.missing + withdrawn.wrong;
    Ok(())
}

/// Waits until the router's mirror in the kernel holds as many routes as it should.
fn mirror_holds(lab: &Lab, tortie: &TortieNode, enough: impl Fn(u64) -> bool) -> Result<()> {
    lab.wait("the kernel's mirror", MIRROR, || Ok(enough(in_use(tortie, "mirror_routes")?).then_some(())))
}

/// Waits until the fast path has few routes left, those that aren't by BGP; asks as often as the router answers.
fn table_is_empty(tortie: &TortieNode, few: u64) -> Result<()> {
    let deadline = Instant::now() + MIRROR;
    while in_use(tortie, "routes_v4")? >= few {
        ensure!(Instant::now() < deadline, "withdrawn routes stay in the fast path's table");
    }
    Ok(())
}

/// Rows of one of the router's tables that are in use.
fn in_use(tortie: &TortieNode, limit: &str) -> Result<u64> {
    #[derive(serde::Deserialize)]
    struct Tables {
        tables: Vec<Table>,
    }
    #[derive(serde::Deserialize)]
    struct Table {
        limit: String,
        in_use: u64,
    }
    let tables = tortie.show::<Tables>("tables")?.tables;
    let table = tables.iter().find(|table| table.limit == limit);
    Ok(table.with_context(|| format!("the router has no {limit}"))?.in_use)
}

/// What the threads that a withdrawal goes through have had of processors until now.
fn withdrawing_time(tortie: &TortieNode) -> Result<BTreeMap<&'static str, Duration>> {
    let identity = tortie.identity()?;
    ["bgp", "slowpath"].into_iter().map(|thread| Ok((thread, identity.threads_time(&[thread])?))).collect()
}

/// A daemon's processes.
struct Running {
    tortie: Option<TortieNode>,
    processes: Vec<Process>,
    _folder: Option<Folder>,
}

/// What a daemon is given within a tree that stays; gone with this.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Running {
    fn identities(&self) -> Result<Vec<Identity>> {
        if let Some(tortie) = &self.tortie {
            return Ok(vec![tortie.identity()?]);
        }
        let mut identities = Vec::new();
        for process in &self.processes {
            identities.extend(family(process.identity().pid)?);
        }
        Ok(identities)
    }

    fn resident_bytes(&self) -> Result<u64> {
        self.identities()?.into_iter().map(Identity::resident_bytes).sum()
    }

    fn peak_bytes(&self) -> Result<u64> {
        self.identities()?.into_iter().map(Identity::peak_bytes).sum()
    }

    fn processor_time(&self) -> Result<Duration> {
        self.identities()?.into_iter().map(Identity::processor_time).sum()
    }
}

/// A process and those it started: OpenBGPD is three.
fn family(pid: u32) -> Result<Vec<Identity>> {
    let mut found = vec![Identity::of(pid)?];
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    for child in children.split_whitespace() {
        found.extend(family(child.parse()?)?);
    }
    Ok(found)
}

fn start(daemon: &Daemon, lab: &Lab, namespace: &Namespace, feeders: &[Ipv4Addr]) -> Result<Running> {
    let mirror_routes = match daemon.kind {
        Kind::Tortie => Some(1_500_000),
        // As good as none.
        Kind::TortieAlone => Some(1),
        _ => None,
    };
    if let Some(mirror_routes) = mirror_routes {
        return Ok(Running {
            tortie: Some(tortie(lab, namespace, feeders, mirror_routes)?),
            processes: Vec::new(),
            _folder: None,
        });
    }
    // Within the daemon's own tree, under a name that no other lab has.
    let directory =
        PathBuf::from("/tmp").join(lab.directory().file_name().context("the lab has a directory")?);
    let outside = daemon.root.join(directory.strip_prefix("/")?);
    fs::create_dir_all(&outside)?;
    // The machine's own tree has the lab's directory, which goes with the lab.
    let folder = (outside != lab.directory()).then(|| Folder(outside.clone()));
    let text = match daemon.kind {
        Kind::Bird => bird(feeders),
        Kind::Frr => frr(feeders),
        Kind::GoBgp => gobgp(feeders),
        Kind::OpenBgpd => openbgpd(&directory, feeders),
        Kind::Tortie | Kind::TortieAlone => bail!("it is started elsewhere"),
    };
    let file = directory.join("conf");
    let outside_file = outside.join("conf");
    fs::write(&outside_file, text)?;
    fs::set_permissions(&outside_file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let mut command = within(&daemon.root, Some(namespace));
    command.arg(&daemon.program);
    match daemon.kind {
        Kind::Bird => command.arg("-f").arg("-c").arg(&file).arg("-s").arg(directory.join("ctl")),
        // Without zebra: no kernel routes, as for all others here but us.
        Kind::Frr => command
            .args(["-Z", "-S", "-u", "root", "-g", "root", "--vty_socket"])
            .arg(&directory)
            .arg("-i")
            .arg(directory.join("pid"))
            .arg("-f")
            .arg(&file),
        Kind::GoBgp => command
            .arg("--api-hosts")
            .arg(format!("unix://{}", directory.join("api").display()))
            .arg("-f")
            .arg(&file),
        Kind::OpenBgpd => command.arg("-d").arg("-f").arg(&file),
        Kind::Tortie | Kind::TortieAlone => bail!("it is started elsewhere"),
    };
    let process = lab.spawn("daemon", command)?;
    Ok(Running { tortie: None, processes: vec![process], _folder: folder })
}

/// The router, sized for what it does here: a route server with an uplink, through which nothing goes. Frames and flows are for
/// what goes through.
fn tortie(
    lab: &Lab,
    namespace: &Namespace,
    feeders: &[Ipv4Addr],
    mirror_routes: usize,
) -> Result<TortieNode> {
    namespace.forward()?;
    let resources = Resources::create(lab.directory().join("resources"))?;
    resources.bgp_configuration(false, ROUTER_AS)?;
    resources.node("router", Some(format!("{ROUTER}/16").parse()?), None)?;
    // A Calico node announces what is in its pools and nothing else, unless a filter says so.
    let head = |kind: &str, name: &str| {
        format!("apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{ name: {name} }}\n")
    };
    for (name, action) in [("feeder", "Reject"), ("sink", "Accept")] {
        let filter = format!("{}spec: {{ exportV4: [{{ action: {action} }}] }}\n", head("BGPFilter", name));
        resources.write(&format!("filter-{name}.yaml"), &filter)?;
    }
    let feeders = feeders.iter().map(|address| (*address, FEEDER_AS, "feeder"));
    for (number, (address, peer_as, filter)) in feeders.chain([(SINK, SINK_AS, "sink")]).enumerate() {
        let peer = format!(
            "{}spec: {{ peerIP: \"{address}\", asNumber: {peer_as}, filters: [{filter}] }}\n",
            head("BGPPeer", &format!("peer{number}"))
        );
        resources.write(&format!("peer{number}.yaml"), &peer)?;
    }
    let more = format!("limits: {{ frames: 2048, flows: 1024, mirror_routes: {mirror_routes} }}\n");
    let settings = Settings { more, ..Settings::default() };
    let node = TortieNode::configure(lab, namespace, resources.directory(), &settings)?;
    node.start(lab)?;
    // As the others are from their start: its threads, and those that they will begin.
    let pid = node.identity()?.pid.to_string();
    command::run(Command::new("taskset").args(["-a", "-c", "-p", DAEMON_CORES, &pid]), QUESTION)?;
    Ok(node)
}

fn bird(feeders: &[Ipv4Addr]) -> String {
    let session = |name: &str, address, number, export| {
        format!(
            "protocol bgp {name} {{ local {ROUTER} as {ROUTER_AS}; neighbor {address} as {number}; direct; passive on; \
             ipv4 {{ import all; export {export}; }}; }}\n"
        )
    };
    format!(
        "router id {ROUTER};\nprotocol device {{}}\n{}{}",
        feeders
            .iter()
            .enumerate()
            .map(|(number, address)| session(&format!("feeder{number}"), *address, FEEDER_AS, "none"))
            .collect::<String>(),
        session("sink", SINK, SINK_AS, "all")
    )
}

/// Without a limit to its queue of messages: FRR 10.7 stops reading at 10,000 of them, the default, and what it has of the
/// stream by then stays where it is until its peer says something more.
fn frr(feeders: &[Ipv4Addr]) -> String {
    let each = |line: &dyn Fn(&Ipv4Addr) -> String| feeders.iter().map(line).collect::<String>();
    format!(
        "bgp input-queue-limit {QUEUE}\nrouter bgp {ROUTER_AS}\n bgp router-id {ROUTER}\n no bgp ebgp-requires-policy\n\
         \x20no bgp network import-check\n{}\
         \x20neighbor {SINK} remote-as {SINK_AS}\n neighbor {SINK} passive\n neighbor {SINK} advertisement-interval 0\n\
         \x20address-family ipv4 unicast\n{} exit-address-family\nip prefix-list none seq 5 deny any\n",
        each(&|feeder| format!(" neighbor {feeder} remote-as {FEEDER_AS}\n neighbor {feeder} passive\n")),
        each(&|feeder| format!("  neighbor {feeder} prefix-list none out\n")),
        QUEUE = u32::MAX,
    )
}

fn gobgp(feeders: &[Ipv4Addr]) -> String {
    let neighbor = |address, number| {
        format!(
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{address}\"\npeer-as = {number}\n\
             [neighbors.transport.config]\npassive-mode = true\n"
        )
    };
    format!(
        "[global.config]\nas = {ROUTER_AS}\nrouter-id = \"{ROUTER}\"\n{}{}",
        feeders.iter().map(|address| neighbor(*address, FEEDER_AS)).collect::<String>(),
        neighbor(SINK, SINK_AS)
    )
}

fn openbgpd(directory: &Path, feeders: &[Ipv4Addr]) -> String {
    let each = |line: &dyn Fn(&Ipv4Addr) -> String| feeders.iter().map(line).collect::<String>();
    format!(
        "AS {ROUTER_AS}\nrouter-id {ROUTER}\nfib-update no\nsocket \"{}\"\n\
         {}\
         neighbor {SINK} {{\n remote-as {SINK_AS}\n passive\n}}\n\
         allow from any\nallow to {SINK}\n{}",
        directory.join("sock").display(),
        each(&|feeder| format!("neighbor {feeder} {{\n remote-as {FEEDER_AS}\n passive\n}}\n")),
        each(&|feeder| format!("deny to {feeder}\n")),
    )
}

/// The process with both ends.
struct Ends {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Ends {
    /// Starts it and waits until both sessions stand.
    fn start(namespace: &Namespace, arguments: &Arguments) -> Result<Ends> {
        let mut command = namespace.command("taskset");
        command.args(["-c", ENDS_CORE]).arg(std::env::current_exe()?);
        command.args(["table-load", "ends", "--one-in", &arguments.one_in.to_string()]);
        command.args(["--feeders", &arguments.feeders.to_string()]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting the ends")?;
        let input = child.stdin.take().context("its input is a pipe")?;
        let output = BufReader::new(child.stdout.take().context("its output is a pipe")?);
        let mut ends = Ends { child, input, output };
        ensure!(ends.line()? == "ready", "the sessions didn't come up");
        Ok(ends)
    }

    fn ask(&mut self, what: &str) -> Result<Passed> {
        writeln!(self.input, "{what}")?;
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("the ends said {line:?}"))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        // It ends with its input; a measurement that failed doesn't wait for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
