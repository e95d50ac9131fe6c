//! The form behind `tortie show bgp --mrt FILE`.

use serde::{Deserialize, Serialize};

/// A piece of BGP's table in MRT's form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpDumpStatus {
    /// By this the next piece is asked for; 0 where there is no such table (any more).
    pub id: u64,
    /// Whole records, in hexadecimal.
    pub records: String,
    /// There are no more.
    pub done: bool,
}

impl BgpDumpStatus {
    /// A piece.
    pub fn new(id: u64, records: &[u8], done: bool) -> BgpDumpStatus {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |value: u8| char::from(DIGITS[usize::from(value & 0xf)]);
        let records = records.iter().flat_map(|octet| [digit(octet >> 4), digit(*octet)]).collect();
        BgpDumpStatus { id, records, done }
    }

    /// The records' octets; `None` where they are not hexadecimal.
    pub fn octets(&self) -> Option<Vec<u8>> {
        let digit = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
        let (pairs, rest) = self.records.as_bytes().as_chunks::<2>();
        let octets = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
        if rest.is_empty() { octets } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_come_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(BgpDumpStatus::new(1, &all, false).octets(), Some(all));
        for text in ["0", "0g", "zz"] {
            let status = BgpDumpStatus { records: text.to_owned(), ..BgpDumpStatus::default() };
            assert_eq!(status.octets(), None, "{text}");
        }
    }
}
