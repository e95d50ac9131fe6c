//! The way to an etcd, which a test can cut, stop or slow down.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const OPEN: u8 = 0;
/// Nothing comes through, and nobody is told: a partition.
const SILENT: u8 = 1;
/// No connection stands or is let in.
const CUT: u8 = 2;

/// A proxy on loopback. Its threads end with their connections, or with the test.
pub struct Proxy {
    pub address: SocketAddr,
    way: Arc<Way>,
}

struct Way {
    state: AtomicU8,
    /// How long each piece is held back, in milliseconds.
    delay: AtomicU64,
    connections: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub fn to(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let way = Arc::new(Way {
            state: AtomicU8::new(OPEN),
            delay: AtomicU64::new(0),
            connections: Mutex::default(),
        });
        let accepting = Arc::clone(&way);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(server) else { continue };
                let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) else { continue };
                {
                    // Whoever cuts cuts this one, too, or it isn't let in.
                    let mut connections = accepting.connections.lock().unwrap();
                    if accepting.state.load(Ordering::SeqCst) == CUT {
                        continue;
                    }
                    connections.extend(client.try_clone().into_iter().chain(server.try_clone()));
                }
                let way = Arc::clone(&accepting);
                thread::spawn(move || way.carry(from, to));
                let way = Arc::clone(&accepting);
                thread::spawn(move || way.carry(server, client));
            }
        });
        Proxy { address, way }
    }

    /// Everything stands still, and nobody is told.
    pub fn silence(&self) {
        self.way.state.store(SILENT, Ordering::SeqCst);
    }

    /// Connections break, and none is let in.
    pub fn cut(&self) {
        let mut connections = self.way.connections.lock().unwrap();
        self.way.state.store(CUT, Ordering::SeqCst);
        for connection in connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// As if nothing had been.
    pub fn open(&self) {
        self.way.state.store(OPEN, Ordering::SeqCst);
    }

    pub fn slow(&self, delay: Duration) {
        self.way.delay.store(delay.as_millis() as u64, Ordering::SeqCst);
    }
}

impl Way {
    fn carry(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut piece = [0; 64 << 10];
        let mut carry = || -> io::Result<()> {
            loop {
                let bytes = from.read(&mut piece)?;
                if bytes == 0 {
                    return Ok(());
                }
                thread::sleep(Duration::from_millis(self.delay.load(Ordering::SeqCst)));
                // What was sent into silence waits, as TCP has it.
                while self.state.load(Ordering::SeqCst) == SILENT {
                    thread::sleep(Duration::from_millis(10));
                }
                to.write_all(&piece[..bytes])?;
            }
        };
        // A connection that breaks ends, on either side.
        let _ = carry();
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
