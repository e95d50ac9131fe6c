//! Every error names file, line, field and reason; every good file gives what it says.

use ::datastore::settings::{EtcdSettings, Pem};

use super::*;
use proptest::prelude::*;
use slowpath::BfdConfig;

pub(super) const GOOD: &str = "node: node1\ndatastore: { directory: /r }\nuplinks: [eth0]\n";

/// A configuration for tests of other files.
pub(crate) fn example() -> Config {
    parse(GOOD).expect("it is good")
}

pub(super) fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("t.yaml"), text).map_err(|error| error.to_string())
}

/// The blocks of YAML in a document that are (parts of) a configuration, with the line at which each begins.
fn examples(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((line, _)) = lines.find(|(_, line)| *line == "```yaml") {
        let block: Vec<&str> =
            lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        let is_resource = |line: &&str| line.contains("apiVersion") || line.starts_with("  qosControls");
        if !block.first().is_some_and(is_resource) {
            found.push((line + 2, block.join("\n") + "\n"));
        }
    }
    found
}

#[test]
fn every_example_of_the_documents_is_read() {
    let documents = [
        ("README.md", include_str!("../../../README.md")),
        ("OPERATING.md", include_str!("../../../OPERATING.md")),
    ];
    let mut read = 0;
    for (document, text) in documents {
        for (line, mut example) in examples(text) {
            for needed in GOOD.split_inclusive('\n') {
                let (key, _) = needed.split_once(':').unwrap();
                if !example.lines().any(|line| line.starts_with(&format!("{key}:"))) {
                    example += needed;
                }
            }
            if let Err(error) = parse(&example) {
                panic!("{document}:{line}: {error}");
            }
            read += 1;
        }
    }
    assert!(read >= 10, "only {read} examples were found");
}

#[test]
fn the_example_of_the_help_is_read() {
    let example = crate::EXAMPLE.split("\n\nExamples:").next().unwrap();
    let lines = example.lines().filter_map(|line| line.strip_prefix("  "));
    parse(&lines.fold(String::new(), |text, line| text + line + "\n")).unwrap();
}

#[test]
fn the_shortest_file_takes_every_default() {
    let config = parse(GOOD).unwrap();
    assert_eq!(
        config,
        Config {
            node: "node1".to_owned(),
            datastore: DatastoreSettings::Directory("/r".into()),
            secrets: PathBuf::from("/etc/tortie/secrets"),
            bfd: BfdSettings::default(),
            uplinks: vec!["eth0".to_owned()],
            workload_prefix: "cali".to_owned(),
            lower_workload_mtu: true,
            mtu_file: PathBuf::from("/var/lib/calico/mtu"),
            workers: 1,
            cores: None,
            control_socket: PathBuf::from(CONTROL_SOCKET),
            bird_sockets: None,
            metrics: None,
            looking_glass: None,
            log: LogConfig { format: LogFormat::Text, level: tracing::Level::INFO },
            mode: Mode::Auto,
            queues: 1,
            waiting: Waiting::Adaptive,
            busy_poll: false,
            segments: Vec::new(),
            bgp: BgpSettings::default(),
            ecmp: EcmpConfig { symmetric: false, seed: None },
            limits: Limits::default(),
            startup: None,
            tuning: None,
        }
    );
}

#[test]
fn every_field_is_read() {
    let config = parse(
        "node: node-1.example\n\
         datastore:\n  directory: /etc/tortie/resources\n\
         uplinks:\n- eth0\n- eth1\n\
         workloads: { prefix: tap, mtu: leave, mtu_file: /tmp/mtu }\n\
         workers: 2\n\
         cores: [0, 3]\n\
         control_socket: /tmp/t.sock\n\
         bird_sockets: /tmp/bird\n\
         metrics: { listen: \"[::1]:9191\" }\n\
         looking_glass: { listen: \"127.0.0.1:9192\" }\n\
         log: { format: json, level: debug }\n\
         mode: zero-copy\n\
         queues: 4\n\
         waiting: busy\n\
         bgp: { secrets: /run/secrets }\n\
         bfd: { minimum_recv_interval: 20, minimum_send_interval: 50, idle_send_interval: 2000, multiplier: 3, \
         multihop: true, mesh: true }\n\
         ecmp: { symmetric: true, seed: 7 }\n\
         limits: { routes_v4: 100, routes_v6: 200, ports: 8, adjacencies: 16, groups: 17, frames: 8192, \
         large_frames: 256, mtu: 9000, \
         neighbors: 18, mirror_routes: 19, prefixes_per_peer: 20, flows: 2048, \
         nat_ports_per_address: 21, policy_programs: 22, policy_rules: 23, policy_members: 24, policy_bytes: 1048577 }\n",
    )
    .unwrap();
    assert_eq!(
        config,
        Config {
            node: "node-1.example".to_owned(),
            datastore: DatastoreSettings::Directory("/etc/tortie/resources".into()),
            secrets: PathBuf::from("/run/secrets"),
            bfd: BfdSettings {
                pace: BfdConfig {
                    detect_mult: 3,
                    desired_min_tx: Duration::from_millis(50),
                    required_min_rx: Duration::from_millis(20),
                    idle_tx: Duration::from_millis(2000),
                },
                multihop: true,
                mesh: true,
            },
            uplinks: vec!["eth0".to_owned(), "eth1".to_owned()],
            workload_prefix: "tap".to_owned(),
            lower_workload_mtu: false,
            mtu_file: PathBuf::from("/tmp/mtu"),
            workers: 2,
            cores: Some(vec![0, 3]),
            control_socket: PathBuf::from("/tmp/t.sock"),
            bird_sockets: Some(PathBuf::from("/tmp/bird")),
            metrics: Some(Endpoint {
                section: "metrics",
                listen: "[::1]:9191".parse().unwrap(),
                interface: None,
                tls: None,
            }),
            looking_glass: Some(Endpoint {
                section: "looking_glass",
                listen: "127.0.0.1:9192".parse().unwrap(),
                interface: None,
                tls: None,
            }),
            log: LogConfig { format: LogFormat::Json, level: tracing::Level::DEBUG },
            mode: Mode::ZeroCopy,
            queues: 4,
            waiting: Waiting::Busy,
            busy_poll: false,
            segments: Vec::new(),
            bgp: BgpSettings::default(),
            ecmp: EcmpConfig { symmetric: true, seed: Some(7) },
            limits: Limits {
                routes_v4: 100,
                routes_v6: 200,
                ports: 8,
                adjacencies: 16,
                groups: 17,
                frames: 8192,
                large_frames: 256,
                mtu: Some(9000),
                neighbors: 18,
                mirror_routes: 19,
                prefixes_per_peer: 20,
                flows: 2048,
                nat_ports_per_address: 21,
                policy_programs: 22,
                policy_rules: 23,
                policy_members: 24,
                policy_bytes: 1_048_577,
            },
            startup: None,
            tuning: None,
        }
    );
}

#[test]
fn an_etcd_is_read_with_login_and_certificates() {
    let config = parse(
        "node: node1\nuplinks: [eth0]\ndatastore:\n  etcd:\n    endpoints: [\"https://a:2379\", \"b:2379\"]\n    \
         username: tortie\n    password: secret\n    ca_file: /ca\n    cert_file: /cert\n    key_file: /key\n",
    )
    .unwrap();
    let expected = EtcdSettings {
        endpoints: vec!["https://a:2379".to_owned(), "b:2379".to_owned()],
        discovery_srv: None,
        login: Some(("tortie".to_owned(), "secret".to_owned())),
        ca: Some(Pem::File("/ca".into())),
        identity: Some((Pem::File("/cert".into()), Pem::File("/key".into()))),
    };
    assert_eq!(config.datastore, DatastoreSettings::Etcd(expected));
}

#[test]
fn the_members_of_an_etcd_are_named_by_address_or_by_a_domain() {
    let parse =
        |etcd: &str| parse(&format!("node: node1\nuplinks: [eth0]\ndatastore: {{ etcd: {{ {etcd} }} }}\n"));
    let config = parse("discovery_srv: example.com").unwrap();
    let expected = EtcdSettings { discovery_srv: Some("example.com".to_owned()), ..EtcdSettings::default() };
    assert_eq!(config.datastore, DatastoreSettings::Etcd(expected));
    let error = parse("discovery_srv: example.com, endpoints: [b]").unwrap_err().to_string();
    assert!(
        error.contains("datastore.etcd.discovery_srv: the members are named by endpoints already"),
        "{error}"
    );
}

#[test]
fn sections_left_empty_take_their_defaults() {
    assert_eq!(parse(&format!("{GOOD}limits:\nlog:\nworkloads:\nmode:\n")), parse(GOOD));
}

/// The file, and what its message must say.
const BROKEN: &[(&str, &[&str])] = &[
    ("", &["t.yaml: ", "node", "missing", "node: node1"]),
    ("node: node1\nuplinks: [eth0]\n", &["datastore.directory", "missing", "{ directory:"]),
    ("node: node1\ndatastore: {}\nuplinks: [eth0]\n", &["datastore.directory", "missing"]),
    ("node: node1\ndatastore: { etcd: {} }\nuplinks: [eth0]\n", &["datastore.etcd.endpoints", "missing"]),
    ("node: node1\ndatastore: { etcd: { endpoints: [] } }\nuplinks: [eth0]\n", &["datastore.etcd.endpoints"]),
    (
        "node: node1\ndatastore: { etcd: { endpoints: [a], username: u } }\nuplinks: [eth0]\n",
        &["datastore.etcd.password", "missing"],
    ),
    (
        "node: node1\ndatastore: { etcd: { endpoints: [a], cert_file: /c } }\nuplinks: [eth0]\n",
        &["datastore.etcd.key_file", "missing"],
    ),
    (
        "node: node1\ndatastore: { directory: /r, etcd: { endpoints: [a] } }\nuplinks: [eth0]\n",
        &["datastore.etcd", "name one of them"],
    ),
    (
        "node: node1\ndatastore: /r\nuplinks: [eth0]\n",
        &["t.yaml:2:", "expected a mapping such as `datastore: {"],
    ),
    ("node: node1\ndatastore: { directory: /r }\n", &["uplinks", "missing", "uplinks: [eth0]"]),
    ("node: node1\ndatastore: { directory: /r }\nuplinks: []\n", &["t.yaml:3:", "uplinks", "missing"]),
    ("node: node1\ndatastore: { directory: /r }\nuplinks: eth0\n", &["t.yaml:3:", "must be a list", "[ ]"]),
    (
        "node: node1\ndatastore: { directory: /r }\nuplinks: [eth0, eth0]\n",
        &["t.yaml:3:17", "uplinks[1]", "twice"],
    ),
    ("node: node1\ndatastore: { directory: /r }\nuplinks: [cali1]\n", &["uplinks[0]", "workloads.prefix"]),
    ("node: node1\ndatastore: { directory: /r }\nuplinks: [a/b]\n", &["uplinks[0]", "interface's name"]),
    ("node: node1\ndatastore: { directory: /r }\nuplinks: [sixteen-letters-]\n", &["uplinks[0]", "1 to 15"]),
    ("node: 1\ndatastore: { directory: /r }\nuplinks: [eth0]\n", &["t.yaml:1:7: node", "text", "quotes"]),
    ("node: Node1\ndatastore: { directory: /r }\nuplinks: [eth0]\n", &["t.yaml:1:7: node", "lower-case"]),
    ("node: \"\"\ndatastore: { directory: /r }\nuplinks: [eth0]\n", &["t.yaml:1:7: node", "text"]),
    ("nod: node1\n", &["t.yaml:1:", "nod"]),
    ("node: [\n", &["t.yaml:"]),
    ("- a\n- b\n", &["t.yaml: ", "fields such as"]),
    ("GOODworkers: 0\n", &["t.yaml:4:10: workers", "is 0", "from 1 to 64"]),
    ("GOODworkers: 65\n", &["t.yaml:4:10: workers", "from 1 to 64"]),
    ("GOODworkers: two\n", &["t.yaml:4:10: workers", "whole number", "a text"]),
    ("GOODworkers: 1.5\n", &["workers", "whole number", "a decimal number"]),
    ("GOODworkers: 2\ncores: [0]\n", &["t.yaml:5:8: cores", "1 cores for 2 workers"]),
    ("GOODworkers: 2\ncores: [1, 1]\n", &["t.yaml:5:12: cores[1]", "twice"]),
    ("GOODcores: [-1]\n", &["cores[0]", "is -1"]),
    ("GOODecmp: { symmetric: 1 }\n", &["t.yaml:4:", "ecmp.symmetric", "true or false"]),
    ("GOODecmp: { seed: -1 }\n", &["t.yaml:4:", "ecmp.seed", "from 0 to"]),
    ("GOODmode: fast\n", &["t.yaml:4:7: mode", "`fast`", "auto, zero-copy, copy"]),
    ("GOODqueues: 0\n", &["t.yaml:4:9: queues", "from 1 to 64"]),
    ("GOODlog: { format: xml }\n", &["t.yaml:4:16: log.format", "text, json"]),
    ("GOODlog: { level: loud }\n", &["log.level", "error, warn, info, debug, trace"]),
    ("GOODlog: { colour: red }\n", &["t.yaml:4:", "colour"]),
    ("GOODmetrics: {}\n", &["metrics.listen", "missing", "127.0.0.1:9191"]),
    ("GOODmetrics: { listen: localhost }\n", &["t.yaml:4:20: metrics.listen", "no address with a port"]),
    ("GOODlimits: { ports: 70000 }\n", &["t.yaml:4:18: limits.ports", "from 2 to 65534"]),
    ("GOODlimits: { frames: 1 }\n", &["limits.frames", "from 2048"]),
    ("GOODlimits: { rutes: 1 }\n", &["t.yaml:4:", "rutes", "routes_v4"]),
    ("GOODnode: again\n", &["t.yaml:4:", "node"]),
    ("GOODworkloads: { mtu: 1400 }\n", &["workloads.mtu"]),
    ("GOODworkloads: { mtu: \"off\" }\n", &["workloads.mtu", "auto, leave"]),
    ("GOODworkloads: { prefix: \"a b\" }\n", &["workloads.prefix", "interface's name"]),
];

#[test]
fn a_broken_file_is_named_with_line_field_and_reason() {
    for (text, expected) in BROKEN {
        let text = text.replace("GOOD", GOOD);
        let message = parse(&text).expect_err(&text);
        for part in *expected {
            assert!(message.contains(part), "{text:?} gave {message:?}, which lacks {part:?}");
        }
    }
}

#[test]
fn a_socket_path_that_the_kernel_cannot_take_is_refused() {
    let path = "x".repeat(108);
    let message = parse(&format!("{GOOD}control_socket: /{path}\n")).unwrap_err();
    assert!(message.contains("109 bytes"), "{message}");
}

#[test]
fn a_missing_file_says_how_to_name_one() {
    let message = Config::read(Path::new("/no/such/tortie.yaml")).unwrap_err().to_string();
    assert!(message.starts_with("/no/such/tortie.yaml: can't be read"), "{message}");
    assert!(message.contains("-c FILE"), "{message}");
}

#[test]
fn a_file_that_is_no_configuration_is_not_read_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("big.yaml");
    std::fs::write(&path, vec![b'#'; 100_000]).unwrap();
    let message = Config::read(&path).unwrap_err().to_string();
    assert!(message.contains("100000 bytes"), "{message}");
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,200}") {
        let _ = parse(&text);
        let _ = parse(&format!("{GOOD}{text}"));
    }

    #[test]
    fn limits_within_their_range_are_taken_as_they_stand(routes in 1usize..=16_000_000, frames in 2_048usize..=4_194_304) {
        let config = parse(&format!("{GOOD}limits: {{ routes_v4: {routes}, frames: {frames} }}\n")).unwrap();
        prop_assert_eq!(config.limits, Limits { routes_v4: routes, frames, ..Limits::default() });
    }
}

#[test]
fn what_the_node_tells_of_itself_is_said_as_calicos_variables_are() {
    let text = "node: node1\ndatastore: { directory: /d }\nuplinks: [eth0]\n";
    let parsed = |startup: &str| Config::parse(Path::new("tortie.yaml"), &format!("{text}{startup}"));
    assert_eq!(parsed("").unwrap().startup, None);
    assert_eq!(parsed("startup: {}").unwrap().startup, Some(BTreeMap::new()));
    let said = parsed("startup: { ip: autodetect, as: 64512, no_default_pools: true, ip6: }")
        .unwrap()
        .startup
        .unwrap();
    let said: Vec<(&str, &str)> = said.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(said, [("AS", "64512"), ("IP", "autodetect"), ("NO_DEFAULT_POOLS", "true")]);
    let error = parsed("startup: { pi: x }").unwrap_err().to_string();
    assert!(error.starts_with("tortie.yaml: startup: is `pi`; use one of ip, ip6, "), "{error}");
}

#[test]
fn who_polls_the_drivers_has_them_tuned_for_it() {
    let read = |more: &str| {
        let Config { waiting, busy_poll, tuning, .. } =
            parse(&format!("node: node1\ndatastore: {{ directory: /r }}\nuplinks: [eth0]\n{more}")).unwrap();
        (waiting, busy_poll, tuning.map(|tuning| (tuning.defer_hard_irqs, tuning.gro_flush_timeout)))
    };
    assert_eq!(read("waiting: busy-poll"), (Waiting::Busy, true, None));
    assert_eq!(read("waiting: busy-poll\ntuning: {}"), (Waiting::Busy, true, Some((Some(2), Some(200_000)))));
    let own = "waiting: busy-poll\ntuning: { defer_hard_irqs: 7 }";
    assert_eq!(read(own), (Waiting::Busy, true, Some((Some(7), Some(200_000)))));
    assert_eq!(read("waiting: busy\ntuning: {}"), (Waiting::Busy, false, Some((None, None))));
}

#[test]
fn tuning_is_off_unless_asked_for_and_then_brings_queues_and_cores_together() {
    let text = "node: node1\ndatastore: { directory: /r }\nuplinks: [eth0]\n";
    let parsed = |section: &str| Config::parse(Path::new("tortie.yaml"), &format!("{text}{section}"));
    assert_eq!(parsed("").unwrap().tuning, None);
    let tuning = parsed("tuning: {}").unwrap().tuning.unwrap();
    assert!(tuning.queues && tuning.interrupts && tuning.governor && tuning.rings.is_none());
    let tuning =
        parsed("tuning: { queues: keep, rings: 1024, gro_flush_timeout: 200000 }").unwrap().tuning.unwrap();
    assert_eq!((tuning.queues, tuning.rings, tuning.gro_flush_timeout), (false, Some(1024), Some(200_000)));
    let error = parsed("tuning: { rings: 1 }").unwrap_err().to_string();
    assert!(error.contains("tuning.rings"), "{error}");
}
