//! Addresses as strings of bits.

use std::fmt::Debug;

use crate::engine::Engine;
use crate::{ipv4, ipv6};

/// An address: `u32` for IPv4, `u128` for IPv6, the most significant bit first on the wire.
pub trait Key: Copy + Ord + Debug + Send + Sync + 'static {
    /// What answers for addresses of this family.
    #[doc(hidden)]
    type Engine: Engine<Self>;

    /// Bits in an address.
    const BITS: u8;
    /// All bits zero.
    const ZERO: Self;

    /// The first `len` bits, then zeros. `len` is at most [`Key::BITS`].
    fn masked(self, len: u8) -> Self;

    /// `count` (1..=32) bits from bit `from` on, as a number. Bits beyond the address read as zeros.
    /// `from` is below [`Key::BITS`].
    fn bits(self, from: u8, count: u8) -> usize;

    /// The same address with `bits` written, by [`or`](std::ops::BitOr), to where [`Key::bits`] would read them.
    fn or_bits(self, from: u8, count: u8, bits: usize) -> Self;

    /// How many bits, from the first on, are the same in both.
    fn common_len(self, other: Self) -> u8;

    /// As two words, for storage.
    fn to_words(self) -> [u64; 2];

    /// The inverse of [`Key::to_words`].
    fn from_words(words: [u64; 2]) -> Self;
}

macro_rules! key {
    ($type:ty, $bits:literal, $engine:ty, $to_words:expr, $from_words:expr) => {
        impl Key for $type {
            type Engine = $engine;
            const BITS: u8 = $bits;
            const ZERO: Self = 0;

            #[inline]
            fn masked(self, len: u8) -> Self {
                self & <$type>::MAX.checked_shl(u32::from($bits - len)).unwrap_or(0)
            }

            #[inline(always)]
            fn bits(self, from: u8, count: u8) -> usize {
                ((self << from) >> ($bits - count)) as usize
            }

            #[inline]
            fn or_bits(self, from: u8, count: u8, bits: usize) -> Self {
                self | ((bits as $type) << ($bits - count)) >> from
            }

            #[inline(always)]
            fn common_len(self, other: Self) -> u8 {
                (self ^ other).leading_zeros() as u8
            }

            #[inline]
            fn to_words(self) -> [u64; 2] {
                $to_words(self)
            }

            #[inline(always)]
            fn from_words(words: [u64; 2]) -> Self {
                $from_words(words)
            }
        }
    };
}

key!(u32, 32, ipv4::Engine, |key: u32| [u64::from(key), 0], |[word, _]: [u64; 2]| word as u32);
key!(u128, 128, ipv6::Engine, |key: u128| [(key >> 64) as u64, key as u64], |[high, low]: [u64; 2]| {
    u128::from(high) << 64 | u128::from(low)
});

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bits_are_counted_from_the_front() {
        let key = 0xc0a8_0107u32;
        assert_eq!(key.bits(0, 8), 192);
        assert_eq!(key.bits(24, 8), 7);
        assert_eq!(key.bits(30, 6), 0b11_0000, "beyond the end come zeros");
        assert_eq!(key.masked(16), 0xc0a8_0000);
        assert_eq!((key.masked(0), key.masked(32)), (0, key));
        assert_eq!(key.common_len(0xc0a8_0507), 21);
        assert_eq!(key.common_len(key), 32);
    }

    proptest! {
        #[test]
        fn bits_written_are_read(key: u128, from in 0u8..122, bits in 0usize..64) {
            let prefix = key.masked(from);
            let written = prefix.or_bits(from, 6, bits);
            prop_assert_eq!(written.bits(from, 6), bits);
            prop_assert_eq!(written.masked(from), prefix);
            prop_assert_eq!(u128::from_words(key.to_words()), key);
        }
    }
}
