//! `convert`: manifests of Calico's first API in their present form.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::files::{self, FileArgs, FileError};
use super::{Said, gojson, yaml};

/// What `convert` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConvertArgs {
    #[command(flatten)]
    files: FileArgs,
    /// The form to print
    #[arg(short, long, value_enum, default_value = "yaml")]
    output: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Yaml,
    Json,
}

/// `convert`.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn run(args: &ConvertArgs) -> anyhow::Result<ExitCode> {
    converted(args).finish()
}

pub(super) fn converted(args: &ConvertArgs) -> Said {
    let Some(filename) = &args.files.filename else { return Said::failed("no resources specified: give -f") };
    let objects = match files::read(&args.files, filename) {
        Ok(objects) => objects,
        Err(FileError::Invalid(error) | FileError::Empty(error)) => {
            return Said::failed(format!("failed to execute command: {error}"));
        }
    };
    let mut values: Vec<Value> = objects.iter().map(|object| object.value().clone()).collect();
    let whole = if values.len() == 1 { values.remove(0) } else { Value::Array(values) };
    Said::fine(match args.output {
        Form::Yaml => yaml::print(&whole),
        Form::Json => gojson::print(&whole) + "\n",
    })
}
