//! `tortie run --check`: would a start succeed? Opens nothing and changes nothing.

use std::fmt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use model::PortKind;

use crate::config::{Config, Mode};
use crate::cores::Machine;
use crate::frame_size::{FrameSize, LargestPacket};
use crate::limits::Memory;
use crate::ports::{self, QueuePlan};
use crate::privileges;
use datastore::{DatastoreSettings, Key, ResourceKey, ResourceKind, StoreError};

/// How a finding is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Ok,
    /// It would start, and not do all that was asked.
    Warn,
    /// It would not start, or not forward.
    Error,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Error => "error",
        })
    }
}

/// What was found out, a line each.
#[derive(Debug, Default)]
pub(crate) struct Report {
    lines: Vec<(Verdict, String)>,
}

impl Report {
    fn add(&mut self, verdict: Verdict, text: impl Into<String>) {
        self.lines.push((verdict, text.into()));
    }

    fn outcome<E: fmt::Display>(&mut self, result: Result<String, E>) {
        match result {
            Ok(text) => self.add(Verdict::Ok, text),
            Err(error) => self.add(Verdict::Error, error.to_string()),
        }
    }

    /// Would it start and forward?
    pub(crate) fn good(&self) -> bool {
        self.lines.iter().all(|(verdict, _)| *verdict < Verdict::Error)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|(verdict, text)| writeln!(f, "{verdict:<5}  {text}"))
    }
}

/// Looks at everything that a start needs.
pub(crate) fn run(path: &Path) -> Report {
    let mut report = Report::default();
    let config = match Config::read(path) {
        Ok(config) => config,
        Err(error) => {
            report.add(Verdict::Error, error.to_string());
            return report;
        }
    };
    report.add(Verdict::Ok, format!("{}: node {}", path.display(), config.node));
    datastore(&mut report, &config);
    report.outcome(privileges::check().map(|()| "privileges: all that is needed".to_owned()));
    for name in &config.uplinks {
        uplink(&mut report, &config, name);
    }
    report.outcome(Machine::read().plan(&config).map(|plan| plan.sentence));
    frames(&mut report, &config);
    memory(&mut report, &config);
    control_socket(&mut report, &config);
    report
}

/// Asks for this node's resource, which shows whether we are let in.
fn etcd(report: &mut Report, config: &Config) {
    let name = config.node.clone();
    let key = Key::Resource(ResourceKey { kind: ResourceKind::Node, namespace: String::new(), name });
    let (datastore, node) = (&config.datastore, &config.node);
    match datastore.open().and_then(|store| store.get(&key)) {
        Ok(_) => report.add(Verdict::Ok, format!("{datastore}: it holds Node({node})")),
        Err(StoreError::NotFound(_)) => report
            .add(Verdict::Warn, format!("{datastore}: no Node resource is named {node}: BGP waits for one")),
        // The router starts all the same, and waits for it.
        Err(error) => report.add(Verdict::Error, format!("{datastore}: {error}")),
    }
}

fn datastore(report: &mut Report, config: &Config) {
    let path = match &config.datastore {
        DatastoreSettings::Directory(path) => path,
        DatastoreSettings::Etcd(_) => return etcd(report, config),
    };
    let directory = path.display();
    match datastore::check(path) {
        Ok(resources) => {
            report.add(Verdict::Ok, format!("{directory}: {} resources", resources.len()));
            let ours = |resource: &model::Resource| match resource {
                model::Resource::Node(node) => node.name == config.node,
                _ => false,
            };
            if !resources.iter().any(ours) {
                report.add(
                    Verdict::Warn,
                    format!("{directory}: no Node resource is named {}: BGP waits for one", config.node),
                );
            }
        }
        Err(problems) => {
            for problem in problems {
                report.add(Verdict::Error, problem.to_string());
            }
        }
    }
}

fn uplink(report: &mut Report, config: &Config, name: &str) {
    let features =
        afxdp::interface_index(name).and_then(|index| Ok((index, afxdp::DeviceFeatures::of(index)?)));
    let Ok((index, features)) = features else {
        report.add(
            Verdict::Error,
            format!("uplink {name}: there is no such interface here; `ip link` lists those there are"),
        );
        return;
    };
    let driver = features.driver.as_deref().unwrap_or("unknown");
    let can = |what: Option<bool>| match what {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown before it is tried",
    };
    report.add(
        Verdict::Ok,
        format!(
            "uplink {name}: driver {driver}, {} receive queues, native XDP {}, zero-copy {}",
            features.receive_queues,
            can(features.native_xdp),
            can(features.zero_copy)
        ),
    );
    if config.mode == Mode::ZeroCopy && features.zero_copy == Some(false) {
        report.add(
            Verdict::Error,
            format!("uplink {name}: driver {driver} can't do zero-copy; set mode to auto or copy"),
        );
    }
    if features.native_xdp == Some(false) {
        report.add(Verdict::Warn, format!("uplink {name}: generic XDP will serve it, which is slower"));
    }
    let plan =
        QueuePlan::new(PortKind::Uplink, features.receive_queues as usize, config.queues, config.workers);
    for note in plan.notes {
        report.add(Verdict::Warn, format!("uplink {name}: {note}"));
    }
    // Who may not ask learns of a foreign program at the start.
    if let Ok(programs) = afxdp::attached(index) {
        for program in programs.iter().filter(|program| !program.is_ours()) {
            report.add(
                Verdict::Error,
                format!(
                    "uplink {name}: runs the XDP program {} (id {}) of somebody else; detach it first, if it may go",
                    program.name, program.id
                ),
            );
        }
    }
}

/// Does every worker have frames for its ports' rings?
fn frames(report: &mut Report, config: &Config) {
    let (frames, uplinks) = (config.limits.frames, config.uplinks.len());
    match ports::room_for_workloads(frames, uplinks) {
        Some(workloads) => report.add(
            Verdict::Ok,
            format!("{frames} frames a worker: room for {uplinks} uplinks and {workloads} workload ports"),
        ),
        None => report.add(
            Verdict::Error,
            format!("{frames} frames a worker are too few for {uplinks} uplinks; raise limits.frames"),
        ),
    }
}

fn memory(report: &mut Report, config: &Config) {
    let largest = LargestPacket::of(config);
    let size = FrameSize::for_mtu(largest.mtu);
    report.add(Verdict::Ok, largest.sentence(size, &config.limits));
    let memory = Memory::of(&config.limits, config.workers, size);
    report.add(Verdict::Ok, memory.summary());
    for line in memory.lines() {
        report.add(Verdict::Ok, line);
    }
}

fn control_socket(report: &mut Report, config: &Config) {
    let path = config.control_socket.display();
    if UnixStream::connect(&config.control_socket).is_ok() {
        report.add(Verdict::Warn, format!("control socket {path}: a router answers there already"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_do_not_fail_a_check_and_errors_do() {
        let mut report = Report::default();
        report.add(Verdict::Ok, "a");
        report.add(Verdict::Warn, "b");
        assert!(report.good());
        report.add(Verdict::Error, "c");
        assert!(!report.good());
        assert_eq!(report.to_string(), "ok     a\nwarn   b\nerror  c\n");
    }
}
