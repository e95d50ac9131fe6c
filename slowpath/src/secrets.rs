//! Passwords of BGP sessions: files where Calico has Kubernetes' Secrets.
//!
//! A resource names a Secret and a key in it; the file is `DIRECTORY/NAME/KEY`, which is also how Kubernetes mounts a
//! Secret into a pod. One newline at its end, as editors leave it, is no part of the password.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::PathBuf;

use bgp::Password;
use model::SecretKey;

/// What is read at most: a password and its newline, and one byte to tell that there is more.
const MOST_BYTES: u64 = Password::MAX as u64 + 2;

/// Why there is no password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// No such file, or it can't be read.
    #[error("can't read the password {}: {error}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        error: String,
    },
    /// Kubernetes lets no Secret and no key in it be called so; nor is it a file's name.
    #[error("{:?} and {:?} are not the names of a Secret and of a key in it", secret.name, secret.key)]
    Name {
        /// As the resource has it.
        secret: SecretKey,
    },
    /// TCP has no room for it.
    #[error("the password {} is empty or longer than {} bytes", file.display(), Password::MAX)]
    Length {
        /// The file.
        file: PathBuf,
    },
}

/// Passwords by where they are kept, as they were when last looked at.
pub struct Secrets {
    directory: PathBuf,
    known: BTreeMap<SecretKey, Result<Password, SecretError>>,
}

impl Secrets {
    /// Passwords below this directory.
    pub fn at(directory: PathBuf) -> Secrets {
        Secrets { directory, known: BTreeMap::new() }
    }

    /// The password; it stays the same until [`Self::look_again`] finds another.
    pub fn get(&mut self, secret: &SecretKey) -> Result<Password, SecretError> {
        if let Some(known) = self.known.get(secret) {
            return known.clone();
        }
        let read = self.read(secret);
        self.known.insert(secret.clone(), read.clone());
        read
    }

    /// Forgets passwords that nobody needs any more.
    pub fn keep(&mut self, needed: impl Fn(&SecretKey) -> bool) {
        self.known.retain(|secret, _| needed(secret));
    }

    /// Reads all that is known again; is anything different?
    pub fn look_again(&mut self) -> bool {
        let again: BTreeMap<_, _> =
            self.known.keys().map(|secret| (secret.clone(), self.read(secret))).collect();
        let changed = again != self.known;
        self.known = again;
        changed
    }

    fn read(&self, secret: &SecretKey) -> Result<Password, SecretError> {
        // Kubernetes' own letters. What begins with two dots is another directory, or Kubernetes' own.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let is_name =
            |name: &str| !matches!(name, "" | ".") && !name.starts_with("..") && name.bytes().all(plain);
        if !is_name(&secret.name) || !is_name(&secret.key) {
            return Err(SecretError::Name { secret: secret.clone() });
        }
        let file = self.directory.join(&secret.name).join(&secret.key);
        let mut bytes = Vec::new();
        let read = std::fs::File::open(&file).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut bytes));
        if let Err(error) = read {
            return Err(SecretError::Unreadable { file, error: in_words(&error) });
        }
        let password = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        Password::new(password).ok_or(SecretError::Length { file })
    }
}

fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> SecretKey {
        SecretKey { name: "bgp".to_owned(), key: "tor".to_owned() }
    }

    #[test]
    fn a_password_is_a_file_and_its_last_newline_is_none_of_it() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::create_dir(scratch.path().join("bgp")).unwrap();
        let file = scratch.path().join("bgp/tor");
        let mut secrets = Secrets::at(scratch.path().to_owned());
        for (content, password) in [
            ("s3cret\n", Some("s3cret")),
            ("s3cret", Some("s3cret")),
            (" two words \n\n", Some(" two words \n")),
            ("", None),
            ("\n", None),
            (&"a".repeat(80), Some("a".repeat(80).as_str())),
            (&format!("{}\n", "a".repeat(80)), Some("a".repeat(80).as_str())),
            (&"a".repeat(81), None),
            (&"a".repeat(5000), None),
        ] {
            std::fs::write(&file, content).unwrap();
            secrets.look_again();
            let read = secrets.get(&secret());
            assert_eq!(read.as_ref().ok().map(Password::bytes), password.map(str::as_bytes), "{content:?}");
        }
    }

    #[test]
    fn no_resource_names_a_file_outside_the_directory() {
        let mut secrets = Secrets::at("/".into());
        for (name, key) in
            [("..", "etc"), ("etc", "../etc/hostname"), ("", "etc"), ("etc", ""), ("etc", "..data")]
        {
            let secret = SecretKey { name: name.to_owned(), key: key.to_owned() };
            assert!(matches!(secrets.get(&secret), Err(SecretError::Name { .. })), "{name} {key}");
        }
    }

    #[test]
    fn one_that_is_missing_is_told_and_found_once_it_is_there() {
        let scratch = tempfile::tempdir().unwrap();
        let mut secrets = Secrets::at(scratch.path().to_owned());
        let told = secrets.get(&secret()).unwrap_err().to_string();
        assert!(told.contains("bgp/tor: there is no such file"), "{told}");
        assert!(!secrets.look_again());
        std::fs::create_dir(scratch.path().join("bgp")).unwrap();
        std::fs::write(scratch.path().join("bgp/tor"), "x").unwrap();
        assert!(secrets.get(&secret()).is_err(), "until it is looked at again");
        assert!(secrets.look_again());
        assert!(secrets.get(&secret()).is_ok());
        secrets.keep(|_| false);
        assert!(!secrets.look_again(), "nothing is known any more");
    }
}
