//! One end of a BGP connection that sends what it is told, right or wrong, and tells what comes back.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::tell;

/// How often orders and the connection are looked at.
const TICK: Duration = Duration::from_millis(20);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Marker, length and type of a message (RFC 4271 §4.1).
const HEADER: usize = 19;
/// The type of a NOTIFICATION (RFC 4271 §4.5).
const NOTIFICATION: u8 = 3;

/// Connects and plays what is ordered until either side closes.
///
/// The file of orders grows while it is followed, a line per order: `send HEX`, or `close`.
pub(crate) fn play(router: SocketAddr, source: SocketAddr, orders: &Path) -> Result<()> {
    let mut connection = Connection { stream: connect(router, source)?, received: Vec::new() };
    connection.stream.set_read_timeout(Some(TICK))?;
    tell(&json!({ "connected": true }))?;
    let mut orders = Orders { file: orders.to_owned(), done: 0 };
    loop {
        for order in orders.added()? {
            match order.split_once(' ') {
                Some(("send", hex)) => connection.send(&octets(hex)?)?,
                None if order == "close" => return Ok(connection.stream.shutdown(Shutdown::Both)?),
                _ => bail!("no such order: {order}"),
            }
        }
        if connection.receive()? {
            return tell(&json!({ "closed": true }));
        }
    }
}

/// Connects this many times, one after another, and closes at once; nothing is ever sent.
pub(crate) fn knock(router: SocketAddr, source: SocketAddr, times: u32) -> Result<()> {
    let begin = Instant::now();
    // A refusal is an answer, too: the router may do with a stranger what it likes.
    let accepted = (0..times).filter(|_| connect(router, source).is_ok()).count();
    tell(&json!({ "connects": times, "accepted": accepted, "seconds": begin.elapsed().as_secs_f64() }))
}

pub(crate) fn connect(router: SocketAddr, source: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(router), Type::STREAM, None)?;
    socket.bind(&SockAddr::from(source)).with_context(|| format!("cannot bind {source}"))?;
    socket
        .connect_timeout(&SockAddr::from(router), CONNECT)
        .with_context(|| format!("cannot connect to {router}"))?;
    Ok(socket.into())
}

/// A file of orders that somebody else appends to.
struct Orders {
    file: PathBuf,
    done: usize,
}

impl Orders {
    /// The whole lines that were added since the last call.
    fn added(&mut self) -> Result<Vec<String>> {
        let text = std::fs::read_to_string(&self.file)
            .with_context(|| format!("cannot read {}", self.file.display()))?;
        let added = text.get(self.done..).unwrap_or_default();
        let whole = added.rfind('\n').map_or(0, |end| end + 1);
        self.done += whole;
        Ok(added[..whole].lines().map(str::to_owned).collect())
    }
}

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    fn send(&mut self, octets: &[u8]) -> Result<()> {
        match self.stream.write_all(octets) {
            // The other side has heard enough; what it said before it closed is still to be read.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                Ok(())
            }
            sent => sent.context("cannot send"),
        }
    }

    /// Reads what has come and tells of it; says whether the other side has closed.
    fn receive(&mut self) -> Result<bool> {
        let mut octets = [0; 4096];
        let closed = match self.stream.read(&mut octets) {
            Ok(length) => {
                self.received.extend_from_slice(&octets[..length]);
                length == 0
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
            // Stopped and continued (signal(7)).
            Err(error) if error.kind() == ErrorKind::Interrupted => false,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
            Err(error) => return Err(error).context("cannot receive"),
        };
        while let Some(message) = take_message(&mut self.received) {
            match message[HEADER - 1..] {
                [NOTIFICATION, code, subcode, ref data @ ..] => {
                    tell(&json!({ "notification": { "code": code, "subcode": subcode, "data": data } }))?;
                }
                [kind, ..] => tell(&json!({ "message": kind }))?,
                [] => {}
            }
        }
        Ok(closed)
    }
}

/// The first whole message of what has come; a length that no message can have ends up as one of header size.
fn take_message(received: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = [*received.get(16)?, *received.get(17)?];
    let length = usize::from(u16::from_be_bytes(length)).max(HEADER);
    (received.len() >= length).then(|| received.drain(..length).collect())
}

fn octets(hex: &str) -> Result<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair)?;
        u8::from_str_radix(pair, 16).with_context(|| format!("{pair:?} is no octet"))
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_once_and_only_when_their_line_is_whole() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut orders = Orders { file: file.path().to_owned(), done: 0 };
        std::fs::write(file.path(), "send 01\nclo").expect("it is written");
        assert_eq!(orders.added().expect("it is read"), ["send 01"]);
        std::fs::write(file.path(), "send 01\nclose\n").expect("it is written");
        assert_eq!(orders.added().expect("it is read"), ["close"]);
        assert!(orders.added().expect("it is read").is_empty());
    }

    #[test]
    fn messages_are_cut_from_the_stream_by_their_length() {
        let mut stream = [vec![0xff; 16], vec![0, 21, 3, 6, 2], vec![0xff; 16], vec![0]].concat();
        assert_eq!(take_message(&mut stream).expect("one is whole")[HEADER..], [6, 2]);
        assert_eq!(take_message(&mut stream), None);
    }

    #[test]
    fn octets_come_from_pairs_of_digits() {
        assert_eq!(octets("00ff10").expect("they are hexadecimal"), [0, 255, 16]);
        assert!(octets("0g").is_err());
    }
}
