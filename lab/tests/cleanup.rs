//! A lab leaves nothing behind.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;

use lab::link::{self, End};
use lab::process::Identity;
use lab::progress::Progress;
use lab::{Lab, Tools};

/// Labs need root and network namespaces; a test that cannot have them says so.
fn raise(test: &str) -> Option<Lab> {
    let tools = Tools { tortie: PathBuf::new(), agent: PathBuf::new() };
    let works = Command::new("unshare").args(["--net", "true"]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        println!("skipped: {test} needs root and network namespaces");
        return None;
    }
    Some(Lab::raise(&tools, Progress::new(None)).expect("an empty lab"))
}

/// Two namespaces with a link between them and a program in one.
fn furnish(lab: &Lab) -> (lab::process::Process, Identity) {
    let left = lab.namespace("left").expect("a namespace");
    let right = lab.namespace("right").expect("another");
    link::veth(End::new(&left, "eth0"), End::new(&right, "eth0")).expect("a link");
    let mut command = left.command("sleep");
    command.arg("600");
    let process = lab.spawn("sleeper", command).expect("sleep is everywhere");
    let identity = process.identity();
    (process, identity)
}

fn namespaces() -> String {
    let output = Command::new("ip").args(["netns", "list"]).output().expect("ip is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn assert_gone(names: &[String], directory: &std::path::Path, process: Identity) {
    let left = namespaces();
    for name in names {
        assert!(!left.lines().any(|line| line.split(' ').next() == Some(name)), "{name} is still there");
    }
    assert!(!directory.exists(), "{} is still there", directory.display());
    assert!(!process.is_alive(), "the sleeper still runs");
}

#[test]
fn a_dropped_lab_takes_its_namespaces_processes_and_files_with_it() {
    let Some(lab) = raise("a_dropped_lab_takes_its_namespaces_processes_and_files_with_it") else { return };
    let (process, identity) = furnish(&lab);
    let names: Vec<String> = lab.namespaces().iter().map(|namespace| namespace.full().to_owned()).collect();
    let directory = lab.directory().to_owned();
    assert!(namespaces().contains(&names[0]) && identity.is_alive());
    drop(process);
    drop(lab);
    assert_gone(&names, &directory, identity);
}

#[test]
fn a_panic_in_a_scenario_leaves_nothing_either() {
    let Some(lab) = raise("a_panic_in_a_scenario_leaves_nothing_either") else { return };
    let (process, identity) = furnish(&lab);
    let names: Vec<String> = lab.namespaces().iter().map(|namespace| namespace.full().to_owned()).collect();
    let directory = lab.directory().to_owned();
    let result = catch_unwind(AssertUnwindSafe(move || {
        let _both = (process, lab);
        panic!("on purpose");
    }));
    assert!(result.is_err());
    assert_gone(&names, &directory, identity);
}

#[test]
fn a_lab_at_work_is_not_swept_away() {
    let Some(lab) = raise("a_lab_at_work_is_not_swept_away") else { return };
    let (_process, identity) = furnish(&lab);
    let removed = lab::sweep::sweep().expect("sweeping works");
    assert!(!removed.contains(&lab.directory().to_owned()));
    assert!(lab.directory().exists() && identity.is_alive());
}
