//! The hash by which this router spreads flows over equally good next hops.
//!
//! Its seed follows from the machine's boot and the node's name, unless `ecmp.seed` says otherwise. So two routers in a
//! row choose independently, nobody outside can make flows that all choose alike, and a restart of Tortie moves no
//! flow; a reboot may.

use packet::FlowHash;

use crate::config::Config;

/// 128 random bits of each boot (random(4)); namespaces don't have one of their own, hence the node's name.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The hash that the configuration asks for.
pub(crate) fn of(config: &Config) -> FlowHash {
    let seed = config.ecmp.seed.unwrap_or_else(|| {
        // Without /proc flows are spread as well, and a stranger could guess how.
        let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
        digest(&[boot.trim(), &config.node])
    });
    FlowHash::new(seed, config.ecmp.symmetric)
}

/// FNV-1a (draft-eastlake-fnv), 64 bits: the same in every release of this program. `FlowHash::new` mixes what comes out.
fn digest(texts: &[&str]) -> u64 {
    let bytes = texts.iter().flat_map(|text| text.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EcmpConfig;
    use crate::config::tests::example;

    #[test]
    fn nodes_choose_apart_unless_told_to_choose_alike() {
        let node = |name: &str, seed| Config {
            node: name.to_owned(),
            ecmp: EcmpConfig { symmetric: false, seed },
            ..example()
        };
        assert_eq!(of(&node("a", None)), of(&node("a", None)), "a restart moves no flow");
        assert_ne!(of(&node("a", None)), of(&node("b", None)));
        assert_eq!(of(&node("a", Some(7))), of(&node("b", Some(7))));
    }

    #[test]
    fn the_digest_never_changes() {
        // FNV-1a of "a" and a zero, worked out by hand from the algorithm: 0xaf63dc4c8601ec8c is that of "a".
        assert_eq!(digest(&["a"]), 0xaf63_dc4c_8601_ec8c_u64.wrapping_mul(0x0100_0000_01b3));
    }
}
