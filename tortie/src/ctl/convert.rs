//! `convert`: manifests of Calico's first API, and Kubernetes' own network policies, in their present form
//! (`calicoctl/calicoctl/commands/convert.go`).

use std::process::ExitCode;

use clap::Args;
use datastore::{ApiObject, ConvertError, check_object, convert_objects};
use serde_json::json;

use super::files::{self, FileArgs, FileError};
use super::{Said, gojson, yaml};

/// What `convert` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConvertArgs {
    #[command(flatten)]
    files: FileArgs,
    /// The form to print: yaml or json
    #[arg(short, long, value_name = "FORMAT", default_value = "yaml")]
    output: String,
    /// Don't hold the converted resources to Calico's rules
    #[arg(long)]
    ignore_validation: bool,
}

/// `convert`.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn run(args: &ConvertArgs) -> anyhow::Result<ExitCode> {
    converted(args).finish()
}

pub(super) fn converted(args: &ConvertArgs) -> Said {
    let is_json = match args.output.as_str() {
        "yaml" | "yml" => false,
        "json" => true,
        other => return Said::failed(format!("unrecognized output format '{other}'")),
    };
    let objects = match read(args) {
        Ok(objects) => objects,
        Err(error) => return Said::failed(error),
    };
    if !args.ignore_validation
        && let Some(error) = objects.iter().find_map(|object| check_object(object).err())
    {
        return Said::failed(format!(
            "Converted manifest resource(s) failed validation: {error}Re-run the command with '--ignore-validation' flag to \
             see the converted output.\n"
        ));
    }
    let whole = match objects.as_slice() {
        [one] => one.value().clone(),
        many => json!({
            "kind": "List",
            "apiVersion": "v1",
            "metadata": {},
            "items": many.iter().map(ApiObject::value).collect::<Vec<_>>(),
        }),
    };
    Said::fine(if is_json { gojson::print(&whole) + "\n" } else { yaml::print(&whole) })
}

fn read(args: &ConvertArgs) -> Result<Vec<ApiObject>, String> {
    let Some(filename) = &args.files.filename else {
        return Err("no resources specified: give -f".to_owned());
    };
    files::read_as(&args.files, filename, convert_objects).map_err(|error| match error {
        FileError::Unreadable(error) => format!("Failed to create resources from file: {error}"),
        FileError::Invalid(error) | FileError::Empty(error) => error,
    })
}

/// What a file of `convert` is refused with says of itself how far it came.
impl From<ConvertError> for FileError {
    fn from(error: ConvertError) -> Self {
        FileError::Invalid(error.to_string())
    }
}
