//! OPEN messages (RFC 4271 §4.2, §6.2; RFC 5492; RFC 9072).

use std::net::Ipv4Addr;

use super::capability::Capability;
use super::notification::{Notification, OPEN_ERROR};
use super::{MessageType, Reader, emit_message};

/// What the two-octet field holds where the AS number needs four (RFC 6793 §9).
pub const AS_TRANS: u16 = 23456;

/// The optional parameter that holds capabilities.
const PARAMETER_CAPABILITIES: u8 = 2;
/// In place of the first parameter's type: lengths have two octets (RFC 9072 §2).
const PARAMETER_EXTENDED_LENGTH: u8 = 255;

/// An OPEN whose form is right; whether it suits the peer is the session's question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The two-octet AS field.
    pub my_as: u16,
    /// Seconds: 0, or at least 3.
    pub hold_time: u16,
    /// The BGP identifier.
    pub router_id: Ipv4Addr,
    /// In the order given.
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// Reads a message's body.
    ///
    /// # Errors
    /// Version (2/1), hold time (2/6), identifier zero (2/3), an unknown optional parameter (2/4), or
    /// parameters whose lengths are wrong (2/0).
    pub fn parse(body: &[u8]) -> Result<Open, Notification> {
        let unspecific = || Notification::new(OPEN_ERROR, 0);
        let mut body = Reader(body);
        if body.u8() != Some(4) {
            // The data is the largest version we support.
            return Err(Notification::with_data(OPEN_ERROR, 1, &[0, 4]));
        }
        let my_as = body.u16().ok_or_else(unspecific)?;
        let hold_time = body.u16().ok_or_else(unspecific)?;
        let router_id = Ipv4Addr::from(body.u32().ok_or_else(unspecific)?);
        if matches!(hold_time, 1 | 2) {
            return Err(Notification::with_data(OPEN_ERROR, 6, &hold_time.to_be_bytes()));
        }
        if router_id.is_unspecified() {
            return Err(Notification::with_data(OPEN_ERROR, 3, &router_id.octets()));
        }
        let capabilities = parse_parameters(body)?;
        Ok(Open { my_as, hold_time, router_id, capabilities })
    }

    /// The AS number: the four-octet capability's where given (RFC 6793 §4.1).
    pub fn as_number(&self) -> u32 {
        self.four_octet_as().unwrap_or(u32::from(self.my_as))
    }

    /// The AS number of the capability, if the peer has it.
    pub fn four_octet_as(&self) -> Option<u32> {
        self.capabilities.iter().find_map(|capability| match capability {
            Capability::FourOctetAs(number) => Some(*number),
            _ => None,
        })
    }

    /// Appends the whole message, with RFC 9072's form where the capabilities need it.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let mut capabilities = Vec::new();
        self.capabilities.iter().for_each(|capability| capability.emit(&mut capabilities));
        emit_message(out, MessageType::Open, |out| {
            out.push(4);
            out.extend(self.my_as.to_be_bytes());
            out.extend(self.hold_time.to_be_bytes());
            out.extend(self.router_id.octets());
            match capabilities.len() {
                0 => out.push(0),
                len @ 1..=252 => out.extend([len as u8 + 2, PARAMETER_CAPABILITIES, len as u8]),
                len => {
                    out.extend([255, PARAMETER_EXTENDED_LENGTH]);
                    out.extend((len as u16 + 3).to_be_bytes());
                    out.push(PARAMETER_CAPABILITIES);
                    out.extend((len as u16).to_be_bytes());
                }
            }
            out.extend(&capabilities);
        });
    }
}

fn parse_parameters(mut body: Reader<'_>) -> Result<Vec<Capability>, Notification> {
    let unspecific = || Notification::new(OPEN_ERROR, 0);
    let short_len = body.u8().ok_or_else(unspecific)?;
    // RFC 9072 §2: any non-zero length announces the extended form; 255 is what it should be.
    let extended = short_len != 0 && body.0.first() == Some(&PARAMETER_EXTENDED_LENGTH);
    let len = if extended {
        body.u8();
        usize::from(body.u16().ok_or_else(unspecific)?)
    } else {
        usize::from(short_len)
    };
    if body.0.len() != len {
        return Err(unspecific());
    }
    let mut capabilities = Vec::new();
    while !body.is_empty() {
        let kind = body.u8().ok_or_else(unspecific)?;
        let len = if extended { body.u16().map(usize::from) } else { body.u8().map(usize::from) };
        let value = len.and_then(|len| body.take(len)).ok_or_else(unspecific)?;
        if kind != PARAMETER_CAPABILITIES {
            return Err(Notification::new(OPEN_ERROR, 4));
        }
        // "recognized, but malformed": subcode 0 (RFC 4271 §6.2).
        capabilities.extend(Capability::parse_all(value).ok_or_else(unspecific)?);
    }
    Ok(capabilities)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_open_comes_back_from_its_own_bytes(my_as: u16, hold_time in 3u16.., id in 1u32.., sizes in proptest::collection::vec(0usize..60, 0..20)) {
            let capabilities = sizes.iter().map(|&len| Capability::Other { code: 200, value: vec![7; len] }).collect();
            let open = Open { my_as, hold_time, router_id: id.into(), capabilities };
            let mut bytes = Vec::new();
            open.emit(&mut bytes);
            prop_assert_eq!(Open::parse(&bytes[19..]), Ok(open));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = Open::parse(&bytes);
        }
    }
}
