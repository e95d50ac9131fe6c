//! Packets in a file that libpcap reads.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};

/// Magic for microseconds, version 2.4, zone, accuracy, the longest packet, Ethernet: the pcap file header, of which
/// draft-ietf-opsawg-pcap tells. Little-endian.
const HEAD: [&[u8]; 5] =
    [&0xa1b2_c3d4u32.to_le_bytes(), &[2, 0, 4, 0], &[0; 8], &65_535u32.to_le_bytes(), &1u32.to_le_bytes()];

/// Writes these packets, all at the same time of arrival.
///
/// # Errors
/// Where the file can't be written.
pub(super) fn write(path: &Path, packets: &[Vec<u8>]) -> Result<()> {
    let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    out.write_all(&HEAD.concat())?;
    for packet in packets {
        let len = (packet.len() as u32).to_le_bytes();
        out.write_all(&[[0; 8].as_slice(), &len, &len, packet.as_slice()].concat())?;
    }
    out.flush().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_stands_behind_two_headers() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("packets");
        write(&path, &[vec![7; 60], vec![8; 64]]).expect("it can be written");
        let bytes = std::fs::read(&path).expect("it is there");
        assert_eq!(bytes.len(), 24 + 16 + 60 + 16 + 64);
        assert_eq!(bytes[..4], [0xd4, 0xc3, 0xb2, 0xa1]);
        assert_eq!(bytes[24 + 8..24 + 16], [60, 0, 0, 0, 60, 0, 0, 0]);
        assert_eq!(bytes[24 + 16..24 + 16 + 60], [7; 60]);
    }
}
