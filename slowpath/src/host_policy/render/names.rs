//! Names of chains: readable, of bounded length, and never nft's to misread.

use sha1::{Digest, Sha1};

/// Longest name; the kernel takes 255 bytes (`NFT_NAME_MAXLEN`), people fewer.
const BYTES_MAX: usize = 80;
/// Bytes of the hash that stands for what was cut or replaced.
const HASH_BYTES: usize = 4;

/// A name of these parts, none of which must be a word of nft's by itself; empty ones are left out. The first is one of
/// ours, so that the whole begins with a letter.
pub fn chain(parts: &[&str]) -> String {
    let parts: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    let whole = parts.join("-");
    let is_fine = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-' | '.' | '/');
    if whole.len() <= BYTES_MAX && whole.chars().all(is_fine) {
        return whole;
    }
    let hash = Sha1::digest(whole.as_bytes());
    let hash: String = hash.iter().take(HASH_BYTES).map(|byte| format!("{byte:02x}")).collect();
    let mut name: String = whole.chars().map(|char| if is_fine(char) { char } else { '_' }).collect();
    name.truncate(BYTES_MAX - hash.len() - 1);
    format!("{name}-{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calicos_names_stay_as_they_are() {
        assert_eq!(chain(&["policy", "", "in", "default/allow-ssh.v2"]), "policy-in-default/allow-ssh.v2");
    }

    #[test]
    fn long_and_strange_names_are_cut_and_still_differ() {
        let long = |end: &str| chain(&["policy", &format!("{}{end}", "x".repeat(200))]);
        assert_eq!(long("a").len(), BYTES_MAX);
        assert_ne!(long("a"), long("b"));
        let strange = chain(&["policy", "a;b \"{\u{e9}"]);
        assert!(strange.starts_with("policy-a_b____-"), "{strange}");
        assert_ne!(strange, chain(&["policy", "a:b \"{\u{e9}"]));
    }
}
