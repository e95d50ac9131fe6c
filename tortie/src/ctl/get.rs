//! `get`.

use std::process::ExitCode;

use clap::Args;
use datastore::Store;

use super::execute::{Asked, Verb, execute};
use super::files::FileArgs;
use super::print::Printer;
use super::{GlobalArgs, NamespaceArgs, Said, StoreArgs, with_store};

/// What `get` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct GetArgs {
    /// Kind of the resources, such as `ippool`; or give a file
    kind: Option<String>,
    /// Their names; all without
    names: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
    /// Of all namespaces
    #[arg(short = 'A', long, short_alias = 'a')]
    all_namespaces: bool,
    /// ps, wide, yaml, json, custom-columns=NAME,…, go-template=TEXT or go-template-file=FILE
    #[arg(short, long, value_name = "FORMAT", default_value = "ps")]
    output: String,
    /// Without what belongs to this cluster alone, where names are given
    #[arg(long)]
    export: bool,
}

/// `get`.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn run(args: &GetArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    with_store(&args.store, global, |store| got(args, store))
}

pub(super) fn got(args: &GetArgs, store: &dyn Store) -> Said {
    let namespace = args.namespace.namespace.as_deref();
    let printer = match Printer::new(&args.output, args.all_namespaces || namespace.is_some()) {
        Ok(printer) => printer,
        Err(error) => return Said::failed(error),
    };
    let asked = Asked {
        files: Some(&args.files),
        kind: args.kind.as_deref(),
        names: &args.names,
        namespace,
        all_namespaces: args.all_namespaces,
        export: args.export,
    };
    let results = execute(&asked, &Verb::Get, Some(store));
    if let Some(error) = results.error {
        let words =
            if results.file_invalid { "failed to execute command" } else { "failed to get resources" };
        return Said::failed(format!("{words}: {error}"));
    }
    match printer.print(store, &results.handled) {
        Ok(out) => Said { out, error: (!results.errors.is_empty()).then(|| results.errors.join("\n")) },
        Err(error) => Said::failed(error),
    }
}
