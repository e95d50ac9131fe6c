//! The router itself, from start to clean stop, in a network namespace of the test's own.

mod namespace;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use namespace::{BINARY, Namespace, PATIENCE, Router, root};

/// A network namespace with one end of a veth pair called `up0`.
fn namespace(name: &str) -> Option<Namespace> {
    let namespace = Namespace::new(name)?;
    for command in [
        "link add up0 type veth peer name far0",
        "link set lo up",
        "link set up0 up",
        "link set far0 up",
        "addr add 192.0.2.1/24 dev up0",
    ] {
        namespace.ip(command);
    }
    Some(namespace)
}

impl Router {
    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("its state") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it doesn't end: {}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn configure(directory: &Path) {
    std::fs::create_dir(directory.join("resources")).expect("a directory");
    std::fs::write(
        directory.join("resources/node.yaml"),
        "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: { name: node1 }\n\
         spec: { bgp: { ipv4Address: 192.0.2.1/24, asNumber: 64512 } }\n",
    )
    .expect("a file");
    std::fs::write(
        directory.join("tortie.yaml"),
        "node: node1\ndatastore: { directory: resources }\nuplinks: [up0]\ncontrol_socket: t.sock\n\
         bird_sockets: bird\n\
         metrics: { listen: \"127.0.0.1:9191\" }\n\
         workloads: { mtu_file: calico/mtu }\n\
         limits: { frames: 8192, routes_v4: 1000, routes_v6: 1000 }\n",
    )
    .expect("a file");
}

fn ask(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, .. } = Command::new(BINARY)
        .arg("show")
        .args(arguments)
        .args(["--socket", "t.sock"])
        .current_dir(directory)
        .output()
        .expect("it runs");
    (status.code(), String::from_utf8(stdout).expect("UTF-8"))
}

/// What calicoctl reads of a BIRD; nothing where there is none yet.
fn as_calicoctl(socket: &Path) -> String {
    let mut said = String::new();
    let Ok(mut stream) = UnixStream::connect(socket) else { return said };
    stream.write_all(b"show protocols\n").expect("a question");
    for line in BufReader::new(stream).lines() {
        let line = line.expect("an answer");
        said.push_str(&line);
        said.push('\n');
        if line.starts_with("0000") {
            break;
        }
    }
    said
}

#[test]
fn a_router_starts_answers_is_measured_stops_cleanly_and_is_cleaned_up() {
    if !root() {
        return;
    }
    let Some(namespace) = namespace("run") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    configure(path);
    std::fs::write(
        path.join("resources/pool.yaml"),
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: { name: pool }\n\
         spec: { cidr: 10.65.0.0/16, natOutgoing: true }\n",
    )
    .expect("a file");
    reserved_ports(&namespace, "echo 8080 > FILE");
    let mut router = Router::start(&namespace, path, "tortie.yaml");
    router.wait("the uplink", || {
        let (status, text) = ask(path, &["ports", "-o", "json"]);
        let ports: Option<serde_json::Value> = serde_json::from_str(&text).ok();
        let up = |port: &serde_json::Value| port["name"] == "up0" && port["queues"][0]["mode"] == "copy";
        status == Some(0)
            && ports.is_some_and(|ports| ports["ports"].as_array().is_some_and(|p| p.iter().any(up)))
    });

    // What it finds out for itself comes one by one.
    let json = |arguments: &[&str]| -> Option<serde_json::Value> {
        let (status, text) = ask(path, arguments);
        serde_json::from_str(&text).ok().filter(|_| status == Some(0))
    };
    router.wait("the uplink's MTU for the CNI plugin, as there are no tunnels", || {
        std::fs::read_to_string(path.join("calico/mtu")).is_ok_and(|told| told == "1500")
    });
    router.wait("the AS number", || {
        json(&["bgp", "-o", "json"]).is_some_and(|bgp| bgp["local_as"].as_u64() == Some(64512))
    });
    for socket in ["bird/bird.ctl", "bird/bird6.ctl"] {
        router.wait(socket, || {
            let said = as_calicoctl(&path.join(socket));
            said.starts_with("0001 BIRD ") && said.contains("\n2002-name ")
        });
    }
    router.wait("the uplink's subnet", || {
        json(&["route", "192.0.2.77", "-o", "json"])
            .is_some_and(|route| route["fate"].as_str() == Some("attached"))
    });
    let (status, text) = ask(path, &["route", "203.0.113.1"]);
    assert_eq!(status, Some(1), "there is no such route: {text}");
    // The kernel has the groups of up0's IPv6 among its neighbours.
    let (status, text) = ask(path, &["neighbors", "-o", "json"]);
    assert_eq!(status, Some(0), "{text}");
    assert!(!text.contains("ff02:") && !text.contains("33:33:"), "{text}");
    // A worker may be stopped between two of its sums; what is lost stays lost.
    router.wait("balanced books", || {
        json(&["drops", "-o", "json"]).is_some_and(|drops| drops["balanced"].as_bool() == Some(true))
    });

    let second = namespace.command(BINARY).args(["run", "-c", "tortie.yaml"]).current_dir(path).output();
    let second = second.expect("it runs");
    assert_eq!(second.status.code(), Some(1));
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(words.contains("another router answers at t.sock"), "{words}");
    let cleanup = namespace.command(BINARY).args(["cleanup", "-c", "tortie.yaml"]).current_dir(path).output();
    assert_eq!(cleanup.expect("it runs").status.code(), Some(1), "not under a running router");

    threads_have_what_they_need_and_no_more(&mut router);
    for line in ["tortie_ready 1", "tortie_xdp_rx_dropped_total{port=\"up0\",queue=\"0\"} 0"] {
        router.wait(line, || scrape(&namespace).lines().any(|seen| seen == line));
    }

    assert_eq!(reserved_ports(&namespace, "cat FILE"), "8080,49152-65535");
    router.signal("-TERM");
    assert_eq!(router.exit_code(), Some(0), "{}", router.said());
    assert!(router.said().contains("`tortie cleanup -c FILE` removes them"), "{}", router.said());
    assert!(!router.said().contains("is not a port"), "a false alarm: {}", router.said());
    assert!(!path.join("t.sock").exists());
    assert!(xdp_of(&namespace).contains("xdp"), "the program stays: {}", xdp_of(&namespace));
    let cleanup = namespace.command(BINARY).args(["cleanup", "-c", "tortie.yaml"]).current_dir(path).output();
    let cleanup = cleanup.expect("it runs");
    assert!(cleanup.status.success(), "{}", String::from_utf8_lossy(&cleanup.stderr));
    assert!(!xdp_of(&namespace).contains("xdp"), "{}", xdp_of(&namespace));
    assert_eq!(reserved_ports(&namespace, "cat FILE"), "8080", "others' stay");
}

#[test]
fn a_killed_router_is_followed_by_another_at_the_same_socket() {
    if !root() {
        return;
    }
    let Some(namespace) = namespace("kill") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    configure(path);
    let up = || ask(path, &["ports"]).1.contains("up0");
    let mut first = Router::start(&namespace, path, "tortie.yaml");
    first.wait("the uplink", up);
    first.signal("-KILL");
    assert_eq!(first.exit_code(), None, "a signal ended it");
    assert!(path.join("t.sock").exists(), "a killed router can't tidy up");
    let mut second = Router::start(&namespace, path, "tortie.yaml");
    second.wait("the uplink", up);
    second.signal("-INT");
    assert_eq!(second.exit_code(), Some(0), "{}", second.said());
}

/// Bits of `include/uapi/linux/capability.h`.
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const SYS_RESOURCE: u64 = 1 << 24;
/// And NET_BIND_SERVICE, IPC_LOCK, SYS_PTRACE, SYS_ADMIN, BPF.
const KEPT: u64 = NET_ADMIN | NET_RAW | 1 << 10 | 1 << 14 | 1 << 19 | 1 << 21 | 1 << 39;

/// What a thread of this name may take up, and what it acts with between two calls into the kernel.
fn due(thread: &str) -> Option<(u64, u64)> {
    let mine = capabilities(&std::fs::read_to_string("/proc/self/status").ok()?, "CapPrm");
    match thread {
        // The last two are the datastore's helpers.
        "tortie" | "bgp" | "bfd" | "reporting" | "datastore" | "etcd" | "notify-rs inoti" => Some((0, 0)),
        worker if worker.starts_with("worker-") => Some((NET_RAW, NET_RAW)),
        "kernel-mirror" | "host-policy" => Some((NET_ADMIN, NET_ADMIN)),
        "slowpath" => Some((KEPT & mine, 0)),
        _ => None,
    }
}

fn capabilities(status: &str, set: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(":\t"));
    u64::from_str_radix(line.expect("the set is shown"), 16).expect("a hexadecimal number")
}

/// Does it come before others: is its scheduling policy (field 41 of proc_pid_stat(5)) `SCHED_FIFO`?
fn comes_first(stat: &str) -> bool {
    let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
    fields.split_whitespace().nth(41 - 3) == Some("1")
}

/// As the table of `src/privileges.rs` has it (capabilities are a thread's own); BFD's comes before others where we may let it.
fn threads_have_what_they_need_and_no_more(router: &mut Router) {
    let tasks = PathBuf::from(format!("/proc/{}/task", router.child.id()));
    let own = std::fs::read_to_string("/proc/self/status").expect("our own status");
    let may_put_first = capabilities(&own, "CapPrm") & SYS_RESOURCE != 0;
    let look = || {
        let (mut seen, mut strays) = (Vec::new(), Vec::new());
        for task in std::fs::read_dir(&tasks).expect("threads").flatten() {
            let read = |file| std::fs::read_to_string(task.path().join(file));
            // A passing thread is gone.
            let (Ok(name), Ok(status), Ok(stat)) = (read("comm"), read("status"), read("stat")) else {
                continue;
            };
            let name = name.trim().to_owned();
            let has = ["CapPrm", "CapEff", "CapBnd"].map(|set| capabilities(&status, set));
            let fine = due(&name).is_some_and(|(permitted, effective)| has[..2] == [permitted, effective])
                && has[2] & !KEPT == 0
                && status.contains("NoNewPrivs:\t1")
                && (comes_first(&stat) == (name == "bfd") || !may_put_first);
            if !fine {
                strays.push(format!("{name} {has:x?}"));
            }
            seen.push(name);
        }
        (seen, strays)
    };
    let expected =
        ["tortie", "worker-0", "slowpath", "bgp", "datastore", "reporting", "kernel-mirror", "host-policy"];
    // The event loop may be caught within a call, and some begin later than others.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (seen, strays) = look();
        let missing: Vec<_> =
            expected.iter().filter(|thread| !seen.iter().any(|name| name == *thread)).collect();
        if strays.is_empty() && missing.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "strays {strays:?}, missing {missing:?} among {seen:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(router.said().contains("given up for good"), "{}", router.said());
}

/// The metrics page, fetched by a shell inside the namespace: bash speaks TCP by itself.
fn scrape(namespace: &Namespace) -> String {
    let script = "exec 3<>/dev/tcp/127.0.0.1/9191; printf 'GET /metrics HTTP/1.1\\r\\nHost: t\\r\\n\\r\\n' >&3; cat <&3";
    let output = namespace.command("bash").args(["-c", script]).output().expect("bash runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Does something inside the namespace with the kernel's list of reserved ports.
fn reserved_ports(namespace: &Namespace, what: &str) -> String {
    let script = what.replace("FILE", "/proc/sys/net/ipv4/ip_local_reserved_ports");
    let output = namespace.command("sh").args(["-c", &script]).output().expect("sh runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn xdp_of(namespace: &Namespace) -> String {
    let output =
        Command::new("ip").args(["-n", &namespace.0, "link", "show", "up0"]).output().expect("ip runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
