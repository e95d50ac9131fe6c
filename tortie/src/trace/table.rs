//! Packets' ways for people: a line of what it was, then a line of what each stage found.

use slowpath::status::{TracedHeaders, TracedPacket, TracesStatus};

/// Columns of a stage's name.
const STAGE: usize = 18;

pub(super) fn packets(packets: &[TracedPacket]) -> String {
    packets.iter().map(packet).collect()
}

/// What came of all that was followed.
pub(super) fn sum(status: &TracesStatus) -> String {
    let mut text = match status.packets.len() {
        0 => "no packet that matches has passed\n".to_owned(),
        1 => "1 packet\n".to_owned(),
        count => format!("{count} packets\n"),
    };
    if status.missed > 0 {
        text.push_str(&format!(
            "{} more matched and were not followed: too many at once; --sample takes one in so many\n",
            status.missed
        ));
    }
    text
}

fn packet(packet: &TracedPacket) -> String {
    let what = packet.packet.as_ref().map_or_else(|| "a frame".to_owned(), headers);
    let by = packet.port.iter().map(|port| format!(" by {port}")).collect::<String>();
    let walked = match packet.worker {
        Some(worker) => format!("{}, worker {worker}", packet.time),
        None => "made up".to_owned(),
    };
    let mut text = format!("{what}{by} ({walked})\n");
    let mut last = "";
    for stage in &packet.stages {
        // Several findings of one stage are told below each other.
        let name = if stage.stage == last { "" } else { stage.stage.as_str() };
        text.push_str(&format!("  {name:STAGE$}{}\n", stage.found));
        last = &stage.stage;
    }
    text.push('\n');
    text
}

fn headers(headers: &TracedHeaders) -> String {
    let TracedHeaders { source, destination, protocol, source_port, destination_port, .. } = headers;
    let port = |port: &Option<u16>| port.map(|port| format!(" port {port}")).unwrap_or_default();
    format!("{protocol} from {source}{} to {destination}{}", port(source_port), port(destination_port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use slowpath::status::TracedStage;

    fn traced() -> TracedPacket {
        let stage =
            |stage: &str, found: &str| TracedStage { stage: stage.to_owned(), found: found.to_owned() };
        TracedPacket {
            made_up: true,
            port: Some("cali1".to_owned()),
            packet: Some(TracedHeaders {
                source: "10.65.0.2".parse().unwrap(),
                destination: "10.65.1.7".parse().unwrap(),
                protocol: "TCP".to_owned(),
                source_port: Some(49152),
                destination_port: Some(443),
                icmp_type: None,
                icmp_code: None,
                tcp_flags: Some("SYN".to_owned()),
                ttl: 64,
                dscp: 0,
                bytes: 40,
                fragment: None,
            }),
            stages: vec![
                stage("route", "10.65.1.0/26 of bgp by eth0 via 172.16.0.2"),
                stage(
                    "policy",
                    "egress of shop/web: allow by tier default, policy shop/out, egress[0]: Allow",
                ),
                stage("policy", "ingress of shop/db: deny by tier default, end of tier"),
            ],
            fate: "drop".to_owned(),
            ..TracedPacket::default()
        }
    }

    #[test]
    fn a_packets_way_is_told_stage_by_stage() {
        assert_eq!(
            packets(&[traced()]),
            "\
TCP from 10.65.0.2 port 49152 to 10.65.1.7 port 443 by cali1 (made up)
  route             10.65.1.0/26 of bgp by eth0 via 172.16.0.2
  policy            egress of shop/web: allow by tier default, policy shop/out, egress[0]: Allow
                    ingress of shop/db: deny by tier default, end of tier

"
        );
    }

    #[test]
    fn what_was_missed_is_said() {
        let status = TracesStatus { packets: vec![traced()], missed: 3, ..TracesStatus::default() };
        assert!(sum(&status).starts_with("1 packet\n3 more matched"), "{}", sum(&status));
        assert!(sum(&TracesStatus::default()).starts_with("no packet"));
    }
}
