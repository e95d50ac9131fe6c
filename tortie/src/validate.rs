//! `tortie validate`: are these resources good, and are they likely to be meant?

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use datastore::{Found, Reading, Source};
use serde::Serialize;

use crate::output::{self, Form};

pub(crate) const EXAMPLES: &str = "\
Examples:
  tortie validate -f /etc/tortie/resources
  tortie validate -f policy.yaml -f endpoints.yaml --strict
  calicoctl get networkpolicy -o yaml | tortie validate -f -

Exit status 0: all are good; 1: some are not, or with --strict something is likely not meant; 2: can't be read.";

/// They aren't all good.
const NO: u8 = 1;
/// The most that standard input may hold, in bytes: what a file may.
const STDIN_MAX: u64 = 4 << 20;

/// What `tortie validate` was asked for.
#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    /// A file, a directory of files, or - for standard input; as many as belong together
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// Exit status 1 also where resources are good, but something is likely not meant
    #[arg(long)]
    strict: bool,

    /// Lines for people, or JSON for programs
    #[arg(short, long, value_enum, default_value = "table")]
    output: Form,
}

/// One thing that is wrong, has no effect, or is likely not meant.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Remark {
    file: PathBuf,
    line: Option<u32>,
    column: Option<u32>,
    resource: Option<String>,
    field: Option<String>,
    text: String,
}

/// The answer, for programs.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Answer {
    /// Kinds and names of good resources.
    resources: Vec<String>,
    /// What is wrong.
    errors: Vec<Remark>,
    /// What is legal and likely not meant.
    warnings: Vec<Remark>,
    /// What is Calico's and has no effect here.
    ignored: Vec<Remark>,
    /// The kinds of the good resources.
    #[serde(skip)]
    kinds: BTreeSet<&'static str>,
}

/// Reads, judges and prints.
///
/// # Errors
/// A file isn't there, standard input can't be read, or standard output can't be written.
pub(crate) fn run(args: &ValidateArgs) -> anyhow::Result<ExitCode> {
    let sources = args.files.iter().map(|path| source(path)).collect::<anyhow::Result<_>>()?;
    let answer = Answer::of(datastore::read(sources));
    match args.output {
        Form::Json => output::print(&(serde_json::to_string_pretty(&answer)? + "\n"))?,
        Form::Table => output::print(&answer.lines())?,
    }
    let bad = !answer.errors.is_empty() || (args.strict && !answer.warnings.is_empty());
    Ok(if bad { ExitCode::from(NO) } else { ExitCode::SUCCESS })
}

fn source(path: &Path) -> anyhow::Result<Source> {
    if path != Path::new("-") {
        std::fs::metadata(path).with_context(|| format!("can't read {}", path.display()))?;
        return Ok(Source::Path(path.to_owned()));
    }
    let mut bytes = Vec::new();
    std::io::stdin().take(STDIN_MAX + 1).read_to_end(&mut bytes).context("can't read standard input")?;
    Ok(Source::Text { name: "standard input".into(), bytes })
}

impl Answer {
    fn of(reading: Reading) -> Answer {
        let Reading { resources, ignored, problems } = reading;
        let errors: Vec<Remark> = problems
            .into_iter()
            .map(|problem| Remark {
                file: problem.file,
                line: problem.position.map(|position| position.line),
                column: problem.position.map(|position| position.column),
                resource: problem.resource,
                field: problem.field,
                text: problem.reason.to_string(),
            })
            .collect();
        let ignored = ignored.into_iter().map(|ignored| Remark {
            file: ignored.file,
            line: ignored.position.map(|position| position.line),
            column: ignored.position.map(|position| position.column),
            resource: Some(ignored.resource),
            field: ignored.field,
            text: "has no effect in this version".to_owned(),
        });
        let keys: Vec<_> = resources.iter().map(|found| found.resource.key()).collect();
        Answer {
            resources: keys.iter().map(ToString::to_string).collect(),
            kinds: keys.iter().map(model::Key::kind).collect(),
            // With some resources refused, what the others lack may be among those.
            warnings: if errors.is_empty() { warnings(&resources) } else { Vec::new() },
            ignored: ignored.collect(),
            errors,
        }
    }

    /// A line each, and at last what calicoctl says.
    fn lines(&self) -> String {
        let mut lines = String::new();
        for (word, remarks) in [("error", &self.errors), ("warning", &self.warnings), ("note", &self.ignored)]
        {
            for remark in remarks {
                lines.push_str(&format!("{word}: {}\n", remark.line()));
            }
        }
        lines.push_str(&self.summary());
        lines
    }

    fn summary(&self) -> String {
        let count = self.resources.len();
        let kind = match self.kinds.first() {
            Some(kind) if self.kinds.len() == 1 => format!("'{kind}' "),
            _ => String::new(),
        };
        match (self.errors.len(), count) {
            (0, 0) => "No resources specified\n".to_owned(),
            (0, _) => format!("Successfully validated {count} {kind}resource(s)\n"),
            (errors, _) => format!("Failed to validate: {errors} error(s)\n"),
        }
    }
}

impl Remark {
    fn line(&self) -> String {
        let mut line = self.file.display().to_string();
        for place in [self.line, self.column].into_iter().flatten() {
            line.push_str(&format!(":{place}"));
        }
        for part in [&self.resource, &self.field].into_iter().flatten() {
            line.push_str(&format!(": {part}"));
        }
        format!("{line}: {}", self.text)
    }
}

/// What is likely not meant, in the order of the resources.
fn warnings(resources: &[Found]) -> Vec<Remark> {
    let all: Vec<_> = resources.iter().map(|found| &*found.resource).collect();
    policy::lint::lint(&all)
        .into_iter()
        .map(|finding| {
            let found = &resources[finding.resource];
            Remark {
                file: found.file.clone(),
                line: found.position.map(|position| position.line),
                column: found.position.map(|position| position.column),
                resource: Some(found.resource.key().to_string()),
                field: Some(finding.field),
                text: finding.text,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
