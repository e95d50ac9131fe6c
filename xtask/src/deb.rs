//! `cargo xtask deb`: the Debian package, from `packaging/debian` and a release build.
//!
//! The package is a function of the tree: times are the last commit's (or `SOURCE_DATE_EPOCH`), owners are root, and
//! `dpkg-deb` sorts. Of the compiler and of cargo's registry folder the binary depends, too.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::{install, sbom, tools};

/// What one may ask of `cargo xtask deb`.
#[derive(clap::Args, Default)]
pub(crate) struct Arguments {
    /// Pack this binary rather than one built from these sources.
    #[arg(long, value_name = "PATH")]
    tortie: Option<PathBuf>,
    /// The package's version, where it isn't the workspace's: tests of upgrades need two.
    #[arg(long)]
    version: Option<String>,
    /// Where the package goes.
    #[arg(long, value_name = "DIRECTORY", default_value = "target/deb")]
    output: PathBuf,
}

/// Files of `packaging/debian` and of the tree, where they go, and their modes.
const FILES: &[(&str, &str, u32)] = &[
    ("packaging/debian/tortie.service", "usr/lib/systemd/system/tortie.service", 0o644),
    ("packaging/debian/tortie.default", "etc/default/tortie", 0o644),
    ("packaging/debian/sysctl.conf", "usr/lib/sysctl.d/90-tortie.conf", 0o644),
    ("packaging/debian/network", "usr/lib/systemd/network/10-tortie.network", 0o644),
    ("packaging/debian/link", "usr/lib/systemd/network/10-tortie.link", 0o644),
    ("packaging/debian/networkmanager.conf", "usr/lib/NetworkManager/conf.d/tortie.conf", 0o644),
    ("packaging/debian/tortie.yaml", "usr/share/doc/tortie/examples/tortie.yaml", 0o644),
    ("packaging/debian/copyright", "usr/share/doc/tortie/copyright", 0o644),
    ("monitoring/README.md", "usr/share/tortie/monitoring/README.md", 0o644),
    ("monitoring/alerts.yaml", "usr/share/tortie/monitoring/alerts.yaml", 0o644),
    ("monitoring/alerts.test.yaml", "usr/share/tortie/monitoring/alerts.test.yaml", 0o644),
    ("monitoring/grafana.json", "usr/share/tortie/monitoring/grafana.json", 0o644),
    ("monitoring/prometheus.yaml", "usr/share/tortie/monitoring/prometheus.yaml", 0o644),
    ("OPERATING.md", "usr/share/doc/tortie/OPERATING.md", 0o644),
    ("CHANGELOG.md", "usr/share/doc/tortie/NEWS.md", 0o644),
    ("packaging/debian/postinst", "DEBIAN/postinst", 0o755),
    ("packaging/debian/prerm", "DEBIAN/prerm", 0o755),
    ("packaging/debian/postrm", "DEBIAN/postrm", 0o755),
];
/// Folders without files.
const FOLDERS: &[&str] = &["etc/tortie/resources"];
const CONFFILES: &str = "/etc/default/tortie\n";
/// What is in the program.
const BILL: &str = "usr/share/tortie/sbom.cdx.json";
/// Where each shell looks for completions.
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "usr/share/bash-completion/completions/tortie"),
    ("zsh", "usr/share/zsh/vendor-completions/_tortie"),
    ("fish", "usr/share/fish/vendor_completions.d/tortie.fish"),
];

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    install::install_for_packages()?;
    let tortie = match &arguments.tortie {
        Some(tortie) => tortie.canonicalize().with_context(|| format!("no {}", tortie.display()))?,
        None => tools::build_tortie()?,
    };
    let package = make(&tortie, arguments.version.as_deref(), &tools::workspace().join(&arguments.output))?;
    println!("{}", package.display());
    Ok(ExitCode::SUCCESS)
}

/// Packs a binary, and gives the package's path.
///
/// # Errors
/// A tool of Debian's is missing or refuses, or the folder can't be written.
pub(crate) fn make(tortie: &Path, version: Option<&str>, output: &Path) -> Result<PathBuf> {
    let version = version.map_or_else(workspace_version, |version| Ok(version.to_owned()))?;
    ensure!(
        is_version(&version),
        "{version:?} is no version of Debian's: digits first, then letters, digits and . + ~ -"
    );
    let architecture = said(Command::new("dpkg").arg("--print-architecture"))?;
    let time = source_time()?;
    let name = format!("tortie_{version}_{architecture}");
    let stage = output.join(&name);
    if stage.exists() {
        fs::remove_dir_all(&stage)?;
    }
    for folder in FOLDERS {
        fs::create_dir_all(stage.join(folder))?;
    }
    for (from, to, mode) in FILES {
        place(
            &stage,
            to,
            &fs::read(tools::workspace().join(from)).with_context(|| format!("no {from}"))?,
            *mode,
        )?;
    }
    place(&stage, BILL, sbom::text(target(&architecture)?)?.as_bytes(), 0o644)?;
    binary(&stage, tortie)?;
    documents(&stage, &version, time)?;
    fields(&stage, &version, &architecture)?;
    settle(&stage, time)?;
    let package = output.join(format!("{name}.deb"));
    let mut pack = Command::new("dpkg-deb");
    pack.args(["--root-owner-group", "-Zxz", "--build"]).arg(&stage).arg(&package);
    pack.env("SOURCE_DATE_EPOCH", time.to_string()).env("LC_ALL", "C");
    said(&mut pack)?;
    fs::remove_dir_all(&stage)?;
    Ok(package)
}

/// What rustc calls an architecture of Debian's.
fn target(architecture: &str) -> Result<&'static str> {
    match architecture {
        "amd64" => Ok("x86_64-unknown-linux-gnu"),
        "arm64" => Ok("aarch64-unknown-linux-gnu"),
        other => bail!("no bill of materials for {other}: name its target here"),
    }
}

/// The program, without what only a debugger reads, and its other name.
fn binary(stage: &Path, tortie: &Path) -> Result<()> {
    let placed = stage.join("usr/bin/tortie");
    fs::create_dir_all(stage.join("usr/bin"))?;
    let mut strip = Command::new("strip");
    strip.args(["--strip-unneeded", "--remove-section=.comment", "--remove-section=.note", "-o"]);
    said(strip.arg(&placed).arg(tortie))?;
    fs::set_permissions(&placed, fs::Permissions::from_mode(0o755))?;
    symlink("tortie", stage.join("usr/bin/calicoctl"))?;
    Ok(())
}

/// Manual pages and completions, which the program itself writes; the changelog in Debian's form; the larger ones
/// compressed, as Debian has them.
fn documents(stage: &Path, version: &str, time: u64) -> Result<()> {
    // The staged one: it says what users will have.
    let tortie = stage.join("usr/bin/tortie");
    let pages = stage.join("usr/share/man/man1");
    fs::create_dir_all(&pages)?;
    said(Command::new(&tortie).arg("man").arg(&pages))?;
    symlink("tortie.1.gz", pages.join("calicoctl.1.gz"))?;
    for (shell, path) in COMPLETIONS {
        let script = output(Command::new(&tortie).args(["completion", shell]))?;
        place(stage, path, &script, 0o644)?;
    }
    let date =
        said(Command::new("date").args(["--utc", "-R", "-d", &format!("@{time}")]).env("LC_ALL", "C"))?;
    let maintainer = field_of(&template()?, "Maintainer")?;
    let changes = format!(
        "tortie ({version}) unstable; urgency=medium\n\n  * See NEWS.md.gz beside this file.\n\n -- {maintainer}  {date}\n"
    );
    place(stage, "usr/share/doc/tortie/changelog", changes.as_bytes(), 0o644)?;
    let documents =
        ["OPERATING.md", "NEWS.md", "changelog"].map(|name| stage.join("usr/share/doc/tortie").join(name));
    let pages = fs::read_dir(&pages)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let pages = pages.into_iter().filter(|page| page.extension().is_some_and(|end| end == "1"));
    said(Command::new("gzip").arg("-9n").args(documents).args(pages))?;
    Ok(())
}

/// `DEBIAN/control`, `conffiles` and `md5sums`.
fn fields(stage: &Path, version: &str, architecture: &str) -> Result<()> {
    let files = files_of(stage)?;
    let bytes: u64 = files.iter().map(|file| fs::symlink_metadata(file).map_or(0, |file| file.len())).sum();
    let kibibytes = bytes.div_ceil(1024);
    let libraries = libraries(stage)?;
    let control = template()?.replacen("Depends: ", &format!("Depends: {libraries}, "), 1).replacen(
        "Section:",
        &format!("Version: {version}\nArchitecture: {architecture}\nInstalled-Size: {kibibytes}\nSection:"),
        1,
    );
    place(stage, "DEBIAN/control", control.as_bytes(), 0o644)?;
    place(stage, "DEBIAN/conffiles", CONFFILES.as_bytes(), 0o644)?;
    let mut sums = Command::new("md5sum");
    sums.current_dir(stage);
    for file in files.iter().filter(|file| !file.is_symlink()) {
        let relative = file.strip_prefix(stage)?;
        if !CONFFILES.contains(&relative.display().to_string()) {
            sums.arg(relative);
        }
    }
    place(stage, "DEBIAN/md5sums", &output(&mut sums)?, 0o644)
}

/// The shared libraries that the binary needs, in versions that are new enough, as `Depends:` has them.
fn libraries(stage: &Path) -> Result<String> {
    // It wants a source package around it.
    let source = stage.with_extension("source");
    place(&source, "debian/control", b"Source: tortie\n\nPackage: tortie\nArchitecture: any\n", 0o644)?;
    let mut ask = Command::new("dpkg-shlibdeps");
    ask.current_dir(&source).arg("-O").arg(stage.join("usr/bin/tortie"));
    let answer = said(&mut ask);
    fs::remove_dir_all(&source)?;
    let answer = answer?;
    let found = answer.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
    found.map(str::to_owned).with_context(|| format!("dpkg-shlibdeps said {answer:?}"))
}

/// One time and no surprises of the umask for all.
fn settle(stage: &Path, time: u64) -> Result<()> {
    let mut modes = Command::new("chmod");
    said(modes.args(["-R", "u=rwX,go=rX"]).arg(stage))?;
    let mut touch = Command::new("find");
    touch.arg(stage).args(["-exec", "touch", "--no-dereference", "-d", &format!("@{time}"), "{}", "+"]);
    said(&mut touch)?;
    Ok(())
}

/// All files and links but the package's own fields, sorted.
fn files_of(stage: &Path) -> Result<Vec<PathBuf>> {
    let mut find = Command::new("find");
    find.arg(stage)
        .args(["-path", "*/DEBIAN", "-prune", "-o", "(", "-type", "f", "-o", "-type", "l", ")", "-print"]);
    let mut files: Vec<PathBuf> = said(&mut find)?.lines().map(PathBuf::from).collect();
    files.sort();
    Ok(files)
}

fn place(stage: &Path, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let path = stage.join(path);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&path, bytes).with_context(|| format!("can't write {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    Ok(())
}

fn template() -> Result<String> {
    Ok(fs::read_to_string(tools::workspace().join("packaging/debian/control"))?)
}

/// The value of a field of a control file.
fn field_of(control: &str, field: &str) -> Result<String> {
    let found = control.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(": "));
    found.map(str::to_owned).with_context(|| format!("packaging/debian/control has no {field}"))
}

/// The version of all of the workspace.
///
/// # Errors
/// Cargo.toml doesn't say.
pub(crate) fn workspace_version() -> Result<String> {
    let manifest = fs::read_to_string(tools::workspace().join("Cargo.toml"))?;
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    version.map(str::to_owned).context("Cargo.toml has no version of the workspace")
}

/// What may be a file's name and an upstream version with a revision (deb-version(7)); without an epoch.
fn is_version(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b".+~-".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_digit()) && text.bytes().all(good)
}

/// Seconds since 1970 that everything in the package is dated with (reproducible-builds.org, SOURCE_DATE_EPOCH).
fn source_time() -> Result<u64> {
    if let Ok(text) = std::env::var("SOURCE_DATE_EPOCH") {
        return text
            .parse()
            .with_context(|| format!("SOURCE_DATE_EPOCH is {text:?}, and wants to be seconds"));
    }
    let mut git = Command::new("git");
    let time = said(git.current_dir(tools::workspace()).args(["log", "-1", "--format=%ct"]));
    // Outside a repository there is no time that the tree alone would tell.
    Ok(time.ok().and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// What a command prints, without the white space around it.
fn said(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&output(command)?).trim().to_owned())
}

fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_debians_and_safe_as_file_names() {
        assert!(is_version(&workspace_version().expect("Cargo.toml has one")));
        assert!(is_version("0.1.0+next1~rc-2"));
        for bad in ["", "v1", "1/../2", "1 2", "1:2"] {
            assert!(!is_version(bad), "{bad}");
        }
    }

    #[test]
    fn the_template_has_the_fields_that_are_filled_in() {
        let control = template().expect("it is in the tree");
        assert!(field_of(&control, "Maintainer").is_ok());
        assert_eq!(control.matches("Depends: ").count(), 1, "the libraries go before the first one");
        assert_eq!(control.matches("Section:").count(), 1);
    }

    #[test]
    fn every_file_of_the_package_is_in_the_tree() {
        for (from, _, _) in FILES {
            assert!(tools::workspace().join(from).is_file(), "{from}");
        }
    }

    /// The binary is a stand-in: what is asked is whether packing adds something of the moment or of the machine.
    #[test]
    fn packing_twice_gives_the_same_bits() {
        for program in ["dpkg-deb", "dpkg-shlibdeps", "strip", "gzip", "md5sum"] {
            if !::lab::scenario::installed(program) {
                println!("skipped: no {program} here");
                return;
            }
        }
        let folder = std::env::temp_dir().join(format!("tortie-deb-{}", std::process::id()));
        let packed = ["a", "b"].map(|name| {
            let output = folder.join(name);
            let package = make(Path::new("/bin/true"), Some("1.0"), &output).expect("it is packed");
            fs::read(package).expect("it is there")
        });
        fs::remove_dir_all(&folder).expect("it was made");
        assert!(packed[0] == packed[1], "two packages of one tree differ");
    }
}
