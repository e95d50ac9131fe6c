//! `patch`.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use datastore::{ApiObject, Client, ClientError, Store};
use serde_json::Value;

use super::execute::{Asked, Verb, execute};
use super::{GlobalArgs, NamespaceArgs, Said, StoreArgs, strategic, with_store};

/// What `patch` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct PatchArgs {
    /// Kind of the resource, such as `node`
    kind: String,
    /// Its name
    name: String,
    /// The patch, in JSON
    #[arg(short, long)]
    patch: String,
    /// strategic or merge: fields to change; json: operations (RFC 6902)
    #[arg(short = 't', long = "type", value_enum, default_value = "strategic")]
    form: Form,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
}

/// A form of patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Strategic,
    Json,
    Merge,
}

/// A patch.
pub(super) struct Patch {
    text: String,
    form: Form,
}

impl Patch {
    /// Writes the resource of this name as the patch makes it.
    pub(super) fn apply(&self, client: Client<'_>, object: &ApiObject) -> Result<ApiObject, String> {
        let stored = client
            .get(object.kind(), object.namespace(), object.name())
            .map_err(|error: ClientError| error.to_string())?;
        let mut value = stored.value().clone();
        let merged = match serde_json::from_str::<Value>(&self.text) {
            Err(error) => Err(format!("invalid JSON document: {error}")),
            Ok(patch) if self.form == Form::Json => strategic::operations(&mut value, &patch),
            Ok(patch) if patch.is_object() => {
                strategic::merge(&mut value, &patch);
                Ok(())
            }
            Ok(_) => Err("invalid JSON document".to_owned()),
        };
        merged.map_err(|error| format!("performing strategic merge patch: {error}"))?;
        let patched = ApiObject::decode(object.kind(), &value).map_err(|error| {
            format!(
                "creating resource from patched data: error unmarshaling JSON: while decoding JSON: {error}"
            )
        })?;
        client.update(&patched).map_err(|error| format!("updating existing resource: {error}"))
    }
}

/// `patch`.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn run(args: &PatchArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    with_store(&args.store, global, |store| patched(args, store))
}

pub(super) fn patched(args: &PatchArgs, store: &dyn Store) -> Said {
    let asked = Asked {
        kind: Some(&args.kind),
        names: std::slice::from_ref(&args.name),
        namespace: args.namespace.namespace.as_deref(),
        ..Asked::default()
    };
    let patch = Patch { text: args.patch.clone(), form: args.form };
    let results = execute(&asked, &Verb::Patch(&patch), Some(store));
    match (&results.error, results.single_kind) {
        (Some(error), Some(_)) => Said::failed(format!("hit error: {error}")),
        (Some(error), None) => Said::failed(error.as_str()),
        (None, Some(kind)) => {
            Said::fine(format!("Successfully patched {} '{kind}' resource\n", results.handled.len()))
        }
        (None, None) => Said::failed("no resources specified"),
    }
}
