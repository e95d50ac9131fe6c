//! Building what the lab runs, and where the workspace is.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The workspace's own folder.
pub(crate) fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// The cargo that runs us, in the workspace's folder.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace());
    cargo
}

/// Builds the router and the lab's agent, optimized; only the agent where a router is given.
pub(crate) fn build(tortie: Option<&Path>) -> Result<::lab::Tools> {
    if let Some(tortie) = tortie {
        let tortie = tortie.canonicalize().with_context(|| format!("no {}", tortie.display()))?;
        return Ok(::lab::Tools { tortie, ..build_agent()? });
    }
    println!("building tortie and the lab's agent (release)");
    let text = cargo_build(&["-p", "tortie", "-p", "lab", "--bin", "tortie", "--bin", "lab-agent"])?;
    Ok(::lab::Tools { tortie: executable(&text, "tortie")?, agent: executable(&text, "lab-agent")? })
}

/// Builds the router alone, as it is shipped.
pub(crate) fn build_tortie() -> Result<PathBuf> {
    println!("building tortie (release)");
    let text = cargo_build(&["-p", "tortie", "--bin", "tortie"])?;
    executable(&text, "tortie")
}

/// Builds the agent alone, for scenarios without the router.
pub(crate) fn build_agent() -> Result<::lab::Tools> {
    println!("building the lab's agent (release)");
    let text = cargo_build(&["-p", "lab", "--bin", "lab-agent"])?;
    Ok(::lab::Tools { tortie: PathBuf::new(), agent: executable(&text, "lab-agent")? })
}

/// Builds what the interop matrix has at our end: the router with the lab's agent, and the speaker.
pub(crate) fn build_for_interop() -> Result<(::lab::Tools, PathBuf)> {
    println!("building tortie and the interop speaker (release)");
    let binaries = ["--bin", "tortie", "--bin", "lab-agent", "--bin", "interop-speaker"];
    let text = cargo_build(&[&["-p", "tortie", "-p", "lab"], &binaries[..]].concat())?;
    let built = ::lab::Tools { tortie: executable(&text, "tortie")?, agent: executable(&text, "lab-agent")? };
    Ok((built, executable(&text, "interop-speaker")?))
}

/// Runs cargo with its own progress on the terminal and returns its messages.
fn cargo_build(what: &[&str]) -> Result<String> {
    let mut build = cargo();
    build.args(["build", "--release", "--message-format=json-render-diagnostics"]).args(what);
    let output = build.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the build failed");
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The executable that cargo says it made for a target.
fn executable(messages: &str, target: &str) -> Result<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut of_target = messages.filter(|message| message["target"]["name"] == target);
    let path = of_target.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    path.with_context(|| format!("cargo built no executable called {target}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_among_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"tortie"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"tortie"},"executable":"/t/release/tortie"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "tortie").expect("it is there"), PathBuf::from("/t/release/tortie"));
        assert!(executable(messages, "lab-agent").is_err());
    }
}
