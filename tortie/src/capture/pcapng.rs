//! pcapng (draft-ietf-opsawg-pcapng): a section header, an interface description for each port when its first frame
//! comes, and an enhanced packet block for each frame.

use std::io::{self, Write};

use tables::{DropReason, PuntReason};

use crate::captures::CapturedFrame;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
/// Written in the machine's order; who reads turns it round where it reads another number.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const ETHERNET: u16 = 1;

/// `opt_comment`.
const COMMENT: u16 = 1;
/// `shb_userappl`: what wrote the file.
const APPLICATION: u16 = 4;
/// `if_name`.
const NAME: u16 = 2;
/// `if_tsresol`: times are in units of 10 to the minus this.
const RESOLUTION: u16 = 9;
const NANOSECONDS: u8 = 9;
/// `epb_flags`, whose two lowest bits say which way.
const FLAGS: u16 = 2;
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// What stands for the port of a packet that the slow path itself sends.
const SLOW_PATH: &str = "slow-path";

/// Writes one section.
pub(super) struct Writer<W> {
    out: W,
    snaplen: u32,
    /// Interfaces described so far; their places are their numbers.
    interfaces: Vec<String>,
    block: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins a section. `snaplen`: the bytes of a frame at most.
    pub(super) fn new(out: W, snaplen: usize) -> io::Result<Writer<W>> {
        let snaplen = u32::try_from(snaplen).unwrap_or(u32::MAX);
        let mut writer = Writer { out, snaplen, interfaces: Vec::new(), block: Vec::new() };
        writer.put(&BYTE_ORDER.to_ne_bytes());
        writer.put(&1u16.to_ne_bytes());
        writer.put(&0u16.to_ne_bytes());
        // How long the section is: not known beforehand.
        writer.put(&(-1i64).to_ne_bytes());
        writer.option(APPLICATION, concat!("tortie ", env!("CARGO_PKG_VERSION")).as_bytes());
        writer.end_block(SECTION_HEADER)?;
        Ok(writer)
    }

    /// Writes a frame, and its port where it is the first one there.
    pub(super) fn frame(&mut self, frame: &CapturedFrame) -> io::Result<()> {
        let bytes = BASE64.decode(&frame.bytes).map_err(io::Error::other)?;
        let interface = self.interface(frame.port.as_deref().unwrap_or(SLOW_PATH))?;
        self.put(&interface.to_ne_bytes());
        self.put(&((frame.at_ns >> 32) as u32).to_ne_bytes());
        self.put(&(frame.at_ns as u32).to_ne_bytes());
        self.put(&(bytes.len() as u32).to_ne_bytes());
        self.put(&(frame.frame_bytes as u32).to_ne_bytes());
        self.put(&bytes);
        self.pad();
        self.option(FLAGS, &if frame.left { OUTBOUND } else { INBOUND }.to_ne_bytes());
        if let Some(comment) = comment(frame) {
            self.option(COMMENT, comment.as_bytes());
        }
        self.end_block(ENHANCED_PACKET)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn interface(&mut self, name: &str) -> io::Result<u32> {
        if let Some(known) = self.interfaces.iter().position(|known| known == name) {
            return Ok(known as u32);
        }
        self.put(&ETHERNET.to_ne_bytes());
        self.put(&0u16.to_ne_bytes());
        self.put(&self.snaplen.to_ne_bytes());
        self.option(NAME, name.as_bytes());
        self.option(RESOLUTION, &[NANOSECONDS]);
        self.end_block(INTERFACE)?;
        self.interfaces.push(name.to_owned());
        Ok(self.interfaces.len() as u32 - 1)
    }

    fn put(&mut self, bytes: &[u8]) {
        self.block.extend_from_slice(bytes);
    }

    /// Everything begins at a multiple of four bytes.
    fn pad(&mut self) {
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        let value = &value[..value.len().min(usize::from(u16::MAX))];
        self.put(&code.to_ne_bytes());
        self.put(&(value.len() as u16).to_ne_bytes());
        self.put(value);
        self.pad();
    }

    /// Ends the options and the block, whose length stands before and behind it.
    fn end_block(&mut self, kind: u32) -> io::Result<()> {
        self.put(&[0; 4]);
        let len = (self.block.len() as u32 + 12).to_ne_bytes();
        self.out.write_all(&kind.to_ne_bytes())?;
        self.out.write_all(&len)?;
        self.out.write_all(&self.block)?;
        self.out.write_all(&len)?;
        self.block.clear();
        Ok(())
    }
}

/// What became of a frame that came in.
fn comment(frame: &CapturedFrame) -> Option<String> {
    let fate = frame.fate.as_deref()?;
    if let Some(port) = &frame.leaves_by {
        return Some(format!("{fate} by {port}"));
    }
    let Some(reason) = &frame.reason else { return Some(fate.to_owned()) };
    let dropped = DropReason::ALL.iter().find(|known| known.as_str() == reason).map(|known| known.help());
    let punted = PuntReason::ALL.iter().find(|known| known.as_str() == reason).map(|known| known.help());
    let help = if fate == "drop" { dropped } else { punted };
    Some(format!("{fate}: {reason}. {}", help.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(port: Option<&str>) -> CapturedFrame {
        CapturedFrame {
            at_ns: 0x0102_0304_0506_0708,
            port: port.map(str::to_owned),
            left: false,
            fate: Some("drop".to_owned()),
            reason: Some("blackhole".to_owned()),
            leaves_by: None,
            frame_bytes: 1514,
            bytes: "AQIDBAU=".to_owned(),
        }
    }

    /// Kinds and bodies.
    fn blocks(mut file: &[u8]) -> Vec<(u32, &[u8])> {
        let number = |bytes: &[u8]| u32::from_ne_bytes(bytes.try_into().unwrap());
        let mut blocks = Vec::new();
        while !file.is_empty() {
            let len = number(&file[4..8]) as usize;
            assert_eq!((len % 4, number(&file[len - 4..len]) as usize), (0, len), "its length at both ends");
            blocks.push((number(&file[..4]), &file[8..len - 4]));
            file = &file[len..];
        }
        blocks
    }

    #[test]
    fn each_port_is_described_once_and_before_its_first_frame() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, 128).unwrap();
        for port in [Some("eth0"), None, Some("eth0")] {
            writer.frame(&frame(port)).unwrap();
        }
        let blocks = blocks(&file);
        let kinds: Vec<u32> = blocks.iter().map(|(kind, _)| *kind).collect();
        let (section, interface, packet) = (SECTION_HEADER, INTERFACE, ENHANCED_PACKET);
        assert_eq!(kinds, [section, interface, packet, interface, packet, packet]);
        let numbers = [2, 4, 5].map(|at| blocks[at].1[0]);
        assert_eq!(numbers, [0, 1, 0]);
        let body = blocks[2].1;
        assert_eq!(body[4..12], [0x0102_0304u32.to_ne_bytes(), 0x0506_0708u32.to_ne_bytes()].concat());
        assert_eq!(body[12..20], [5u32.to_ne_bytes(), 1514u32.to_ne_bytes()].concat());
        assert_eq!(body[20..28], [1, 2, 3, 4, 5, 0, 0, 0]);
        let text = String::from_utf8_lossy(body);
        assert!(text.contains("drop: blackhole. "), "{text}");
    }
}
