//! Within stage 13: an IPv4 packet larger than the next hop's MTU leaves in pieces (RFC 1812 §5.2.7).
//!
//! The walk does it itself: the pieces keep their order and their flow's way, no queue to the slow path can fill up with
//! large packets, and the stages in front have judged the packet as a whole.

use afxdp::{Frame, FramePool};
use packet::{Fragments, Parsed, ethernet};
use tables::{DropReason, NextHop, State};

use crate::rewrite;

/// The pieces of a packet that is ready to leave but for its size, in order.
pub(crate) struct Pieces<'a> {
    whole: &'a Frame,
    fragments: Fragments<'a>,
    parsed: &'a Parsed,
    hop: &'a NextHop,
    state: &'a State,
    /// Bytes of the longest piece, Ethernet header included: no more than the whole's.
    longest: usize,
}

const CANT: DropReason = DropReason::NeedsFragmentation;

impl<'a> Pieces<'a> {
    /// # Errors
    /// The packet can't be cut, or the pool hasn't a frame for each piece; then it is better lost as a whole.
    pub(crate) fn new(
        whole: &'a Frame,
        parsed: &'a Parsed,
        hop: &'a NextHop,
        state: &'a State,
        pool: &FramePool,
    ) -> Result<Pieces<'a>, DropReason> {
        let fragments = Fragments::new(parsed.l3_packet(whole.bytes()), hop.mtu).ok_or(CANT)?;
        // All tags of the whole come along until the piece is dressed.
        let longest = (usize::from(parsed.l3) + usize::from(hop.mtu)).min(whole.len());
        match fragments.count() <= pool.available_for(longest) {
            true => Ok(Pieces { whole, fragments, parsed, hop, state, longest }),
            false => Err(CANT),
        }
    }

    /// The next piece in a frame of the pool, or why it is lost; `None` after the last one.
    pub(crate) fn next(&mut self, pool: &mut FramePool) -> Option<Result<Frame, DropReason>> {
        if self.fragments.count() == 0 {
            return None;
        }
        let Some(mut piece) = pool.take_for(self.longest) else {
            self.fragments.stop();
            return Some(Err(CANT));
        };
        match self.write(&mut piece) {
            Ok(()) => Some(Ok(piece)),
            Err(reason) => {
                pool.put(piece);
                self.fragments.stop();
                Some(Err(reason))
            }
        }
    }

    fn write(&mut self, piece: &mut Frame) -> Result<(), DropReason> {
        piece.set_len(self.longest).map_err(|_| CANT)?;
        let (link, packet) =
            piece.bytes_mut().split_at_mut_checked(usize::from(self.parsed.l3)).ok_or(CANT)?;
        link.copy_from_slice(self.whole.bytes().get(..link.len()).ok_or(CANT)?);
        let len = self.fragments.write_next(packet).ok_or(CANT)?;
        piece.set_len(ethernet::HEADER_LEN + len).map_err(|_| CANT)?;
        let parsed = packet::parse(piece.bytes()).map_err(|_| CANT)?;
        rewrite::dress(piece, &parsed, self.hop, self.state)
    }
}
