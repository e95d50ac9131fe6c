//! What the sender says: a whole table in UPDATEs, and its withdrawal.
//!
//! A real feed has about five prefixes in an UPDATE and an attribute set for nearly each (`reference/bgp.md`): so a run of
//! 1 to 10 neighbouring prefixes shares a set, and each set has an AS_PATH of 2 to 6 numbers and up to five communities.

use std::net::Ipv4Addr;

use lab::bgp_message::{attribute, code, flag, kind, message};
use perf::data::Prefixes;
use perf::keys::Numbers;

/// Most prefixes of one attribute set.
const GROUP: usize = 10;
/// Most prefixes of an UPDATE that withdraws: what fits 4,096 octets.
const WITHDRAWN: usize = 800;

/// A table as one peer announces it.
pub struct Feed {
    /// UPDATEs that announce all of it.
    pub announcement: Vec<u8>,
    /// How many those are.
    pub updates: usize,
    /// UPDATEs that withdraw all of it.
    pub withdrawal: Vec<u8>,
    /// Of each prefix, in the table's order, the AS that its path ends in.
    pub origins: Vec<u32>,
}

/// The feed of a peer in AS `first_as`. Another `seed` gives the same prefixes other attributes.
pub fn feed(prefixes: &Prefixes<u32>, first_as: u32, nexthop: Ipv4Addr, seed: u64) -> Feed {
    let mut numbers = Numbers::new(seed);
    let mut feed = Feed { announcement: Vec::new(), updates: 0, withdrawal: Vec::new(), origins: Vec::new() };
    let mut rest = prefixes.as_slice();
    while !rest.is_empty() {
        let (group, after) = rest.split_at((1 + numbers.below(GROUP)).min(rest.len()));
        // None of the numbers in play, which would be taken for a loop.
        let origin = 10_000 + numbers.below(50_000) as u32;
        let attributes = attributes(first_as, origin, nexthop, &mut numbers);
        feed.announcement.extend(update(&[], &attributes, group));
        feed.updates += 1;
        feed.origins.extend(group.iter().map(|_| origin));
        rest = after;
    }
    for group in prefixes.chunks(WITHDRAWN) {
        feed.withdrawal.extend(update(group, &[], &[]));
    }
    feed
}

fn attributes(first_as: u32, origin: u32, nexthop: Ipv4Addr, numbers: &mut Numbers) -> Vec<u8> {
    let between = numbers.below(5);
    let mut path = vec![first_as];
    path.extend((0..between).map(|_| 1_000 + numbers.below(60_000) as u32));
    path.push(origin);
    let mut segment = vec![2, path.len() as u8];
    path.iter().for_each(|number| segment.extend(number.to_be_bytes()));
    let communities = (0..numbers.below(6)).flat_map(|_| (numbers.next() as u32 & 0x7fff_ffff).to_be_bytes());
    let communities: Vec<u8> = communities.collect();
    let mut attributes = attribute(flag::TRANSITIVE, code::ORIGIN, &[0]);
    attributes.extend(attribute(flag::TRANSITIVE, code::AS_PATH, &segment));
    attributes.extend(attribute(flag::TRANSITIVE, code::NEXT_HOP, &nexthop.octets()));
    if !communities.is_empty() {
        attributes.extend(attribute(flag::OPTIONAL | flag::TRANSITIVE, code::COMMUNITIES, &communities));
    }
    attributes
}

fn update(withdrawn: &[(u32, u8)], attributes: &[u8], announced: &[(u32, u8)]) -> Vec<u8> {
    let field = |prefixes: &[(u32, u8)]| {
        let mut field = Vec::new();
        for (addr, len) in prefixes {
            field.push(*len);
            field.extend_from_slice(&addr.to_be_bytes()[..usize::from(len.div_ceil(8))]);
        }
        field
    };
    let counted = |field: &[u8]| [&(field.len() as u16).to_be_bytes()[..], field].concat();
    message(kind::UPDATE, &[counted(&field(withdrawn)), counted(attributes), field(announced)].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table_load::stream::{Said, read};

    #[test]
    fn a_feed_names_every_prefix_once_and_takes_each_back() {
        let table = perf::data::made_up(100).v4;
        let feed = feed(&table, 64999, Ipv4Addr::new(10, 9, 0, 2), 1);
        let mut announced = Vec::new();
        read(&mut feed.announcement.clone(), |said| {
            if let Said::Announced { prefix, first_as, origin } = said {
                assert_eq!((first_as, origin), (64999, feed.origins[announced.len()]));
                announced.push(prefix);
            }
        });
        assert_eq!(announced, table);
        let mut withdrawn = Vec::new();
        read(&mut feed.withdrawal.clone(), |said| {
            if let Said::Withdrawn(prefix) = said {
                withdrawn.push(prefix);
            }
        });
        assert_eq!(withdrawn, table);
    }
}
