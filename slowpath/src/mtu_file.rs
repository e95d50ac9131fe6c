//! The MTU that new workloads are to have, in a file for Calico's CNI plugin, which reads it when a workload is born and its own
//! configuration names none (`/var/lib/calico/mtu`; `writeMTUFile` in `felix/dataplane/linux/int_dataplane.go`).

use std::fs;
use std::io;
use std::path::PathBuf;

use tracing::{info, warn};

/// The file, and what became of it.
#[derive(Debug)]
pub struct MtuFile {
    path: PathBuf,
    written: Option<u32>,
    problem: Option<String>,
}

impl MtuFile {
    /// The file at this path, which isn't touched yet.
    pub fn at(path: PathBuf) -> MtuFile {
        MtuFile { path, written: None, problem: None }
    }

    /// Writes the MTU where it is another one than before. A file that can't be written is warned of, and tried again the next
    /// time: nothing else depends on it.
    pub fn tell(&mut self, mtu: u32) {
        if self.written == Some(mtu) {
            return;
        }
        match self.write(mtu) {
            Ok(()) => {
                info!(mtu, file = %self.path.display(), "told the CNI plugin the MTU of new workloads");
                self.written = Some(mtu);
                self.problem = None;
            }
            Err(error) => {
                let problem = error.to_string();
                if self.problem.as_ref() != Some(&problem) {
                    warn!(file = %self.path.display(), "can't tell the CNI plugin the workloads' MTU: {problem}");
                }
                self.problem = Some(problem);
            }
        }
    }

    /// In one step: whoever reads meanwhile has the number before or this one. Felix writes no newline either.
    fn write(&self, mtu: u32) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut new = self.path.clone().into_os_string();
        new.push(".new");
        fs::write(&new, mtu.to_string())?;
        fs::rename(&new, &self.path).inspect_err(|_| drop(fs::remove_file(&new)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_the_number_alone_and_follows_it() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("calico/mtu");
        let mut file = MtuFile::at(path.clone());
        for mtu in [1450, 1450, 1500] {
            file.tell(mtu);
            assert_eq!(fs::read_to_string(&path).unwrap(), mtu.to_string());
        }
        let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().flatten().collect();
        assert_eq!(names.len(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_others_put_in_its_place_stays_until_the_mtu_changes() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("mtu");
        let mut file = MtuFile::at(path.clone());
        file.tell(1450);
        fs::write(&path, "1400").unwrap();
        file.tell(1450);
        assert_eq!(fs::read_to_string(&path).unwrap(), "1400");
        file.tell(1430);
        assert_eq!(fs::read_to_string(&path).unwrap(), "1430");
    }

    #[test]
    fn a_directory_that_cannot_be_is_no_failure_and_is_tried_again() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("calico");
        fs::write(&directory, "in the way").unwrap();
        let mut file = MtuFile::at(directory.join("mtu"));
        file.tell(1450);
        assert!(file.problem.is_some() && file.written.is_none());
        fs::remove_file(&directory).unwrap();
        file.tell(1450);
        assert_eq!(fs::read_to_string(directory.join("mtu")).unwrap(), "1450");
        assert!(file.problem.is_none());
    }
}
