//! Policy of each port's endpoint, compiled, as the walk asks it.
//!
//! The slow path stages sets and endpoints' checks by [`crate::Writer`]; [`crate::Writer::publish`] shows them all at
//! once: one [`Policy`] is one publication, whose rules never meet the sets of another.

use std::collections::HashMap;
use std::sync::Arc;

use ::policy::compile::{Compiled, Compiler, Full, Judgement, Limits, Memo, Packet, ProgramId};
use ::policy::rule::Checks;
use model::PortId;

use crate::{Ports, TableFull};

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
}

impl PortPolicy {
    fn programs(&self) -> impl Iterator<Item = ProgramId> {
        let PortPolicy { ingress, egress, staged_ingress, staged_egress } = *self;
        [ingress, egress, staged_ingress, staged_egress].into_iter().flatten()
    }
}

/// One publication of all endpoints' policy.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    epoch: u64,
    ports: Vec<PortPolicy>,
    compiled: Compiled,
}

impl Policy {
    /// Raised by each publication in which a verdict may differ from the one before. A verdict of an older epoch is to be
    /// asked for again (DESIGN.md, D7).
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The programs of a port's endpoint.
    #[inline]
    pub fn of(&self, port: PortId) -> PortPolicy {
        self.ports.get(port.index()).copied().unwrap_or_default()
    }

    /// Has no port a program? Then there is nothing to ask.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
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
    /// A verdict may differ from what is published.
    pub(crate) changed: bool,
    epoch: u64,
}

impl PolicyWriter {
    pub(crate) fn new(limits: Limits) -> PolicyWriter {
        PolicyWriter { compiler: Compiler::new(limits), endpoints: HashMap::new(), changed: false, epoch: 0 }
    }

    pub(crate) fn put(&mut self, endpoint: &str, policy: &EndpointPolicy) -> Result<(), TableFull> {
        let mut taken = PortPolicy::default();
        let EndpointPolicy { ingress, egress, staged_ingress, staged_egress } = policy;
        let wanted = [
            (ingress, &mut taken.ingress),
            (egress, &mut taken.egress),
            (staged_ingress, &mut taken.staged_ingress),
            (staged_egress, &mut taken.staged_egress),
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

    /// What is to be published instead of `before`; `None` where nothing would differ. `wait` returns when every reader has
    /// `before`.
    pub(crate) fn publish(&mut self, ports: &Ports, before: &Policy, wait: impl FnOnce()) -> Option<Policy> {
        let rows = self.rows(ports);
        if !self.changed && rows == before.ports {
            return None;
        }
        wait();
        self.changed = false;
        self.epoch += 1;
        Some(Policy { epoch: self.epoch, ports: rows, compiled: self.compiler.publish() })
    }

    fn rows(&self, ports: &Ports) -> Vec<PortPolicy> {
        let mut rows = Vec::new();
        for port in ports.iter() {
            let endpoint = port.endpoint.as_ref();
            if let Some(policy) = endpoint.and_then(|endpoint| self.endpoints.get(&endpoint.name)) {
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
