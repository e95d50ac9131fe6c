//! Waiting: always with a deadline, always interruptible, always saying what for.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use signal_hook::consts::{SIGINT, SIGTERM};

/// How often a condition is looked at.
const TICK: Duration = Duration::from_millis(100);

/// Raised by SIGINT and SIGTERM.
static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on SIGINT and SIGTERM make every wait return an error, so that labs are cleaned up on the way out.
/// A second signal ends the process at once, as it would have without this.
///
/// # Errors
/// The signal handlers cannot be registered.
pub fn catch_signals() -> Result<()> {
    let flag = INTERRUPTED.get_or_init(|| Arc::new(AtomicBool::new(false)));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag down and only raises it.
        signal_hook::flag::register_conditional_default(signal, flag.clone())?;
        signal_hook::flag::register(signal, flag.clone())?;
    }
    Ok(())
}

/// Whether a signal has asked us to stop.
pub fn interrupted() -> bool {
    INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// Looks ten times a second until `look` finds something.
///
/// `look` returns `Ok(None)` or an error while it is too early; the last error is told when time runs out.
///
/// # Errors
/// Nothing was found within `limit`, or a signal came.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if interrupted() {
            bail!("interrupted while waiting for {what}");
        }
        let last = match look() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() >= deadline {
            let gave_up = format!("gave up after {} s waiting for {what}", limit.as_secs_f32());
            return Err(last.map_or_else(|| anyhow!(gave_up.clone()), |error| error.context(gave_up.clone())));
        }
        thread::sleep(TICK);
    }
}

/// [`until`] for a plain condition.
///
/// # Errors
/// As [`until`].
pub fn until_true(what: &str, limit: Duration, mut look: impl FnMut() -> Result<bool>) -> Result<()> {
    until(what, limit, || Ok(look()?.then_some(())))
}

/// Lets `time` pass, unless a signal comes.
///
/// # Errors
/// A signal came.
pub fn pass(time: Duration) -> Result<()> {
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        if interrupted() {
            bail!("interrupted");
        }
        thread::sleep(TICK.min(deadline.saturating_duration_since(Instant::now())));
    }
    Ok(())
}

/// Reads a file that may not be there yet.
///
/// # Errors
/// The file cannot be read.
pub fn read(path: &std::path::Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_in_time_is_returned() {
        let mut looks = 0;
        let found = until("the third look", Duration::from_secs(60), || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(found.expect("it came"), 3);
    }

    #[test]
    fn giving_up_tells_what_was_awaited_and_the_last_error() {
        let error = until_true("rain", Duration::from_millis(10), || bail!("the sky is clear"));
        let error = format!("{:#}", error.expect_err("it never came"));
        assert!(error.contains("waiting for rain") && error.contains("the sky is clear"), "{error}");
    }
}
