//! The command line of a binary that is called `calicoctl`, and the commands that `tortie` shares with it.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::{ipam, output};

use super::files::FileArgs;
use super::{
    ConfigArgs, ConvertArgs, CreateArgs, DatastoreArgs, DeleteArgs, GetArgs, GlobalArgs, LabelArgs, NodeArgs,
    PatchArgs, Said, VersionArgs, WriteArgs,
};

const NO_KUBERNETES: &str = "cluster diags collects logs from Kubernetes by kubectl, and there is none behind this \
                             datastore: run `node diags` on the nodes that matter";

/// Commands on the datastore and on this node.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Create resources from a file or standard input; each must not be there yet
    Create(CreateArgs),
    /// Create resources, or replace those that are there
    Apply(WriteArgs),
    /// Replace resources; each must be there
    Replace(WriteArgs),
    /// Delete resources, by a file or by kind and name
    Delete(DeleteArgs),
    /// Change some fields of a resource
    Patch(PatchArgs),
    /// Show resources
    Get(GetArgs),
    /// Set or remove a resource's labels
    Label(LabelArgs),
    /// Bring resources of earlier versions into the present form
    Convert(ConvertArgs),
    /// Show or set what holds for the whole cluster or a node
    #[command(hide = true)]
    Config(ConfigArgs),
    /// Move a whole site
    Datastore(DatastoreArgs),
    /// Addresses and who has them
    #[command(after_help = ipam::EXAMPLES)]
    Ipam(ipam::IpamArgs),
    /// This node: its BGP sessions, what it lacks, what helps to find an error
    Node(NodeArgs),
    /// Not here: it asks Kubernetes
    #[command(hide = true)]
    Cluster {
        /// What calicoctl takes
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Print the versions of this program and of the cluster
    Version(VersionArgs),
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// Standard output can't be written.
    pub(crate) fn run(&self, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
        if let Some(objection) = global.objection() {
            return Said::failed(objection).finish();
        }
        match self {
            Command::Create(args) => super::create(args, global),
            Command::Apply(args) => super::apply(args, global),
            Command::Replace(args) => super::replace(args, global),
            Command::Delete(args) => super::delete(args, global),
            Command::Patch(args) => super::patch(args, global),
            Command::Get(args) => super::get(args, global),
            Command::Label(args) => super::label(args, global),
            Command::Convert(args) => super::convert(args),
            Command::Config(args) => super::config(args, global),
            Command::Datastore(args) => super::datastore(args, global),
            Command::Ipam(args) => ipam::run(args, global),
            Command::Cluster { .. } => Said::failed(NO_KUBERNETES).finish(),
            Command::Node(args) => super::node(args, global),
            Command::Version(args) => super::version(args, global),
        }
    }
}

/// Manage Calico's resources and nodes, as calicoctl does.
#[derive(Debug, Parser)]
#[command(name = "calicoctl", arg_required_else_help = true, disable_help_subcommand = true)]
pub(super) struct Calicoctl {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    pub(super) command: Own,
}

#[derive(Debug, Subcommand)]
pub(super) enum Own {
    #[command(flatten)]
    Shared(Command),
    /// Are the resources of a file good? Asks no datastore: which one, and the namespace, are taken for calicoctl's sake
    Validate(WriteArgs),
    /// Print the resources of a file, policies in the form that costs nodes least
    Optimize(FileArgs),
}

/// The whole command line, as calicoctl takes it.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn calicoctl() -> anyhow::Result<ExitCode> {
    let words: Vec<OsString> = std::env::args_os().collect();
    match parsed(&words) {
        Ok(Calicoctl { global, command: Own::Shared(command) }) => command.run(&global),
        Ok(Calicoctl { command: Own::Validate(args), .. }) => super::validate(&args),
        Ok(Calicoctl { command: Own::Optimize(files), .. }) => super::optimize(&files),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            // Who gives no command is shown those that there are, and nothing has failed.
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                output::print(&error.to_string())?;
                Ok(ExitCode::SUCCESS)
            }
            _ => {
                let words: Vec<String> =
                    words.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
                eprint!("{}", refused(&error, &words));
                Ok(ExitCode::FAILURE)
            }
        },
    }
}

/// The command line, with the one letter that it has for a flag which is another one's in `tortie`.
pub(super) fn parsed<I>(words: I) -> Result<Calicoctl, clap::Error>
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    let command = Calicoctl::command().mut_arg("log_level", |arg| arg.short('l'));
    Calicoctl::from_arg_matches(&command.try_get_matches_from(words)?)
}

/// Usage errors in calicoctl's words, where it has some.
fn refused(error: &clap::Error, words: &[String]) -> String {
    let argument = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => argument.as_str(),
        _ => "",
    };
    let flag = match (error.kind(), argument.strip_prefix("--"), argument.strip_prefix('-')) {
        (ErrorKind::UnknownArgument, Some(_), _) => format!("unknown flag: {argument}\n"),
        (ErrorKind::UnknownArgument, None, Some(letters)) => {
            let letter = letters.chars().next().unwrap_or('-');
            format!("unknown shorthand flag: '{letter}' in {argument}\n")
        }
        (ErrorKind::InvalidSubcommand, ..) => {
            let command = match error.get(ContextKind::InvalidSubcommand) {
                Some(ContextValue::String(command)) => command.as_str(),
                _ => "",
            };
            format!("unknown command \"{command}\" for \"calicoctl\"\n")
        }
        _ => error.to_string(),
    };
    format!(
        "{flag}Invalid option: '{}'. Use flag '--help' to read about a specific subcommand.\n",
        words.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(words: &[&str]) -> String {
        let error = parsed(["calicoctl"].iter().chain(words)).unwrap_err();
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        refused(&error, &words)
    }

    #[test]
    fn the_command_line_is_sound() {
        Calicoctl::command().debug_assert();
    }

    #[test]
    fn flags_that_calicoctl_does_not_know_are_refused_in_its_words() {
        let text = said(&["get", "node", "-m"]);
        assert!(text.starts_with("unknown shorthand flag: 'm' in -m\n"), "{text}");
        assert!(text.contains("Invalid option: 'get node -m'. Use flag '--help' to read about"), "{text}");
        assert!(said(&["get", "node", "--nonsense"]).starts_with("unknown flag: --nonsense\n"));
        assert!(said(&["frobnicate"]).starts_with("unknown command \"frobnicate\" for \"calicoctl\"\n"));
    }

    #[test]
    fn log_levels_are_those_that_calicoctl_knows() {
        let objection =
            |level: &str| GlobalArgs { log_level: level.to_owned(), ..GlobalArgs::default() }.objection();
        for level in ["panic", "INFO", "Warning", "trace"] {
            assert_eq!(objection(level), None, "{level}");
        }
        let expected = "unknown log level: loud, expected one of: panic, fatal, error, warn, info, debug";
        assert_eq!(objection("loud").as_deref(), Some(expected));
    }

    #[test]
    fn flags_stand_before_or_after_the_command() {
        for words in [
            ["calicoctl", "--allow-version-mismatch", "-l", "info", "get", "nodes"],
            ["calicoctl", "get", "nodes", "--log-level=debug", "--context", "kind"],
        ] {
            assert!(parsed(words).is_ok(), "{words:?}");
        }
    }
}
