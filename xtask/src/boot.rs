//! `cargo xtask boot`: the appliance's image under QEMU, looked at as an operator would.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use lab::progress::Progress;
use lab::{Lab, appliance, command, wait};

use crate::{image, install, tools};

/// What one may ask of `cargo xtask boot`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write what was seen to appliance-image/records
    #[arg(long)]
    record: bool,
    /// Boot by UEFI (Debian's OVMF) rather than a BIOS
    #[arg(long)]
    uefi: bool,
    /// Leave the upgrades out: a third of the time
    #[arg(long)]
    quick: bool,
    /// Boot the image that was made last, as it is
    #[arg(long, conflicts_with = "tortie")]
    kept: bool,
    /// Put this binary into the image rather than the one built from these sources
    #[arg(long, value_name = "PATH")]
    tortie: Option<PathBuf>,
}

/// Where Debian's package `ovmf` puts its firmware.
const OVMF: &str = "/usr/share/ovmf/OVMF.fd";

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    wait::catch_signals()?;
    if install::install_for_boot()? == install::Installed::NotAll {
        bail!("the image can't be booted without these packages");
    }
    for program in appliance::PROGRAMS {
        ensure!(lab::scenario::installed(program), "`{program}` is not installed");
    }
    let tools = tools::build(arguments.tortie.as_deref())?;
    let begin = Instant::now();
    let progress = Progress::new(None);
    let image = match arguments.kept {
        true => image::kept()?,
        false => image::make(&tools.tortie, false, &progress)?,
    };
    let firmware = arguments.uefi.then(|| OVMF.into());
    let upgrades = if arguments.quick { None } else { Some(upgrades(&image, &progress)?) };
    let files = appliance::Files { disk: image.qcow2.clone(), firmware, upgrades };
    let lab = Lab::raise(&tools, progress.clone())?;
    let sights = appliance::tour(&lab, &files);
    drop(lab);
    for upgrade in files.upgrades.iter().flat_map(|upgrades| [&upgrades.good, &upgrades.never_ready]) {
        fs::remove_file(&upgrade.file)?;
    }
    let sights = sights?;
    if wait::interrupted() {
        bail!("interrupted");
    }
    let (good, bad) = sights.count();
    let total = begin.elapsed().as_secs_f64();
    let table = sights.table();
    let with = if arguments.kept { "" } else { " with the making of the image" };
    println!("\n{table}\n{good} passed, {bad} failed, in {total:.0} s{with}");
    if arguments.record {
        record(&image, arguments, &table, (good, bad), total)?;
    }
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Upgrades to try: the same under another name, and one whose router only sleeps.
fn upgrades(image: &image::Image, progress: &Progress) -> Result<appliance::Upgrades> {
    progress.step("packing two upgrades to try");
    let next = format!("{}.next", image.version);
    let good = image::variant(image, &next, |_| Ok(()))?;
    let never = format!("{}.never", image.version);
    let never_ready = image::variant(image, &never, |tree| {
        let write = |unit: &str, text: &str| {
            let folder = tree.join(format!("etc/systemd/system/{unit}.service.d"));
            fs::create_dir_all(&folder)?;
            fs::write(folder.join("test.conf"), text)
        };
        write("tortie", "[Service]\nExecStart=\nExecStart=/usr/bin/sleep infinity\n")?;
        // Nobody here has the patience that a real table of routes may need.
        write("appliance-health", "[Service]\nEnvironment=APPLIANCE_READY_WITHIN=20\n")?;
        Ok(())
    })?;
    Ok(appliance::Upgrades {
        good: appliance::Upgrade { file: good, version: next },
        never_ready: appliance::Upgrade { file: never_ready, version: never },
    })
}

/// What was seen, beside where and of what.
fn record(
    image: &image::Image,
    arguments: &Arguments,
    table: &str,
    (good, bad): (usize, usize),
    seconds: f64,
) -> Result<()> {
    let ask = |program: &str, arguments: &[&str]| -> Result<String> {
        let text = command::run(Command::new(program).args(arguments), command::SETTING)?;
        Ok(text.lines().next().unwrap_or_default().trim().to_owned())
    };
    let date = ask("date", &["-u", "+%Y-%m-%d"])?;
    let size = |file: &Path| -> Result<f64> { Ok(fs::metadata(file)?.len() as f64 / 1e6) };
    let (firmware, option, end) =
        if arguments.uefi { ("UEFI", " --uefi", "-uefi") } else { ("a BIOS", "", "") };
    let quick = if arguments.quick { " --quick" } else { "" };
    let text = format!(
        "# The appliance, booted by {firmware}: {date}\n\n\
         `cargo xtask boot --record{option}{quick}`, under QEMU's software emulation (`-accel tcg`), 2 virtual processors, 1,024 MiB.\n\
         Others used the machine meanwhile: times say little.\n\n\
         | | |\n| --- | --- |\n\
         | image | {} |\n| qcow2 | {:.1} MB |\n| upgrade | {:.1} MB |\n| QEMU | {} |\n| host | {}, {} cores |\n| result | {good} passed, {bad} failed, in {seconds:.0} s |\n\n\
         ```text\n{table}```\n",
        image.version,
        size(&image.qcow2)?,
        size(&image.upgrade)?,
        ask("qemu-system-x86_64", &["--version"])?,
        ask("uname", &["-sr"])?,
        ask("nproc", &[])?,
    );
    let folder = tools::workspace().join("appliance-image/records");
    fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{date}{end}.md"));
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    println!("recorded in {}", file.display());
    Ok(())
}
