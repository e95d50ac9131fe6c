//! What the kernel's settings were before the router's first start, so that `tortie cleanup` gives them back.
//!
//! They are written down beside the control socket, in a directory that a restart of the machine empties as it resets the
//! settings. A record that is there stays: it was written before the router changed anything, and outlives the process.

use std::fs;
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::sysctl::{self, SysctlError};

/// The record of former settings.
#[derive(Clone, Debug)]
pub struct FormerSettings {
    record: PathBuf,
}

impl FormerSettings {
    /// The record in this file, which needn't be there.
    pub fn recorded_at(record: PathBuf) -> FormerSettings {
        FormerSettings { record }
    }

    /// Writes down what these settings are, unless something is written down already. Where that can't be, the log says
    /// so, and nothing will be given back.
    pub fn note(&self, settings: &[PathBuf]) {
        if self.record.exists() {
            return;
        }
        let lines =
            settings.iter().filter_map(|path| Some(format!("{} {}\n", path.display(), sysctl::read(path)?)));
        self.write(&lines.collect::<String>());
    }

    /// Writes down what a setting is that is about to be changed, beside what is written down already; what that says of it
    /// stays.
    pub(crate) fn note_also(&self, setting: &Path) {
        let noted = fs::read_to_string(&self.record).unwrap_or_default();
        let is_of_it = |line: &str| line.split_once(' ').is_some_and(|(path, _)| Path::new(path) == setting);
        if let Some(value) = sysctl::read(setting).filter(|_| !noted.lines().any(is_of_it)) {
            self.write(&format!("{noted}{} {value}\n", setting.display()));
        }
    }

    /// Gives them back and forgets them. Settings of interfaces that went are left out.
    ///
    /// # Errors
    /// The kernel refuses a value.
    pub fn restore(&self) -> Result<(), SysctlError> {
        let text = fs::read_to_string(&self.record).unwrap_or_default();
        for (path, value) in text.lines().filter_map(|line| line.split_once(' ')) {
            let path = Path::new(path);
            if sysctl::read(path).is_some_and(|now| now != value) {
                sysctl::write(path.to_owned(), value.to_owned())?;
            }
        }
        // It may never have been there.
        let _ = fs::remove_file(&self.record);
        Ok(())
    }

    fn write(&self, lines: &str) {
        let directory = self.record.parent().map_or(Ok(()), fs::create_dir_all);
        if let Err(error) = directory.and_then(|()| fs::write(&self.record, lines)) {
            warn!(file = %self.record.display(), "{error}: `tortie cleanup` won't give back the kernel's former settings");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::in_namespace;

    #[test]
    fn forwarding_is_given_back_as_it_was_before_the_first_of_several_starts() {
        in_namespace(|| {
            let folder = tempfile::tempdir().unwrap();
            let former = FormerSettings::recorded_at(folder.path().join("run/tortie.former-settings"));
            let forwards = || sysctl::read(Path::new("/proc/sys/net/ipv4/ip_forward")).unwrap();
            fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
            for _ in 0..2 {
                former.note(&sysctl::forwarding_settings([]));
                sysctl::enable_forwarding([]).unwrap();
            }
            assert_eq!(forwards(), "1");
            former.restore().unwrap();
            assert_eq!(forwards(), "0");
            sysctl::enable_forwarding([]).unwrap();
            former.restore().unwrap();
            assert_eq!(forwards(), "1", "what is restored is forgotten");
        });
    }

    #[test]
    fn a_setting_that_is_changed_later_is_given_back_as_it_was_before_that() {
        in_namespace(|| {
            let folder = tempfile::tempdir().unwrap();
            let former = FormerSettings::recorded_at(folder.path().join("run/tortie.former-settings"));
            let [forwards, redirects] = ["ip_forward", "conf/all/send_redirects"]
                .map(|name| Path::new("/proc/sys/net/ipv4").join(name));
            fs::write(&forwards, "0").unwrap();
            former.note(std::slice::from_ref(&forwards));
            // Somebody else's doing, after our start.
            fs::write(&redirects, "0").unwrap();
            for value in ["1", "0", "1"] {
                former.note_also(&redirects);
                former.note_also(&forwards);
                fs::write(&redirects, value).unwrap();
                fs::write(&forwards, value).unwrap();
            }
            former.restore().unwrap();
            assert_eq!([forwards, redirects].map(|path| sysctl::read(&path).unwrap()), ["0", "0"]);
        });
    }
}
