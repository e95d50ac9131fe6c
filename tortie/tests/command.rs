//! The binary as an operator meets it: messages and exit statuses.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The binary, asked as given, within its directory.
fn tortie(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_tortie"))
        .args(arguments)
        .current_dir(directory)
        .env_remove("RUST_LOG")
        .output()
        .expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("an exit status"), text(stdout), text(stderr))
}

/// A directory with a good configuration: `lo` stands in for an uplink.
fn box_of(node: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(directory.path().join("resources")).expect("a directory");
    write(
        directory.path(),
        "resources/node.yaml",
        "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: { name: node1 }\n\
         spec: { bgp: { ipv4Address: 10.0.0.1/24 } }\n",
    );
    write(
        directory.path(),
        "tortie.yaml",
        &format!(
            "node: {node}\ndatastore: {{ directory: resources }}\nuplinks: [lo]\ncontrol_socket: tortie.sock\n\
             limits: {{ frames: 8192, mtu: 1500 }}\n"
        ),
    );
    let path = directory.path().to_owned();
    (directory, path)
}

fn write(directory: &Path, name: &str, text: &str) {
    std::fs::write(directory.join(name), text).expect("a file");
}

fn append(directory: &Path, text: &str) {
    let path = directory.join("tortie.yaml");
    let whole = std::fs::read_to_string(&path).expect("a file") + text;
    std::fs::write(path, whole).expect("a file");
}

const CHECK: &[&str] = &["run", "-c", "tortie.yaml", "--check"];

#[test]
fn a_check_names_what_it_looked_at_and_how_much_memory_it_comes_to() {
    let (_kept, path) = box_of("node1");
    let (_, out, _) = tortie(&path, CHECK);
    for part in [
        "ok     tortie.yaml: node node1",
        "ok     resources: 1 resources",
        "ok     uplink lo: ",
        "frames: for packets of 1500 bytes (limits.mtu), up to 1778 can be received; of 2048 bytes",
        "MiB fixed at start-up",
        "8192 frames × 2048 bytes = 16 MiB at start-up",
    ] {
        assert!(out.contains(part), "{part:?} is missing:\n{out}");
    }
    assert!(!path.join("tortie.sock").exists(), "a check opens nothing");
}

#[test]
fn packets_of_nine_thousand_bytes_are_carried_where_a_limit_says_so_and_take_memory_that_is_told() {
    let (_kept, path) = box_of("node1");
    let file = path.join("tortie.yaml");
    let text = std::fs::read_to_string(&file).expect("a file").replace("mtu: 1500", "mtu: 9000");
    std::fs::write(&file, text).expect("a file");
    let (_, out, _) = tortie(&path, CHECK);
    for part in [
        "up to 12018 can be received; of 4096 bytes, and 4096 of 3 chunks a worker for larger packets",
        "8192 frames × 4096 bytes = 32 MiB at start-up",
        "4096 large frames × 12288 bytes = 48 MiB at start-up",
    ] {
        assert!(out.contains(part), "{part:?} is missing:\n{out}");
    }
}

#[test]
fn a_node_that_the_datastore_does_not_know_is_a_warning() {
    let (_kept, path) = box_of("node7");
    let (_, out, _) = tortie(&path, CHECK);
    assert!(out.contains("warn   resources: no Node resource is named node7"), "{out}");
}

#[test]
fn a_broken_configuration_fails_the_check_with_file_line_and_field() {
    let (_kept, path) = box_of("node1");
    append(&path, "workers: many\n");
    let (status, out, _) = tortie(&path, CHECK);
    assert_eq!(status, 1, "{out}");
    assert!(out.starts_with("error  tortie.yaml:6:10: workers: must be a whole number"), "{out}");
}

#[test]
fn a_broken_resource_fails_the_check_with_its_file_and_line() {
    let (_kept, path) = box_of("node1");
    write(
        &path,
        "resources/pool.yaml",
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: { name: p }\nspec:\n  cidr: 10.65.0.0/99\n",
    );
    let (status, out, _) = tortie(&path, CHECK);
    assert_eq!(status, 1, "{out}");
    let line = out.lines().find(|line| line.starts_with("error")).expect("an error");
    assert!(line.contains("pool.yaml:5:") && line.contains("IPPool(p)"), "{out}");
}

#[test]
fn a_missing_interface_fails_the_check() {
    let (_kept, path) = box_of("node1");
    let text =
        std::fs::read_to_string(path.join("tortie.yaml")).expect("a file").replace("[lo]", "[nosuch0]");
    write(&path, "tortie.yaml", &text);
    let (status, out, _) = tortie(&path, CHECK);
    assert_eq!(status, 1, "{out}");
    assert!(out.contains("error  uplink nosuch0: there is no such interface"), "{out}");
}

#[test]
fn a_missing_datastore_fails_the_check() {
    let (_kept, path) = box_of("node1");
    std::fs::remove_dir_all(path.join("resources")).expect("it was there");
    let (status, out, _) = tortie(&path, CHECK);
    assert_eq!(status, 1, "{out}");
    assert!(out.lines().any(|line| line.starts_with("error  resources")), "{out}");
}

#[test]
fn fewer_queues_than_asked_is_a_warning() {
    let (_kept, path) = box_of("node1");
    append(&path, "workers: 4\nqueues: 4\n");
    let (_, out, _) = tortie(&path, CHECK);
    assert!(out.contains("warn   uplink lo: 4 queues were asked for and the interface has 1"), "{out}");
}

#[test]
fn too_few_frames_for_the_uplinks_fail_the_check() {
    let (_kept, path) = box_of("node1");
    let text =
        std::fs::read_to_string(path.join("tortie.yaml")).expect("a file").replace("[lo]", "[lo, lo2]");
    write(&path, "tortie.yaml", &text);
    let (status, out, _) = tortie(&path, CHECK);
    assert_eq!(status, 1, "{out}");
    assert!(
        out.contains("error  8192 frames a worker are too few for 2 uplinks; raise limits.frames"),
        "{out}"
    );
}

#[test]
fn a_core_that_is_not_there_fails_the_check() {
    let (_kept, path) = box_of("node1");
    append(&path, "cores: [4000]\n");
    let (status, out, _) = tortie(&path, CHECK);
    assert_eq!(status, 1, "{out}");
    assert!(out.contains("error  core 4000 isn't there"), "{out}");
}

#[test]
fn a_run_without_its_file_says_so_in_one_sentence() {
    let (_kept, path) = box_of("node1");
    let (status, out, err) = tortie(&path, &["run", "-c", "nosuch.yaml"]);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(err.starts_with("tortie: nosuch.yaml: can't be read"), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
}

#[test]
fn a_question_without_a_router_asks_whether_it_runs() {
    let (_kept, path) = box_of("node1");
    for noun in [&["bgp"][..], &["routes"], &["route", "10.0.0.1"], &["neighbors"], &["ports"], &["drops"]] {
        let arguments = [&["show"][..], noun, &["--socket", "tortie.sock"]].concat();
        let (status, out, err) = tortie(&path, &arguments);
        assert_eq!((status, out.as_str()), (2, ""), "{noun:?}");
        assert!(err.starts_with("tortie: is tortie running? No control socket at tortie.sock"), "{err}");
    }
}

#[test]
fn wrong_usage_is_two_and_says_what_is_right() {
    let (_kept, path) = box_of("node1");
    for arguments in
        [&["sho"][..], &["show", "route", "nowhere"], &["show", "routes", "--source", "ospf"], &[]]
    {
        let (status, _, err) = tortie(&path, arguments);
        assert_eq!(status, 2, "{arguments:?}");
        assert!(err.contains("Usage") || err.contains("--help"), "{err}");
    }
}

#[test]
fn help_has_examples() {
    let (_kept, path) = box_of("node1");
    let (status, out, _) = tortie(&path, &["run", "--help"]);
    assert_eq!(status, 0);
    assert!(out.contains("uplinks: [eth0]"), "{out}");
    let (_, out, _) = tortie(&path, &["show", "--help"]);
    assert!(out.contains("tortie show routes --source bgp"), "{out}");
}

#[test]
fn the_example_of_the_help_is_a_good_configuration() {
    let (_kept, path) = box_of("node1");
    let (_, help, _) = tortie(&path, &["run", "--help"]);
    let example: String = help
        .lines()
        .filter(|line| line.starts_with("  ") && line.contains(": ") && !line.trim_start().starts_with('-'))
        .map(|line| format!("{}\n", &line[2..]))
        .collect();
    write(&path, "tortie.yaml", &example);
    let (_, out, _) = tortie(&path, CHECK);
    assert!(out.starts_with("ok     tortie.yaml: node node1"), "{example}\n{out}");
}

#[test]
fn the_version_is_the_crates() {
    let (_kept, path) = box_of("node1");
    let expected = format!("tortie {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(tortie(&path, &["--version"]), (0, expected, String::new()));
    let (status, out, _) = tortie(&path, &["version", "--client"]);
    let expected = format!("Client Version:    v{}\nGit commit:        ", env!("CARGO_PKG_VERSION"));
    assert!(status == 0 && out.starts_with(&expected), "{out}");
}

#[test]
fn a_selector_is_explained_with_an_exit_status_for_each_answer() {
    let here = Path::new(".");
    let (status, out, _) = tortie(here, &["explain", "selector", "a == 'b'", "--label", "a=b"]);
    assert_eq!((status, out.as_str()), (0, "a == \"b\" matches a=b\n"));
    let (status, out, _) = tortie(here, &["explain", "selector", "has(a)", "-o", "json"]);
    let answer = "{\n  \"selector\": \"has(a)\",\n  \"labels\": {},\n  \"matches\": false\n}\n";
    assert_eq!((status, out.as_str()), (1, answer));
    let (status, _, err) = tortie(here, &["explain", "selector", "a in 'b'"]);
    let message =
        "tortie: not a selector: at character 6: expected a set in { }, found `'b'`\n  a in 'b'\n       ^\n";
    assert_eq!((status, err.as_str()), (2, message));
    let (status, ..) = tortie(here, &["explain", "selector", "all()", "--label", "a"]);
    assert_eq!(status, 2);
}

#[test]
fn resources_are_validated_with_an_exit_status_for_each_answer() {
    let (_kept, path) = box_of("node1");
    let (status, out, err) = tortie(&path, &["validate", "-f", "resources"]);
    assert_eq!(
        (status, out.as_str(), err.as_str()),
        (0, "Successfully validated 1 'Node' resource(s)\n", "")
    );
    let hidden = "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: { name: web }\n\
                  spec: { ingress: [{ action: Deny }, { action: Allow }] }\n";
    write(&path, "hidden.yaml", hidden);
    let (status, out, _) = tortie(&path, &["validate", "-f", "resources", "-f", "hidden.yaml"]);
    assert_eq!(status, 0);
    assert!(
        out.starts_with("warning: hidden.yaml:1:1: NetworkPolicy(default/web): spec.ingress[1]: "),
        "{out}"
    );
    assert!(out.ends_with("Successfully validated 2 resource(s)\n"), "{out}");
    assert_eq!(tortie(&path, &["validate", "-f", "hidden.yaml", "--strict"]).0, 1);
    write(&path, "bad.yaml", &hidden.replace("Allow", "Maybe"));
    let (status, out, _) = tortie(&path, &["validate", "-f", "bad.yaml", "-o", "json"]);
    let answer: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((status, &answer["errors"][0]["field"]), (1, &"spec.ingress[1].action".into()));
    let (status, _, err) = tortie(&path, &["validate", "-f", "nowhere"]);
    assert_eq!(
        (status, err.as_str()),
        (2, "tortie: can't read nowhere: No such file or directory (os error 2)\n")
    );
}
