//! What kept programs of a lab from their cores while something was measured: what is measured anew for the machine's sake is
//! so for a reason that was seen, and a fault without one shows at once.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::progress::Progress;
use crate::scenario::CannotRun;
use crate::wait;

/// How often a watch looks.
const TICK: Duration = Duration::from_millis(20);
/// After so many looks it finds out anew who there is.
const CENSUS: u32 = 25;
/// Measurements until one isn't disturbed.
const TRIES: usize = 10;
/// So many that are wrong without a disturbance are no accident.
const UNEXPLAINED: usize = 2;
/// What `/proc/stat` counts time in (USER_HZ).
const JIFFY: Duration = Duration::from_millis(10);

/// A look-out while something is measured: a thread that sees how late it is itself, how long each thread of the lab's
/// programs waited for a core, which the kernel counts once the wait is over, and what a hypervisor took of each core.
pub struct Watch {
    enough: Arc<AtomicBool>,
    thread: JoinHandle<Disturbance>,
}

/// What a [`Watch`] saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disturbance {
    /// The longest time that the watch itself stood still: as long as all programs did, where the whole machine did.
    pub standstill: Duration,
    /// The longest time that one of the lab's programs, or of the kernel's threads that receive, waited for a core at a stretch,
    /// to the time between two looks.
    pub wait: Duration,
    /// What that one is called.
    pub who: String,
    /// The longest time that a hypervisor gave a core to others, likewise, to [`JIFFY`]. Who runs on that core doesn't know.
    pub stolen: Duration,
}

impl Watch {
    /// From now on.
    pub fn start() -> Watch {
        let enough = Arc::new(AtomicBool::new(false));
        let until = enough.clone();
        Watch { enough, thread: thread::spawn(move || look(&until)) }
    }

    /// Until now.
    pub fn finish(self) -> Disturbance {
        self.enough.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

fn look(enough: &AtomicBool) -> Disturbance {
    let mut seen = Disturbance::default();
    let mut waited: BTreeMap<u32, Duration> = BTreeMap::new();
    let mut threads = BTreeMap::new();
    let mut stolen = stolen_of_each();
    for number in 0.. {
        if number % CENSUS == 0 {
            threads = census();
        }
        for (thread, (name, schedstat)) in &threads {
            // One that has ended meanwhile counts for nothing.
            let Some(now) = std::fs::read_to_string(schedstat).ok().and_then(|text| waited_of(&text)) else {
                continue;
            };
            let before = waited.insert(*thread, now).unwrap_or(now);
            if now.saturating_sub(before) > seen.wait {
                (seen.wait, seen.who) = (now - before, name.clone());
            }
        }
        let now = stolen_of_each();
        let since = now.iter().zip(&stolen).map(|(now, before)| now.saturating_sub(*before));
        seen.stolen = since.fold(seen.stolen, Duration::max);
        stolen = now;
        if enough.load(Ordering::Relaxed) {
            break;
        }
        // To look takes time of its own.
        let now = Instant::now();
        thread::sleep(TICK);
        seen.standstill = seen.standstill.max(now.elapsed().saturating_sub(TICK));
    }
    seen
}

impl Disturbance {
    /// Can a program have been kept for so long from what it had to do?
    pub fn reaches(&self, time: Duration) -> bool {
        self.standstill.max(self.wait).max(self.stolen) >= time
    }
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the lab stood still for {} ms at most", self.standstill.as_millis())?;
        if !self.stolen.is_zero() {
            write!(f, ", a core was taken away for {} ms", self.stolen.as_millis())?;
        }
        if self.who.is_empty() {
            return Ok(());
        }
        write!(f, ", and {} waited for a core for {} ms", self.who, self.wait.as_millis())
    }
}

/// Measures until the result is as it should be. `measure` gives the result, or says how it is instead: then it is measured once
/// more, again and again only where there was a disturbance that reaches `stall`.
///
/// # Errors
/// It is not as it should be twice without such a disturbance. With one each time, it is no failure: this machine is too
/// busy ([`CannotRun`]).
pub fn undisturbed<T>(
    progress: &Progress,
    stall: Duration,
    mut measure: impl FnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    let (mut tries, mut unexplained) = (Vec::new(), 0);
    while tries.len() < TRIES {
        let watch = Watch::start();
        let measured = measure();
        let disturbance = watch.finish();
        let words = match measured? {
            Ok(measured) => return Ok(measured),
            Err(words) => words,
        };
        unexplained += usize::from(!disturbance.reaches(stall));
        if unexplained == UNEXPLAINED {
            bail!("{words}; that isn't the machine's: {disturbance}");
        }
        progress.line(&format!("  ~ once more: {words}; {disturbance}"));
        tries.push(words);
        if wait::interrupted() {
            bail!("interrupted");
        }
    }
    let words = tries.join("; then ");
    Err(CannotRun(format!("this machine is too busy: disturbed each of {TRIES} times, {words}")).into())
}

/// The threads of ours, of our descendants, and of the kernel's that receive (`napi/…`): each with its name and where it stands
/// how long it has waited.
fn census() -> BTreeMap<u32, (String, PathBuf)> {
    let stat = |process: u32| std::fs::read_to_string(format!("/proc/{process}/stat")).ok();
    let of_each = |process: u32| Some((process, name_and_parent(&stat(process)?)?));
    let processes: BTreeMap<u32, (String, u32)> =
        numbers(Path::new("/proc")).into_iter().filter_map(of_each).collect();
    let own = std::process::id();
    let of_ours = processes
        .iter()
        .filter(|(process, (name, _))| name.starts_with("napi/") || descends(&processes, **process, own));
    let threads = of_ours.flat_map(|(process, (name, _))| {
        let tasks = PathBuf::from(format!("/proc/{process}/task"));
        let at = move |thread: u32| (thread, (name.clone(), tasks.join(format!("{thread}/schedstat"))));
        numbers(&PathBuf::from(format!("/proc/{process}/task"))).into_iter().map(at)
    });
    threads.collect()
}

/// The entries of a directory that are numbers.
fn numbers(directory: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Of a `/proc/PID/stat`: the name in parentheses, which may hold anything, and field 4 (proc(5)).
fn name_and_parent(stat: &str) -> Option<(String, u32)> {
    let (before, after) = stat.rsplit_once(')')?;
    let name = before.split_once('(')?.1;
    Some((name.to_owned(), after.split_whitespace().nth(1)?.parse().ok()?))
}

/// Is it this process, or one that it started, or one that such a one started?
fn descends(processes: &BTreeMap<u32, (String, u32)>, process: u32, from: u32) -> bool {
    let mut process = process;
    while process != from {
        match processes.get(&process) {
            Some((_, parent)) if *parent != process => process = *parent,
            _ => return false,
        }
    }
    true
}

/// How long a thread waited for a core since it began: the second number of its `/proc/PID/task/TID/schedstat`, nanoseconds on a
/// run queue (proc(5)). `None`: that is not what this text says.
pub fn waited_of(schedstat: &str) -> Option<Duration> {
    schedstat.split_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

/// How much of each core a hypervisor has given to others until now.
fn stolen_of_each() -> Vec<Duration> {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.lines().filter_map(stolen).collect()
}

/// The eighth number of a core's line of `/proc/stat` (proc(5)).
fn stolen(line: &str) -> Option<Duration> {
    let (core, counts) = line.strip_prefix("cpu")?.split_once(' ')?;
    core.parse::<u32>().ok()?;
    Some(JIFFY * counts.split_whitespace().nth(7)?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        assert_eq!(name_and_parent("7 (napi/eth0-8193) I 2 0 0 0"), Some(("napi/eth0-8193".to_owned(), 2)));
        assert_eq!(name_and_parent("8 (a) b) S 17 8"), Some(("a) b".to_owned(), 17)));
        assert_eq!(waited_of("7802826 22212118 5\n"), Some(Duration::from_nanos(22_212_118)));
        assert_eq!(stolen("cpu2 158 86 21 113 1 0 26 91 0 0"), Some(Duration::from_millis(910)));
        assert_eq!(stolen("cpu  158 86 21 113 1 0 26 91 0 0"), None, "of all");
    }

    #[test]
    fn who_descends_from_whom_is_known_through_others() {
        let parents = [(1, 0), (2, 0), (5, 1), (7, 5), (9, 2)];
        let processes = parents.map(|(process, parent)| (process, (String::new(), parent))).into();
        assert!([1, 5, 7].iter().all(|process| descends(&processes, *process, 1)));
        assert!(![2, 9].iter().any(|process| descends(&processes, *process, 1)));
    }

    #[test]
    fn a_thread_that_waits_for_a_core_is_seen() {
        if std::fs::read_to_string("/proc/self/schedstat").is_err() {
            println!("skipped: this kernel counts no waits (CONFIG_SCHED_INFO)");
            return;
        }
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let busy = AtomicBool::new(true);
        thread::scope(|scope| {
            for _ in 0..4 * cores {
                scope.spawn(|| {
                    while busy.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let watch = Watch::start();
            thread::sleep(Duration::from_millis(300));
            let seen = watch.finish();
            busy.store(false, Ordering::Relaxed);
            // Each of four on a core waits for three turns of the others, of some milliseconds (sched(7)).
            assert!(seen.wait >= Duration::from_millis(3) && !seen.who.is_empty(), "{seen}");
        });
    }

    #[test]
    fn what_is_wrong_twice_without_a_disturbance_is_wrong() {
        let mut times = 0;
        let mut measure = |stall| {
            times = 0;
            let result = undisturbed(&Progress::new(None), stall, || {
                times += 1;
                Ok(Err::<(), _>("it is wrong".to_owned()))
            });
            (times, result.expect_err("it is wrong"))
        };
        let (times, error) = measure(Duration::MAX);
        assert!(
            times == UNEXPLAINED && error.to_string().contains("isn't the machine's"),
            "{times}: {error}"
        );
        let (times, error) = measure(Duration::ZERO);
        assert!(times == TRIES && error.is::<CannotRun>(), "{times}: {error}");
    }
}
