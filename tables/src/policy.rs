//! Policy of each port's endpoint, compiled, as the walk asks it.
//!
//! The slow path stages sets and endpoints' checks by [`crate::Writer`]; [`crate::Writer::publish`] shows them all at
//! once: one [`Policy`] is one publication, whose rules never meet the sets of another.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use ::policy::compile::{Compiled, Compiler, Full, Judgement, Limits, Memo, Packet, ProgramId};
use ::policy::rule::Checks;
use model::{FailsafePort, PortId, PortKind};

use crate::{Port, Ports, TableFull};

/// What is asked at one endpoint, as the slow path says it. Absent is not asked: everything passes.
///
/// A known endpoint that nothing selects and that has no profile isn't without checks: it has checks without tiers and
/// profiles, which deny.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointPolicy {
    /// Of packets towards it.
    pub ingress: Option<Arc<Checks>>,
    /// Of packets from it.
    pub egress: Option<Arc<Checks>>,
    /// What ingress would be if staged policies were enforced.
    pub staged_ingress: Option<Arc<Checks>>,
    /// What egress would be.
    pub staged_egress: Option<Arc<Checks>>,
    /// Of a host endpoint, whose `ingress` and `egress` are about what is forwarded: of what comes in, before its destination
    /// is translated.
    pub pre_dnat: Option<Arc<Checks>>,
    /// Likewise: of every packet that comes in, before it is known what flow it belongs to.
    pub untracked: Option<Arc<Checks>>,
}

/// The programs of a port's endpoint. Absent is a port without policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortPolicy {
    /// Asked of packets towards the endpoint.
    pub ingress: Option<ProgramId>,
    /// Asked of packets from it.
    pub egress: Option<ProgramId>,
    /// Asked beside `ingress`; its verdict is told, not enforced.
    pub staged_ingress: Option<ProgramId>,
    /// Asked beside `egress`, alike.
    pub staged_egress: Option<ProgramId>,
    /// As in [`EndpointPolicy`].
    pub pre_dnat: Option<ProgramId>,
    /// As in [`EndpointPolicy`].
    pub untracked: Option<ProgramId>,
}

/// Stands for the tunnels that end and begin here, as a port of what is forwarded: in Linux they are interfaces of their own,
/// so that the endpoint of every interface is asked there, and none that names an uplink. No row of the table of ports.
pub const TUNNELS: PortId = PortId(u16::MAX - 1);

/// Which ports are host endpoints', by their names. One without a name of its own here is that of every other port, of
/// workloads' ports, too (`felix/rules/dispatch.go`, `hostDispatchChains`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostEndpoints {
    /// By the interface: under which name its policy is kept.
    pub named: BTreeMap<String, String>,
    /// Of every other interface.
    pub every: Option<String>,
    /// What untracked and pre-DNAT policy never close: `failsafeInboundHostPorts`, by the destination's port.
    pub failsafe_inbound: Vec<FailsafePort>,
    /// `failsafeOutboundHostPorts`, by the source's port: answers, which untracked policy never closes.
    pub failsafe_outbound: Vec<FailsafePort>,
}

impl HostEndpoints {
    /// The name under which the policy of a port's host endpoint is kept.
    pub fn at(&self, port: &Port) -> Option<&str> {
        let every = self.every.as_deref();
        match port.kind {
            PortKind::Uplink => self.named.get(&port.name).map(String::as_str).or(every),
            PortKind::Workload => every,
            PortKind::Host => None,
        }
    }
}

impl PortPolicy {
    fn programs(&self) -> impl Iterator<Item = ProgramId> {
        let PortPolicy { ingress, egress, staged_ingress, staged_egress, pre_dnat, untracked } = *self;
        [ingress, egress, staged_ingress, staged_egress, pre_dnat, untracked].into_iter().flatten()
    }
}

/// One publication of all endpoints' policy.
#[derive(Clone, Debug, Default)]
#[repr(align(128))]
pub struct Policy {
    epoch: u64,
    ports: Vec<PortPolicy>,
    /// Of ports that are host endpoints'; no row where none has anything to ask.
    hosts: Vec<PortPolicy>,
    /// Likewise of [`TUNNELS`].
    tunnels: PortPolicy,
    has_untracked: bool,
    host_endpoints: Arc<HostEndpoints>,
    compiled: Compiled,
}

impl Policy {
    /// Raised by each publication in which a verdict may differ from the one before. A verdict of an older epoch is to be
    /// asked for again (ARCHITECTURE.md, D7).
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The programs of a port's endpoint.
    #[inline]
    pub fn of(&self, port: PortId) -> PortPolicy {
        self.ports.get(port.index()).copied().unwrap_or_default()
    }

    /// The programs of a port's host endpoint: of what is forwarded.
    #[inline]
    pub fn of_host(&self, port: PortId) -> PortPolicy {
        match port {
            TUNNELS => self.tunnels,
            _ => self.hosts.get(port.index()).copied().unwrap_or_default(),
        }
    }

    /// Is anything asked of what is forwarded, at any port?
    #[inline]
    pub fn asks_of_forwarded(&self) -> bool {
        !self.hosts.is_empty()
    }

    /// Has any host endpoint untracked policy?
    #[inline]
    pub fn has_untracked(&self) -> bool {
        self.has_untracked
    }

    /// Which ports are host endpoints', and what these never close.
    pub fn host_endpoints(&self) -> &HostEndpoints {
        &self.host_endpoints
    }

    /// Has no port a program? Then there is nothing to ask.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.hosts.is_empty()
    }

    /// Does any program ask for addresses? It takes more than the packet to answer then.
    #[inline]
    pub fn asks_for_addresses(&self) -> bool {
        self.compiled.asks_for_addresses()
    }

    /// Does this one?
    #[inline]
    pub fn asks_for_addresses_in(&self, program: ProgramId) -> bool {
        self.compiled.asks_for_addresses_in(program)
    }

    /// What a program makes of a packet. Of a program that isn't there, nothing good.
    #[inline]
    pub fn judge(&self, program: ProgramId, packet: &Packet) -> Judgement {
        self.compiled.judge(program, packet)
    }

    /// [`Self::judge`] for many packets: `out[i]` for `asked[i]`. Of two lengths, the shorter counts.
    #[inline]
    pub fn judge_batch(&self, asked: &[(ProgramId, Packet)], out: &mut [Judgement]) {
        self.compiled.judge_batch(asked, out);
    }

    /// [`Self::judge_batch`] by a worker that remembers what it has judged before.
    #[inline]
    pub fn judge_batch_by_memory(
        &self,
        memo: &mut Memo,
        asked: &[(ProgramId, Packet)],
        out: &mut [Judgement],
    ) {
        self.compiled.judge_batch_by_memory(memo, asked, out);
    }

    /// Tells of each rule with action Log that a packet meets before it is decided on, in order.
    pub fn logs(&self, program: ProgramId, packet: &Packet, met: impl FnMut(::policy::compile::RuleId)) {
        self.compiled.logs(program, packet, met);
    }
}

/// The writer's side: what is staged.
pub(crate) struct PolicyWriter {
    pub(crate) compiler: Compiler,
    endpoints: HashMap<String, PortPolicy>,
    host_endpoints: Arc<HostEndpoints>,
    /// A verdict may differ from what is published.
    pub(crate) changed: bool,
    epoch: u64,
}

impl PolicyWriter {
    pub(crate) fn new(limits: Limits) -> PolicyWriter {
        PolicyWriter {
            compiler: Compiler::new(limits),
            endpoints: HashMap::new(),
            host_endpoints: Arc::default(),
            changed: false,
            epoch: 0,
        }
    }

    pub(crate) fn put(&mut self, endpoint: &str, policy: &EndpointPolicy) -> Result<(), TableFull> {
        let mut taken = PortPolicy::default();
        let EndpointPolicy { ingress, egress, staged_ingress, staged_egress, pre_dnat, untracked } = policy;
        let wanted = [
            (ingress, &mut taken.ingress),
            (egress, &mut taken.egress),
            (staged_ingress, &mut taken.staged_ingress),
            (staged_egress, &mut taken.staged_egress),
            (pre_dnat, &mut taken.pre_dnat),
            (untracked, &mut taken.untracked),
        ];
        let mut outcome = Ok(());
        for (checks, program) in wanted {
            let Some(checks) = checks else { continue };
            match self.compiler.program(checks) {
                Ok(id) => *program = Some(id),
                Err(full) => {
                    outcome = Err(full);
                    break;
                }
            }
        }
        if let Err(full) = outcome {
            taken.programs().for_each(|program| self.compiler.release(program));
            return Err(table_full(full));
        }
        self.changed = true;
        if let Some(before) = self.endpoints.insert(endpoint.to_owned(), taken) {
            before.programs().for_each(|program| self.compiler.release(program));
        }
        Ok(())
    }

    pub(crate) fn remove(&mut self, endpoint: &str) {
        if let Some(before) = self.endpoints.remove(endpoint) {
            self.changed = true;
            before.programs().for_each(|program| self.compiler.release(program));
        }
    }

    /// What is asked at each endpoint, whatever the numbers of programs and sets, and which interfaces are host endpoints.
    pub(crate) fn meanings(&self) -> Vec<(String, u64)> {
        let fixed = |value: &dyn std::fmt::Debug| {
            let mut hasher = DefaultHasher::new();
            format!("{value:?}").hash(&mut hasher);
            hasher.finish()
        };
        let meaning = |program: Option<ProgramId>| program.map(|program| self.compiler.meaning(program));
        let endpoints = self.endpoints.iter().map(|(name, policy)| {
            let PortPolicy { ingress, egress, staged_ingress, staged_egress, pre_dnat, untracked } = *policy;
            let asked = [ingress, egress, staged_ingress, staged_egress, pre_dnat, untracked].map(meaning);
            (name.clone(), fixed(&asked))
        });
        endpoints.chain([("host endpoints".to_owned(), fixed(&self.host_endpoints))]).collect()
    }

    pub(crate) fn set_host_endpoints(&mut self, host_endpoints: HostEndpoints) {
        if *self.host_endpoints != host_endpoints {
            self.host_endpoints = Arc::new(host_endpoints);
            self.changed = true;
        }
    }

    /// What is to be published instead of `before`; `None` where nothing would differ. `wait` returns when every reader has
    /// `before`.
    pub(crate) fn publish(&mut self, ports: &Ports, before: &Policy, wait: impl FnOnce()) -> Option<Policy> {
        let rows = self.rows(ports, |port| port.endpoint.as_ref().map(|endpoint| endpoint.name.as_str()));
        let asked = |policy: &PortPolicy| *policy != PortPolicy::default();
        let mut hosts = self.rows(ports, |port| self.host_endpoints.at(port));
        // Untracked policy needs the name of an interface: that of the endpoint of every interface isn't asked, as with Felix.
        for port in ports.iter().filter(|port| !self.host_endpoints.named.contains_key(&port.name)) {
            if let Some(row) = hosts.get_mut(port.id.index()) {
                row.untracked = None;
            }
        }
        let every = self.host_endpoints.every.as_ref().and_then(|name| self.endpoints.get(name));
        let tunnels = PortPolicy { untracked: None, ..every.copied().unwrap_or_default() };
        if asked(&tunnels) {
            hosts.resize(hosts.len().max(1), PortPolicy::default());
        } else if !hosts.iter().any(asked) {
            hosts.clear();
        }
        if !self.changed && (&rows, &hosts, tunnels) == (&before.ports, &before.hosts, before.tunnels) {
            return None;
        }
        wait();
        self.changed = false;
        self.epoch += 1;
        let has_untracked = hosts.iter().any(|policy| policy.untracked.is_some());
        let host_endpoints = Arc::clone(&self.host_endpoints);
        let compiled = self.compiler.publish();
        Some(Policy {
            epoch: self.epoch,
            ports: rows,
            hosts,
            tunnels,
            has_untracked,
            host_endpoints,
            compiled,
        })
    }

    /// The programs of what is kept under each port's name.
    fn rows<'a>(&self, ports: &'a Ports, name: impl Fn(&'a Port) -> Option<&'a str>) -> Vec<PortPolicy>
    where
        Self: 'a,
    {
        let mut rows = Vec::new();
        for port in ports.iter() {
            if let Some(policy) = name(port).and_then(|name| self.endpoints.get(name)) {
                rows.resize(rows.len().max(port.id.index() + 1), PortPolicy::default());
                rows[port.id.index()] = *policy;
            }
        }
        rows
    }
}

pub(crate) fn table_full(full: Full) -> TableFull {
    let (table, limit) = match full {
        Full::Programs { limit } => ("policy_programs", limit),
        Full::Rules { limit } => ("policy_rules", limit),
        Full::Members { limit } => ("policy_members", limit),
    };
    TableFull { table, limit }
}

#[cfg(test)]
mod tests;
