//! The sights, in order.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::de::DeserializeOwned;

use super::machine::BOOT;
use super::site::{BEHIND_LEFT, CORES, INSIDE, NAME, POOLS, Pool, QUEUES, Site, Way};
use super::{Files, Sights, Upgrade, Upgrades};
use crate::capture::Capture;
use crate::dissected::{self, Wrapping};
use crate::link::Fabric;
use crate::outage::Stream;
use crate::tortie::{ShowBgp, ShowDrops, ShowPorts};
use crate::traffic::Session;
use crate::{Lab, books, traffic};

/// How long sessions and routes may take.
const CONVERGE: Duration = Duration::from_secs(120);
/// How long ports may take.
const PORTS: Duration = Duration::from_secs(90);
/// How long an upgrade may take to travel by ssh, and to be looked at.
const UPGRADE: Duration = Duration::from_secs(600);
/// Between two echo requests of the stream during an upgrade.
const STREAM_EVERY: Duration = Duration::from_millis(200);
/// What is sent by TCP each way, in bytes.
const TRANSFER: u64 = 2_000_000;
/// What the health check says last.
const READY: &str = "appliance: the router is ready in slot";

/// Boots the appliance and looks at everything; `Ok` even where not all was as it should be: the sights tell.
///
/// # Errors
/// Something around the appliance can't be raised, or the appliance doesn't boot: there is nothing to look at then.
pub fn tour(lab: &Lab, files: &Files) -> Result<Sights> {
    let mut sights = Sights::default();
    let begin = Instant::now();
    let site = Site::raise(lab, files)?;
    let booted = sights.see(lab, "boots from its disk to a ready router", || {
        let line = site.console_says(READY, 1)?;
        // A console's line begins with what moves its cursor.
        let line = line.find(READY).map_or(&*line, |at| &line[at..]);
        Ok(format!("{:.0} s after power-on the console says \"{line}\"", begin.elapsed().as_secs_f64()))
    });
    if !booted {
        return Ok(sights);
    }
    sights.see(lab, "first boot: name, address and key from the config drive", || site.first_boot());
    sights.see(lab, "no password lets anybody in", || site.no_password());
    sights.see(lab, "the root is read-only, state is apart", || site.state_is_apart());
    sights.see(lab, "the state partition has the rest of the disk", || site.has_grown());
    sights.see(lab, "both data ports in zero-copy mode", || site.zero_copy());
    sights.see(lab, "each queue interrupts its worker's core", || site.tuned());
    sights.see(lab, "BGP with BIRD, and with another node", || site.sessions());
    site.all_traffic(&mut sights, "");
    sights.see(lab, "a workload inside, by IPIP and VXLAN both ways", || site.inside());
    sights.see(lab, "the books balance", || site.books());
    sights.see(lab, "management is apart from what is routed", || site.management_is_apart());
    sights.see(lab, "kill -9: ssh and transit live on, the router comes back", || site.kill());
    site.all_traffic(&mut sights, ", after the kill");
    sights.see(lab, "reboot: the same machine", || site.reboot());
    site.all_traffic(&mut sights, ", after the reboot");
    if let Some(upgrades) = &files.upgrades {
        site.all_upgrades(&mut sights, upgrades);
    }
    sights.see(lab, "both data ports in zero-copy mode, at the end", || site.zero_copy());
    if sights.count().1 > 0 {
        lab.progress().line("the end of the console:");
        let console = site.machine.console();
        let lines: Vec<&str> = console.lines().collect();
        for line in &lines[lines.len().saturating_sub(30)..] {
            lab.progress().line(&format!("    {line:.200}"));
        }
    }
    Ok(sights)
}

impl Site<'_> {
    fn show<Answer: DeserializeOwned>(&self, what: &str) -> Result<Answer> {
        Ok(serde_json::from_str(&self.machine.run(&format!("tortie show {what} -o json"))?)?)
    }

    /// Waits until the console has said something so many times, and tells that line.
    fn console_says(&self, words: &str, times: usize) -> Result<String> {
        self.lab.wait(&format!("\"{words}\" on the console"), BOOT, || {
            let console = self.machine.console();
            let line = console.lines().filter(|line| line.contains(words)).nth(times - 1);
            Ok(line.map(|line| line.trim().to_owned()))
        })
    }

    fn first_boot(&self) -> Result<String> {
        self.machine.answers()?;
        let said = self.machine.run("hostname; ip -br address show mgmt0; cat /state/etc/instance-id")?;
        ensure!(
            said.lines().next() == Some(NAME)
                && said.contains("192.0.2.10/24")
                && said.contains("gateway1-1"),
            "it says {said}"
        );
        Ok(said.lines().collect::<Vec<_>>().join("; "))
    }

    fn no_password(&self) -> Result<String> {
        let said = self.machine.knock_with_a_password()?;
        ensure!(said.contains("publickey") && !said.contains("password"), "ssh says {said}");
        let field = self.machine.run("getent shadow | cut -d : -f 2 | sort -u | tr '\\n' ' '")?;
        ensure!(field.split_whitespace().all(|field| field.starts_with(['!', '*'])), "shadow has {field}");
        Ok(format!("{said}; in /etc/shadow only {}", field.trim()))
    }

    fn state_is_apart(&self) -> Result<String> {
        let root = self.machine.run(
            "for at in /run/slot / /state /etc/tortie; do findmnt -n -o TARGET,FSTYPE,OPTIONS $at; done",
        )?;
        ensure!(root.contains("squashfs") && root.contains("ro") && root.contains("overlay"), "{root}");
        Ok(root.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// The image's own state partition has 256 MiB, and the disk is larger.
    fn has_grown(&self) -> Result<String> {
        self.lab.wait("the state partition to grow", PORTS, || {
            let size = self.machine.run("df -m --output=size /state | tail -n 1")?;
            let megabytes: u64 = size.trim().parse()?;
            Ok((megabytes > 700).then(|| format!("{megabytes} MiB")))
        })
    }

    /// What each queue really got, as Tortie and the kernel say it.
    fn zero_copy(&self) -> Result<String> {
        let ports = self.lab.wait("the data ports", PORTS, || {
            let ports = self.show::<ShowPorts>("ports")?.ports;
            let open = |name: &str| ports.iter().any(|port| port.name == name && port.up);
            Ok((open("data0") && open("data1")).then_some(ports))
        })?;
        let mut told = Vec::new();
        for name in ["data0", "data1"] {
            let queues = ports.iter().filter(|port| port.name == name).flat_map(|port| &port.queues);
            let got: Vec<String> = queues.map(|queue| format!("{} {}", queue.mode, queue.attach)).collect();
            ensure!(got == vec!["zero-copy native"; QUEUES], "the queues of {name} are {got:?}");
            told.push(format!("{name}: {}", got.join(", ")));
        }
        ensure!(!ports.iter().any(|port| port.name == "mgmt0"), "the management interface is a port");
        Ok(format!("{}; mgmt0 is none of its ports", told.join("; ")))
    }

    /// What `tuning` made of the interrupts of the data ports' receive queues, as the kernel says it.
    fn tuned(&self) -> Result<String> {
        let script = "for port in data0 data1; do \
             device=$(basename $(readlink -f /sys/class/net/$port/device)); \
             for queue in $(seq 0 LAST); do \
             number=$(grep -w $device-input.$queue /proc/interrupts | cut -d : -f 1); \
             echo $port $queue $(cat /proc/irq/$((number))/effective_affinity_list); done; done";
        let last = (QUEUES - 1).to_string();
        let said = self.machine.run(&script.replace("LAST", &last))?;
        let wanted: Vec<String> = ["data0", "data1"]
            .iter()
            .flat_map(|port| (0..QUEUES).map(move |queue| format!("{port} {queue} {}", CORES[queue])))
            .collect();
        let got: Vec<&str> = said.lines().collect();
        ensure!(got == wanted, "port, queue and core are {got:?}");
        let changes = "journalctl -b -u tortie -o cat | grep -c 'tuning: /proc/irq/.*, before '";
        let lines = self.machine.run(changes)?;
        Ok(format!(
            "port, queue, core: {}; {} lines of the log say what was before",
            got.join(", "),
            lines.trim()
        ))
    }

    fn sessions(&self) -> Result<String> {
        let peers = self.lab.wait("the BGP sessions", CONVERGE, || {
            self.bird.established(2)?;
            let peers = self.show::<ShowBgp>("bgp")?.peers;
            let up = peers.iter().filter(|peer| peer.up).count();
            ensure!(up == 4, "{up} of 4 sessions of the appliance are up");
            Ok(Some(peers))
        })?;
        for pool in &POOLS {
            // VXLAN's routes come from the datastore, and are announced all the same.
            self.lab.wait(&format!("{} on left", pool.block), CONVERGE, || {
                let family = if pool.way == Way::PlainV6 { "-6 " } else { "" };
                let routes = self.left.ip(&format!("{family}route show {}", pool.block))?;
                Ok(routes.contains("proto bird").then_some(()))
            })?;
        }
        for (network, address) in BEHIND_LEFT {
            self.lab.wait(&format!("{network} on the appliance"), CONVERGE, || {
                let route: crate::tortie::ShowRoute = self.show(&format!("route {address}"))?;
                Ok((route.prefix.as_deref() == Some(network) && route.fate == "forward").then_some(()))
            })?;
        }
        let names: Vec<String> =
            peers.iter().map(|peer| format!("{} {}", peer.address, peer.state)).collect();
        Ok(format!("{}; routes both ways", names.join(", ")))
    }

    fn all_traffic(&self, sights: &mut Sights, when: &str) {
        for pool in &POOLS {
            let what = match pool.way {
                Way::Plain | Way::PlainV6 => format!("{} through both ports{when}", pool.name),
                Way::Ipip | Way::Vxlan => format!("{} out of a data port{when}", pool.name),
            };
            sights.see(self.lab, &what, || self.traffic(pool));
        }
    }

    /// From left to far: pings, TCP with its hash, and what passed on right's wire.
    fn traffic(&self, pool: &Pool) -> Result<String> {
        let far: IpAddr = pool.far.parse()?;
        traffic::reaches(self.lab, &self.left, far, CONVERGE)?;
        let before = self.show::<ShowDrops>("drops")?.forwarded;
        let filter = match pool.way {
            Way::Plain | Way::PlainV6 => format!("host {far}"),
            Way::Ipip => "ip proto 4".to_owned(),
            Way::Vxlan => "udp port 4789".to_owned(),
        };
        let capture = Capture::start(self.lab, self.wire_right.namespace(), Fabric::BRIDGE, &filter)?;
        traffic::answered(&self.left, far, 10)?;
        let transfer = traffic::transfer(self.lab, &self.left, &self.far.namespace, far, TRANSFER)?;
        let captured = capture.stop()?;
        let frames = match pool.way {
            Way::PlainV6 => dissected::frames_v6(&captured)?,
            _ => dissected::frames(&captured)?,
        };
        let is_right = |wrapping: &Wrapping| match (pool.way, wrapping) {
            (Way::Plain | Way::PlainV6, Wrapping::Plain) => true,
            (Way::Ipip, Wrapping::Ipip(outer)) => {
                outer.source == RIGHT_END[0] && outer.destination == RIGHT_END[1]
            }
            (Way::Vxlan, Wrapping::Vxlan { outer, port: 4789, vni: 4096, .. }) => {
                outer.source == RIGHT_END[0] && outer.destination == RIGHT_END[1]
            }
            _ => false,
        };
        if let Some(frame) = frames.iter().find(|frame| !is_right(&frame.wrapping)) {
            anyhow::bail!("on the wire there is {frame:?}");
        }
        let least = TRANSFER / 1500;
        ensure!(frames.len() as u64 > least, "only {} frames were captured", frames.len());
        let forwarded = self.show::<ShowDrops>("drops")?.forwarded - before;
        ensure!(forwarded > least, "Tortie forwarded {forwarded} frames: the kernel did it, or nobody");
        Ok(format!(
            "10 of 10 pings, {} MB of TCP intact in {:.1} s, {} frames on the wire all right to tshark, {forwarded} forwarded",
            transfer.bytes / 1_000_000,
            transfer.seconds,
            frames.len()
        ))
    }

    /// Between a workload inside the appliance and far: encapsulated on the way there and on the way back.
    fn inside(&self) -> Result<String> {
        self.workload_inside()?;
        for address in INSIDE {
            let address: IpAddr = address.parse()?;
            traffic::reaches(self.lab, &self.far.namespace, address, CONVERGE)?;
        }
        let capture = Capture::start(
            self.lab,
            self.wire_right.namespace(),
            Fabric::BRIDGE,
            "ip proto 4 or udp port 4789",
        )?;
        let mut seen = Vec::new();
        for (way, inside, pool) in [("IPIP", INSIDE[0], &POOLS[2]), ("VXLAN", INSIDE[1], &POOLS[3])] {
            let script =
                format!("ip netns exec inside ping -n -q -c 10 -i 0.2 -W 2 -I {inside} {}", pool.far);
            let said = self.machine.run(&script)?;
            ensure!(said.contains("10 received"), "{way}: {said}");
            seen.push(format!("{way}: 10 of 10 pings"));
        }
        let frames = dissected::frames(&capture.stop()?)?;
        for (name, from, to) in [("there", RIGHT_END[0], RIGHT_END[1]), ("back", RIGHT_END[1], RIGHT_END[0])]
        {
            let outer = |wrapping: &Wrapping| match wrapping {
                Wrapping::Ipip(outer) | Wrapping::Vxlan { outer, .. } => {
                    outer.source == from && outer.destination == to
                }
                Wrapping::Plain => false,
            };
            let count = frames.iter().filter(|frame| outer(&frame.wrapping)).count();
            ensure!(count >= 20, "{count} encapsulated frames {name}");
            seen.push(format!("{count} encapsulated {name}"));
        }
        Ok(seen.join(", "))
    }

    fn books(&self) -> Result<String> {
        let books = self.lab.wait("the appliance's books", PORTS, || {
            let books = self.show::<ShowDrops>("drops")?;
            books::check(&books).map(|()| Some(books))
        })?;
        books::settled(self.lab, &self.right)?;
        Ok(format!("{}; right's balance, too", books::line(NAME, &books)))
    }

    /// Neither ssh nor the management network is reached from a data port, though left sends all of it there.
    fn management_is_apart(&self) -> Result<String> {
        let (ops, ssh): (IpAddr, _) = ("192.0.2.1".parse()?, "10.1.0.1");
        self.left.ip("route replace 192.0.2.0/24 via 10.1.0.1")?;
        let ping = traffic::ping(&self.left, ops, 3)?;
        ensure!(ping.received == 0, "{ops} answers left");
        let knock = format!("timeout 3 bash -c 'exec 3<>/dev/tcp/{ssh}/22' 2>&1 && echo open || echo closed");
        let said = self.left.run("sh", &["-c", &knock])?;
        ensure!(said.contains("closed"), "port 22 of {ssh} is {said}");
        Ok(format!("from left no ping reaches {ops}, and port 22 of {ssh} is closed"))
    }

    /// The ssh session that kills the router sees it come back; a connection across it never hangs for long.
    fn kill(&self) -> Result<String> {
        let mut transit = Session::open(self.lab, &self.left, &self.far.namespace, POOLS[0].far.parse()?)?;
        transit.beats_on(5)?;
        let script = "before=$(systemctl show -P MainPID tortie); kill -9 $before; \
             for i in $(seq 300); do now=$(systemctl show -P MainPID tortie); \
             [ $now != 0 ] && [ $now != $before ] && tortie show ports > /dev/null 2>&1 && break; sleep 0.2; done; \
             [ $now != $before ] && echo $before is $now now";
        let said = self.machine.run_within(script, PORTS)?;
        transit.beats_on(5)?;
        let longest = transit.longest_beat()?;
        ensure!(longest < Duration::from_secs(10), "transit hung for {:.1} s", longest.as_secs_f64());
        self.zero_copy()?;
        self.sessions()?;
        Ok(format!(
            "process {}; over the same ssh session; the longest gap in transit {:.2} s; zero-copy again",
            said.trim(),
            longest.as_secs_f64()
        ))
    }

    /// Name, key and identity are the same; nothing that was written to the root is there.
    fn reboot(&self) -> Result<String> {
        let before = self.machine.boot_id()?;
        let identity =
            self.machine.run("cat /etc/machine-id; touch /root/forgotten /etc/tortie/remembered; sync")?;
        // ssh ends with the machine; what comes of it is seen next.
        let _ = self.machine.run("systemctl reboot");
        let begin = Instant::now();
        self.machine.comes_back(&before, "a")?;
        let seconds = begin.elapsed().as_secs_f64();
        let again = self
            .machine
            .run("cat /etc/machine-id; ls /root/forgotten 2>&1 || true; ls /etc/tortie/remembered")?;
        ensure!(again.starts_with(identity.trim()), "machine-id was {identity}, and now: {again}");
        ensure!(again.contains("No such file") && again.contains("/etc/tortie/remembered"), "{again}");
        self.is_good("a")?;
        self.zero_copy()?;
        self.sessions()?;
        Ok(format!(
            "{seconds:.0} s; same ssh host key and machine-id, configuration kept, the root's changes forgotten"
        ))
    }

    /// The slot is the good one, in the appliance's own words.
    fn is_good(&self, slot: &str) -> Result<String> {
        self.lab.wait(&format!("slot {slot} to be good"), BOOT, || {
            let status = self.machine.run("appliance status")?;
            let line = status.lines().find(|line| line.starts_with(&format!("slot {slot}:")));
            let good = line.is_some_and(|line| line.contains("running") && line.contains("good"));
            Ok(good.then_some(status))
        })
    }

    fn all_upgrades(&self, sights: &mut Sights, upgrades: &Upgrades) {
        let (lab, good, never_ready) = (self.lab, &upgrades.good, &upgrades.never_ready);
        sights.see(lab, "a damaged upgrade is refused", || self.damaged(&good.file));
        sights.see(lab, "an upgrade goes to the other slot and stays", || self.upgrade(good));
        self.all_traffic(sights, ", after the upgrade");
        sights.see(lab, "an upgrade that is never ready is left again", || self.never_ready(never_ready));
        sights.see(lab, "a slot that can't be read is left by GRUB", || self.unreadable());
    }

    fn damaged(&self, file: &Path) -> Result<String> {
        let mut bytes = fs::read(file)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let damaged = self.lab.directory().join("damaged.upgrade");
        fs::write(&damaged, bytes)?;
        let before = self.machine.boot_id()?;
        let said = self.machine.feed(&damaged, "appliance upgrade -", UPGRADE)?;
        fs::remove_file(&damaged)?;
        ensure!(said.contains("no whole upgrade"), "it says: {said}");
        ensure!(self.machine.boot_id()? == before, "it restarted");
        Ok(said.lines().next_back().unwrap_or_default().to_owned())
    }

    /// By a stream of echo requests, too: an upgrade is a restart of the machine, and whoever has one router only is cut off
    /// for that long.
    fn upgrade(&self, Upgrade { file, version }: &Upgrade) -> Result<String> {
        let before = self.machine.boot_id()?;
        let far: IpAddr = POOLS[0].far.parse()?;
        let transit = Stream::start_slowly(self.lab, "transit", &self.left, far, STREAM_EVERY)?;
        let said = self.machine.feed(file, "appliance upgrade -", UPGRADE)?;
        ensure!(said.contains("restarting to try"), "it says: {said}");
        self.machine.comes_back(&before, "b")?;
        let status = self.is_good("b")?;
        ensure!(status.contains(&format!("slot b: {version}")), "{status}");
        self.zero_copy()?;
        self.sessions()?;
        traffic::reaches(self.lab, &self.left, far, CONVERGE)?;
        let transit = transit.finish()?.line();
        Ok(status.lines().chain([transit.as_str()]).collect::<Vec<_>>().join("; "))
    }

    fn never_ready(&self, Upgrade { file, version }: &Upgrade) -> Result<String> {
        let before = self.machine.boot_id()?;
        let said = self.machine.feed(file, "appliance upgrade -", UPGRADE)?;
        ensure!(said.contains(version.as_str()) && said.contains("restarting to try"), "it says: {said}");
        let line = self.console_says("back to slot b", 1)?;
        self.machine.comes_back(&before, "b")?;
        self.is_good("b")?;
        self.sessions()?;
        Ok(format!("{line}; slot b runs"))
    }

    /// What a torn write would leave: the other slot is to be tried, and its first bytes are gone.
    fn unreadable(&self) -> Result<String> {
        let before = self.machine.boot_id()?;
        self.machine.run(
            "appliance rollback --later && \
             dd if=/dev/zero of=/dev/disk/by-partlabel/slot-a bs=1M count=4 conv=fsync status=none",
        )?;
        let _ = self.machine.run("systemctl reboot");
        self.machine.comes_back(&before, "b")?;
        let status = self.is_good("b")?;
        ensure!(status.contains("slot a: empty"), "{status}");
        self.sessions()?;
        Ok(status.lines().collect::<Vec<_>>().join("; "))
    }
}

/// The appliance's and right's addresses on right's wire.
const RIGHT_END: [IpAddr; 2] =
    [IpAddr::V4(std::net::Ipv4Addr::new(10, 2, 0, 1)), IpAddr::V4(std::net::Ipv4Addr::new(10, 2, 0, 2))];
