//! `create`, `apply`, `replace`, `delete` and `validate`.

use std::process::ExitCode;

use clap::Args;
use datastore::Store;

use super::execute::{Asked, Results, Verb, execute};
use super::files::FileArgs;
use super::{GlobalArgs, NamespaceArgs, Said, StoreArgs, with_store};

/// What `apply`, `replace` and `validate` take.
#[derive(Clone, Debug, Args)]
pub(crate) struct WriteArgs {
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
}

/// What `create` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    write: WriteArgs,
    /// Resources that exist already are no error
    #[arg(long)]
    skip_exists: bool,
}

/// What `delete` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Kind of the resources, such as `ippool`; or give a file
    kind: Option<String>,
    /// Their names
    names: Vec<String>,
    #[command(flatten)]
    write: WriteArgs,
    /// Resources that don't exist are no error
    #[arg(short, long)]
    skip_not_exists: bool,
}

impl WriteArgs {
    fn asked(&self) -> Asked<'_> {
        Asked { files: Some(&self.files), namespace: self.namespace.namespace.as_deref(), ..Asked::default() }
    }
}

/// `create`.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn create(args: &CreateArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    with_store(&args.write.store, global, |store| created(args, store))
}

pub(super) fn created(args: &CreateArgs, store: &dyn Store) -> Said {
    let verb = Verb::Create { skip_exists: args.skip_exists };
    report("create", "created", &execute(&args.write.asked(), &verb, Some(store)))
}

/// `apply`.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn apply(args: &WriteArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    with_store(&args.store, global, |store| applied(args, store))
}

pub(super) fn applied(args: &WriteArgs, store: &dyn Store) -> Said {
    report("apply", "applied", &execute(&args.asked(), &Verb::Apply, Some(store)))
}

/// `validate`, as calicoctl has it.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn validate(args: &WriteArgs) -> anyhow::Result<ExitCode> {
    validated(args).finish()
}

pub(super) fn validated(args: &WriteArgs) -> Said {
    let asked = Asked { files: Some(&args.files), ..Asked::default() };
    report("validate", "validated", &execute(&asked, &Verb::Validate, None))
}

/// `replace`.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn replace(args: &WriteArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    with_store(&args.store, global, |store| replaced(args, store))
}

pub(super) fn replaced(args: &WriteArgs, store: &dyn Store) -> Said {
    let results = execute(&args.asked(), &Verb::Replace, Some(store));
    let Some(error) = &results.error else { return report("replace", "replaced", &results) };
    if results.asked == 0 || results.handled.is_empty() {
        let errors = Results { errors: vec![error.clone()], error: None, ..Results::default() };
        let errors = Results { asked: results.asked, single_kind: results.single_kind, ..errors };
        return match (results.file_invalid, results.asked) {
            (true, _) => Said::failed(format!("failed to execute command: {error}")),
            (false, 0) => Said::failed(error.clone()),
            (false, _) => Said::failed(format!("{}: {error}", failure("replace", &errors))),
        };
    }
    Said {
        out: format!("Partial success: {}:\n", first_of("replaced", &results)),
        error: Some(format!("hit error: {error}")),
    }
}

/// `delete`.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn delete(args: &DeleteArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    with_store(&args.write.store, global, |store| deleted(args, store))
}

pub(super) fn deleted(args: &DeleteArgs, store: &dyn Store) -> Said {
    let asked = Asked { kind: args.kind.as_deref(), names: &args.names, ..args.write.asked() };
    let verb = Verb::Delete { skip_not_exists: args.skip_not_exists };
    let results = execute(&asked, &verb, Some(store));
    if results.file_invalid || results.asked == 0 {
        return report("delete", "deleted", &results);
    }
    let out = if results.handled.is_empty() { String::new() } else { success("deleted", &results) };
    let kind = results.single_kind.map_or_else(String::new, |kind| format!("'{kind}' "));
    let errors: String =
        results.errors.iter().map(|error| format!("Failed to delete {kind}resource: {error}\n")).collect();
    Said { out, error: (!errors.is_empty()).then_some(errors) }
}

fn report(verb: &str, done: &str, results: &Results) -> Said {
    let error = results.error.as_deref();
    if results.file_invalid {
        return Said::failed(format!("failed to execute command: {}", error.unwrap_or_default()));
    }
    if results.asked == 0 {
        return match error {
            Some(error) => Said::failed(error),
            None => Said::fine("No resources specified\n"),
        };
    }
    let errors = results.all_errors();
    if results.handled.is_empty() {
        return Said::failed(format!("{}: {errors}", failure(verb, results)));
    }
    if results.errors.is_empty() {
        return Said::fine(success(done, results));
    }
    let out = if results.handled.len() > results.errors.len() {
        format!("Partial success: {}:\n", first_of(done, results))
    } else {
        String::new()
    };
    Said { out, error: Some(format!("hit error: {errors}")) }
}

fn success(done: &str, results: &Results) -> String {
    let kind = results.single_kind.map_or_else(String::new, |kind| format!("'{kind}' "));
    format!("Successfully {done} {} {kind}resource(s)\n", results.handled.len())
}

fn failure(verb: &str, results: &Results) -> String {
    match (results.asked, results.single_kind) {
        (1, Some(kind)) => format!("failed to {verb} '{kind}' resource"),
        (_, Some(kind)) => format!("failed to {verb} any '{kind}' resources"),
        (_, None) => format!("failed to {verb} any resources"),
    }
}

fn first_of(done: &str, results: &Results) -> String {
    let kind = results.single_kind.map_or_else(String::new, |kind| format!("'{kind}' "));
    format!("{done} the first {} out of {} {kind}resources", results.handled.len(), results.asked)
}
