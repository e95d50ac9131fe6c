//! IPv4 options (RFC 791 §3.1): whether they are well-formed, which of them a router must know, and which go into every
//! fragment.

use crate::ipv4;

/// Ends the list.
pub const END: u8 = 0;
/// Fills a byte.
pub const NO_OPERATION: u8 = 1;
/// Loose source and record route.
pub const LOOSE_SOURCE_ROUTE: u8 = 131;
/// Strict source and record route.
pub const STRICT_SOURCE_ROUTE: u8 = 137;

/// The bit of an option's type that says that every fragment carries it.
const COPIED: u8 = 0x80;
/// Most bytes of options that a header holds.
const LEN_MAX: usize = ipv4::HEADER_LEN_MAX - ipv4::HEADER_LEN;

/// An option whose length runs out of the header, or is below 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the length byte of an IPv4 option at byte {at} of the header is wrong")]
pub struct BadOption {
    /// The byte that is wrong, counted from the header's first: at most 59.
    pub at: u8,
}

/// Type and bytes of each option, in order; no-operations are left out, and the list ends where it says so.
fn each(options: &[u8]) -> impl Iterator<Item = Result<(u8, &[u8]), BadOption>> {
    let mut rest = options;
    std::iter::from_fn(move || {
        loop {
            let (&kind, behind) = rest.split_first()?;
            match kind {
                END => return None,
                NO_OPERATION => rest = behind,
                _ => {
                    let at = options.len() - rest.len();
                    let len = behind.first().map_or(0, |len| usize::from(*len));
                    let Some((option, behind)) = rest.split_at_checked(len).filter(|_| len >= 2) else {
                        rest = &[];
                        // The type's own byte where the header ends behind it: its length is nowhere.
                        let at = ipv4::HEADER_LEN + at + usize::from(options.len() > at + 1);
                        return Some(Err(BadOption { at: at as u8 }));
                    };
                    rest = behind;
                    return Some(Ok((kind, option)));
                }
            }
        }
    })
}

/// Does the sender choose the way (RFC 791: loose or strict source route)?
///
/// # Errors
/// [`BadOption`], the first one.
pub fn is_source_routed(options: &[u8]) -> Result<bool, BadOption> {
    let mut found = false;
    for option in each(options) {
        let (kind, _) = option?;
        found |= matches!(kind, LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE);
    }
    Ok(found)
}

/// The options that every fragment carries (RFC 791 §3.1, "copied flag"), padded to a multiple of 4 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    bytes: [u8; LEN_MAX],
    len: u8,
}

impl Copied {
    /// Those of `options`, which ends where one is malformed.
    pub fn of(options: &[u8]) -> Copied {
        let mut copied = Copied { bytes: [END; LEN_MAX], len: 0 };
        for (_, option) in each(options).map_while(Result::ok).filter(|(kind, _)| kind & COPIED != 0) {
            let begin = usize::from(copied.len);
            if let Some(room) = copied.bytes.get_mut(begin..begin + option.len()) {
                room.copy_from_slice(option);
                copied.len += option.len() as u8;
            }
        }
        copied.len = copied.len.next_multiple_of(4);
        copied
    }

    /// Their bytes: 0..=40, a multiple of 4.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RECORD_ROUTE: [u8; 8] = [7, 7, 4, 0, 0, 0, 0, END];
    const LOOSE: [u8; 8] = [NO_OPERATION, LOOSE_SOURCE_ROUTE, 7, 4, 10, 0, 0, 1];

    #[test]
    fn source_routes_are_found_wherever_they_stand() {
        assert_eq!(is_source_routed(&[]), Ok(false));
        assert_eq!(is_source_routed(&RECORD_ROUTE), Ok(false));
        assert_eq!(is_source_routed(&LOOSE), Ok(true));
        assert_eq!(is_source_routed(&[STRICT_SOURCE_ROUTE, 3, 4, END]), Ok(true));
        let behind = [&[148, 4, 0, 0], &LOOSE[..]].concat();
        assert_eq!(is_source_routed(&behind), Ok(true), "behind a router alert");
        let past_the_end = [&[END, 0, 0, 0], &LOOSE[..]].concat();
        assert_eq!(is_source_routed(&past_the_end), Ok(false), "nothing counts behind the end");
    }

    #[test]
    fn a_length_that_cannot_be_is_pointed_at() {
        for (options, at) in [
            (&[7, 0, 0, 0][..], 21),
            (&[7, 1, 0, 0], 21),
            (&[7, 5, 0, 0], 21),
            (&[NO_OPERATION, 148, 255, 0], 22),
            (&[148, 4, 0, 0, NO_OPERATION, NO_OPERATION, NO_OPERATION, 7], 27),
        ] {
            assert_eq!(is_source_routed(options), Err(BadOption { at }), "{options:?}");
        }
    }

    #[test]
    fn only_options_with_the_copied_bit_go_on() {
        assert_eq!(Copied::of(&RECORD_ROUTE).bytes(), []);
        assert_eq!(Copied::of(&LOOSE).bytes(), [LOOSE_SOURCE_ROUTE, 7, 4, 10, 0, 0, 1, END]);
        let both = [&RECORD_ROUTE[..7], &[148, 4, 0, 0], &[END]].concat();
        assert_eq!(Copied::of(&both).bytes(), [148, 4, 0, 0]);
    }

    proptest! {
        #[test]
        fn any_options_are_read_without_panic(options in prop::collection::vec(any::<u8>(), 0..=40)) {
            let _ = is_source_routed(&options);
            let copied = Copied::of(&options);
            prop_assert!(copied.bytes().len() <= options.len().next_multiple_of(4));
            prop_assert!(copied.bytes().len().is_multiple_of(4));
        }
    }
}
