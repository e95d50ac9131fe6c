//! `nft`, run: the only way that this room speaks to nftables.

use std::io::{self, Write as _};
use std::process::{Command, Output, Stdio};

/// Bytes of nft's complaint that are kept: the first error says what is wrong.
const REASON_BYTES: usize = 1000;

/// Why nftables doesn't do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NftError {
    /// No `nft` on this machine.
    #[error("nft isn't installed; install the package nftables")]
    NotInstalled,
    /// `nft` could not be run.
    #[error("could not run nft: {0}")]
    Run(String),
    /// `nft` said no, and nothing of the transaction is in force.
    #[error("nft refused it: {reason}")]
    Refused {
        /// Its own words.
        reason: String,
    },
}

/// Feeds nft a script, which is one transaction: all of it comes into force, or nothing.
///
/// # Errors
/// See [`NftError`].
pub(crate) fn apply(script: &str) -> Result<(), NftError> {
    run(&["-f", "-"], script).map(drop)
}

/// A table of the family `inet` as JSON, with rules and their counters, without what is in sets; `None` where there is
/// no such table.
///
/// # Errors
/// See [`NftError`].
pub(crate) fn table(name: &str) -> Result<Option<String>, NftError> {
    match run(&["-j", "-t", "list", "table", "inet", name], "") {
        Ok(output) => Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned())),
        Err(NftError::Refused { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Is there a table of the family `inet` and this name?
///
/// # Errors
/// See [`NftError`].
pub(crate) fn has_table(name: &str) -> Result<bool, NftError> {
    let output = run(&["list", "tables", "inet"], "")?;
    let tables = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(tables.lines().any(|line| line.trim() == format!("table inet {name}")))
}

fn run(arguments: &[&str], input: &str) -> Result<Output, NftError> {
    let output = feed(arguments, input).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => NftError::NotInstalled,
        _ => NftError::Run(error.to_string()),
    })?;
    if output.status.success() {
        return Ok(output);
    }
    let words = output.stderr.get(..REASON_BYTES).unwrap_or(&output.stderr);
    Err(NftError::Refused { reason: String::from_utf8_lossy(words).trim().to_owned() })
}

fn feed(arguments: &[&str], input: &str) -> io::Result<Output> {
    let mut nft = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = nft.stdin.take() {
        // A broken pipe means that nft gave up; its status and words say why.
        let _ = stdin.write_all(input.as_bytes());
    }
    nft.wait_with_output()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{has, in_namespace};

    #[test]
    fn what_nft_refuses_is_said_in_its_own_words() {
        if !has("nft") {
            return;
        }
        let error = apply("table inet tortie { nonsense }").unwrap_err();
        assert!(matches!(&error, NftError::Refused { reason } if reason.contains("nonsense")), "{error}");
    }

    #[test]
    fn a_table_is_there_or_it_isnt() {
        if !has("nft") {
            return;
        }
        in_namespace(|| {
            assert_eq!(has_table("some"), Ok(false));
            assert_eq!(table("some"), Ok(None));
            apply("table inet some-other {}").unwrap();
            assert_eq!((has_table("some"), has_table("some-other")), (Ok(false), Ok(true)));
            assert!(table("some-other").unwrap().unwrap().contains("some-other"));
        });
    }
}
