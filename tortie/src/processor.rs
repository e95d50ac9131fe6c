//! Has this processor the instructions that this build was made with?
//!
//! Asked before anything else: the answer to a missing one would be SIGILL, which tells nobody what to do. `std`'s own
//! detection takes what the build was made with for granted, so the kernel is asked.

use std::fs;

/// What the build may use, as `/proc/cpuinfo` calls it, and whether it does.
const FEATURES: [(&str, bool); 6] = [
    ("popcnt", cfg!(target_feature = "popcnt")),
    ("bmi2", cfg!(target_feature = "bmi2")),
    ("avx2", cfg!(target_feature = "avx2")),
    ("fma", cfg!(target_feature = "fma")),
    ("movbe", cfg!(target_feature = "movbe")),
    ("avx512f", cfg!(target_feature = "avx512f")),
];

/// Something that the build uses isn't there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this build is for processors of x86-64-v3 (Haswell, Zen and later), and this one, or its virtual machine's CPU model, \
     lacks {}: choose a CPU model that has them (QEMU: -cpu host or max), or build with RUSTFLAGS='-C target-cpu=x86-64'",
    .0.join(", ")
)]
pub(crate) struct Lacks(Vec<&'static str>);

/// Looks at the first processor's flags. Where the kernel lists none, as on other architectures, all is well.
///
/// # Errors
/// [`Lacks`], with what is missing.
pub(crate) fn check() -> Result<(), Lacks> {
    lacking(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default(), &FEATURES)
}

fn lacking(cpuinfo: &str, features: &[(&'static str, bool)]) -> Result<(), Lacks> {
    let line = cpuinfo.lines().find(|line| line.starts_with("flags"));
    let Some((_, flags)) = line.and_then(|line| line.split_once(':')) else { return Ok(()) };
    let has = |name: &str| flags.split_whitespace().any(|flag| flag == name);
    let lacks: Vec<&str> =
        features.iter().filter(|(name, used)| *used && !has(name)).map(|(name, _)| *name).collect();
    if lacks.is_empty() { Ok(()) } else { Err(Lacks(lacks)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPUINFO: &str = "processor\t: 0\nflags\t\t: fpu sse4_2 popcnt movbe\n";

    #[test]
    fn what_is_used_and_missing_is_named() {
        let features = [("popcnt", true), ("avx2", true), ("bmi2", true), ("avx512f", false)];
        let lacks = lacking(CPUINFO, &features).unwrap_err();
        assert_eq!(lacks, Lacks(vec!["avx2", "bmi2"]));
        assert!(lacks.to_string().contains("lacks avx2, bmi2: choose"), "{lacks}");
        assert_eq!(lacking(CPUINFO, &[("popcnt", true)]), Ok(()));
    }

    #[test]
    fn a_kernel_that_lists_no_flags_is_believed_to_have_them() {
        assert_eq!(lacking("processor\t: 0\n", &FEATURES), Ok(()));
    }

    #[test]
    fn this_processor_runs_this_test() {
        assert_eq!(check(), Ok(()));
    }
}
