//! Asking somebody who has connected who it is: its OPEN tells its AS. The bytes stay where they are, for the session.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bgp::wire::open::Open;
use model::AsNumber;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use crate::event::Event;

/// How long somebody may take to say who it is.
const WITHIN: Duration = Duration::from_secs(10);
/// Between two looks at an OPEN that has come in part.
const PAUSE: Duration = Duration::from_millis(20);
/// Marker, length and type (RFC 4271 §4.1).
const HEADER: usize = 19;
/// The longest message (RFC 4271 §4).
const LONGEST: usize = 4096;
/// An OPEN's type.
const OPEN: u8 = 1;

/// So many may be asked at once.
const AT_ONCE: usize = 64;

/// Who is being asked.
pub(crate) struct Introductions {
    places: Arc<Semaphore>,
    events: mpsc::Sender<Event>,
}

impl Introductions {
    /// Nobody yet; who has said who it is comes to `events`.
    pub(crate) fn new(events: mpsc::Sender<Event>) -> Introductions {
        Introductions { places: Arc::new(Semaphore::new(AT_ONCE)), events }
    }

    /// Waits in the background for the OPEN and tells of it. Where too many are waited for at once, or what comes is no
    /// OPEN, the connection is dropped: whoever means it tries again.
    pub(crate) fn ask(&self, stream: TcpStream, remote: SocketAddr) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { return };
        let events = self.events.clone();
        tokio::spawn(async move {
            let as_number = timeout(WITHIN, as_number(&stream)).await.ok().flatten();
            drop(place);
            if let Some(as_number) = as_number {
                // The loop ended: nobody waits for the news.
                let _ = events.send(Event::Introduced { stream, remote, as_number }).await;
            }
        });
    }
}

async fn as_number(stream: &TcpStream) -> Option<AsNumber> {
    let mut bytes = [0; LONGEST];
    loop {
        let len = stream.peek(&mut bytes).await.ok().filter(|len| *len > 0)?;
        match read(&bytes[..len]) {
            Read::Complete(as_number) => return as_number,
            Read::Partial => sleep(PAUSE).await,
        }
    }
}

enum Read {
    Partial,
    /// `None` is no OPEN.
    Complete(Option<AsNumber>),
}

fn read(bytes: &[u8]) -> Read {
    let (Some(length), Some(&kind)) = (bytes.get(16..18), bytes.get(18)) else { return Read::Partial };
    let length = usize::from(length[0]) << 8 | usize::from(length[1]);
    if kind != OPEN || !(HEADER..=LONGEST).contains(&length) {
        return Read::Complete(None);
    }
    let Some(body) = bytes.get(HEADER..length) else { return Read::Partial };
    Read::Complete(Open::parse(body).ok().map(|open| AsNumber(open.as_number())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of AS 4200000000, holding 90 s, 10.0.0.2, with the capability of four-octet AS numbers.
    fn open() -> Vec<u8> {
        let capability = [2, 6, 65, 4, 0xfa, 0x56, 0xea, 0x00];
        let length = HEADER + 10 + capability.len();
        let mut bytes = vec![0xff; 16];
        bytes.extend([0, length as u8, OPEN, 4, 0x5b, 0xa0, 0, 90, 10, 0, 0, 2, capability.len() as u8]);
        bytes.extend(capability);
        bytes
    }

    #[test]
    fn an_open_names_its_as_once_all_of_it_has_come() {
        let bytes = open();
        for len in 0..bytes.len() {
            assert!(matches!(read(&bytes[..len]), Read::Partial), "{len} of {} octets", bytes.len());
        }
        let Read::Complete(as_number) = read(&bytes) else { panic!("it is complete") };
        assert_eq!(as_number, Some(AsNumber(4_200_000_000)));
    }

    #[test]
    fn what_is_no_open_introduces_nobody() {
        let mut keepalive = open();
        keepalive[18] = 4;
        let mut endless = open();
        endless[16] = 0xff;
        let mut short = open();
        short.splice(16..18, [0, 18]);
        for bytes in [keepalive, endless, short] {
            assert!(matches!(read(&bytes), Read::Complete(None)));
        }
    }
}
