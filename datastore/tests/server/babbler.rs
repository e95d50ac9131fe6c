//! What speaks HTTP/2 and gRPC as an etcd does, and gives one answer to every call (RFC 9113).

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// What a client begins with.
const PREFACE: usize = 24;

/// One at an address, until it is dropped.
pub struct Babbler {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    accepting: Option<JoinHandle<()>>,
}

impl Babbler {
    /// Answers every call with this message.
    pub fn at(address: SocketAddr, message: &'static [u8]) -> Babbler {
        let listener = TcpListener::bind(address).expect("the address is free");
        let (stop, connections) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Vec<TcpStream>>>::default());
        let (stopped, all) = (Arc::clone(&stop), Arc::clone(&connections));
        let accepting = thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                all.lock().unwrap().extend(connection.try_clone());
                // A client that leaves ends its connection.
                thread::spawn(move || drop(babble(connection, message)));
            }
        });
        Babbler { address, stop, connections, accepting: Some(accepting) }
    }
}

impl Drop for Babbler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // It waits for the next connection, which may be this one.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        // Now there are no more of them.
        for connection in self.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn babble(mut connection: TcpStream, message: &[u8]) -> io::Result<()> {
    connection.read_exact(&mut [0; PREFACE])?;
    write(&mut connection, SETTINGS, 0, 0, &[])?;
    loop {
        let mut header = [0; 9];
        connection.read_exact(&mut header)?;
        let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        let (kind, flags) = (header[3], header[4]);
        let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
        let mut payload = vec![0; length];
        connection.read_exact(&mut payload)?;
        match kind {
            SETTINGS | PING if flags & ACK == 0 => write(
                &mut connection,
                kind,
                ACK,
                0,
                match kind {
                    PING => &payload,
                    _ => &[],
                },
            )?,
            HEADERS => answer(&mut connection, stream, message)?,
            _ => {}
        }
    }
}

fn answer(connection: &mut TcpStream, stream: u32, message: &[u8]) -> io::Result<()> {
    // `:status: 200` and `content-type` are in HPACK's static table (RFC 7541, appendix A: 8 and 31).
    let mut begin = vec![0x88, 0x0f, 0x10, 16];
    begin.extend(b"application/grpc");
    write(connection, HEADERS, END_HEADERS, stream, &begin)?;
    // Not compressed, and how long it is.
    let mut data = vec![0];
    data.extend(u32::try_from(message.len()).unwrap_or_default().to_be_bytes());
    data.extend(message);
    write(connection, DATA, 0, stream, &data)?;
    let mut end = vec![0x00, 11];
    end.extend(b"grpc-status");
    end.extend([1, b'0']);
    write(connection, HEADERS, END_HEADERS | END_STREAM, stream, &end)
}

fn write(connection: &mut TcpStream, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    connection.write_all(&frame)
}
