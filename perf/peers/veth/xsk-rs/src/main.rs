//! Both ends of a check of our rings, by an AF_XDP implementation that isn't ours.
//!
//! ```text
//! xsk-ends send IFACE HEADERS LENGTH FLOWS COUNT     sends numbered frames, a few at a time
//! xsk-ends receive IFACE LENGTH COUNT                says what became of them: one line when ready, one at the end
//! ```
//! HEADERS is the file that `rig.c` reads. Each frame carries its number and bytes that follow from it.

use std::collections::HashSet;
use std::error::Error;
use std::io::Write;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use xsk_rs::config::{LibxdpFlags, SocketConfig, UmemConfig};
use xsk_rs::{FrameDesc, Socket, Umem};

type Outcome = Result<(), Box<dyn Error>>;

const FRAMES: NonZeroU32 = NonZeroU32::new(2048).unwrap();
/// Frames sent at once, and the pause after them: a link between veths holds 256 frames, and a virtual machine may stand
/// still for milliseconds.
const BATCH: usize = 16;
const PAUSE: Duration = Duration::from_micros(500);
/// How long the receiver waits for the next frame.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where the frame's number stands, behind the headers and eight bytes that the rig uses otherwise.
const NUMBER: usize = 50;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["send", interface, headers, length, flows, count] => {
            send(interface, &std::fs::read(headers)?, length.parse()?, flows.parse()?, count.parse()?)
        }
        ["receive", interface, length, count] => receive(interface, length.parse()?, count.parse()?),
        _ => Err("usage: see the beginning of main.rs".into()),
    }
}

/// What a frame of that number holds behind its headers.
fn payload(number: u64, length: usize) -> impl Iterator<Item = u8> {
    let rest = (0..length.saturating_sub(NUMBER + 8)).map(move |at| (number as u8).wrapping_add(at as u8));
    [0; 8].into_iter().chain(number.to_le_bytes()).chain(rest)
}

fn send(interface: &str, headers: &[u8], length: usize, flows: usize, count: u64) -> Outcome {
    let (umem, mut free) = Umem::new(UmemConfig::default(), FRAMES, false)?;
    // Sending needs no XDP program.
    let config =
        SocketConfig::builder().libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD).build();
    // SAFETY: this is the only socket of this UMEM, and frames are in one place at a time: `free`, or the kernel.
    let (mut tx, _rx, rings) = unsafe { Socket::new(config, &umem, &interface.parse()?, 0) }?;
    let (_fill, mut completion) = rings.ok_or("no completion ring")?;
    let mut done = [FrameDesc::default(); BATCH];
    let mut number = 0;
    while number < count {
        let batch = BATCH.min((count - number) as usize).min(free.len());
        let mut ready = free.split_off(free.len() - batch);
        for frame in &mut ready {
            let flow = &headers[42 + number as usize % flows * 8..][..8];
            let mut bytes = headers[..42].to_vec();
            bytes[30..34].copy_from_slice(&flow[..4]);
            bytes[24..26].copy_from_slice(&flow[4..6]);
            bytes[34..36].copy_from_slice(&flow[6..8]);
            bytes.extend(payload(number, length));
            // SAFETY: the frame is in `ready`, so the kernel doesn't have it.
            unsafe { umem.data_mut(frame) }.cursor().write_all(&bytes)?;
            number += 1;
        }
        let mut offered = 0;
        while offered < ready.len() {
            // SAFETY: the frames are of this UMEM and given away here.
            offered += unsafe { tx.produce(&ready[offered..]) };
            // Full is no failure: the next turn tries again.
            let _ = tx.wakeup();
        }
        std::thread::sleep(PAUSE);
        // SAFETY: what the kernel returns is this UMEM's.
        while let returned @ 1.. = unsafe { completion.consume(&mut done) } {
            free.extend_from_slice(&done[..returned]);
        }
    }
    // The last ones may still be in the ring.
    for _ in 0..100 {
        let _ = tx.wakeup();
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

fn receive(interface: &str, length: usize, count: u64) -> Outcome {
    let (umem, mut descriptors) = Umem::new(UmemConfig::default(), FRAMES, false)?;
    // SAFETY: this is the only socket of this UMEM; frames are in the kernel, or between `consume` and `produce`.
    let (_tx, mut rx, rings) =
        unsafe { Socket::new(SocketConfig::default(), &umem, &interface.parse()?, 0) }?;
    let (mut fill, _completion) = rings.ok_or("no fill ring")?;
    // SAFETY: the frames are of this UMEM and given away here.
    unsafe { fill.produce(&descriptors) };
    println!("ready");
    let mut seen = HashSet::new();
    let (mut wrong, mut repeated) = (0u64, 0u64);
    let mut last = Instant::now();
    while (seen.len() as u64) < count && last.elapsed() < PATIENCE {
        // SAFETY: what the kernel returns is this UMEM's.
        let received = unsafe { rx.poll_and_consume(&mut descriptors, 100) }?;
        for frame in &descriptors[..received] {
            // SAFETY: the frame was received and not yet given back.
            let data = unsafe { umem.data(frame) };
            match number(data.contents(), length) {
                Some(number) if number < count && seen.insert(number) => last = Instant::now(),
                Some(_) => repeated += 1,
                None => wrong += 1,
            }
        }
        // SAFETY: these frames were looked at and are given back.
        unsafe { fill.produce(&descriptors[..received]) };
    }
    println!("{} received {wrong} wrong {repeated} repeated", seen.len());
    Ok(())
}

/// The number of a frame that is as a router leaves it: one TTL less, a right checksum, the payload untouched.
fn number(frame: &[u8], length: usize) -> Option<u64> {
    let header = frame.get(14..34)?;
    let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let number = u64::from_le_bytes(frame.get(NUMBER..NUMBER + 8)?.try_into().ok()?);
    let right = frame.len() == length
        && frame[..12] == [2, 0, 0, 0, 0, 4, 2, 0, 0, 0, 0, 3]
        && header[8] == 63
        && (folded & 0xffff) + (folded >> 16) == 0xffff
        && frame[42..].iter().copied().eq(payload(number, length));
    right.then_some(number)
}
