//! `tortie explain`: answers that need no running router.
//!
//! One file per noun. Exit status 0 is yes, 1 is no, 2 is a question that makes no sense, or a message that ends a session.

mod bgp;
mod mrt;
mod policy;
mod selector;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::output::Form;

/// What `tortie explain` was asked for.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    #[command(subcommand)]
    noun: Noun,

    /// A sentence for people, or JSON for programs
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    output: Form,
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// Does a selector match these labels? Exit status 1 where it doesn't, 2 where it is malformed
    #[command(after_help = selector::EXAMPLES)]
    Selector(selector::SelectorArgs),
    /// What becomes of a packet at an endpoint, and by which rule? Exit status 1 where it is denied
    #[command(after_help = policy::EXAMPLES)]
    Policy(policy::PolicyArgs),
    /// What a BGP message says, or what becomes of it: exit status 1 where RFC 7606 contains its errors, 2 where the
    /// session would end
    #[command(after_help = bgp::EXAMPLES)]
    Bgp(bgp::BgpArgs),
    /// What a table in MRT's form says, a line a path as `bgpdump -m` prints it; exit status 1 where nothing is asked for
    #[command(after_help = mrt::EXAMPLES)]
    Mrt(mrt::MrtArgs),
}

/// Answers and prints.
///
/// # Errors
/// The question is malformed, or standard output can't be written.
pub(crate) fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    match &args.noun {
        Noun::Selector(selector) => selector::run(selector, args.output),
        Noun::Policy(policy) => policy::run(policy, args.output),
        Noun::Bgp(bgp) => bgp::run(bgp, args.output),
        Noun::Mrt(mrt) => mrt::run(mrt, args.output),
    }
}
