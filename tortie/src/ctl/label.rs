//! `label`.

use std::process::ExitCode;

use clap::Args;
use datastore::{ApiObject, Client, Store};

use super::execute::{Asked, Handled, Verb, execute};
use super::{GlobalArgs, NamespaceArgs, Said, StoreArgs, with_store};

/// What `label` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct LabelArgs {
    /// Kind of the resource, such as `node`
    kind: String,
    /// Its name
    name: String,
    /// key=value, or with --remove only the key
    label: String,
    /// Change a label that is there already
    #[arg(long)]
    overwrite: bool,
    /// Take the label away
    #[arg(long)]
    remove: bool,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
}

/// `label`.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn run(args: &LabelArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    with_store(&args.store, global, |store| labelled(args, store))
}

pub(super) fn labelled(args: &LabelArgs, store: &dyn Store) -> Said {
    change(args, store).map_or_else(Said::failed, Said::fine)
}

fn change(args: &LabelArgs, store: &dyn Store) -> Result<String, String> {
    let LabelArgs { kind, name, label, .. } = args;
    let (key, value) = match label.split_once('=') {
        _ if args.remove => (label.as_str(), ""),
        Some((key, value)) => (key, value),
        None => return Err(format!("invalid label {label}")),
    };
    let mut object = read(args, store)?;
    let old = object.label(key).map(str::to_owned);
    let done = match (args.remove, &old) {
        (true, None) => {
            return Err(format!("cannot remove label of {kind} {name}, key {key} does not exist"));
        }
        (true, Some(_)) => {
            object.remove_label(key);
            format!("Successfully removed label {key} from {kind} {name}\n")
        }
        (false, Some(old)) if !args.overwrite && old != value => {
            return Err(format!(
                "failed to update label of {kind} {name}, key {key} is already present. please use '--overwrite' to set a \
                 new value"
            ));
        }
        (false, old) => {
            object.set_label(key, value);
            let verb = if old.is_some() { "updated" } else { "set" };
            format!("Successfully {verb} label {key} on {kind} {name}\n")
        }
    };
    match Client::new(store).replace(&object) {
        Ok(_) => Ok(done),
        Err(error) => Err(format!("failed to update {kind} {name}, label not changed: {error}")),
    }
}

fn read(args: &LabelArgs, store: &dyn Store) -> Result<ApiObject, String> {
    let LabelArgs { kind, name, .. } = args;
    let asked = Asked {
        kind: Some(kind),
        names: std::slice::from_ref(name),
        namespace: args.namespace.namespace.as_deref(),
        ..Asked::default()
    };
    let results = execute(&asked, &Verb::Get, Some(store));
    if let Some(error) = results.error {
        return Err(format!("failed to get {kind} {name}, error {error}"));
    }
    match results.handled.into_iter().next() {
        Some(Handled::One(object)) => Ok(object),
        _ => Err(format!("{kind} {name} not found")),
    }
}
