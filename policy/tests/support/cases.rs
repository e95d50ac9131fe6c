//! How many cases of a property are tried.

use proptest::prelude::ProptestConfig;

/// So many, or as many as `PROPTEST_CASES` asks for.
pub fn cases(usual: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(usual),
    }
}
