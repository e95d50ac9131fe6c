//! The binary under calicoctl's name, on a directory and on a real etcd.

mod migration;
#[path = "../namespace/mod.rs"]
mod namespace;
#[path = "../../../datastore/tests/server/mod.rs"]
mod server;
mod sessions;
mod walkthrough;

use std::path::Path;
use std::process::{Command, Output};

use server::Etcd;

const PEER: &str = "\
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata:
  name: bgppeer1
spec:
  node: node1
  peerIP: 192.168.0.250
  asNumber: 64514
";

/// calicoctl with these variables, asked within a directory that has its link.
fn calicoctl(place: &Path, variables: &[(&str, &str)], words: &[&str]) -> (i32, String, String) {
    let link = place.join("calicoctl");
    if !link.exists() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_tortie"), &link).expect("a link");
        std::fs::write(place.join("peer.yaml"), PEER).expect("a file");
    }
    let Output { status, stdout, stderr } = Command::new(link)
        .args(words)
        .current_dir(place)
        .env_remove("RUST_LOG")
        .env_remove("ETCD_ENDPOINTS")
        .env_remove("DATASTORE_TYPE")
        .env_remove("DATASTORE_DIRECTORY")
        .envs(variables.iter().copied())
        .output()
        .expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("an exit status"), text(stdout), text(stderr))
}

/// What holds on any store.
fn a_resource_lives_and_dies(place: &Path, variables: &[(&str, &str)]) {
    let run = |words: &[&str]| calicoctl(place, variables, words);
    let said = |status, out: &str, error: &str| (status, out.to_owned(), error.to_owned());
    assert_eq!(
        run(&["create", "-f", "peer.yaml"]),
        said(0, "Successfully created 1 'BGPPeer' resource(s)\n", "")
    );
    assert_eq!(
        run(&["create", "-f", "peer.yaml"]),
        said(1, "", "failed to create 'BGPPeer' resource: [resource already exists: BGPPeer(bgppeer1)]\n")
    );
    assert_eq!(
        run(&["get", "bgpPeers"]),
        said(
            0,
            "NAME       PEERIP          NODE    ASN     \nbgppeer1   192.168.0.250   node1   64514   \n\n",
            ""
        )
    );
    let (status, yaml, _) = run(&["get", "bgppeer", "bgppeer1", "-o", "yaml"]);
    assert!(status == 0 && yaml.contains("\n  resourceVersion: \""), "{yaml}");
    assert_eq!(
        run(&["delete", "bgppeer", "bgppeer1"]),
        said(0, "Successfully deleted 1 'BGPPeer' resource(s)\n", "")
    );
    let (status, _, error) = run(&["delete", "bgppeer", "bgppeer1"]);
    assert_eq!(status, 1);
    let expected =
        "Failed to delete 'BGPPeer' resource: resource does not exist: BGPPeer(bgppeer1) with error: <nil>";
    assert!(error.starts_with(expected), "{error}");
    let (status, out, _) = run(&["version"]);
    assert!(status == 0 && out.contains("\nCluster Version:   "), "{out}");
}

/// Does something on a directory.
fn on_a_directory(does: impl Fn(&Path, &[(&str, &str)])) {
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path().join("resources").display().to_string();
    does(place.path(), &[("DATASTORE_TYPE", "directory"), ("DATASTORE_DIRECTORY", &directory)]);
}

/// Does something on an etcd, where this machine has one.
fn on_an_etcd(does: impl Fn(&Path, &[(&str, &str)])) {
    let Some(etcd) = Etcd::start() else { return };
    does(etcd.directory(), &[("ETCD_ENDPOINTS", &etcd.url())]);
}

#[test]
fn a_directory_is_a_datastore_of_calicoctls() {
    on_a_directory(a_resource_lives_and_dies);
}

#[test]
fn an_etcd_is_a_datastore_of_calicoctls() {
    on_an_etcd(a_resource_lives_and_dies);
}

#[test]
fn without_a_word_about_the_datastore_nothing_is_made() {
    if Path::new("/etc/tortie/resources").exists() || Path::new("/etc/calico/calicoctl.cfg").exists() {
        println!("skipped: this machine has a datastore of its own");
        return;
    }
    let place = tempfile::tempdir().expect("a directory");
    for words in [&["get", "nodes"][..], &["create", "-f", "peer.yaml"], &["ipam", "show"]] {
        let (status, out, _) = calicoctl(place.path(), &[], words);
        assert!(status == 1 && out.contains("no datastore is named"), "{words:?}: {out}");
    }
    assert!(!Path::new("/etc/tortie/resources").exists());
}

#[test]
fn what_needs_kubernetes_or_docker_says_what_to_do_instead() {
    let place = tempfile::tempdir().expect("a directory");
    for (words, hint) in [
        (&["cluster", "diags", "--max-logs=1"][..], "node diags"),
        (&["node", "run", "--ip=autodetect", "--dryrun"][..], "tortie run"),
    ] {
        let (status, _, error) = calicoctl(place.path(), &[], words);
        assert!(status == 1 && error.contains(hint), "{words:?}: {error}");
    }
}

#[test]
fn a_usage_error_is_told_in_calicoctls_words() {
    let place = tempfile::tempdir().expect("a directory");
    let (status, _, error) = calicoctl(place.path(), &[], &["get", "node", "-m"]);
    assert_eq!(status, 1);
    assert!(error.contains("Invalid option: 'get node -m'. Use flag '--help' to read about"), "{error}");
}

#[test]
fn shells_and_man_learn_the_commands() {
    let place = tempfile::tempdir().expect("a directory");
    let tortie = |words: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_tortie"))
            .args(words)
            .current_dir(place.path())
            .output()
            .expect("it runs")
    };
    for shell in ["bash", "zsh", "fish"] {
        let out = tortie(&["completion", shell]).stdout;
        assert!(String::from_utf8_lossy(&out).contains("ippool") || out.len() > 1000, "{shell}");
    }
    assert!(tortie(&["man", "."]).status.success());
    let page = std::fs::read_to_string(place.path().join("tortie-get.1")).expect("a page");
    assert!(page.contains("Show resources"), "{page}");
}
