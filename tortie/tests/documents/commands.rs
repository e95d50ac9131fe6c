//! The commands that the documents name, held to what a program says of itself with `--help`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// All but the changelog, which tells of what was.
const DOCUMENTS: [&str; 6] =
    ["README.md", "OPERATING.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/lab.md", "docs/performance.md"];

/// What a program said of each subcommand that it was asked for.
type Helps = BTreeMap<Vec<String>, Option<String>>;

/// Holds all commands that begin with `prefix`, in blocks of shell and between backticks, to the program: its
/// subcommands and long options exist.
///
/// # Panics
/// One doesn't, or hardly any was found.
#[track_caller]
pub fn exist(program: &str, prefix: &str, at_least: usize) {
    let mut helps = Helps::new();
    let mut missing = Vec::new();
    let mut seen = 0;
    for document in DOCUMENTS {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document));
        for command in commands(&text.expect(document), prefix) {
            seen += 1;
            if let Some(word) = unknown(program, &mut helps, &command) {
                missing.push(format!("{document}: `{prefix} {command}`: no {word}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    assert!(seen >= at_least, "only {seen} commands were found");
}

/// What stands behind the prefix in each.
fn commands(text: &str, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_shell = false;
    let mut is_fenced = false;
    let joined = text.replace("\\\n", " ");
    for line in joined.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            (is_fenced, in_shell) = (!is_fenced, !is_fenced && language == "sh");
            continue;
        }
        let whole = in_shell.then_some(line);
        // Every other piece stands between backticks.
        let inline = line.split('`').skip(1).step_by(2).filter(|_| !is_fenced);
        let all = whole.into_iter().chain(inline);
        found.extend(all.filter_map(|code| code.strip_prefix(prefix)?.strip_prefix(' ')).map(str::to_owned));
    }
    found
}

/// The first subcommand or option that the program doesn't know.
fn unknown(program: &str, helps: &mut Helps, command: &str) -> Option<String> {
    let ends = |word: &&str| ["|", "<<EOF", "<", ">", "&&", "…"].contains(word) || word.starts_with('#');
    let words: Vec<&str> = command.split_whitespace().take_while(|word| !ends(word)).collect();
    let mut path: Vec<String> = Vec::new();
    for word in words.iter().filter(|word| !word.starts_with('-')) {
        let has_subcommands = help(program, helps, &path).is_some_and(|help| help.contains("\nCommands:\n"));
        // Capitals stand for something else.
        if !has_subcommands || word.chars().all(char::is_uppercase) {
            break;
        }
        // `show|check`: each is one.
        for name in word.split('|').rev() {
            let whole: Vec<String> = path.iter().cloned().chain([name.to_owned()]).collect();
            if help(program, helps, &whole).is_none() {
                return Some(name.to_owned());
            }
        }
        path.push(word.split('|').next().unwrap_or_default().to_owned());
    }
    let help = help(program, helps, &path).expect("the program says what it is");
    let options = words.iter().filter(|word| word.starts_with("--"));
    let mut names = options.map(|option| option.split(['=', '|', '[', ']']).next().unwrap_or(option));
    names.find(|name| !help.contains(*name)).map(str::to_owned)
}

/// What the program says of a subcommand, where it has it.
fn help<'a>(program: &str, helps: &'a mut Helps, path: &[String]) -> Option<&'a str> {
    let help = helps.entry(path.to_vec()).or_insert_with(|| {
        let said = Command::new(program).args(path).arg("--help").output().expect("the program is built");
        said.status.success().then(|| String::from_utf8(said.stdout).expect("help is text"))
    });
    help.as_deref()
}
