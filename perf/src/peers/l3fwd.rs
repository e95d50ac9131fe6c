//! DPDK's l3fwd, built from Debian's source package: no package ships the program.
//!
//! The source is fetched, checked and unpacked by apt and dpkg, and thrown away once the program is built. Its
//! tables hold 1024 (LPM) or 65,536 (FIB) routes and its pool 8192 packets as it comes; both are made large enough for
//! the internet and for 65,536 flows, and the checksum offload that net_pcap lacks is no longer asked for. The code that
//! forwards is untouched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::dpdk;

/// A file of l3fwd, what a line contains that is to be changed, and what stands there instead.
struct Change {
    file: &'static str,
    from: &'static str,
    to: &'static str,
    /// Whether the rest of the line goes too: it is another number in every version.
    whole_line: bool,
}

const fn line(file: &'static str, from: &'static str, to: &'static str) -> Change {
    Change { file, from, to, whole_line: true }
}

const CHANGES: [Change; 8] = [
    Change { file: "main.c", from: "8192)", to: "262144)", whole_line: false },
    Change { file: "main.c", from: "RTE_ETH_RX_OFFLOAD_CHECKSUM", to: "0", whole_line: false },
    line("l3fwd_lpm.c", "#define IPV4_L3FWD_LPM_MAX_RULES", "#define IPV4_L3FWD_LPM_MAX_RULES (1 << 20)"),
    line(
        "l3fwd_lpm.c",
        "#define IPV4_L3FWD_LPM_NUMBER_TBL8S",
        "#define IPV4_L3FWD_LPM_NUMBER_TBL8S (1 << 15)",
    ),
    line("l3fwd_lpm.c", "#define IPV6_L3FWD_LPM_MAX_RULES", "#define IPV6_L3FWD_LPM_MAX_RULES (1 << 18)"),
    line(
        "l3fwd_lpm.c",
        "#define IPV6_L3FWD_LPM_NUMBER_TBL8S",
        "#define IPV6_L3FWD_LPM_NUMBER_TBL8S (1 << 18)",
    ),
    line("l3fwd_fib.c", ".max_routes =", ".max_routes = 1 << 20;"),
    line("l3fwd_fib.c", "config.trie.num_tbl8 =", "config.trie.num_tbl8 = 1 << 18;"),
];

/// Fetches, changes and builds it, unless that was done before; says where the program is.
///
/// # Errors
/// Where DPDK isn't installed, this isn't Debian, or its source has changed so that [`CHANGES`] don't fit.
pub(super) fn build() -> Result<PathBuf> {
    dpdk::check()?;
    let version =
        dpdk::output(Command::new("dpkg-query").args(["-W", "-f", "${source:Version}", "libdpdk-dev"]))
            .context("only Debian's l3fwd can be built")?;
    let folder = dpdk::cache()?;
    let program = folder.join(format!("l3fwd-{version}"));
    if program.exists() {
        return Ok(program);
    }
    println!("building l3fwd of DPDK {version} from Debian's source package");
    let scratch = dpdk::scratch()?;
    let source = source(scratch.path(), &version)?.join("examples");
    for change in &CHANGES {
        let path = source.join("l3fwd").join(change.file);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        fs::write(&path, change.apply(&text)?)?;
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(source.join("l3fwd"))? {
        let path = entry?.path();
        // l3fwd_lpm.c and l3fwd_em.c include theirs.
        let included = path.file_stem().is_some_and(|name| name.to_string_lossy().ends_with("_route_parse"));
        if path.extension().is_some_and(|extension| extension == "c") && !included {
            files.push(path);
        }
    }
    files.sort();
    let unfinished = scratch.path().join("l3fwd");
    dpdk::compile(&files, &["-I", &source.join("common").display().to_string()], &unfinished)?;
    fs::rename(&unfinished, &program)?;
    Ok(program)
}

impl Change {
    fn apply(&self, text: &str) -> Result<String> {
        ensure!(text.contains(self.from), "{} of this DPDK has no {:?}", self.file, self.from);
        if !self.whole_line {
            return Ok(text.replace(self.from, self.to));
        }
        let lines = text.lines().map(|line| match line.find(self.from) {
            Some(at) => format!("{}{}\n", &line[..at], self.to),
            None => format!("{line}\n"),
        });
        Ok(lines.collect())
    }
}

/// The unpacked source package.
fn source(folder: &Path, version: &str) -> Result<PathBuf> {
    let release = fs::read_to_string("/etc/os-release")?;
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let codename = codename.context("/etc/os-release names no release")?.trim_matches('"');
    let apt = folder.join("apt");
    for folder in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(folder))?;
    }
    let list = apt.join("sources.list");
    let key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
    let debian = "http://deb.debian.org";
    let suites = [
        format!("deb-src {key} {debian}/debian {codename} main\n"),
        format!("deb-src {key} {debian}/debian {codename}-updates main\n"),
        format!("deb-src {key} {debian}/debian-security {codename}-security main\n"),
    ];
    fs::write(&list, suites.concat())?;
    // The system's own lists stay as they are.
    let options = [
        format!("Dir::Etc::sourcelist={}", list.display()),
        format!("Dir::Etc::sourceparts={}", apt.join("none").display()),
        format!("Dir::State::Lists={}", apt.join("lists").display()),
        format!("Dir::Cache={}", apt.join("cache").display()),
        // Only root can become apt's own user, which then can't write here.
        "APT::Sandbox::User=root".to_owned(),
    ];
    let apt_get = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .current_dir(folder)
            .args(options.iter().flat_map(|option| ["-o", option]))
            .arg("-q")
            .args(arguments);
        dpdk::output(&mut command)
    };
    apt_get(&["update"])?;
    apt_get(&["source", "--download-only", &format!("dpdk={version}")])?;
    let unpacked = folder.join("dpdk");
    // Version numbers of files have no epoch.
    let file_version = version.split_once(':').map_or(version, |(_, rest)| rest);
    let description = folder.join(format!("dpdk_{file_version}.dsc"));
    let mut unpack = Command::new("dpkg-source");
    unpack.args(["--no-check", "-x"]).arg(&description).arg(&unpacked);
    dpdk::output(&mut unpack)?;
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_replaced_up_to_the_end_of_its_line() {
        let change = line("f.c", ".max_routes =", ".max_routes = 1 << 20;");
        let text = "\tconfig_ipv4.max_routes = (1 << 16);\n\tother = 1;\n\tconfig.max_routes = 9;\n";
        let changed = change.apply(text).expect("it is there");
        assert_eq!(
            changed,
            "\tconfig_ipv4.max_routes = 1 << 20;\n\tother = 1;\n\tconfig.max_routes = 1 << 20;\n"
        );
    }

    #[test]
    fn a_source_that_a_change_does_not_fit_is_refused() {
        let change = Change { file: "f.c", from: "8192)", to: "262144)", whole_line: false };
        assert_eq!(change.apply("(unsigned)8192)\n").expect("it is there"), "(unsigned)262144)\n");
        assert!(change.apply("(unsigned)4096)\n").is_err());
    }
}
