//! Which core each worker is pinned to.

use crate::config::Config;

/// The kernel's lists of cores (Documentation/ABI/testing/sysfs-devices-system-cpu).
const ONLINE: &str = "/sys/devices/system/cpu/online";
const ISOLATED: &str = "/sys/devices/system/cpu/isolated";

/// Cores of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Those that run; empty where the kernel doesn't tell.
    pub(crate) online: Vec<usize>,
    /// Those kept free of other work by `isolcpus=`.
    pub(crate) isolated: Vec<usize>,
}

/// A core that the configuration names isn't there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("core {core} isn't there: this machine runs cores {}; change `cores`", list(.online))]
pub(crate) struct NoSuchCore {
    core: usize,
    online: Vec<usize>,
}

/// Where workers run, and a sentence about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// By worker; `None` leaves it to the scheduler.
    pub(crate) cores: Vec<Option<usize>>,
    /// For the log and for `--check`.
    pub(crate) sentence: String,
}

impl Machine {
    /// Asks the kernel.
    pub(crate) fn read() -> Machine {
        let cores = |path| parse(&std::fs::read_to_string(path).unwrap_or_default());
        Machine { online: cores(ONLINE), isolated: cores(ISOLATED) }
    }

    /// A core for each worker: those that the configuration names, else isolated ones, else whatever the scheduler
    /// gives. A core that other work uses too is not taken unasked: several routers on one machine would all take
    /// the same ones.
    ///
    /// # Errors
    /// A named core isn't there.
    pub(crate) fn plan(&self, config: &Config) -> Result<Plan, NoSuchCore> {
        let workers = config.workers;
        if let Some(cores) = &config.cores {
            let missing = cores.iter().find(|core| !self.online.is_empty() && !self.online.contains(core));
            return match missing {
                Some(core) => Err(NoSuchCore { core: *core, online: self.online.clone() }),
                None => Ok(Plan {
                    cores: cores.iter().copied().map(Some).collect(),
                    sentence: format!("workers are pinned to cores {}", list(cores)),
                }),
            };
        }
        if self.isolated.len() >= workers {
            let cores = &self.isolated[..workers];
            return Ok(Plan {
                cores: cores.iter().copied().map(Some).collect(),
                sentence: format!("workers are pinned to isolated cores {}", list(cores)),
            });
        }
        Ok(Plan {
            cores: vec![None; workers],
            sentence: format!(
                "{workers} workers on {} cores are not pinned: name `cores`, or set some aside with isolcpus=",
                self.online.len()
            ),
        })
    }
}

fn list(cores: &[usize]) -> String {
    cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Reads the kernel's notation, such as `0-3,8`. What isn't understood is left out.
pub(crate) fn parse(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let last: usize = last.parse().ok()?;
        Some(first.parse::<usize>().ok()?..=last.min(8_192))
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::example;

    fn machine(online: usize, isolated: &[usize]) -> Machine {
        Machine { online: (0..online).collect(), isolated: isolated.to_vec() }
    }

    #[test]
    fn the_kernels_notation_is_read() {
        assert_eq!(parse("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(parse("\n"), [] as [usize; 0]);
        assert_eq!(parse("junk,2"), [2]);
    }

    #[test]
    fn named_cores_are_taken_and_missing_ones_named() {
        let config = Config { workers: 2, cores: Some(vec![1, 3]), ..example() };
        assert_eq!(machine(4, &[]).plan(&config).unwrap().cores, [Some(1), Some(3)]);
        let message = machine(2, &[]).plan(&config).unwrap_err().to_string();
        assert_eq!(message, "core 3 isn't there: this machine runs cores 0, 1; change `cores`");
    }

    #[test]
    fn isolated_cores_are_taken_where_there_are_enough() {
        let config = Config { workers: 2, ..example() };
        assert_eq!(machine(4, &[2, 3]).plan(&config).unwrap().cores, [Some(2), Some(3)]);
        let plan = machine(4, &[3]).plan(&config).unwrap();
        assert_eq!(plan.cores, [None, None]);
        assert!(plan.sentence.contains("not pinned"), "{}", plan.sentence);
    }

    #[test]
    fn more_workers_than_cores_run_unpinned() {
        let config = Config { workers: 8, ..example() };
        assert_eq!(machine(2, &[]).plan(&config).unwrap().cores.len(), 8);
    }
}
