//! The Debian package on a clean Debian with systemd: installed, run, killed, upgraded under traffic, purged.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::cluster::CONVERGE;
use crate::machine::Machine;
use crate::outage::Stream;
use crate::scenario::{CannotRun, Options, Scenario, Store};
use crate::scenarios::kill_the_router::{BEHIND_LEFT, Site, UPLINKS, WORKLOAD, raise};
use crate::tortie::ShowBgp;
use crate::traffic::Session;
use crate::{Lab, Tools, debian, traffic, wait};

/// What `cargo xtask package-test` runs: it makes the packages first.
pub const PACKAGE: Scenario = Scenario {
    name: "package",
    about: "the Debian package on a clean Debian: install, run, kill, upgrade under traffic, purge without a trace",
    programs: &["bird", "birdc", "ping", "ethtool", "nft", "nsenter", "debootstrap"],
    tortie: true,
    alone: true,
    store: Store::Unused("routers read the directory that the package brings"),
    run,
};

/// The packages, by what is done with them, below [`folder`].
pub const PACKAGES: [&str; 2] = ["install.deb", "upgrade.deb"];
/// What a server's installation has of the packages that ours meets.
const DEBIAN: [&str; 7] = ["systemd", "systemd-sysv", "dbus", "nftables", "iproute2", "procps", "kmod"];
/// The Debian it is.
const SUITE: &str = "bookworm";
/// What a person at an ssh session would call a hang.
const HANG: Duration = Duration::from_secs(3);
/// Traffic before and after something happens.
const QUIET: Duration = Duration::from_secs(2);
/// Shorter than the package's, so that a test needn't wait for half a minute.
const WATCHDOG: &str = "[Service]\nWatchdogSec=6s\n";

/// What is put into the machine, and the Debian that it is: beside what the build made.
///
/// # Errors
/// The lab's agent stands in no build folder.
pub fn folder(tools: &Tools) -> Result<PathBuf> {
    let target = tools.agent.parent().and_then(Path::parent);
    Ok(target.context("the lab's agent stands in no build folder")?.join("package"))
}

fn run(lab: &Lab, _: &Options) -> Result<()> {
    let folder = folder(lab.tools())?;
    for package in PACKAGES {
        let made = folder.join(package);
        if !made.is_file() {
            return Err(
                CannotRun(format!("no {}; `cargo xtask package-test` makes it", made.display())).into()
            );
        }
        std::fs::copy(made, lab.directory().join(package))?;
    }
    let tree = folder.join(SUITE);
    debian::tree(&tree, SUITE, &DEBIAN)
        .map_err(|error| CannotRun(format!("no Debian to install it on: {error:#}")))?;
    let site = raise(lab)?;
    lab.step("booting a clean Debian");
    let machine = Machine::boot(lab, site.router.namespace(), &tree)?;
    let clean = Trace::of(&machine)?;

    let mut ssh = Session::open(lab, &site.left, site.router.namespace(), own(0)?)?;
    install(lab, &machine)?;
    start(lab, &site, &machine)?;
    comes_back(lab, &site, &machine)?;
    enters_workloads(lab, &machine)?;
    dies(lab, &site, &machine)?;
    upgrade(lab, &site, &machine)?;
    ssh.beats_on(5)?;
    purge(lab, &machine, &clean)?;
    ssh.beats_on(5)?;
    let longest = ssh.longest_beat()?;
    ensure!(longest < HANG, "the ssh session hung for {:.1} s", longest.as_secs_f64());
    lab.proved(format!(
        "a session to the node itself lived through all of it; its slowest beat took {} ms",
        longest.as_millis()
    ));
    Ok(())
}

/// The node's own address on an uplink.
fn own(uplink: usize) -> Result<IpAddr> {
    Ok(UPLINKS[uplink].1[0].split('/').next().unwrap_or_default().parse()?)
}

/// A package that is installed starts nothing and takes no interface.
fn install(lab: &Lab, machine: &Machine) -> Result<()> {
    lab.step("installing the package");
    let before = kernel(machine)?;
    machine.run("dpkg -i /mnt/install.deb")?;
    ensure!(machine.run("systemctl is-enabled tortie")? == "enabled", "the unit isn't enabled");
    let state = machine.run("systemctl show -P ActiveState -P ConditionResult tortie")?;
    ensure!(state == "inactive\nno", "without a configuration the unit should wait: {state}");
    same("the kernel after the installation", &before, &kernel(machine)?)?;
    let exposure = machine.run("systemd-analyze security tortie | tail -1")?;
    lab.proved(format!(
        "installed: enabled, waiting for /etc/tortie/tortie.yaml, the kernel as it was; {}",
        exposure.trim_start_matches("→ ")
    ));
    brings_its_documents(lab, machine)
}

/// Manual pages of every command, completions that their shell takes, what Prometheus and Grafana are given, and what is in
/// the program; all as it was packed.
fn brings_its_documents(lab: &Lab, machine: &Machine) -> Result<()> {
    machine.run("dpkg --verify tortie && calicoctl version --help >/dev/null")?;
    let commands = machine.run("tortie --help | sed -n '/^Commands:/,/^$/s/^  \\([a-z]*\\) .*/\\1/p'")?;
    let commands: Vec<&str> = commands.split_whitespace().collect();
    ensure!(commands.len() > 20, "`tortie --help` names {commands:?} alone");
    for command in &commands {
        machine.run(&format!("zgrep -q '^.TH' /usr/share/man/man1/tortie-{command}.1.gz"))?;
    }
    machine.run("test -e /usr/share/man/man1/tortie.1.gz && test -e /usr/share/man/man1/calicoctl.1.gz")?;
    machine.run(
        "cd /usr/share && bash -n bash-completion/completions/tortie && \
         grep -q '^#compdef tortie' zsh/vendor-completions/_tortie && \
         grep -q 'complete -c tortie' fish/vendor_completions.d/tortie.fish",
    )?;
    for (file, of_it) in [
        ("monitoring/alerts.yaml", "groups:"),
        ("monitoring/alerts.test.yaml", "alerts.yaml"),
        ("monitoring/grafana.json", "\"panels\""),
        ("monitoring/prometheus.yaml", "scrape_configs:"),
        ("sbom.cdx.json", "\"bomFormat\": \"CycloneDX\""),
    ] {
        machine.run(&format!("grep -q '{of_it}' /usr/share/tortie/{file}"))?;
    }
    lab.proved(format!(
        "manual pages of {} commands, completions for three shells, alert rules, a dashboard and a bill of materials",
        commands.len()
    ));
    Ok(())
}

/// A configuration, and the unit comes up: READY is said when forwarding is open.
fn start(lab: &Lab, site: &Site<'_>, machine: &Machine) -> Result<()> {
    lab.step("starting the router");
    let uplinks = UPLINKS.map(|(interface, _)| interface).join(", ");
    let configuration = format!(
        "node: {}\ndatastore: {{ directory: /etc/tortie/resources }}\nuplinks: [{uplinks}, wan0]\nworkers: 2\n\
         tuning: {{ defer_hard_irqs: 2, gro_flush_timeout: 200000 }}\nmetrics: {{ listen: \"127.0.0.1:9191\" }}\n",
        site.router.name()
    );
    std::fs::write(lab.directory().join("machine.yaml"), configuration)?;
    std::fs::write(lab.directory().join("watchdog.conf"), WATCHDOG)?;
    machine.run(
        "cp /mnt/resources/* /etc/tortie/resources/ && cp /mnt/machine.yaml /etc/tortie/tortie.yaml && \
         mkdir -p /etc/systemd/system/tortie.service.d && cp /mnt/watchdog.conf /etc/systemd/system/tortie.service.d/ && \
         systemctl daemon-reload",
    )?;
    // As many queues as cores, one of them in use: something to tune.
    machine.run("ip link add wan0 type veth peer name wan1 && ip link set wan1 up && ip link set wan0 up")?;
    machine.run("tortie run --check")?;
    let began = Instant::now();
    machine.run("systemctl start tortie")?;
    let ready = began.elapsed();
    let status = machine.run("systemctl show -P StatusText tortie")?;
    ensure!(status.starts_with("forwarding by "), "the unit's status is {status:?}");
    let log = machine.run("journalctl -u tortie -o cat")?;
    for line in ["tuning: wan0 has 2 queues, before 1: ", "gro_flush_timeout is 200000, before 0: "] {
        ensure!(log.contains(line), "the log doesn't say `{line}`");
    }
    let survey = machine.run("tortie node checksystem || true")?;
    ensure!(survey.contains("wan0: 2 queues"), "checksystem doesn't tell what wan0 got: {survey}");
    lab.proved(format!("systemd calls it started {} ms after it was asked, \"{status}\"", ready.as_millis()));
    Ok(())
}

/// Sessions, workloads and transit.
fn comes_back(lab: &Lab, site: &Site<'_>, machine: &Machine) -> Result<()> {
    lab.wait("the BGP sessions of the router", CONVERGE, || {
        site.bird.established(2)?;
        let bgp: ShowBgp = serde_json::from_str(&machine.run("tortie show bgp -o json")?)?;
        Ok(bgp.peers.iter().all(|peer| peer.up).then_some(()))
    })?;
    for address in WORKLOAD {
        traffic::reaches(lab, &site.left, address.parse()?, CONVERGE)?;
    }
    for (_, address) in BEHIND_LEFT {
        traffic::reaches(lab, &site.right, address.parse()?, CONVERGE)?;
    }
    Ok(())
}

/// The unit's sandbox lets the router into workloads' namespaces, where it switches an offload off (D8).
fn enters_workloads(lab: &Lab, machine: &Machine) -> Result<()> {
    machine.run(
        "ip netns add pod && ip link add cali9 type veth peer name eth0 netns pod && \
         ip -n pod link set eth0 up && ip link set cali9 up",
    )?;
    lab.wait("checksums by software in a workload", CONVERGE, || {
        let features = machine.run_in_namespace("pod", &["ethtool", "--show-features", "eth0"])?;
        Ok(features.contains("tx-checksumming: off").then_some(()))
    })?;
    machine.run("ip netns delete pod")?;
    lab.proved("from its sandbox the router reaches into a workload's namespace");
    Ok(())
}

/// SIGKILL, and a process that hangs: systemd starts another one, and the kernel forwards meanwhile.
fn dies(lab: &Lab, site: &Site<'_>, machine: &Machine) -> Result<()> {
    for (signal, how) in [("KILL", "was killed"), ("STOP", "hung, and systemd's watchdog ended it")] {
        lab.step(&format!("SIG{signal} to the router"));
        let stream = Stream::start(
            lab,
            &format!("transit while the router {how}"),
            &site.right,
            BEHIND_LEFT[0].1.parse()?,
        )?;
        let before = machine.run("systemctl show -P NRestarts tortie")?;
        machine.run(&format!("kill -{signal} $(systemctl show -P MainPID tortie)"))?;
        lab.wait("another process", Duration::from_secs(120), || {
            let now = machine.run("systemctl show -P NRestarts -P ActiveState tortie")?;
            Ok((now.ends_with("active") && !now.ends_with("inactive") && !now.starts_with(&before))
                .then_some(()))
        })?;
        comes_back(lab, site, machine)?;
        wait::pass(QUIET)?;
        lab.proved(stream.finish()?.line());
    }
    Ok(())
}

/// The next version is installed over this one while traffic passes.
fn upgrade(lab: &Lab, site: &Site<'_>, machine: &Machine) -> Result<()> {
    lab.step("upgrading under traffic");
    let streams = [
        Stream::start(lab, "transit IPv4 over the upgrade", &site.right, BEHIND_LEFT[0].1.parse()?)?,
        Stream::start(lab, "transit IPv6 over the upgrade", &site.right, BEHIND_LEFT[1].1.parse()?)?,
        Stream::start(lab, "the node over the upgrade", &site.right, own(1)?)?,
        Stream::start(lab, "a workload over the upgrade", &site.left, WORKLOAD[0].parse()?)?,
    ];
    wait::pass(QUIET)?;
    let process = "systemctl show -P MainPID tortie";
    let (before, began) = (machine.run(process)?, Instant::now());
    machine.run("dpkg -i /mnt/upgrade.deb")?;
    let took = began.elapsed();
    ensure!(machine.run(process)? != before, "the old process still runs");
    site.bird_keeps_the_blocks("over the upgrade")?;
    comes_back(lab, site, machine)?;
    wait::pass(QUIET)?;
    let version = machine.run("dpkg-query -W -f '${Version}' tortie")?;
    lab.proved(format!("upgraded to {version} in {} ms", took.as_millis()));
    for stream in streams {
        lab.proved(stream.finish()?.line());
    }
    Ok(())
}

/// Purged, there is nothing of it: in files, in the kernel, in systemd.
fn purge(lab: &Lab, machine: &Machine, clean: &Trace) -> Result<()> {
    lab.step("purging");
    machine.run("rm -r /etc/systemd/system/tortie.service.d && systemctl daemon-reload")?;
    machine.run("dpkg -P tortie")?;
    let queues = machine.run("ls -d /sys/class/net/wan0/queues/rx-* | wc -l && ip link delete wan0")?;
    ensure!(queues == "1", "wan0 keeps {queues} queues");
    ensure!(!machine.output("systemctl cat tortie")?.status.success(), "systemd still knows the unit");
    let now = Trace::of(machine)?;
    same("files", &clean.files, &now.files)?;
    same("the kernel", &clean.kernel, &now.kernel)?;
    lab.proved(format!(
        "purged: the same {} files, and the same {} lines of links, XDP programs, addresses, rules, routes, nftables and sysctls as before the installation",
        now.files.len(),
        now.kernel.len()
    ));
    Ok(())
}

/// What a package could leave behind.
struct Trace {
    files: BTreeSet<String>,
    kernel: BTreeSet<String>,
}

impl Trace {
    fn of(machine: &Machine) -> Result<Trace> {
        // Logs, and what dpkg and systemd remember for themselves.
        let files = machine.run(
            "find / -xdev \\( -path /var/log -o -path /var/lib/dpkg -o -path /var/cache -o -path /tmp -o -path /var/tmp -o -path /mnt \
             -o -path /root \\) -prune -o -print; find /run -xdev -path '*tortie*'",
        )?;
        Ok(Trace { files: files.lines().map(str::to_owned).collect(), kernel: kernel(machine)? })
    }
}

/// The kernel's state as far as the router changes it.
///
/// Workloads' interfaces are left out: `tortie cleanup` hands them to the kernel as Felix would have them.
fn kernel(machine: &Machine) -> Result<BTreeSet<String>> {
    let text = machine.run(
        "ip -o link show | sed 's/ state .*//; s/ qdisc .*//'; ip -d link show | grep -o 'prog/xdp.*' || true; ip -o addr show | grep -v cali; \
         grep -H . /sys/class/net/eth*/napi_defer_hard_irqs /sys/class/net/eth*/gro_flush_timeout; ls -d /sys/class/net/eth*/queues/*; \
         ip rule; ip -6 rule; ip route show table all; ip -6 route show table all | grep -v cali; nft list ruleset; \
         sysctl -a -r '^net\\.ipv[46]\\.(conf|ip_forward|ip_local)' 2>/dev/null | grep -v cali",
    )?;
    // What has a life of its own.
    let lasting = |line: &&str| !line.contains("expires") && !line.contains("stable_secret");
    Ok(text.lines().filter(lasting).map(|line| line.trim().to_owned()).collect())
}

fn same(what: &str, before: &BTreeSet<String>, now: &BTreeSet<String>) -> Result<()> {
    let gone: Vec<_> = before.difference(now).take(10).collect();
    let new: Vec<_> = now.difference(before).take(10).collect();
    ensure!(gone.is_empty() && new.is_empty(), "{what}: gone {gone:#?}, new {new:#?}");
    Ok(())
}
