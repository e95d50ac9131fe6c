//! How large a packet this box carries, and what frames are made of for that.

use crate::config::Config;
use crate::interfaces;
use crate::limits::{Limits, UMEM_PAGE};

/// Bytes that the kernel leaves in front of a received frame, and those of its Ethernet header.
const IN_FRONT: u32 = afxdp::HEADROOM as u32 + 14;
/// Bytes of a chunk where packets fit that have no more than Ethernet's usual MTU.
const SMALL_CHUNK: u32 = 2_048;
/// The MTU of a box none of whose interfaces can be found yet.
const USUAL_MTU: u32 = 1_500;
/// The most that interfaces may ask for by themselves. The loopback and some virtual links have an MTU of 64 KiB, which
/// nobody means to send through a router.
const AUTOMATIC_MAX: u32 = 9_216;

/// The chunks of a worker's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameSize {
    /// Bytes of a chunk, and of most frames.
    pub(crate) chunk_bytes: u32,
    /// Chunks of a large frame; 1 where none is needed.
    pub(crate) large_chunks: u16,
}

impl FrameSize {
    /// The smallest frames that hold an IP packet of so many bytes.
    pub(crate) fn for_mtu(mtu: u32) -> FrameSize {
        let bytes = mtu + IN_FRONT;
        if bytes <= SMALL_CHUNK {
            return FrameSize { chunk_bytes: SMALL_CHUNK, large_chunks: 1 };
        }
        // `Limits::MTU` ends at 15 chunks.
        FrameSize { chunk_bytes: UMEM_PAGE, large_chunks: bytes.div_ceil(UMEM_PAGE) as u16 }
    }

    /// Bytes of the largest frame.
    pub(crate) fn bytes(self) -> u32 {
        self.chunk_bytes * u32::from(self.large_chunks)
    }

    /// Bytes of the largest IP packet that a port can receive.
    pub(crate) fn receivable(self) -> u32 {
        self.bytes() - IN_FRONT
    }

    /// The large frames of a worker, where any are needed.
    pub(crate) fn large(self, limits: &Limits) -> Option<afxdp::LargeFrames> {
        // `Limits::LARGE_FRAMES` ends far below 2^32.
        (self.large_chunks > 1)
            .then_some(afxdp::LargeFrames { count: limits.large_frames as u32, chunks: self.large_chunks })
    }
}

/// The largest packet that this box carries, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LargestPacket {
    /// Bytes of an IP packet.
    pub(crate) mtu: u32,
    /// In words.
    said_by: String,
}

impl LargestPacket {
    /// `limits.mtu`, or else the largest MTU of the uplinks and workloads' interfaces that there are now.
    pub(crate) fn of(config: &Config) -> LargestPacket {
        let is_port =
            |name: &String| config.uplinks.contains(name) || name.starts_with(&config.workload_prefix);
        let names = interfaces::names().unwrap_or_default().into_iter().filter(is_port);
        let mtus = names.filter_map(|name| {
            let index = afxdp::interface_index(&name).ok()?;
            Some((afxdp::DeviceFeatures::of(index).ok()?.mtu, name))
        });
        LargestPacket::among(config.limits.mtu, mtus)
    }

    fn among(limit: Option<usize>, mtus: impl Iterator<Item = (u32, String)>) -> LargestPacket {
        if let Some(limit) = limit {
            // `Limits::MTU` ends far below 2^32.
            return LargestPacket { mtu: limit as u32, said_by: "limits.mtu".to_owned() };
        }
        match mtus.max_by_key(|(mtu, _)| *mtu) {
            None => LargestPacket { mtu: USUAL_MTU, said_by: "no interface is there yet".to_owned() },
            Some((mtu, name)) if mtu > AUTOMATIC_MAX => {
                let said_by = format!("{name} has an MTU of {mtu}; more takes limits.mtu");
                LargestPacket { mtu: AUTOMATIC_MAX, said_by }
            }
            Some((mtu, name)) => LargestPacket { mtu, said_by: format!("the MTU of {name}") },
        }
    }

    /// One line for the log.
    pub(crate) fn sentence(&self, size: FrameSize, limits: &Limits) -> String {
        let FrameSize { chunk_bytes, large_chunks } = size;
        let large = match size.large(limits) {
            None => String::new(),
            Some(large) => {
                format!(", and {} of {large_chunks} chunks a worker for larger packets", large.count)
            }
        };
        let LargestPacket { mtu, said_by } = self;
        format!(
            "frames: for packets of {mtu} bytes ({said_by}), up to {} can be received; of {chunk_bytes} bytes{large}",
            size.receivable()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_usual_mtu_takes_half_a_page_and_a_jumbo_frame_three() {
        let sizes = |mtu| {
            let size = FrameSize::for_mtu(mtu);
            (size.chunk_bytes, size.large_chunks, size.receivable())
        };
        assert_eq!(sizes(1500), (2048, 1, 1778));
        assert_eq!(sizes(1778), (2048, 1, 1778));
        assert_eq!(sizes(1779), (4096, 1, 3826));
        assert_eq!(sizes(3826), (4096, 1, 3826));
        assert_eq!(sizes(3827), (4096, 2, 7922));
        assert_eq!(sizes(9000), (4096, 3, 12_018));
        assert_eq!(sizes(Limits::MTU.1 as u32), (4096, 15, Limits::MTU.1 as u32));
    }

    proptest! {
        #[test]
        fn frames_hold_what_they_are_for_and_a_region_can_be_made_of_them(mtu in Limits::MTU.0..=Limits::MTU.1) {
            let size = FrameSize::for_mtu(mtu as u32);
            prop_assert!(size.receivable() as usize >= mtu);
            let large = size.large(&Limits { large_frames: 1, ..Limits::default() });
            let config = afxdp::RegionConfig { frames: 1, chunk_size: size.chunk_bytes, large, hugepages: false };
            let (region, mut pool) = afxdp::Region::new(config).unwrap();
            prop_assert_eq!(region.receivable(true), size.receivable() + 14);
            prop_assert!(pool.take_for(mtu + 14).is_some());
        }
    }

    #[test]
    fn the_largest_interface_decides_unless_the_limit_does() {
        let mtu = |limit, mtus: &[u32]| {
            let names = mtus.iter().map(|mtu| (*mtu, format!("eth{mtu}")));
            let largest = LargestPacket::among(limit, names);
            (largest.mtu, largest.said_by)
        };
        assert_eq!(mtu(None, &[1500, 9000, 1450]), (9000, "the MTU of eth9000".to_owned()));
        assert_eq!(mtu(Some(1500), &[1500, 9000]), (1500, "limits.mtu".to_owned()));
        assert_eq!(mtu(None, &[]).0, 1500);
        let (capped, said_by) = mtu(None, &[65_536]);
        assert!(capped == 9216 && said_by.contains("65536") && said_by.contains("limits.mtu"), "{said_by}");
    }

    #[test]
    fn the_log_names_large_frames_only_where_there_are_any() {
        let sentence = |mtu| {
            let largest = LargestPacket::among(Some(mtu), std::iter::empty());
            largest.sentence(FrameSize::for_mtu(mtu as u32), &Limits::default())
        };
        assert_eq!(
            sentence(1500),
            "frames: for packets of 1500 bytes (limits.mtu), up to 1778 can be received; of 2048 bytes"
        );
        assert!(sentence(9000).ends_with("of 4096 bytes, and 4096 of 3 chunks a worker for larger packets"));
    }
}
