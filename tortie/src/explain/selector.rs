//! `tortie explain selector`: does it match, and where is it malformed.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use policy::Selector;
use serde::Serialize;

use crate::output::{self, Form};

pub(super) const EXAMPLES: &str = "\
Examples:
  tortie explain selector \"app == 'web' && has(tier)\" --label app=web --label tier=front
  tortie explain selector \"role not in {'db', 'cache'}\" -o json";

/// The answer was "no".
const NO: u8 = 1;

#[derive(Debug, Args)]
pub(super) struct SelectorArgs {
    /// The selector, as a policy or a peer would hold it
    #[arg(value_name = "EXPR")]
    expression: String,

    /// A label of what is asked about; as many as it has
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

/// The answer, for programs.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Answer {
    /// The selector in canonical form.
    selector: String,
    /// The labels that it was asked of.
    labels: BTreeMap<String, String>,
    /// Does it match?
    matches: bool,
}

/// Answers and prints: exit status 0 where it matches.
///
/// # Errors
/// The selector is malformed.
pub(super) fn run(args: &SelectorArgs, form: Form) -> anyhow::Result<ExitCode> {
    let text = &args.expression;
    let selector: Selector = text.parse().map_err(|error: policy::SelectorError| {
        // Under the place, in the selector itself; blanks stay as wide as what they stand under.
        let before: String =
            text.chars().take(error.at - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        anyhow::anyhow!("not a selector: {error}\n  {text}\n  {before}^")
    })?;
    let labels: BTreeMap<String, String> = args.labels.iter().cloned().collect();
    let answer = Answer { selector: selector.to_string(), matches: selector.matches(&labels), labels };
    match form {
        Form::Json => output::print(&(serde_json::to_string_pretty(&answer)? + "\n"))?,
        Form::Table => output::print(&answer.sentence())?,
    }
    Ok(if answer.matches { ExitCode::SUCCESS } else { ExitCode::from(NO) })
}

impl Answer {
    fn sentence(&self) -> String {
        let verdict = if self.matches { "matches" } else { "does not match" };
        let labels: Vec<String> = self.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let whom = if labels.is_empty() { "no labels".to_owned() } else { labels.join(", ") };
        format!("{} {verdict} {whom}\n", self.selector)
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}
