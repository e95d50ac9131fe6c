//! Ports that the kernel is not to choose for sockets that name none: those that translated flows share with it.
//!
//! The kernel has one list for everybody (`net.ipv4.ip_local_reserved_ports`) and merges what is written into it, so which
//! of the ports are ours stands in a file of our own. It and the list outlive the process, and neither a restart of the
//! machine.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::sysctl::{self, SysctlError};

const LIST: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// What the kernel chooses from where it doesn't say.
const EPHEMERAL_DEFAULT: RangeInclusive<u16> = 32_768..=60_999;
/// Ports that it must at least have left to choose from.
const EPHEMERAL_MIN: usize = 1024;

/// Why ports are not reserved.
#[derive(Debug, thiserror::Error)]
pub enum NotReserved {
    /// The kernel would have hardly any left.
    #[error(
        "natPortRange {}-{} leaves the kernel hardly a port of net.ipv4.ip_local_port_range to choose: not reserved, so a \
         connection of the host and a translated one may come to share a port; choose another range",
        .0.start(), .0.end()
    )]
    TooMany(RangeInclusive<u16>),
    /// The list can't be written.
    #[error("{0}; the kernel may choose ports of natPortRange for itself")]
    Sysctl(#[from] SysctlError),
}

/// Our part of the kernel's list.
#[derive(Clone, Debug)]
pub struct ReservedPorts {
    /// Where it is written down.
    record: PathBuf,
}

impl ReservedPorts {
    /// What is written down there; nothing where there is no such file.
    pub fn recorded_at(record: PathBuf) -> ReservedPorts {
        ReservedPorts { record }
    }

    /// Makes these ports, or none, our part of the list. What others have reserved stays, and doesn't become ours.
    ///
    /// # Errors
    /// See [`NotReserved`].
    pub fn reserve(&self, ports: Option<&RangeInclusive<u16>>) -> Result<(), NotReserved> {
        if let Some(ports) = ports {
            let range = ephemeral();
            if range.filter(|port| !ports.contains(port)).count() < EPHEMERAL_MIN {
                return Err(NotReserved::TooMany(ports.clone()));
            }
        }
        let now = parse(&sysctl::read(Path::new(LIST)).unwrap_or_default());
        let ours = self.ours();
        let others: BTreeSet<u16> = now.difference(&ours).copied().collect();
        let wanted: BTreeSet<u16> = ports.cloned().into_iter().flatten().collect();
        let added: BTreeSet<u16> = wanted.difference(&others).copied().collect();
        if now == &others | &wanted && ours == added {
            return Ok(());
        }
        // Before the list: ports of ours that nobody knows of would stay for good.
        if let Err(error) = self.write_down(&added) {
            warn!(file = %self.record.display(), "{error}: `tortie cleanup` won't give back the ports that are reserved now");
        }
        sysctl::write(LIST.into(), text(&(&others | &wanted)))?;
        Ok(())
    }

    fn ours(&self) -> BTreeSet<u16> {
        fs::read_to_string(&self.record).map(|list| parse(&list)).unwrap_or_default()
    }

    fn write_down(&self, ports: &BTreeSet<u16>) -> io::Result<()> {
        if ports.is_empty() {
            return match fs::remove_file(&self.record) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        fs::write(&self.record, text(ports))
    }
}

fn ephemeral() -> RangeInclusive<u16> {
    let range = sysctl::read(Path::new(EPHEMERAL)).unwrap_or_default();
    let mut bounds = range.split_whitespace().map_while(|bound| bound.parse::<u16>().ok());
    match (bounds.next(), bounds.next()) {
        (Some(first), Some(last)) => first..=last,
        _ => EPHEMERAL_DEFAULT,
    }
}

/// `8080,50000-65535`; what isn't a port is left out.
fn parse(list: &str) -> BTreeSet<u16> {
    let ranges = list.trim().split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    ranges.flatten().collect()
}

/// The other way round. An empty list is a line without anything: the kernel takes nothing at all for no change.
fn text(ports: &BTreeSet<u16>) -> String {
    let mut text = String::new();
    let mut rest = ports.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while let Some(next) = rest.next_if(|next| last.checked_add(1) == Some(*next)) {
            last = next;
        }
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a string never fails.
        let _ = match first == last {
            true => write!(text, "{comma}{first}"),
            false => write!(text, "{comma}{first}-{last}"),
        };
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::in_namespace;
    use proptest::prelude::*;

    struct Record {
        reserved: ReservedPorts,
        /// Goes with it.
        _folder: tempfile::TempDir,
    }

    impl Record {
        fn new() -> Record {
            let folder = tempfile::tempdir().unwrap();
            let reserved = ReservedPorts::recorded_at(folder.path().join("reserved-ports"));
            Record { reserved, _folder: folder }
        }

        /// The kernel's list after this range, or none, is ours.
        fn after(&self, ports: Option<RangeInclusive<u16>>) -> String {
            self.reserved.reserve(ports.as_ref()).unwrap();
            list()
        }
    }

    fn list() -> String {
        sysctl::read(Path::new(LIST)).unwrap()
    }

    fn others(ports: &str) {
        sysctl::write(LIST.into(), ports.to_owned()).unwrap();
    }

    #[test]
    fn ours_come_to_those_of_others_and_go_without_them() {
        in_namespace(|| {
            let record = Record::new();
            others("8080,50100-50109");
            assert_eq!(record.after(Some(50_000..=50_999)), "8080,50000-50999");
            assert_eq!(record.after(Some(50_000..=50_999)), "8080,50000-50999");
            assert_eq!(record.after(Some(60_000..=60_099)), "8080,50100-50109,60000-60099", "another range");
            // As another process, which knows nothing but the record.
            let later = ReservedPorts::recorded_at(record.reserved.record.clone());
            later.reserve(None).unwrap();
            assert_eq!(list(), "8080,50100-50109");
            assert!(!record.reserved.record.exists());
        });
    }

    #[test]
    fn the_last_port_of_all_goes_too() {
        in_namespace(|| {
            let record = Record::new();
            assert_eq!(record.after(Some(49_152..=u16::MAX)), "49152-65535");
            assert_eq!(record.after(None), "");
        });
    }

    #[test]
    fn what_others_reserve_meanwhile_is_theirs() {
        in_namespace(|| {
            let record = Record::new();
            record.after(Some(50_000..=50_009));
            others("50000-50009,7000");
            assert_eq!(record.after(Some(50_000..=50_009)), "7000,50000-50009");
            assert_eq!(record.after(None), "7000");
        });
    }

    #[test]
    fn the_kernel_keeps_ports_to_choose_from() {
        in_namespace(|| {
            let record = Record::new();
            others("8080");
            let refused = record.reserved.reserve(Some(&(1_024..=65_535)));
            assert!(matches!(refused, Err(NotReserved::TooMany(_))));
            assert_eq!(list(), "8080");
        });
    }

    #[test]
    fn a_record_that_cannot_be_written_reserves_nevertheless() {
        in_namespace(|| {
            let reserved = ReservedPorts::recorded_at("/nonexistent/tortie/reserved".into());
            reserved.reserve(Some(&(50_000..=50_009))).unwrap();
            assert_eq!(list(), "50000-50009");
        });
    }

    proptest! {
        #[test]
        fn a_list_is_what_its_text_says(ports: BTreeSet<u16>, run in 0u16..65_000) {
            let ports: BTreeSet<u16> = ports.into_iter().chain(run..run + 500).collect();
            prop_assert_eq!(parse(&text(&ports)), ports);
        }
    }
}
