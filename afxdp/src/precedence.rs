//! Coming before other threads, which no safe crate offers: for one that answers within milliseconds, does little, and is taken
//! for dead where it is late.
//!
//! It is here because this is the room of unsafe code; it has nothing else to do with AF_XDP.

use std::io;

use crate::syscall::schedule_first;

/// The lowest that comes before every ordinary thread; one that the kernel itself has on a core still comes first.
const PRIORITY: i32 = 1;

/// The calling thread comes before every thread without a real-time priority, and so is bounded by the kernel alone
/// (sched(7), "Limiting the CPU usage of real-time and deadline processes"). What it starts doesn't.
///
/// # Errors
/// `PermissionDenied` without CAP_SYS_NICE and where RLIMIT_RTPRIO is 0.
pub fn come_first() -> io::Result<()> {
    schedule_first(PRIORITY)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field 41 of proc_pid_stat(5): the calling thread's scheduling policy.
    fn policy() -> String {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        // The second field is a name in brackets, which may hold spaces.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(41 - 3).unwrap().to_owned()
    }

    #[test]
    fn who_comes_first_does_so_alone() {
        const ORDINARY: &str = "0";
        const FIFO: &str = "1";
        let outcome = std::thread::spawn(|| {
            come_first()?;
            assert_eq!(policy(), FIFO);
            assert_eq!(std::thread::spawn(policy).join().unwrap(), ORDINARY);
            Ok::<(), io::Error>(())
        });
        if let Err(error) = outcome.join().unwrap() {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            println!("skipped: {error}");
        }
        assert_eq!(policy(), ORDINARY);
    }
}
