//! `cargo xtask ci`: what .ci/run runs.

use std::process::ExitCode;

use anyhow::Result;

use crate::test;

pub(crate) fn run() -> Result<ExitCode> {
    test::run(&test::Arguments::default())
}
