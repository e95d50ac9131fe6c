//! The rings of a queue, and the frames that they take.

use afxdp::RingSizes;
use model::PortKind;

use crate::limits;

/// The rings of one queue of a worker that has so many frames.
///
/// A port takes the frames of its fill ring for good, so of few frames it takes a part: an uplink half of them, others an
/// eighth.
pub(super) fn rings(kind: PortKind, frames: usize) -> RingSizes {
    // The kernel takes powers of two.
    let part = |of: usize, most: u32| most.min(1 << (frames / of).max(1).ilog2());
    match kind {
        PortKind::Uplink => {
            let (rx, fill) = (limits::UPLINK_FILL_RING, part(2, limits::UPLINK_FILL_RING));
            RingSizes { rx, tx: limits::UPLINK_RING, fill, completion: limits::UPLINK_RING }
        }
        PortKind::Workload | PortKind::Host => RingSizes {
            rx: limits::VETH_RING,
            tx: limits::VETH_RING,
            fill: part(8, limits::VETH_FILL_RING),
            completion: limits::VETH_RING,
        },
    }
}

/// Frames of one worker that its ports' fill rings may still take.
pub(super) struct FrameBudget {
    /// All that the worker has.
    frames: usize,
    left: usize,
}

impl FrameBudget {
    /// An eighth of the frames is kept for those that are on their way out.
    pub(super) fn new(frames: usize) -> FrameBudget {
        FrameBudget { frames, left: frames - frames / 8 }
    }

    /// The rings of a queue of such a port.
    pub(super) fn rings(&self, kind: PortKind) -> RingSizes {
        rings(kind, self.frames)
    }

    /// Takes the frames of a queue of such a port.
    ///
    /// # Errors
    /// How many it wants and how many are left, where these are fewer.
    pub(super) fn take(&mut self, kind: PortKind) -> Result<(), TooFew> {
        let wanted = self.rings(kind).fill as usize;
        self.left = self.left.checked_sub(wanted).ok_or(TooFew { wanted, left: self.left })?;
        Ok(())
    }

    /// Gives them back.
    pub(super) fn give_back(&mut self, kind: PortKind) {
        self.left += self.rings(kind).fill as usize;
    }
}

/// A worker has fewer frames left than a queue's rings want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooFew {
    pub(super) wanted: usize,
    pub(super) left: usize,
}

/// Workload ports that a worker of so many frames has room for, beside so many uplinks and the host; `None` where it hasn't
/// even for those.
pub(crate) fn room_for_workloads(frames: usize, uplinks: usize) -> Option<usize> {
    let each = |kind| rings(kind, frames).fill as usize;
    let others = uplinks * each(PortKind::Uplink) + each(PortKind::Host);
    Some(FrameBudget::new(frames).left.checked_sub(others)? / each(PortKind::Workload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    #[test]
    fn frames_are_taken_until_the_reserve_for_sending_and_come_back() {
        let mut budget = FrameBudget::new(2_048);
        for kind in [PortKind::Uplink, PortKind::Host, PortKind::Workload, PortKind::Workload] {
            assert_eq!(budget.take(kind), Ok(()));
        }
        assert_eq!(budget.take(PortKind::Workload), Err(TooFew { wanted: 256, left: 0 }));
        budget.give_back(PortKind::Workload);
        assert_eq!(budget.take(PortKind::Host), Ok(()));
    }

    #[test]
    fn the_default_frames_hold_an_uplink_and_a_hundred_workloads() {
        let mut budget = FrameBudget::new(Limits::default().frames);
        assert_eq!(budget.take(PortKind::Uplink), Ok(()));
        for _ in 0..100 {
            assert_eq!(budget.take(PortKind::Workload), Ok(()));
        }
        assert!(room_for_workloads(Limits::default().frames, 1) >= Some(100));
        assert_eq!(room_for_workloads(8_192, 2), None);
    }

    #[test]
    fn the_fewest_frames_hold_an_uplink_the_host_and_two_workloads_in_smaller_rings() {
        let (fewest, _) = Limits::FRAMES;
        for frames in [fewest, fewest + 1, 3_000, 4_096, 8_192] {
            let workloads = room_for_workloads(frames, 1);
            assert!(workloads >= Some(2), "{frames} frames: {workloads:?}");
        }
        let fill = |kind, frames| rings(kind, frames).fill;
        let fills = |frames| (fill(PortKind::Uplink, frames), fill(PortKind::Workload, frames));
        assert_eq!(fills(fewest), (1_024, 256));
        assert_eq!(fills(4_095), (1_024, 256));
        assert_eq!(fills(4_096), (2_048, 512));
        for frames in [8_192, 16_384, Limits::default().frames] {
            assert_eq!(fills(frames), (limits::UPLINK_FILL_RING, limits::VETH_FILL_RING));
        }
    }
}
