//! Who owns which block of addresses, and who has borrowed from it.
//!
//! A block's affinity names its owner: in an IPAMBlock, which Felix reads, or in a BlockAffinity, which is all that some sites
//! write. Its owner's neighbours reach all of it there, but for the addresses that another node has borrowed, because its
//! own blocks were full (`felix/calc/l3_route_resolver.go`, `routesFromBlock`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::{AffinityState, IpamBlock, Prefix};

use super::Calico;

/// The attribute that says which node an address is used on.
const NODE: &str = "node";

/// What each node is to be reached by.
pub(super) struct Blocks<'a> {
    owned: BTreeMap<&'a str, BTreeSet<Prefix>>,
    borrowed: BTreeMap<&'a str, BTreeSet<Prefix>>,
}

impl<'a> Blocks<'a> {
    pub(super) fn of(calico: &'a Calico) -> Blocks<'a> {
        let mut blocks = Blocks { owned: BTreeMap::new(), borrowed: BTreeMap::new() };
        for block in calico.ipam_blocks.values() {
            if let Some(node) = &block.node {
                blocks.owned.entry(node).or_default().insert(block.cidr);
            }
            for (node, address) in borrowed(block) {
                blocks.borrowed.entry(node).or_default().insert(address);
            }
        }
        for block in calico.blocks.values().filter(|block| block.state == AffinityState::Confirmed) {
            // The block itself knows better: an affinity is written before it and removed after it.
            if !calico.ipam_blocks.contains_key(&block.cidr) {
                blocks.owned.entry(&block.node).or_default().insert(block.cidr);
            }
        }
        blocks
    }

    /// A node's own blocks.
    pub(super) fn owned(&self, node: &str) -> impl Iterator<Item = Prefix> {
        self.owned.get(node).into_iter().flatten().copied()
    }

    /// Addresses that a node has out of blocks of others'.
    pub(super) fn borrowed(&self, node: &str) -> impl Iterator<Item = Prefix> {
        self.borrowed.get(node).into_iter().flatten().copied()
    }
}

/// Addresses of a block that another node than its owner uses, and that node.
fn borrowed(block: &IpamBlock) -> impl Iterator<Item = (&str, Prefix)> {
    block.allocations.iter().enumerate().filter_map(|(ordinal, row)| {
        let attributes = block.attributes.get((*row)?).filter(|attributes| !attributes.is_released)?;
        let node = attributes.owner.get(NODE).filter(|node| Some(*node) != block.node.as_ref())?;
        Some((node.as_str(), address(block.cidr, ordinal)?))
    })
}

/// The address of this number within a block.
fn address(block: Prefix, ordinal: usize) -> Option<Prefix> {
    let address = match block.addr() {
        IpAddr::V4(first) => {
            IpAddr::V4(Ipv4Addr::from(u32::from(first).checked_add(ordinal.try_into().ok()?)?))
        }
        IpAddr::V6(first) => IpAddr::V6(Ipv6Addr::from(u128::from(first).checked_add(ordinal as u128)?)),
    };
    block.contains(address).then(|| Prefix::host(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{AllocationAttributes, BlockAffinity, Resource, Update};

    fn used_on(node: &str) -> AllocationAttributes {
        AllocationAttributes {
            owner: [(NODE.to_owned(), node.to_owned())].into(),
            ..AllocationAttributes::default()
        }
    }

    fn block(cidr: &str, node: Option<&str>) -> IpamBlock {
        IpamBlock {
            cidr: cidr.parse().unwrap(),
            node: node.map(str::to_owned),
            allocations: vec![Some(0), None, Some(1), Some(1), Some(2), Some(3), Some(9)],
            attributes: vec![
                used_on("a"),
                used_on("b"),
                AllocationAttributes { is_released: true, ..used_on("b") },
                AllocationAttributes::default(),
            ],
        }
    }

    fn texts(prefixes: impl Iterator<Item = Prefix>) -> Vec<String> {
        prefixes.map(|prefix| prefix.to_string()).collect()
    }

    #[test]
    fn what_another_node_uses_of_a_block_is_borrowed() {
        let mut calico = Calico::new("here");
        for cidr in ["10.65.0.64/29", "fd65::40/125", "10.65.0.96/31"] {
            calico.apply(&Update::Put(Resource::IpamBlock(block(cidr, Some("a"))).into()));
        }
        let blocks = Blocks::of(&calico);
        assert_eq!(texts(blocks.owned("a")), ["10.65.0.64/29", "10.65.0.96/31", "fd65::40/125"]);
        assert_eq!(
            texts(blocks.borrowed("b")),
            ["10.65.0.66/32", "10.65.0.67/32", "fd65::42/128", "fd65::43/128"],
            "nothing that is free, released, nobody's, or beyond the block"
        );
        assert_eq!(texts(blocks.borrowed("a")).len() + texts(blocks.owned("b")).len(), 0);
    }

    #[test]
    fn addresses_of_a_block_without_an_owner_are_those_nodes_that_use_them() {
        let mut calico = Calico::new("here");
        calico.apply(&Update::Put(Resource::IpamBlock(block("10.65.0.64/29", None)).into()));
        let blocks = Blocks::of(&calico);
        assert_eq!(texts(blocks.borrowed("a")), ["10.65.0.64/32"]);
        assert_eq!(texts(blocks.borrowed("b")).len(), 2);
    }

    #[test]
    fn an_affinity_counts_where_no_block_says_otherwise() {
        let mut calico = Calico::new("here");
        let affinity = |cidr: &str, state| {
            let affinity = BlockAffinity { cidr: cidr.parse().unwrap(), node: "a".to_owned(), state };
            Update::Put(Resource::BlockAffinity(affinity).into())
        };
        calico.apply(&affinity("10.65.0.0/29", AffinityState::Confirmed));
        calico.apply(&affinity("10.65.0.8/29", AffinityState::Pending));
        calico.apply(&affinity("10.65.0.64/29", AffinityState::Confirmed));
        calico.apply(&Update::Put(Resource::IpamBlock(block("10.65.0.64/29", Some("b"))).into()));
        let blocks = Blocks::of(&calico);
        assert_eq!(texts(blocks.owned("a")), ["10.65.0.0/29"]);
        assert_eq!(texts(blocks.owned("b")), ["10.65.0.64/29"]);
    }
}
