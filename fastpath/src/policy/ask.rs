//! Asking both ends' policies of one packet, and telling what they said.

use ::policy::compile::{Packet as Asked, ProgramId, Upper};
use ::policy::judge::Verdict;
use model::{Family, PortId, PortKind};
use packet::{FlowKey, icmp, protocol};
use tables::{Answer, Between, Decided, DropReason, Flow, Judged, PolicyAct, PolicyEvent, PolicyReport};

use super::{Judge, Packet};
use crate::trace::Answers;

/// Who tells what policy does.
#[derive(Clone, Copy)]
pub(crate) struct Reporter<'a> {
    pub(crate) report: &'a PolicyReport,
    pub(crate) worker: usize,
    /// Who follows packets of this batch.
    pub(crate) answers: Option<&'a Answers>,
}

/// One endpoint's policy of one direction.
struct Programs {
    enforced: Option<ProgramId>,
    staged: Option<ProgramId>,
}

impl Judge<'_> {
    /// Asks of a flow's first packet, by whatever packet of it is here. `found_by`: the key that it was found by.
    #[cold]
    pub(super) fn ask_of_flow(
        &self,
        packet: &Packet<'_>,
        flow: &Flow,
        found_by: &FlowKey,
        between: Between,
    ) -> Result<(), DropReason> {
        self.ask(packet, &flow.judged_as(found_by), self.first_icmp(flow, packet.key), between)
    }

    /// Type and code of the ICMP message that began a flow: an echo request where it isn't remembered.
    pub(super) fn first_icmp(&self, flow: &Flow, key: &FlowKey) -> Option<(u8, u8)> {
        let echo = match key.protocol {
            protocol::ICMP => (icmp::v4::ECHO_REQUEST, 0),
            protocol::ICMPV6 => (icmp::v6::ECHO_REQUEST, 0),
            _ => return None,
        };
        Some(self.memory.flows.icmp_of(flow).unwrap_or(echo))
    }

    /// Asks both ends of a packet with this key; its sender's policy first.
    pub(super) fn ask(
        &self,
        packet: &Packet<'_>,
        key: &FlowKey,
        icmp: Option<(u8, u8)>,
        between: Between,
    ) -> Result<(), DropReason> {
        let state = self.policing.state;
        let asked = asked(key, icmp);
        let bytes = packet.bytes;
        if let Some(port) = between.egress {
            let of = state.policy.of(port);
            let programs = Programs { enforced: of.egress, staged: of.staged_egress };
            if !self.ask_at(port, &programs, &asked, bytes, false) {
                return Err(DropReason::EgressDenied);
            }
        }
        let Some(port) = between.ingress else { return Ok(()) };
        if state.ports.get(port).is_some_and(|port| port.kind == PortKind::Host) {
            return match state.flow_rules.drops_to_host {
                true => Err(DropReason::WorkloadToHost),
                false => Ok(()),
            };
        }
        let of = state.policy.of(port);
        let programs = Programs { enforced: of.ingress, staged: of.staged_ingress };
        match self.ask_at(port, &programs, &asked, bytes, true) {
            true => Ok(()),
            false => Err(DropReason::IngressDenied),
        }
    }

    /// May the packet pass at one end?
    fn ask_at(
        &self,
        port: PortId,
        programs: &Programs,
        asked: &Asked,
        bytes: &[u8],
        is_ingress: bool,
    ) -> bool {
        let policy = &self.policing.state.policy;
        let Reporter { report, worker, answers } = self.reporter;
        let tell = |act, rule| report.tell(PolicyEvent { act, rule, port, is_ingress, packet: *asked });
        let count =
            |rule, judged| report.count(worker, Decided { rule, port, is_ingress, judged }, bytes.len());
        let answer = |rule, judged, verdict| {
            if let Some(answers) = answers {
                let is_recalled = false;
                answers.put(bytes, Answer { port, is_ingress, judged, rule, verdict, is_recalled });
            }
        };
        let mut passes = true;
        if let Some(program) = programs.enforced {
            let judgement = policy.judge(program, asked);
            count(judgement.rule, Judged::Enforced);
            answer(judgement.rule, Judged::Enforced, Some(judgement.verdict));
            if judgement.logs > 0 {
                policy.logs(program, asked, |rule| {
                    count(rule, Judged::Enforced);
                    answer(rule, Judged::Enforced, None);
                    tell(PolicyAct::Logged, rule);
                });
            }
            passes = judgement.verdict == Verdict::Allow;
            if !passes {
                tell(PolicyAct::Denied, judgement.rule);
            }
        }
        if let Some(program) = programs.staged {
            let judgement = policy.judge(program, asked);
            answer(judgement.rule, Judged::Staged, Some(judgement.verdict));
            if passes && judgement.verdict != Verdict::Allow {
                count(judgement.rule, Judged::WouldBeDenied);
                tell(PolicyAct::WouldBeDenied, judgement.rule);
            } else {
                count(judgement.rule, Judged::Staged);
            }
        }
        passes
    }
}

/// A packet as policy sees it. `icmp`: type and code, which stand where others have ports.
pub(crate) fn asked(key: &FlowKey, icmp: Option<(u8, u8)>) -> Asked {
    let FlowKey { src, dst, sport, dport, protocol, family } = *key;
    let upper = match (protocol, icmp) {
        (protocol::ICMP | protocol::ICMPV6, Some((icmp_type, code))) => Upper::Icmp { icmp_type, code },
        (protocol::TCP | protocol::UDP | protocol::SCTP, _) => {
            Upper::Ports { source: sport, destination: dport }
        }
        _ => Upper::Nothing,
    };
    debug_assert!(family == Family::V6 || src >> 32 == 0, "an IPv4 address has 32 bits");
    Asked { source: src, destination: dst, family, protocol, upper }
}
