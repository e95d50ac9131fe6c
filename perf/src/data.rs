//! Prefixes of a real internet table, or of one made up in its shape.

use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use lpm::Key;

use crate::keys::Numbers;

/// Prefixes of one family: address and length, none twice.
pub type Prefixes<K> = Vec<(K, u8)>;

/// A table of both families.
pub struct Internet {
    /// IPv4 prefixes, in the file's order.
    pub v4: Prefixes<u32>,
    /// IPv6 prefixes, likewise.
    pub v6: Prefixes<u128>,
    /// Where they come from, for the record.
    pub source: String,
}

/// How many prefixes of each length a table has that is made up: the shape of the real one.
const LENGTHS_V4: [(u8, usize); 18] = [
    (8, 16),
    (9, 13),
    (10, 38),
    (11, 103),
    (12, 299),
    (13, 581),
    (14, 1203),
    (15, 2100),
    (16, 13490),
    (17, 8235),
    (18, 13798),
    (19, 24870),
    (20, 42611),
    (21, 50750),
    (22, 108623),
    (23, 96510),
    (24, 537698),
    (32, 961),
];
/// As [`LENGTHS_V4`].
const LENGTHS_V6: [(u8, usize); 8] =
    [(29, 4371), (32, 22548), (36, 5996), (40, 13418), (44, 14365), (48, 95000), (56, 4200), (64, 249)];

/// The table in the folder that `TORTIE_DATA` names, else in `../shared/data` beside the workspace, else one made up.
///
/// # Errors
/// Where the file is there and can't be read.
pub fn internet() -> Result<Internet> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let path =
        std::env::var_os("TORTIE_DATA").map_or_else(beside, PathBuf::from).join("internet-prefixes.txt.gz");
    match std::fs::read(&path) {
        Ok(bytes) => read(&bytes).with_context(|| format!("reading {}", path.display())),
        Err(_) => Ok(made_up(1)),
    }
}

fn read(gzip: &[u8]) -> Result<Internet> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(gzip).read_to_string(&mut text)?;
    let mut table = Internet { v4: Vec::new(), v6: Vec::new(), source: "real".to_owned() };
    for (number, line) in text.lines().enumerate() {
        let place = || format!("line {}: {line:?}", number + 1);
        let (addr, len) = line.split_once('/').with_context(place)?;
        let len = len.parse().with_context(place)?;
        if let Ok(addr) = addr.parse::<Ipv4Addr>() {
            table.v4.push((addr.into(), len));
        } else if let Ok(addr) = addr.parse::<Ipv6Addr>() {
            table.v6.push((addr.into(), len));
        } else {
            bail!("no address in {}", place());
        }
    }
    Ok(table)
}

/// Random prefixes with the real table's lengths, one for every `one_in` that it has: less clustered than real ones, so the
/// figures are another table's, but the same everywhere.
///
/// # Panics
/// Where `one_in` is zero.
pub fn made_up(one_in: usize) -> Internet {
    fn family<K: Key>(lengths: &[(u8, usize)], one_in: usize, mut draw: impl FnMut() -> K) -> Prefixes<K> {
        let mut prefixes: Prefixes<K> = (lengths.iter())
            .flat_map(|(len, count)| std::iter::repeat_n(*len, count.div_ceil(one_in)))
            .map(|len| (draw().masked(len), len))
            .collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        prefixes
    }
    let mut numbers = Numbers::new(1);
    let mut again = Numbers::new(2);
    Internet {
        v4: family(&LENGTHS_V4, one_in, || 0x0100_0000 + numbers.next() as u32 % 0xdf00_0000),
        // Within 2000::/3, and clustered: most /48s lie in few /32s. So short ones fall together, and some are lost.
        v6: family(&LENGTHS_V6, one_in, || {
            let high = 0x2400_0000_0000_0000 | again.next() >> 6 & !0x000f_ffc0_0000_0000;
            u128::from(high) << 64 | u128::from(again.next())
        }),
        source: "made up".to_owned(),
    }
}

/// The prefixes, and among them 20,000 /128s of pods as Calico's IPAM hands them out: 40 of the 64 addresses of each of 500
/// blocks (/122), which lie anywhere in a cluster's /106 of fd00:10:244::/48.
pub fn with_pods(prefixes: &Prefixes<u128>) -> Prefixes<u128> {
    const BLOCKS: usize = 500;
    const PODS: u128 = 40;
    let cluster = 0xfd00_0010_0244_u128 << 80;
    let mut numbers = Numbers::new(5);
    let mut blocks = std::collections::BTreeSet::new();
    while blocks.len() < BLOCKS {
        blocks.insert(numbers.below(1 << 16) as u128);
    }
    let pods =
        blocks.into_iter().flat_map(|block| (0..PODS).map(move |pod| (cluster | block << 6 | pod, 128)));
    prefixes.iter().copied().chain(pods).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_thousand_pods_are_added() {
        let prefixes = vec![(0x2001_0db8_u128 << 96, 32)];
        let mut table = with_pods(&prefixes);
        assert_eq!(table.len(), 20_001);
        table.sort_unstable();
        table.dedup();
        assert_eq!(table.len(), 20_001, "none twice");
        assert_eq!(table[0], prefixes[0]);
    }

    #[test]
    fn a_table_made_up_has_about_the_real_ones_size() {
        let table = made_up(1);
        assert!((850_000..950_000).contains(&table.v4.len()), "{}", table.v4.len());
        assert!((130_000..170_000).contains(&table.v6.len()), "{}", table.v6.len());
    }
}
