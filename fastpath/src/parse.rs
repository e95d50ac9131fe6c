//! Stage 2: where each header begins.

use packet::{Malformed, Parsed};
use tables::{DropReason, Fate, Rows};

use crate::Batch;

#[cfg(target_feature = "avx2")]
mod eight;

/// Parses every frame; what isn't well-formed is dropped, by cause.
#[inline(never)]
pub(crate) fn headers(batch: &mut Batch) {
    batch.heads.clear();
    let done = read_eights(batch);
    let Batch { frames, fates, parsed, heads, .. } = batch;
    if done == Rows::first(frames.len()) {
        return;
    }
    for (row, ((frame, fate), parsed)) in frames.iter().zip(fates).zip(parsed).enumerate() {
        if *fate != Fate::Undecided || done.contains(row) {
            continue;
        }
        match packet::parse_plain_into(frame.bytes(), parsed) {
            Some(head) => heads.read(row, head),
            None => {
                heads.skip(row);
                any(frame.bytes(), parsed, fate);
            }
        }
    }
}

/// Reads plain frames, eight at once, and says which it has read: not all, and none that has its fate.
#[cfg(target_feature = "avx2")]
#[inline(always)]
fn read_eights(batch: &mut Batch) -> Rows {
    let Batch { frames, parsed, heads, .. } = batch;
    if batch.has_decided {
        return Rows::NONE;
    }
    let (frames, _) = frames.as_chunks();
    let (parsed, _) = parsed.as_chunks_mut();
    let mut done = Rows::NONE;
    // From behind: of a batch's headers the first-level cache has room for a part (`heads.rs`), and still holds those that were
    // received last.
    for (number, (frames, parsed)) in frames.iter().zip(parsed).enumerate().rev() {
        done = done.with(eight::plain(frames, number, heads, parsed));
    }
    done
}

#[cfg(not(target_feature = "avx2"))]
fn read_eights(_: &mut Batch) -> Rows {
    Rows::NONE
}

/// A frame that isn't plain. Apart from the loop, whose registers the plain ones need.
#[inline(never)]
fn any(frame: &[u8], parsed: &mut Parsed, fate: &mut Fate) {
    match packet::parse(frame) {
        Ok(headers) => *parsed = headers,
        Err(malformed) => *fate = Fate::Drop(reason(malformed)),
    }
}

pub(crate) fn reason(malformed: Malformed) -> DropReason {
    match malformed {
        Malformed::TooShort => DropReason::TooShort,
        Malformed::VlanTruncated => DropReason::VlanTruncated,
        Malformed::ArpMalformed => DropReason::ArpMalformed,
        Malformed::Ipv4HeaderTruncated => DropReason::Ipv4HeaderTruncated,
        Malformed::Ipv4BadVersion => DropReason::Ipv4BadVersion,
        Malformed::Ipv4BadHeaderLength => DropReason::Ipv4BadHeaderLength,
        Malformed::Ipv4BadTotalLength => DropReason::Ipv4BadTotalLength,
        Malformed::Ipv4BadChecksum => DropReason::Ipv4BadChecksum,
        Malformed::Ipv6HeaderTruncated => DropReason::Ipv6HeaderTruncated,
        Malformed::Ipv6BadVersion => DropReason::Ipv6BadVersion,
        Malformed::Ipv6BadPayloadLength => DropReason::Ipv6BadPayloadLength,
        Malformed::Ipv6BadExtension => DropReason::Ipv6BadExtension,
        Malformed::L4Truncated => DropReason::L4Truncated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_has_one_name_everywhere() {
        for malformed in Malformed::ALL {
            assert_eq!(reason(malformed).as_str(), malformed.as_str());
        }
    }
}
