//! A packet of a flow that policy has let pass isn't asked of again. Who follows it wants to know by which rules, all the
//! same: so they are asked for here, and nothing is counted.

use packet::{icmp, protocol};
use tables::{Answer, FlowSeen, Flows, Judged, State, Ticks, Trace};

use crate::policy::{Policing, as_policy_sees};

/// Puts down what both ends' policies say of a known flow's first packet.
pub(super) fn answers(trace: &mut Trace, state: &State, (flows, now): (&Flows, Ticks)) {
    let FlowSeen::Known { direction, .. } = trace.flow else { return };
    let (Some(route), Some(came)) = (trace.route, trace.inside.or(trace.came)) else { return };
    let Some(policing) = Policing::of(state) else { return };
    let Some(flow) = flows.look_up(&came.key, now, &state.nat.timeouts) else { return };
    let first = flow.judged_as(&came.key);
    let echo = match first.protocol {
        protocol::ICMP => Some((icmp::v4::ECHO_REQUEST, 0)),
        protocol::ICMPV6 => Some((icmp::v6::ECHO_REQUEST, 0)),
        _ => None,
    };
    let asked = as_policy_sees(&first, flows.icmp_of(&flow).or(echo));
    let between = policing.ends_of_flow(trace.ingress, trace.inside.is_some(), &route.hop, direction);
    let is_hosts = |port| state.ports.get(port).is_some_and(|row| row.kind == model::PortKind::Host);
    let is_forwarded = !between.ingress.is_some_and(is_hosts);
    let at = |port: Option<_>, is_ingress, program: Option<_>| Some((port?, is_ingress, program?));
    let of = |port: Option<_>| port.map(|port| state.policy.of(port)).unwrap_or_default();
    let of_host = |port: Option<_>| {
        port.filter(|_| is_forwarded).map(|port| state.policy.of_host(port)).unwrap_or_default()
    };
    let asked_in_order = [
        at(between.egress, true, of_host(between.egress).ingress),
        at(between.egress, false, of(between.egress).egress),
        at(between.ingress, true, of(between.ingress).ingress),
        at(between.ingress, false, of_host(between.ingress).egress),
    ];
    for (port, is_ingress, program) in asked_in_order.into_iter().flatten() {
        let judgement = state.policy.judge(program, &asked);
        let (rule, verdict) = (judgement.rule, Some(judgement.verdict));
        let judged = Judged::Enforced;
        trace.answer(Answer { port, is_ingress, judged, rule, verdict, is_recalled: true });
    }
}
