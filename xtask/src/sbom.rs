//! `cargo xtask sbom`: what is in the program, as a software bill of materials in CycloneDX 1.5.
//!
//! It follows from the lock file and from what cargo says of each package, and has neither a time nor a random number in it:
//! the same tree gives the same bill. https://cyclonedx.org/docs/1.5/json/

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::tools;

/// The program that it is about.
const PROGRAM: &str = "tortie";
/// What a package's address begins with in a purl (https://github.com/package-url/purl-spec).
const PURL: &str = "pkg:cargo";

/// What one may ask of `cargo xtask sbom`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The file to write; standard output unless given
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The system that the program is built for
    #[arg(long, value_name = "TRIPLE", default_value = "x86_64-unknown-linux-gnu")]
    target: String,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let text = text(&arguments.target)?;
    match &arguments.output {
        Some(path) => {
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?
        }
        None => print!("{text}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// The bill for a system, as a file holds it.
///
/// # Errors
/// Cargo can't be asked.
pub(crate) fn text(target: &str) -> Result<String> {
    let lock = std::fs::read_to_string(tools::workspace().join("Cargo.lock"))?;
    let bill = bill(&metadata(target)?, &checksums(&lock))?;
    Ok(serde_json::to_string_pretty(&bill)? + "\n")
}

/// What cargo knows of every package of the lock file.
fn metadata(target: &str) -> Result<Value> {
    let mut cargo = tools::cargo();
    cargo.args(["metadata", "--locked", "--format-version", "1", "--filter-platform", target]);
    let said = cargo.output().context("cannot start cargo")?;
    if !said.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&said.stderr));
    }
    Ok(serde_json::from_slice(&said.stdout)?)
}

/// The SHA-256 of each package that comes from a registry, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let field = |package: &str, name: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "))?;
        Some(line.trim_matches('"').to_owned())
    };
    let packages = lock.split("[[package]]").skip(1);
    let known = packages.filter_map(|package| {
        Some(((field(package, "name")?, field(package, "version")?), field(package, "checksum")?))
    });
    known.collect()
}

/// The bill: the program, and all that is linked into it or that has built it. What only tests use isn't in it.
fn bill(metadata: &Value, checksums: &BTreeMap<(String, String), String>) -> Result<Value> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages: BTreeMap<String, Value> =
        list(&metadata["packages"]).into_iter().map(|package| (text(&package["id"]), package)).collect();
    let is_used =
        |dependency: &Value| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev");
    let uses: BTreeMap<String, Vec<String>> = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| {
            let used = list(&node["deps"]).into_iter().filter(is_used).map(|used| text(&used["pkg"]));
            (text(&node["id"]), used.collect())
        })
        .collect();
    let program =
        packages.iter().find(|(_, package)| package["name"] == PROGRAM && package["source"].is_null());
    let (program, _) = program.with_context(|| format!("no package {PROGRAM}"))?;
    let mut found = BTreeSet::new();
    let mut next = vec![program.clone()];
    while let Some(id) = next.pop() {
        if found.insert(id.clone()) {
            next.extend(uses.get(&id).into_iter().flatten().cloned());
        }
    }
    let purl = |id: &String| {
        let package = &packages[id];
        format!("{PURL}/{}@{}", text(&package["name"]), text(&package["version"]))
    };
    let component = |id: &String| {
        let package = &packages[id];
        let (name, version) = (text(&package["name"]), text(&package["version"]));
        let mut component = json!({
            "type": if id == program { "application" } else { "library" },
            "bom-ref": purl(id),
            "name": name,
            "version": version,
            "purl": purl(id),
        });
        if let Some(license) = package["license"].as_str() {
            component["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
        }
        if let Some(checksum) = checksums.get(&(name, version)) {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
        }
        if let Some(repository) = package["repository"].as_str() {
            component["externalReferences"] = json!([{ "type": "vcs", "url": repository }]);
        }
        component
    };
    let dependencies = found.iter().map(|id| {
        let mut used: Vec<String> = uses.get(id).into_iter().flatten().map(purl).collect();
        used.sort_unstable();
        used.dedup();
        json!({ "ref": purl(id), "dependsOn": used })
    });
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": component(program) },
        "components": found.iter().filter(|id| *id != program).map(component).collect::<Vec<_>>(),
        "dependencies": dependencies.collect::<Vec<_>>(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bill_names_every_package_once_with_licence_hash_and_what_it_uses() {
        let lock = std::fs::read_to_string(tools::workspace().join("Cargo.lock")).unwrap();
        let checksums = checksums(&lock);
        let metadata = metadata("x86_64-unknown-linux-gnu").unwrap();
        let bill = bill(&metadata, &checksums).unwrap();
        let components = bill["components"].as_array().unwrap();
        let names: BTreeSet<&str> =
            components.iter().map(|component| component["bom-ref"].as_str().unwrap()).collect();
        assert_eq!(names.len(), components.len());
        for part in ["fastpath", "tokio", "rustls", "ring"] {
            assert!(
                names.iter().any(|name| name.starts_with(&format!("{PURL}/{part}@"))),
                "{part} is missing"
            );
        }
        for not_in_it in ["proptest", "tempfile", "lab"] {
            assert!(
                !names.iter().any(|name| name.starts_with(&format!("{PURL}/{not_in_it}@"))),
                "{not_in_it}"
            );
        }
        let ours = [
            "model",
            "packet",
            "lpm",
            "policy",
            "bgp",
            "tables",
            "afxdp",
            "fastpath",
            "datastore",
            "slowpath",
        ];
        for component in components {
            assert!(component["licenses"][0]["expression"].is_string(), "{component}");
            let is_ours = ours.contains(&component["name"].as_str().unwrap());
            assert_eq!(component["hashes"].is_array(), !is_ours, "{component}");
        }
        for dependency in bill["dependencies"].as_array().unwrap() {
            for used in dependency["dependsOn"].as_array().unwrap() {
                assert!(names.contains(used.as_str().unwrap()), "{used} is used and isn't in the bill");
            }
        }
        assert_eq!(bill["metadata"]["component"]["name"], "tortie");
    }

    #[test]
    fn a_lock_file_tells_the_hash_of_what_comes_from_elsewhere() {
        let lock = "[[package]]\nname = \"a\"\nversion = \"1\"\n\n[[package]]\nname = \"b\"\nversion = \"2\"\nchecksum = \"ff\"\n";
        let expected = [(("b".to_owned(), "2".to_owned()), "ff".to_owned())].into_iter().collect();
        assert_eq!(checksums(lock), expected);
    }
}
