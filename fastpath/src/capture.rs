//! Copying frames for somebody who wants to look at them: as they come in, with how their walk ended, and as they leave.

use std::time::SystemTime;

use afxdp::Frame;
use model::PortId;
use tables::{Capture, Captured, Passage};

use crate::{BATCH, Batch, trace};

/// Copies of one batch's frames whose walk isn't over, each of its row. Kept from batch to batch, so that copying allocates
/// nothing.
pub(crate) struct Copies(Vec<(usize, Captured)>);

impl Copies {
    pub(crate) fn new() -> Copies {
        Copies(Vec::with_capacity(BATCH))
    }

    /// Copies what is asked for of a batch that is about to be walked.
    #[cold]
    pub(crate) fn take(&mut self, batch: &Batch, capture: &Capture) {
        let filter = capture.filter();
        if !filter.incoming {
            return;
        }
        let at = SystemTime::now();
        for run in &batch.runs {
            if filter.packet.port.is_some() && filter.packet.port != run.ingress {
                continue;
            }
            for row in run.rows() {
                let frame = batch.frames[row].bytes();
                if !trace::matches(&filter.packet, frame) {
                    continue;
                }
                let Some(bytes) = capture.copy(frame) else { continue };
                let passage = Passage::In(batch.fates[row]);
                let copy = Captured { at, port: run.ingress, passage, frame_len: frame.len(), bytes };
                self.0.push((row, copy));
            }
        }
    }

    /// Hands on those whose walk has ended as it is asked for.
    #[cold]
    pub(crate) fn hand_on(&mut self, batch: &Batch, capture: &Capture) {
        for (row, copy) in self.0.drain(..) {
            let fate = batch.fates[row];
            if capture.filter().packet.wants(fate) {
                capture.put(Captured { passage: Passage::In(fate), ..copy });
            } else {
                capture.give_back(copy.bytes);
            }
        }
    }
}

/// Copies what is asked for of frames that are about to leave by a port.
#[cold]
pub(crate) fn leaving(port: PortId, frames: &[Frame], capture: &Capture) {
    let filter = capture.filter();
    if !filter.outgoing || filter.leaves_by.is_some_and(|asked| asked != port) {
        return;
    }
    let at = SystemTime::now();
    for frame in frames.iter().map(Frame::bytes).filter(|frame| trace::matches(&filter.packet, frame)) {
        if let Some(bytes) = capture.copy(frame) {
            capture.put(Captured {
                at,
                port: Some(port),
                passage: Passage::Out,
                frame_len: frame.len(),
                bytes,
            });
        }
    }
}
