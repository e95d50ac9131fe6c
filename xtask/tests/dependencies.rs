//! What comes from outside, held to `deny.toml`: licences, sources, and what isn't wanted. Known weaknesses are not looked for
//! here: that takes a database from elsewhere (`cargo deny check advisories`).

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Every package of the lock file that is used on this system.
fn packages() -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut metadata = Command::new(cargo);
    metadata.args(["metadata", "--locked", "--format-version", "1"]);
    metadata.args(["--filter-platform", "x86_64-unknown-linux-gnu"]).current_dir(workspace());
    let said = metadata.output().expect("cargo runs this test");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let metadata: Value = serde_json::from_slice(&said.stdout).expect("cargo metadata prints JSON");
    metadata["packages"].as_array().expect("a list of packages").clone()
}

/// The texts of a list in a section of `deny.toml`; of tables in it, those of the field `crate`.
fn listed(section: &str, field: &str) -> Vec<String> {
    let text = std::fs::read_to_string(workspace().join("deny.toml")).expect("deny.toml");
    let section =
        text.split("\n[").find(|part| part.starts_with(&format!("{section}]"))).expect("the section");
    let list = section.split_once(&format!("\n{field} = [")).expect("the list").1;
    let list = list.split("\n]").next().unwrap_or_default().split("]\n").next().unwrap_or_default();
    let lines = list
        .lines()
        .flat_map(|line| line.split_once("crate = ").map_or(line, |(_, rest)| rest).split('"').nth(1));
    lines.map(str::to_owned).collect()
}

/// Does an SPDX expression leave a choice that is allowed? The old `A/B` means a choice, too.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let text =
        expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ").replace(" WITH ", "+WITH+");
    let mut words = text.split_whitespace().peekable();
    let holds = any(&mut words, allowed);
    holds && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, allowed: &[String]) -> bool {
    let mut holds = all(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        holds |= all(words, allowed);
    }
    holds
}

fn all(words: &mut Words<'_>, allowed: &[String]) -> bool {
    let mut holds = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        holds &= one(words, allowed);
    }
    holds
}

fn one(words: &mut Words<'_>, allowed: &[String]) -> bool {
    match words.next() {
        Some("(") => {
            let holds = any(words, allowed);
            holds & (words.next() == Some(")"))
        }
        Some(name) => allowed.contains(&name.replace("+WITH+", " WITH ")),
        None => false,
    }
}

#[test]
fn expressions_are_read_as_spdx_has_them() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
    for good in
        ["MIT", "GPL-3.0 OR MIT", "GPL-3.0/MIT", "(GPL-3.0 OR MIT) AND ISC", "Apache-2.0 WITH LLVM-exception"]
    {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT", "MIT)", "MIT ISC", "Apache-2.0", "OR MIT"] {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
}

#[test]
fn every_licence_is_allowed() {
    let allowed = listed("licenses", "allow");
    assert!(allowed.contains(&"Apache-2.0".to_owned()));
    for package in packages() {
        let license = package["license"].as_str().unwrap_or_default();
        assert!(
            is_allowed(license, &allowed),
            "{}: the licence `{license}` isn't in deny.toml",
            package["name"]
        );
    }
}

#[test]
fn everything_comes_from_the_registry_or_from_here() {
    let registries = listed("sources", "allow-registry");
    assert_eq!(registries.len(), 1);
    for package in packages() {
        let Some(source) = package["source"].as_str() else { continue };
        let is_known = registries.iter().any(|registry| source == format!("registry+{registry}"));
        assert!(is_known, "{} comes from {source}", package["name"]);
    }
}

#[test]
fn what_is_not_wanted_is_not_there() {
    let banned = listed("bans", "deny");
    assert_eq!(banned, ["openssl-sys", "aws-lc-sys", "serde_yaml"]);
    for package in packages() {
        let name = package["name"].as_str().unwrap_or_default();
        assert!(!banned.iter().any(|banned| banned == name), "{name} isn't wanted: deny.toml says why");
    }
}
