//! What an endpoint's QoS controls are, and what each has dropped.

use serde::{Deserialize, Serialize};
use tables::{DEFAULT_BURST, DEFAULT_PACKET_BURST, Policer, Qos};

/// An endpoint's QoS controls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QosStatus {
    /// Its limits.
    pub limits: Vec<LimitStatus>,
    /// The DSCP that its packets leave the node with.
    pub dscp: Option<u8>,
}

/// One limit of one direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitStatus {
    /// `ingress`, towards the workload, or `egress`, from it.
    pub direction: String,
    /// `bandwidth`, in bits, `packet_rate`, in packets, or `connections`.
    pub limit: String,
    /// Bits or packets a second; connections at a time.
    pub rate: u64,
    /// Bits or packets at once; of connections those that there are now.
    pub burst: u64,
    /// Beside a bandwidth: bits a second within a burst.
    pub peak_rate: Option<u64>,
    /// Packets dropped since the port was opened, or the limit was set first.
    pub dropped: u64,
}

impl QosStatus {
    /// What is in force now. `connections`: those that there are, from the workload and to it.
    pub(crate) fn new(qos: &Qos, connections: (u32, u32)) -> QosStatus {
        let controls = qos.controls();
        let refused = qos.refused_connections();
        let directions = [
            ("ingress", &controls.ingress, &qos.ingress, (connections.1, refused.0)),
            ("egress", &controls.egress, &qos.egress, (connections.0, refused.1)),
        ];
        let mut limits = Vec::new();
        for (direction, asked, policer, (connections, refused)) in directions {
            let drops = policer.as_ref().map(Policer::drops).unwrap_or_default();
            limits.extend(asked.bandwidth.map(|rate| LimitStatus {
                direction: direction.to_owned(),
                limit: "bandwidth".to_owned(),
                rate,
                burst: asked.burst.unwrap_or(DEFAULT_BURST),
                peak_rate: asked.peak_rate,
                dropped: drops.bandwidth,
            }));
            limits.extend(asked.packet_rate.map(|rate| LimitStatus {
                direction: direction.to_owned(),
                limit: "packet_rate".to_owned(),
                rate,
                burst: asked.packet_burst.unwrap_or(DEFAULT_PACKET_BURST),
                peak_rate: None,
                dropped: drops.packet_rate,
            }));
            limits.extend(asked.max_connections.map(|rate| LimitStatus {
                direction: direction.to_owned(),
                limit: "connections".to_owned(),
                rate,
                burst: connections.into(),
                peak_rate: None,
                dropped: refused,
            }));
        }
        QosStatus { limits, dscp: controls.dscp }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{QosControls, QosDirection};

    #[test]
    fn every_limit_is_named_with_the_burst_that_holds_and_its_drops() {
        let direction = QosDirection {
            bandwidth: Some(8_000_000),
            packet_rate: Some(1),
            max_connections: Some(20),
            ..Default::default()
        };
        let controls = QosControls { egress: direction, dscp: Some(46), ..QosControls::default() };
        let qos = Qos::new(&controls, 1500, None).unwrap();
        let now = tables::MeterTime::from_nanos(1);
        qos.egress.as_ref().unwrap().police(now, &[60; 7], |_, _| ());
        qos.refuse_egress();
        let status = QosStatus::new(&qos, (3, 4));
        let told: Vec<_> = status
            .limits
            .iter()
            .map(|limit| {
                (limit.direction.as_str(), limit.limit.as_str(), limit.rate, limit.burst, limit.dropped)
            })
            .collect();
        let expected = [
            ("egress", "bandwidth", 8_000_000, DEFAULT_BURST, 0),
            ("egress", "packet_rate", 1, 5, 2),
            ("egress", "connections", 20, 3, 1),
        ];
        assert_eq!((&told[..], status.dscp), (&expected[..], Some(46)));
    }
}
