//! Readings that count: those in which nobody else had the core.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::disturbance::waited_of;

/// A reading in which the program waited longer than this share of the time for its core is taken again.
const SHARE_MAX: f64 = 0.02;
/// Readings before the best of them is taken as it is.
const TRIES: usize = 12;

/// Whose waiting is watched.
pub(super) struct Watched {
    tasks: PathBuf,
}

/// What a reading was worth.
pub(super) struct Reading {
    /// What was read.
    pub value: f64,
    /// Whether the core was shared all the same, after [`TRIES`] tries.
    pub disturbed: bool,
}

impl Watched {
    /// This process.
    pub(super) fn us() -> Watched {
        Watched { tasks: "/proc/self/task".into() }
    }

    /// Another one.
    pub(super) fn process(id: u32) -> Watched {
        Watched { tasks: format!("/proc/{id}/task").into() }
    }

    /// Time that its threads were ready to run and weren't let, since they began.
    fn waited(&self) -> Result<Duration> {
        let mut sum = Duration::ZERO;
        for task in fs::read_dir(&self.tasks).with_context(|| format!("reading {}", self.tasks.display()))? {
            sum += waited(&task?.path().join("schedstat"))?;
        }
        Ok(sum)
    }

    /// Reads until nobody interferes.
    ///
    /// # Errors
    /// Those of `read`, and where the kernel doesn't tell who waits.
    pub(super) fn read(&self, mut read: impl FnMut() -> Result<f64>) -> Result<Reading> {
        let mut best: Option<(f64, f64)> = None;
        for _ in 0..TRIES {
            let (start, before) = (Instant::now(), self.waited()?);
            let value = read()?;
            let waited = self.waited()?.saturating_sub(before);
            let share = waited.as_secs_f64() / start.elapsed().as_secs_f64();
            if share <= SHARE_MAX {
                return Ok(Reading { value, disturbed: false });
            }
            if best.is_none_or(|(least, _)| share < least) {
                best = Some((share, value));
            }
        }
        let (_, value) = best.context("it was tried at least once")?;
        Ok(Reading { value, disturbed: true })
    }
}

/// Time that a task waited.
fn waited(path: &Path) -> Result<Duration> {
    let Ok(text) = fs::read_to_string(path) else {
        // A thread that ended meanwhile waits no more.
        return Ok(Duration::ZERO);
    };
    waited_of(&text).with_context(|| format!("{} doesn't tell who waits", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_taken_again_while_the_core_is_shared() {
        let folder = tempfile::tempdir().expect("a folder");
        let task = folder.path().join("1");
        fs::create_dir(&task).expect("a task");
        let schedstat = task.join("schedstat");
        fs::write(&schedstat, "5 0 1").expect("a file");
        let watched = Watched { tasks: folder.path().into() };
        let mut waited = 0u64;
        let mut readings = 0;
        // Of waiting in each of the first three: nearly all of the time, however slow this machine is.
        const AN_HOUR: u64 = 3_600_000_000_000;
        let reading = watched.read(|| {
            readings += 1;
            waited += if readings <= 3 { AN_HOUR } else { 0 };
            fs::write(&schedstat, format!("5 {waited} 1"))?;
            Ok(f64::from(readings))
        });
        let reading = reading.expect("a reading");
        assert_eq!((reading.value, reading.disturbed), (4.0, false));

        let reading = watched.read(|| {
            waited += AN_HOUR;
            fs::write(&schedstat, format!("5 {waited} 1"))?;
            Ok(7.0)
        });
        assert!(reading.expect("a reading").disturbed);
    }
}
