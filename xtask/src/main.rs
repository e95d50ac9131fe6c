//! Every chore as one command: `cargo xtask --help`.
//!
//! A file per command, and no cleverness.

mod bench;
mod boot;
mod ci;
mod deb;
mod demo;
mod fuzz;
mod image;
mod install;
mod interop;
mod lab;
mod lanes;
mod package_test;
mod sbom;
mod simulate;
mod tally;
mod test;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Every chore of the workspace as one command.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Build Tortie, raise three nodes and a ToR, and prove that BGP, routes and traffic work.
    ///
    /// Needs root. Installs the Debian packages it lacks, and says which. Everything it makes lives in network
    /// namespaces of its own and is removed at the end.
    Demo(demo::Arguments),
    /// Run everything that CI runs: format, lints, tests, fuzz targets for a short while, lab scenarios.
    ///
    /// Installs the Debian packages it lacks, when run as root; otherwise what needs root is skipped.
    /// Ends with a line `N passed, N failed`, and `, N skipped` where something could not run here.
    Test(test::Arguments),
    /// Run lab scenarios by name, or all of them.
    Lab(lab::Arguments),
    /// Let thousands of BGP speakers find each other in virtual time; restart a third of them, cut links.
    ///
    /// Fails where a packet loops, is lost for longer than it may be, or a table isn't what it must be.
    Simulate(simulate::Arguments),
    /// Hold sessions with the BGP daemons of others, and print what each exchanged with ours.
    ///
    /// Needs root and debootstrap: each daemon runs from a small Debian below target/interop, made once.
    Interop(interop::Arguments),
    /// Run one fuzz target, or all, for a while.
    Fuzz(fuzz::Arguments),
    /// Measure how fast Tortie is: look-ups, table changes, the walk in memory; in minutes, without root.
    ///
    /// With --peers: beside DPDK, Linux, and VPP where an installed one is named, on the same work and core.
    Bench(bench::Arguments),
    /// Make the Debian package for nodes: target/deb/tortie_VERSION_ARCHITECTURE.deb.
    Deb(deb::Arguments),
    /// Install that package on a clean Debian, run, kill and upgrade it under traffic, purge it; some minutes.
    ///
    /// Needs root and debootstrap: the Debian is made once below target/package, and boots with systemd in namespaces.
    PackageTest(package_test::Arguments),
    /// Make the appliance: a disk image from Debian's packages and this tree, for QEMU and other hypervisors.
    ///
    /// Needs root. Everything is made below target/appliance; Debian's packages are fetched once.
    Image(image::Arguments),
    /// Boot the appliance's image under QEMU's software emulation, and hold it to what an operator expects of it.
    ///
    /// Needs root, and no KVM. It makes the image first. BIRD, traffic and the machine's taps live in namespaces that are
    /// removed at the end.
    Boot(boot::Arguments),
    /// Print what is in the program, as a bill of materials (CycloneDX).
    Sbom(sbom::Arguments),
    /// What .ci/run runs: `cargo xtask test` with everything in it.
    Ci,
}

fn main() -> ExitCode {
    let ended = match Arguments::parse().chore {
        Chore::Demo(arguments) => demo::run(&arguments),
        Chore::Test(arguments) => test::run(&arguments),
        Chore::Lab(arguments) => lab::run(&arguments),
        Chore::Simulate(arguments) => simulate::run(&arguments),
        Chore::Interop(arguments) => interop::run(&arguments),
        Chore::Fuzz(arguments) => fuzz::run(&arguments),
        Chore::Bench(arguments) => bench::run(&arguments),
        Chore::Deb(arguments) => deb::run(&arguments),
        Chore::PackageTest(arguments) => package_test::run(&arguments),
        Chore::Image(arguments) => image::run(&arguments),
        Chore::Boot(arguments) => boot::run(&arguments),
        Chore::Sbom(arguments) => sbom::run(&arguments),
        Chore::Ci => ci::run(),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
