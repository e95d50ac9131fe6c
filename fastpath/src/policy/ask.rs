//! Asking both ends' policies of one packet, and telling what they said.

use ::policy::compile::{Judgement, Packet as Asked, ProgramId, Upper};
use ::policy::judge::Verdict;
use model::{FailsafePort, Family, PortId, PortKind};
use packet::{FlowKey, icmp, protocol};
use tables::{
    Answer, Between, Decided, DropReason, Fate, Flow, Judged, PolicyAct, PolicyEvent, PolicyReport,
    PortPolicy, PuntReason, State,
};

use super::{Judge, Packet, Said};
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
    ) -> Result<(), Fate> {
        let (key, icmp) = (flow.judged_as(found_by), self.first_icmp(flow, packet.key));
        self.ask_all(packet, &key, Some(&flow.original_of(found_by)), icmp, between, false)
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
    ) -> Result<(), Fate> {
        self.ask_all(packet, key, None, icmp, between, false)
    }

    /// [`Self::ask`]. `before_dnat`: the key before its destination was translated, where that was another. `is_untracked`:
    /// untracked policy has let it in.
    pub(super) fn ask_all(
        &self,
        packet: &Packet<'_>,
        key: &FlowKey,
        before_dnat: Option<&FlowKey>,
        icmp: Option<(u8, u8)>,
        between: Between,
        is_untracked: bool,
    ) -> Result<(), Fate> {
        let state = self.policing.state;
        let asked = asked(key, icmp);
        let about = (packet.bytes, packet.foreseen);
        let is_to_host = self.is_hosts(between.ingress);
        // OpenStack's instances reach a metadata server on their host whatever policy says (`filterWorkloadToHostChain` in
        // `felix/rules/static.go`).
        if is_to_host && state.nat.is_to_metadata(key) {
            return Ok(());
        }
        if let Some(port) = between.egress {
            if !is_untracked {
                self.ask_host_endpoint(packet, port, key, before_dnat, &asked, is_to_host)?;
            }
            let of = state.policy.of(port);
            let programs = Programs { enforced: of.egress, staged: of.staged_egress };
            if !self.ask_at(port, &programs, &asked, about, false) {
                return Err(self.denied(DropReason::EgressDenied));
            }
        }
        let Some(port) = between.ingress else { return Ok(()) };
        if is_to_host {
            return match state.flow_rules.drops_to_host {
                true => Err(DropReason::WorkloadToHost.into()),
                false => Ok(()),
            };
        }
        let of = state.policy.of(port);
        let programs = Programs { enforced: of.ingress, staged: of.staged_ingress };
        if !self.ask_at(port, &programs, &asked, about, true) {
            return Err(self.denied(DropReason::IngressDenied));
        }
        let forward = state.policy.of_host(port).egress;
        match forward.map(|program| judge(state, self.reporter, program, &asked, (port, false), about)) {
            None | Some(Verdict::Allow) => Ok(()),
            Some(_) => Err(self.denied(DropReason::ForwardDenied)),
        }
    }

    /// What becomes of a packet that policy denies after routing.
    fn denied(&self, reason: DropReason) -> Fate {
        match self.policing.state.flow_rules.tells_denied {
            true => PuntReason::Denied.into(),
            false => reason.into(),
        }
    }

    fn is_hosts(&self, port: Option<PortId>) -> bool {
        let row = port.and_then(|port| self.policing.state.ports.get(port));
        row.is_some_and(|row| row.kind == PortKind::Host)
    }

    /// Asks the host endpoint that a packet came in by: before its destination was translated, and of what is forwarded, which
    /// the first spares it (`felix/rules/static.go`, `StaticFilterForwardChains`).
    fn ask_host_endpoint(
        &self,
        packet: &Packet<'_>,
        port: PortId,
        key: &FlowKey,
        before_dnat: Option<&FlowKey>,
        asked_now: &Asked,
        is_to_host: bool,
    ) -> Result<(), Fate> {
        let state = self.policing.state;
        let PortPolicy { ingress, pre_dnat, .. } = state.policy.of_host(port);
        let about = (packet.bytes, packet.foreseen);
        let judge = |program, asked: &Asked| judge(state, self.reporter, program, asked, (port, true), about);
        if let Some(program) = pre_dnat {
            let first = asked(before_dnat.unwrap_or(key), self.first_message(asked_now));
            let is_failsafe = is_one_of(&state.policy.host_endpoints().failsafe_inbound, &first, true);
            match (!is_failsafe).then(|| judge(program, &first)) {
                Some(Verdict::Allow) => return Ok(()),
                Some(Verdict::Deny) => return Err(DropReason::ForwardDenied.into()),
                Some(Verdict::NoMatch) | None => {}
            }
        }
        match ingress.filter(|_| !is_to_host).map(|program| judge(program, asked_now)) {
            None | Some(Verdict::Allow) => Ok(()),
            Some(_) => Err(self.denied(DropReason::ForwardDenied)),
        }
    }

    fn first_message(&self, asked: &Asked) -> Option<(u8, u8)> {
        match asked.upper {
            Upper::Icmp { icmp_type, code } => Some((icmp_type, code)),
            _ => None,
        }
    }

    /// May the packet pass at one end?
    fn ask_at(
        &self,
        port: PortId,
        programs: &Programs,
        asked: &Asked,
        about: (&[u8], &[Said]),
        is_ingress: bool,
    ) -> bool {
        let state = self.policing.state;
        let (bytes, foreseen) = about;
        let verdict = |program| judge(state, self.reporter, program, asked, (port, is_ingress), about);
        let passes = programs.enforced.is_none_or(|program| verdict(program) == Verdict::Allow);
        if let Some(program) = programs.staged {
            let Reporter { report, worker, answers } = self.reporter;
            let judgement = judgement(state, program, asked, foreseen);
            let would_deny = passes && judgement.verdict != Verdict::Allow;
            let judged = if would_deny { Judged::WouldBeDenied } else { Judged::Staged };
            let rule = judgement.rule;
            report.count(worker, Decided { rule, port, is_ingress, judged }, bytes.len());
            if would_deny {
                let act = PolicyAct::WouldBeDenied;
                report.tell(PolicyEvent { act, rule, port, is_ingress, packet: *asked });
            }
            if let Some(answers) = answers {
                let (verdict, is_recalled) = (Some(judgement.verdict), false);
                let judged = Judged::Staged;
                answers.put(bytes, Answer { port, is_ingress, judged, rule, verdict, is_recalled });
            }
        }
        passes
    }
}

/// What a program makes of a packet. What is foreseen has been asked as the packet came, and so is this: only what belongs to no
/// flow is foreseen.
#[inline]
fn judgement(state: &State, program: ProgramId, asked: &Asked, foreseen: &[Said]) -> Judgement {
    let said = foreseen.iter().find(|said| said.program == program);
    said.map_or_else(|| state.policy.judge(program, asked), |said| said.judgement)
}

/// What a program that is enforced makes of a packet, told to all who want to know. `(port, is_ingress)`: where it is asked.
/// `(bytes, foreseen)`: the packet, and what has been asked of it already.
pub(super) fn judge(
    state: &State,
    Reporter { report, worker, answers }: Reporter<'_>,
    program: ProgramId,
    asked: &Asked,
    (port, is_ingress): (PortId, bool),
    (bytes, foreseen): (&[u8], &[Said]),
) -> Verdict {
    let tell = |act, rule| report.tell(PolicyEvent { act, rule, port, is_ingress, packet: *asked });
    let judged = Judged::Enforced;
    let count = |rule| report.count(worker, Decided { rule, port, is_ingress, judged }, bytes.len());
    let answer = |rule, verdict| {
        if let Some(answers) = answers {
            let is_recalled = false;
            answers.put(bytes, Answer { port, is_ingress, judged, rule, verdict, is_recalled });
        }
    };
    let judgement = judgement(state, program, asked, foreseen);
    count(judgement.rule);
    answer(judgement.rule, Some(judgement.verdict));
    if judgement.logs > 0 {
        state.policy.logs(program, asked, |rule| {
            count(rule);
            answer(rule, None);
            tell(PolicyAct::Logged, rule);
        });
    }
    if judgement.verdict == Verdict::Deny {
        tell(PolicyAct::Denied, judgement.rule);
    }
    judgement.verdict
}

/// Goes the packet to one of these ports, or comes it from there? Of answers, `net` is where they come from, too.
pub(super) fn is_one_of(ports: &[FailsafePort], asked: &Asked, by_destination: bool) -> bool {
    let Upper::Ports { source, destination } = asked.upper else { return false };
    let number = if by_destination { destination } else { source };
    let peer = policy::judge::Packet::from(asked).source;
    ports.iter().any(|port| {
        port.protocol.0 == asked.protocol
            && port.port == number
            && port.net.is_none_or(|net| net.contains(peer))
    })
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
