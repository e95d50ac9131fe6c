//! What `perf/peers/rte_fib.c` reads: a table, addresses, and the right answers.
//!
//! Little-endian throughout. A head of five numbers of 32 bits: magic, family, prefixes, sets of addresses, addresses in a
//! set; then each prefix (address, length and value of 16 bits); then all addresses; then for each address its answer
//! of 16 bits. IPv4 addresses are numbers of 32 bits, IPv6 addresses 16 bytes as on the wire.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lpm::{Key, NO_ROUTE, Value};

const MAGIC: u32 = u32::from_le_bytes(*b"TFIB");
/// The answer for an address that no prefix covers: the largest next hop that DPDK can keep in two bytes.
const NO_ROUTE_THERE: u16 = 0x7fff;

/// A table, sets of addresses of one size, and what each must be answered.
pub(super) struct Exchange<'a, K> {
    /// Prefixes with their values.
    pub prefixes: &'a [(K, u8, Value)],
    /// Sets of addresses, with the answers that [`lpm::Lookup::lookup_batch`] gave.
    pub sets: &'a [(Vec<K>, Vec<Value>)],
}

impl<K: Key> Exchange<'_, K> {
    /// Writes the file.
    ///
    /// # Errors
    /// Where it can't be written, the sets differ in size, or a value is too large for two bytes in DPDK.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let keys = self.sets.first().map_or(0, |(keys, _)| keys.len());
        ensure!(
            self.sets.iter().all(|(set, answers)| set.len() == keys && answers.len() == keys),
            "sets of one size"
        );
        let family = if K::BITS == 32 { 4 } else { 6 };
        for number in [MAGIC, family, self.prefixes.len() as u32, self.sets.len() as u32, keys as u32] {
            out.write_all(&number.to_le_bytes())?;
        }
        for &(addr, len, value) in self.prefixes {
            write_key(&mut out, addr)?;
            out.write_all(&u16::from(len).to_le_bytes())?;
            out.write_all(&narrow(value)?.to_le_bytes())?;
        }
        for key in self.sets.iter().flat_map(|(keys, _)| keys) {
            write_key(&mut out, *key)?;
        }
        for answer in self.sets.iter().flat_map(|(_, answers)| answers) {
            let answer = if *answer == NO_ROUTE { NO_ROUTE_THERE } else { narrow(*answer)? };
            out.write_all(&answer.to_le_bytes())?;
        }
        out.flush().with_context(|| format!("writing {}", path.display()))
    }
}

fn narrow(value: Value) -> Result<u16> {
    let narrow = u16::try_from(value).ok().filter(|value| *value < NO_ROUTE_THERE);
    narrow.with_context(|| format!("value {value} doesn't fit DPDK's two bytes"))
}

fn write_key<K: Key>(out: &mut impl Write, key: K) -> Result<()> {
    let [high, low] = key.to_words();
    if K::BITS == 32 {
        out.write_all(&(key.bits(0, 32) as u32).to_le_bytes())?;
    } else {
        out.write_all(&high.to_be_bytes())?;
        out.write_all(&low.to_be_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_that_the_c_program_reads() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("exchange");
        let prefixes = [(0x0a00_0000u32, 8, 3)];
        let sets = [(vec![0x0a01_0203u32, 1], vec![3, NO_ROUTE])];
        Exchange { prefixes: &prefixes, sets: &sets }.write(&path).expect("it can be written");
        let bytes = std::fs::read(&path).expect("it is there");
        let head = [b"TFIB".as_slice(), &[4, 0, 0, 0], &[1, 0, 0, 0], &[1, 0, 0, 0], &[2, 0, 0, 0]].concat();
        let body = [&[0, 0, 0, 10, 8, 0, 3, 0][..], &[3, 2, 1, 10, 1, 0, 0, 0], &[3, 0, 0xff, 0x7f]].concat();
        assert_eq!(bytes, [head, body].concat());

        let prefixes = [(u128::from_be_bytes([7; 16]), 128, 1)];
        Exchange { prefixes: &prefixes, sets: &[] }.write(&path).expect("it can be written");
        assert_eq!(
            std::fs::read(&path).expect("it is there")[20..],
            [&[7; 16][..], &[128, 0, 1, 0]].concat()
        );
    }

    #[test]
    fn a_value_that_dpdk_would_cut_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let prefixes = [(0u32, 0, 0x7fff)];
        let written = Exchange { prefixes: &prefixes, sets: &[] }.write(&folder.path().join("exchange"));
        assert!(written.is_err());
    }
}
