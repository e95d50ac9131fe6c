//! Stage 13: each frame to where its fate says, and the books.

use afxdp::{Frame, FramePool};
use model::PortId;
use tables::{Capture, DropReason, Fate, Ports, Punt, PuntReason, RingProducer, State};

use crate::fragment::Pieces;
use crate::handoff::Handoffs;
use crate::queues::{OwnedQueue, Queues};
use crate::tally::Tally;
use crate::{BATCH, Batch, capture, transmit};

/// Where frames can go.
pub(crate) struct Exits<'a> {
    pub(crate) worker: usize,
    pub(crate) queues: &'a mut Queues,
    pub(crate) handoffs: &'a mut Handoffs,
    pub(crate) punt: &'a mut RingProducer<Punt>,
    pub(crate) pool: &'a mut FramePool,
    pub(crate) tally: &'a mut Tally,
    /// Who wants copies of what leaves.
    pub(crate) capture: Option<&'a Capture>,
}

impl Exits<'_> {
    /// Takes the frames out of the batch: those that leave wait at their queue, the others are back in the pool when this
    /// returns.
    pub(crate) fn settle(&mut self, batch: &mut Batch, state: &State) {
        if let Some(owned) = common_port(batch).and_then(|port| self.queues.of_port(port)) {
            // Nothing waits there yet, so the frames stay where they are and their owners change places.
            debug_assert!(owned.waiting.is_empty(), "what waited has been transmitted");
            std::mem::swap(&mut owned.waiting, &mut batch.frames);
            return;
        }
        let mut frames = std::mem::take(&mut batch.frames);
        for (row, frame) in frames.drain(..).enumerate() {
            let ingress = batch.ingress(row);
            match batch.fates[row] {
                Fate::Forward(port) => {
                    self.leave(port, frame, ingress, &state.ports);
                    continue;
                }
                Fate::Fragment(port) => self.fragment(port, &frame, batch, row, state),
                Fate::Punt(reason) => {
                    let punt = punt_of(batch, row, reason, state);
                    match self.punt.push(punt, frame.bytes()) {
                        Ok(()) => self.tally.punted(reason),
                        Err(_) => self.tally.dropped(DropReason::PuntRingFull, ingress),
                    }
                }
                Fate::Drop(reason) => self.tally.dropped(reason, ingress),
                Fate::Undecided => unreachable!("the walk gives every frame a fate"),
            }
            self.pool.put(frame);
        }
        batch.frames = frames;
    }

    /// Leaves a frame with its port's queue, or with the worker that owns it.
    fn leave(&mut self, port: PortId, frame: Frame, ingress: Option<PortId>, ports: &Ports) {
        let Some(owned) = self.queues.of_port(port) else {
            if let Err(reason) = self.hand_over(port, frame.bytes(), ports) {
                self.tally.dropped(reason, ingress);
            }
            self.pool.put(frame);
            return;
        };
        make_room(owned, self.pool, self.tally, self.capture);
        owned.waiting.push(frame);
    }

    /// Leaves a fragment with its port's queue, or with the worker that owns it.
    fn leave_piece(&mut self, port: PortId, piece: Frame, ingress: Option<PortId>, ports: &Ports) {
        if let Some(owned) = self.queues.of_port(port) {
            make_room(owned, self.pool, self.tally, self.capture);
            owned.pieces.push(owned.waiting.len());
        }
        self.leave(port, piece, ingress, ports);
    }

    #[cold]
    fn fragment(&mut self, port: PortId, frame: &Frame, batch: &Batch, row: usize, state: &State) {
        let (parsed, hop) = (&batch.parsed[row], state.next_hops.get(batch.hops[row]));
        let ingress = batch.ingress(row);
        let mut pieces = match Pieces::new(frame, parsed, hop, state, self.pool) {
            Ok(pieces) => pieces,
            Err(reason) => return self.tally.dropped(reason, ingress),
        };
        self.tally.books.fragmented += 1;
        while let Some(piece) = pieces.next(self.pool) {
            self.tally.books.fragments += 1;
            match piece {
                Ok(piece) => self.leave_piece(port, piece, ingress, &state.ports),
                Err(reason) => self.tally.dropped(reason, ingress),
            }
        }
    }

    /// Copies a frame into the ring of the worker that owns the port's queue for this one. It must fit a fresh frame of that
    /// worker's, which an encapsulated one may not where the port's MTU is above what frames are made for.
    fn hand_over(&mut self, port: PortId, bytes: &[u8], ports: &Ports) -> Result<(), DropReason> {
        if bytes.len() > self.pool.longest() {
            return Err(DropReason::HandoffRingFull);
        }
        let queues = usize::from(ports.get(port).ok_or(DropReason::PortDown)?.queues.max(1));
        let ring = self.handoffs.to.get_mut(self.worker % queues).and_then(Option::as_mut);
        ring.ok_or(DropReason::PortDown)?.push(port, bytes).map_err(|_| DropReason::HandoffRingFull)
    }

    /// Stage 14, `transmit.rs`, for every queue with frames waiting. What is known of them still stands in the batch.
    pub(crate) fn transmit(&mut self, batch: &Batch) {
        for owned in self.queues.iter_mut() {
            if !owned.waiting.is_empty() {
                if !transmit::has_room(owned, self.pool) {
                    transmit::drop_unfair(owned, batch, self.pool, self.tally);
                }
                send(owned, self.pool, self.tally, self.capture);
            }
            owned.gone = 0;
        }
    }
}

/// Makes sure that one more frame may wait: fragments are more frames than came in. Where the ring is nearly full they go.
#[inline]
fn make_room(owned: &mut OwnedQueue, pool: &mut FramePool, tally: &mut Tally, capture: Option<&Capture>) {
    if owned.waiting.len() < BATCH {
        return;
    }
    if transmit::has_room(owned, pool) {
        owned.gone += owned.waiting.len() - owned.pieces.len();
        send(owned, pool, tally, capture);
    } else {
        transmit::drop_pieces(owned, pool, tally);
    }
}

/// Gives what waits at a queue to its ring, and counts it.
fn send(owned: &mut OwnedQueue, pool: &mut FramePool, tally: &mut Tally, capture: Option<&Capture>) {
    if let Some(capture) = capture {
        capture::leaving(owned.port, &owned.waiting, capture);
    }
    owned.pieces.clear();
    let sent = transmit::waiting(owned, pool);
    tally.forwarded(owned.port, sent.frames, sent.bytes);
    tally.refused(sent.refused);
}

/// The port that all frames leave by, where it is one: a batch of one flow, or on a box with one way out.
fn common_port(batch: &Batch) -> Option<PortId> {
    let fates = &batch.fates[..batch.len()];
    let Some(Fate::Forward(port)) = fates.first() else { return None };
    // Folded to the end, for the processor compares several at once.
    let is_common = fates.iter().fold(true, |all, fate| all & (*fate == Fate::Forward(*port)));
    is_common.then_some(*port)
}

fn punt_of(batch: &Batch, row: usize, reason: PuntReason, state: &State) -> Punt {
    let hop = state.next_hops.get(batch.hops[row]);
    let adjacency = hop.adjacency.filter(|_| reason == PuntReason::Unresolved);
    let mtu = if reason == PuntReason::TooBig { hop.mtu } else { 0 };
    Punt { reason, port: batch.ingress(row), adjacency, mtu }
}
