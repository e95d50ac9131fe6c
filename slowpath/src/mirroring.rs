//! What the kernel is to know of our routes, so that it can go on when we can't (DESIGN.md, D1 and D1a).

use std::net::IpAddr;
use std::sync::Arc;

use model::{Family, IfIndex, Prefix};
use tracing::warn;

use crate::host_port::{GATEWAY_V4, GATEWAY_V6, HostPort};
use crate::kernel_routes::mirror::{Mirror, MirrorError, MirrorRoute, MirrorTarget};
use crate::resolve::{Resolution, resolve};
use crate::rib::{Rib, Source};

/// Hands the RIB's winners to the kernel's mirror.
pub struct Mirroring {
    mirror: Mirror,
    host: HostPort,
    full: u64,
}

impl Mirroring {
    /// Winners go to this mirror; those for workloads lead into this host port.
    pub fn new(mirror: Mirror, host: HostPort) -> Mirroring {
        Mirroring { mirror, host, full: 0 }
    }

    /// The kernel's mirror.
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// Brings the mirror's route to a prefix into line with the RIB. `node` is the node's own address of a family.
    pub fn update(&mut self, rib: &Rib, prefix: Prefix, node: impl Fn(Family) -> Option<IpAddr>) {
        let target = self.target(rib, prefix, node);
        let Some(target) = target else { return self.mirror.withdraw(prefix) };
        match self.mirror.install(MirrorRoute { prefix, target }) {
            Ok(()) => {}
            Err(error @ MirrorError::Full { .. }) => {
                self.full += 1;
                if self.full == 1 {
                    warn!("{error}; raise limits.mirror_routes (more of these are counted, not logged)");
                }
            }
            Err(error) => warn!("{error}"),
        }
    }

    fn target(
        &self,
        rib: &Rib,
        prefix: Prefix,
        node: impl Fn(Family) -> Option<IpAddr>,
    ) -> Option<MirrorTarget> {
        let offer = rib.get(prefix)?;
        match offer.source {
            Source::Block => Some(MirrorTarget::Blackhole),
            Source::Workload => Some(MirrorTarget::HostPort {
                ifindex: self.host.kernel_side,
                via: match prefix.family() {
                    Family::V4 => IpAddr::V4(GATEWAY_V4),
                    Family::V6 => IpAddr::V6(GATEWAY_V6),
                },
                source: node(prefix.family()),
            }),
            Source::Bgp | Source::Preserved => match resolve(rib, rib.targets().get(offer.target)?) {
                Resolution::Neighbors(neighbors) => {
                    let gateways: Arc<[(IpAddr, IfIndex)]> =
                        neighbors.iter().map(|neighbor| (neighbor.addr, neighbor.ifindex)).collect();
                    Some(MirrorTarget::Nexthops(gateways))
                }
                _ => None,
            },
            // The kernel has these itself: they came from it.
            Source::Local | Source::Neighbor | Source::Connected | Source::Static | Source::Kernel => None,
        }
    }
}
