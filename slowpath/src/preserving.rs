//! Routes of the run before: kept in force until BGP has spoken (RFC 4724: forwarding state is preserved).

use std::time::{Duration, Instant};

use tracing::info;

use crate::event_loop::Core;
use crate::kernel_routes;
use crate::rib::Source;
use crate::target::{Gateway, Target};

/// How long routes of the run before are kept where BGP doesn't say that it is complete.
const PRESERVE_AT_MOST: Duration = Duration::from_secs(150);

impl Core {
    /// Takes the routes that the run before left in the mirror for ours, until BGP has spoken: the peers keep sending
    /// to us over a graceful restart, so we keep forwarding.
    pub(crate) fn preserve(&mut self, left_behind: &[kernel_routes::KernelRoute]) {
        for route in left_behind {
            let gateways = route.nexthops.iter().filter(|hop| hop.ifindex != self.host.kernel_side);
            let gateways =
                gateways.filter_map(|hop| hop.gateway.map(|addr| Gateway::on(hop.ifindex, addr))).collect();
            if let Some(target) = Target::via(gateways) {
                self.rib.insert(route.prefix, Source::Preserved, &target, 0);
                self.preserved.insert(route.prefix);
            }
        }
        if !self.preserved.is_empty() {
            info!(routes = self.preserved.len(), "restarting: forwarding by the routes of the run before");
            self.preserve_until = Some(Instant::now() + PRESERVE_AT_MOST);
        }
    }

    pub(crate) fn stop_preserving(&mut self) {
        self.preserve_until = None;
        for prefix in std::mem::take(&mut self.preserved) {
            self.rib.remove(prefix, Source::Preserved);
        }
        self.mirroring.mirror_mut().first_sync_done();
    }
}
