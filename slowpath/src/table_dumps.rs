//! BGP's table in MRT's form, handed out piece by piece to whoever asks for the next one, so that no session waits for it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use bgp::mrt::MrtPieces;

use crate::event_loop::Core;
use crate::status::BgpDumpStatus;

/// Octets of a piece, about.
const PIECE: usize = 1 << 20;
/// Tables that are handed out at once; one more ends the oldest.
const AT_ONCE: usize = 4;
/// A table that nobody has asked for so long is over.
const IDLE: Duration = Duration::from_secs(60);

/// Tables that are being handed out.
#[derive(Default)]
pub(crate) struct TableDumps {
    pieces: BTreeMap<u64, (MrtPieces, Instant)>,
    latest: u64,
}

impl TableDumps {
    fn next_id(&mut self) -> u64 {
        self.latest += 1;
        self.latest
    }

    fn keep(&mut self, id: u64, pieces: MrtPieces, now: Instant) {
        self.pieces.retain(|_, (_, asked)| now.saturating_duration_since(*asked) < IDLE);
        while self.pieces.len() >= AT_ONCE {
            self.pieces.pop_first();
        }
        self.pieces.insert(id, (pieces, now));
    }
}

impl Core {
    /// The next piece of a table, or the first one of another.
    pub(crate) fn dump_bgp(&mut self, id: Option<u64>) -> BgpDumpStatus {
        let now = Instant::now();
        let pieces = match id {
            // One that is over has no more pieces, and says so by an identifier that is none.
            Some(id) => self.table_dumps.pieces.remove(&id).map(|(pieces, _)| pieces),
            None => {
                let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                self.bgp.ask(move |speaker| speaker.mrt_begin(time.as_secs() as u32))
            }
        };
        let next =
            |mut pieces: MrtPieces| self.bgp.ask(|speaker| (speaker.mrt_piece(&mut pieces, PIECE), pieces));
        let Some((piece, pieces)) = pieces.and_then(next) else { return BgpDumpStatus::default() };
        let id = id.unwrap_or_else(|| self.table_dumps.next_id());
        let done = piece.is_empty();
        if !done {
            self.table_dumps.keep(id, pieces, now);
        }
        BgpDumpStatus::new(id, &piece, done)
    }
}
