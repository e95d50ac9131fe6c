//! Tuning at boot: queues, interrupts and cores brought together, as the section `tuning` of tortie.yaml allows.
//!
//! ```text
//!   config ─► plan.rs: what should be otherwise, and why ─► Tuner: one line of the log each, what was before on record
//!                ▲                                                   │
//!   machine.rs: what sysfs and /proc tell                            ▼
//!                                              `tortie cleanup` puts it back (undo)
//! ```
//!
//! A change that the kernel refuses is told and left out: a router that isn't tuned forwards, too.

mod advice;
mod machine;
mod plan;
pub(crate) mod survey;

use std::fmt;
use std::path::{Path, PathBuf};

use afxdp::{NicQueues, NicRings};

use crate::config::Config;
use machine::Machine;
use plan::Step;

/// What may be changed. `None` and `false` leave things as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tuning {
    /// Each uplink has as many queues as are asked for, and spreads flows evenly over them.
    pub(crate) queues: bool,
    /// Queue *i* interrupts the core of worker *i*.
    pub(crate) interrupts: bool,
    /// Cores of workers run at full speed.
    pub(crate) governor: bool,
    /// Slots in each ring of an uplink's own.
    pub(crate) rings: Option<u32>,
    /// `napi_defer_hard_irqs`: empty looks at a queue before its interrupt is switched on again.
    pub(crate) defer_hard_irqs: Option<u32>,
    /// `gro_flush_timeout` in nanoseconds: until such a look.
    pub(crate) gro_flush_timeout: Option<u32>,
}

/// One thing that is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    /// A file of sysfs or /proc gets this text.
    Setting { path: PathBuf, value: String },
    /// An interface gets so many queues.
    Queues { interface: String, count: u32 },
    /// Its rings get so many slots, receive and transmit.
    Rings { interface: String, rx: u32, tx: u32 },
}

/// Tunes the machine as far as `tuning` allows, and tells the log line by line.
#[derive(Clone, Debug)]
pub(crate) struct Tuner {
    tuning: Tuning,
    /// Of each uplink: one a worker.
    queues: u32,
    /// Of each worker.
    cores: Vec<Option<usize>>,
    uplinks: Vec<String>,
    record: Record,
}

impl Tuner {
    /// `None` where nothing may be changed.
    pub(crate) fn new(config: &Config, cores: &[Option<usize>]) -> Option<Tuner> {
        Some(Tuner {
            tuning: config.tuning?,
            queues: config.queues.min(config.workers) as u32,
            cores: cores.to_owned(),
            uplinks: config.uplinks.clone(),
            record: Record(config.tuned()),
        })
    }

    /// The cores of workers, at the start.
    pub(crate) fn cores(&self) {
        self.take(&plan::cores(&self.tuning, &self.uplinks, &self.cores, &this_machine()));
    }

    /// An uplink's queues, before it becomes a port: it may be there, or have its name, long after the start.
    pub(crate) fn queues(&self, interface: &str) {
        let (queues, rings) = (NicQueues::of(interface).ok(), NicRings::of(interface).ok());
        let steps = plan::queues(&self.tuning, interface, self.queues, queues, rings);
        let mended = steps.iter().any(|step| matches!(step.change, Some(Change::Queues { .. })));
        self.take(&steps);
        if mended && let Err(error) = NicQueues::spread(interface) {
            tracing::info!("tuning: {interface}: flows are spread as its driver likes ({error})");
        }
    }

    /// An uplink's interrupts, once it is a port: they come and go with queues, and a driver may deal them out anew for XDP.
    pub(crate) fn interrupts(&self, interface: &str) {
        self.take(&plan::interrupts(&self.tuning, interface, &self.cores, &this_machine()));
    }

    fn take(&self, steps: &[Step]) {
        steps.iter().for_each(|step| take(step, &self.record));
    }
}

fn this_machine() -> Machine {
    Machine::at(Path::new("/"))
}

/// Puts back what a [`Tuner`] changed, and says so.
pub(crate) fn undo(config: &Config) -> Vec<String> {
    Record(config.tuned()).take_back()
}

fn take(step: &Step, record: &Record) {
    let Some(change) = &step.change else {
        tracing::info!("tuning: {}", step.why);
        return;
    };
    match change.former() {
        Ok(former) if former == *change => tracing::info!("tuning: {change} already: {}", step.why),
        Ok(former) => {
            record.note(&former);
            match change.make() {
                Ok(()) => tracing::info!("tuning: {change}, before {}: {}", former.value(), step.why),
                Err(error) => tracing::warn!("tuning: {change} was refused ({error}): {}", step.why),
            }
        }
        Err(error) => tracing::warn!("tuning: {change} can't be ({error}): {}", step.why),
    }
}

impl Change {
    /// The same thing as it is now.
    fn former(&self) -> std::io::Result<Change> {
        Ok(match self {
            Change::Setting { path, .. } => Change::Setting {
                path: path.clone(),
                value: std::fs::read_to_string(path)?.trim().to_owned(),
            },
            Change::Queues { interface, .. } => {
                Change::Queues { interface: interface.clone(), count: NicQueues::of(interface)?.now }
            }
            Change::Rings { interface, .. } => {
                let NicRings { rx, tx, .. } = NicRings::of(interface)?;
                Change::Rings { interface: interface.clone(), rx, tx }
            }
        })
    }

    fn make(&self) -> std::io::Result<()> {
        match self {
            Change::Setting { path, value } => std::fs::write(path, value),
            Change::Queues { interface, count } => NicQueues::set(interface, *count),
            Change::Rings { interface, rx, tx } => NicRings::set(interface, *rx, *tx),
        }
    }

    fn value(&self) -> String {
        match self {
            Change::Setting { value, .. } => value.clone(),
            Change::Queues { count, .. } => count.to_string(),
            Change::Rings { rx, tx, .. } => format!("{rx} and {tx}"),
        }
    }

    /// As one line of the record.
    fn written(&self) -> String {
        match self {
            Change::Setting { path, value } => format!("setting {} {value}", path.display()),
            Change::Queues { interface, count } => format!("queues {interface} {count}"),
            Change::Rings { interface, rx, tx } => format!("rings {interface} {rx},{tx}"),
        }
    }

    fn read(line: &str) -> Option<Change> {
        let mut words = line.splitn(3, ' ');
        let (kind, name, value) = (words.next()?, words.next()?, words.next()?);
        let interface = name.to_owned();
        Some(match kind {
            "setting" => Change::Setting { path: name.into(), value: value.to_owned() },
            "queues" => Change::Queues { interface, count: value.parse().ok()? },
            "rings" => {
                let (rx, tx) = value.split_once(',')?;
                Change::Rings { interface, rx: rx.parse().ok()?, tx: tx.parse().ok()? }
            }
            _ => return None,
        })
    }

    /// What it is about, without the value.
    fn about(&self) -> String {
        self.written().split(' ').take(2).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Setting { path, value } => write!(f, "{} is {value}", path.display()),
            Change::Queues { interface, count } => write!(f, "{interface} has {count} queues"),
            Change::Rings { interface, rx, tx } => write!(f, "{interface} has rings of {rx} and {tx} slots"),
        }
    }
}

/// What was before the first start, a line each.
#[derive(Clone, Debug)]
struct Record(PathBuf);

impl Record {
    /// Unless something is on record of it already: then that is older.
    fn note(&self, former: &Change) {
        let mut text = self.read();
        if text.lines().filter_map(Change::read).any(|noted| noted.about() == former.about()) {
            return;
        }
        text.push_str(&former.written());
        text.push('\n');
        if let Err(error) = std::fs::write(&self.0, text) {
            tracing::warn!(file = %self.0.display(), "{error}: `tortie cleanup` won't put back what is tuned");
        }
    }

    fn read(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap_or_default()
    }

    /// In reverse: interrupts, then the queues that they belong to.
    fn take_back(&self) -> Vec<String> {
        let text = self.read();
        let said = text.lines().rev().filter_map(Change::read).map(|former| match former.make() {
            Ok(()) => format!("put back: {former}"),
            Err(error) => format!("could not put back that {former}: {error}"),
        });
        let said = said.collect();
        let _ = std::fs::remove_file(&self.0);
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_before_the_first_start_is_put_back_after_several() {
        let folder = tempfile::tempdir().unwrap();
        let setting = folder.path().join("scaling_governor");
        std::fs::write(&setting, "powersave\n").unwrap();
        let record = Record(folder.path().join("record"));
        for value in ["performance", "schedutil", "performance"] {
            let change = Change::Setting { path: setting.clone(), value: value.to_owned() };
            take(&Step { change: Some(change), why: "a test".to_owned() }, &record);
            assert_eq!(std::fs::read_to_string(&setting).unwrap(), value);
        }
        let said = record.take_back();
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(std::fs::read_to_string(&setting).unwrap(), "powersave");
        assert_eq!(record.take_back(), [] as [String; 0]);
    }

    #[test]
    fn every_change_is_read_as_it_was_written() {
        let interface = || "eth0".to_owned();
        for change in [
            Change::Setting { path: "/proc/irq/25/smp_affinity_list".into(), value: "0-3,8".to_owned() },
            Change::Queues { interface: interface(), count: 4 },
            Change::Rings { interface: interface(), rx: 512, tx: 256 },
        ] {
            assert_eq!(Change::read(&change.written()), Some(change));
        }
    }

    #[test]
    fn what_is_refused_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let record = Record(folder.path().join("record"));
        let change = Change::Queues { interface: "no-such-link".to_owned(), count: 2 };
        take(&Step { change: Some(change), why: "a test".to_owned() }, &record);
        assert_eq!(record.read(), "");
    }
}
