//! A packet above a chunk, which the kernel delivers in pieces, put together in a large frame.
//!
//! `XDP_PKT_CONTD` in a descriptor says that another one of the same packet follows (Documentation/networking/af_xdp.rst,
//! "Multi-Buffer Support"). Copying costs what a second look at the bytes costs; in return whoever walks a frame sees it
//! whole, and the chunks are free to be received into again at once.

use crate::frame::Frame;
use crate::pool::FramePool;

/// What there is so far of a packet in pieces.
#[derive(Debug, Default)]
pub(crate) enum Assembly {
    /// The next piece is a packet's first.
    #[default]
    Idle,
    /// Its first pieces.
    Begun(Frame),
    /// The packet is lost; pieces of it may follow.
    Lost(Loss),
}

/// Why a packet in pieces can't be put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// No large frame was free.
    NoFrame,
    /// It is longer than a large frame, or the region has none.
    TooLong,
    /// A piece reached beyond its chunk.
    BadPiece,
}

impl Assembly {
    /// Is the next piece a packet's first?
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    /// Adds a piece, whose frame goes back to the pool; `Err` for a frame that the kernel returned with nonsense. The packet,
    /// or why there is none, when this piece was its last.
    #[cold]
    pub(crate) fn add(
        &mut self,
        piece: Result<Frame, Frame>,
        is_last: bool,
        pool: &mut FramePool,
    ) -> Option<Result<Frame, Loss>> {
        let begun = match std::mem::take(self) {
            Self::Lost(loss) => Err(loss),
            Self::Begun(frame) => Ok(frame),
            Self::Idle if piece.is_err() => Err(Loss::BadPiece),
            Self::Idle => pool.take_large().ok_or(match pool.has_large() {
                true => Loss::NoFrame,
                false => Loss::TooLong,
            }),
        };
        let whole = begun.and_then(|mut frame| {
            let loss = match piece.as_ref().map(|piece| frame.append(piece.bytes())) {
                Ok(Ok(())) => return Ok(frame),
                Ok(Err(_)) => Loss::TooLong,
                Err(_) => Loss::BadPiece,
            };
            pool.put(frame);
            Err(loss)
        });
        pool.put(piece.unwrap_or_else(|bad| bad));
        if is_last {
            return Some(whole);
        }
        *self = whole.map_or_else(Self::Lost, Self::Begun);
        None
    }

    /// The frame of a packet whose last piece hasn't come.
    pub(crate) fn give_up(&mut self) -> Option<Frame> {
        match std::mem::take(self) {
            Self::Begun(frame) => Some(frame),
            Self::Idle | Self::Lost(_) => None,
        }
    }

    /// Frames held: one or none.
    pub(crate) fn held(&self) -> usize {
        usize::from(matches!(self, Self::Begun(_)))
    }
}
