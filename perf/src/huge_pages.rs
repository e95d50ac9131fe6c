//! Huge pages for as long as a peer needs them.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

const COUNT: &str = "/proc/sys/vm/nr_hugepages";
/// Memory that is left to everybody else.
const SPARE_MEBIBYTES: usize = 4096;

/// Pages of 2 MiB that weren't there before. A process of its own gives as many back when this is dropped, and also when
/// this program is killed: that closes the pipe it waits on. It subtracts, since others may add and subtract meanwhile.
pub struct HugePages {
    mebibytes: usize,
    keeper: Child,
    pipe: Option<ChildStdin>,
}

impl HugePages {
    /// Has at least this many mebibytes of huge pages free.
    ///
    /// # Errors
    /// Where the kernel has none to give, this user may not ask, or memory would run short. Nothing is changed then.
    pub fn reserve(mebibytes: usize) -> Result<HugePages> {
        let (total, missing) = missing(mebibytes)?;
        fs::write(COUNT, (total + missing).to_string()).context("asking for huge pages needs root")?;
        let pages = HugePages::keep(mebibytes, missing, COUNT)?;
        pages.renew()?;
        Ok(pages)
    }

    /// Takes them again where somebody else gave them away meanwhile. To be called before a peer starts.
    ///
    /// # Errors
    /// Where there aren't enough any more.
    pub fn renew(&self) -> Result<()> {
        let (total, lost) = missing(self.mebibytes)?;
        if lost > 0 {
            fs::write(COUNT, (total + lost).to_string())?;
        }
        let (_, lost) = missing(self.mebibytes)?;
        ensure!(lost == 0, "the kernel doesn't find {} MiB of huge pages", self.mebibytes);
        Ok(())
    }

    /// Will subtract this many from the number in a file.
    fn keep(mebibytes: usize, count: usize, file: &str) -> Result<HugePages> {
        let script = r#"read -r _; left=$(($(cat "$1") - $0)); echo $((left > 0 ? left : 0)) > "$1""#;
        let mut keeper = Command::new("sh");
        keeper.args(["-c", script, &count.to_string(), file]).stdin(Stdio::piped());
        // In a group of its own: Ctrl-C is for us, and the keeper still has work to do then.
        keeper.process_group(0);
        let mut keeper = keeper.spawn().context("starting sh")?;
        let pipe = keeper.stdin.take();
        Ok(HugePages { mebibytes, keeper, pipe })
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // It has nothing to tell, and ends at once.
        let _ = self.keeper.wait();
    }
}

/// How many huge pages there are, and how many more it takes for this many mebibytes to be free.
fn missing(mebibytes: usize) -> Result<(usize, usize)> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    ensure!(field(&meminfo, "Hugepagesize") == Some(2048), "no huge pages of 2 MiB here");
    let numbers = ["HugePages_Total", "HugePages_Free", "MemAvailable"].map(|name| field(&meminfo, name));
    let [Some(total), Some(free), Some(available)] = numbers else { bail!("the kernel has no huge pages") };
    let missing = (mebibytes / 2).saturating_sub(free);
    let enough = missing == 0 || missing * 2 + SPARE_MEBIBYTES <= available / 1024;
    ensure!(enough, "{mebibytes} MiB of huge pages would leave too little memory");
    Ok((total, missing))
}

/// A number of /proc/meminfo.
fn field(meminfo: &str, name: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let meminfo = "HugePages_Total:    2048\nHugePages_Free:      587\nHugepagesize:       2048 kB\n";
        assert_eq!(field(meminfo, "HugePages_Free"), Some(587));
        assert_eq!(field(meminfo, "HugePages"), None);
    }

    #[test]
    fn as_many_pages_are_given_back_as_were_taken() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let path = file.path().to_str().expect("a plain path");
        for (now, after) in [("2048", "1948\n"), ("40", "0\n")] {
            fs::write(path, now).expect("a number");
            drop(HugePages::keep(200, 100, path).expect("sh is there"));
            assert_eq!(fs::read_to_string(path).expect("a number"), after);
        }
    }
}
