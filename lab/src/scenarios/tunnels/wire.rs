//! What passed on both subnets' wires, held to what the pool asks for.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::subnets::{NodePlan, Subnets};
use super::{Kind, Plan};
use crate::Lab;
use crate::capture::{Capture, Captured};
use crate::dissected::{self, Frame, Outer, Wrapping};
use crate::link::Fabric;

/// Tunnels, and workloads' packets outside them.
const FILTER: &str = "ip proto 4 or udp port 4789 or net 192.168.0.0/16";

/// A capture on each subnet.
pub(super) struct Captures([Capture; 2]);

/// What they saw.
pub(super) struct Seen([Captured; 2]);

impl Captures {
    pub(super) fn start(lab: &Lab, subnets: &Subnets<'_>) -> Result<Captures> {
        let [near, far] = &subnets.fabrics;
        let start = |fabric: &Fabric| Capture::start(lab, fabric.namespace(), Fabric::BRIDGE, FILTER);
        Ok(Captures([start(near)?, start(far)?]))
    }

    pub(super) fn stop(self) -> Result<Seen> {
        let [near, far] = self.0;
        Ok(Seen([near.stop()?, far.stop()?]))
    }
}

impl Seen {
    /// Encapsulated is what the pool asks for and nothing else; every header is right; every pair was seen, and hosts
    /// under their tunnel addresses.
    pub(super) fn show_what_was_asked_for(
        &self,
        lab: &Lab,
        plan: &Plan,
        subnets: &Subnets<'_>,
    ) -> Result<()> {
        let mut pairs: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        let mut from_hosts = 0;
        let (mut frames, mut encapsulated) = (0, 0);
        for captured in &self.0 {
            lab.step("dissecting what was captured");
            for frame in dissected::frames(captured)? {
                let (from, to) = (owner(plan, &frame, true)?, owner(plan, &frame, false)?);
                is_as_asked(plan, &frame, from, to).with_context(|| format!("{frame:?}"))?;
                *pairs.entry((from.name, to.name)).or_default() += 1;
                frames += 1;
                encapsulated += usize::from(frame.wrapping != Wrapping::Plain);
                from_hosts +=
                    usize::from(frame.source == from.tunnel() && frame.destination == to.workload());
            }
        }
        for (from, to) in subnets.pairs() {
            let seen = pairs.get(&(from.plan.name, to.plan.name)).copied().unwrap_or_default();
            ensure!(seen > 0, "nothing was seen from {} to {}", from.plan.name, to.plan.name);
        }
        ensure!(from_hosts > 0, "no host sent from its tunnel address");
        lab.proved(format!(
            "{frames} frames captured on both subnets, {encapsulated} encapsulated: exactly those that the pool asks for, \
             between the right addresses; tshark finds none malformed and no bad checksum"
        ));
        Ok(())
    }
}

/// The node that an inner address belongs to.
fn owner(plan: &Plan, frame: &Frame, is_source: bool) -> Result<&'static NodePlan> {
    let address = if is_source { frame.source } else { frame.destination };
    let found = plan.nodes.iter().find(|node| node.owns(address));
    found.with_context(|| format!("{address} is nobody's: {frame:?}"))
}

fn is_as_asked(plan: &Plan, frame: &Frame, from: &NodePlan, to: &NodePlan) -> Result<()> {
    let expected = Outer { source: from.address(), destination: to.address() };
    match &frame.wrapping {
        Wrapping::Plain => ensure!(!plan.encapsulates(from, to), "it should have been encapsulated"),
        Wrapping::Ipip(outer) => {
            ensure!(plan.kind == Kind::Ipip && plan.encapsulates(from, to), "nobody asked for IPIP");
            ensure!(*outer == expected, "it should have gone {expected:?}");
        }
        Wrapping::Vxlan { outer, port, vni, macs } => {
            ensure!(plan.kind == Kind::Vxlan && plan.encapsulates(from, to), "nobody asked for VXLAN");
            ensure!(*outer == expected, "it should have gone {expected:?}");
            ensure!((*port, *vni) == (4789, 4096), "UDP port {port}, VNI {vni}");
            ensure!(*macs == (from.vtep(), to.vtep()), "inside it goes from {} to {}", macs.0, macs.1);
        }
    }
    Ok(())
}
