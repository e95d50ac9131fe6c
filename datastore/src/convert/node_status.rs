//! CalicoNodeStatus (`api/pkg/apis/projectcalico/v3/caliconodestatus.go`): what is asked for. What is told stands beside it in
//! `status`, and is not read, so that telling it changes nothing.

use std::time::Duration;

use model::{NodeStatusClass, NodeStatusRequest, Resource};

use super::{Identity, Outcome};
use crate::fields::{Fault, Object};

/// Where nothing is said.
const PERIOD: i64 = 10;
const PERIOD_MAX: i64 = u32::MAX as i64;

pub(super) fn convert(identity: &Identity<'_>, spec: &Object<'_>) -> Result<Outcome, Fault> {
    let Some((_, node)) = spec.text("node")? else {
        return Ok(Outcome::nothing_because_of("spec.node".to_owned(), spec.position()));
    };
    let period: i64 = match spec.field("updatePeriodSeconds") {
        Some(field) => field.number(0, PERIOD_MAX)?,
        None => PERIOD,
    };
    let (mut classes, mut unused) = (Vec::new(), Vec::new());
    if let Some(list) = spec.field("classes") {
        for item in list.items()? {
            match item.text()? {
                "Agent" => classes.push(NodeStatusClass::Agent),
                "BGP" => classes.push(NodeStatusClass::Bgp),
                "Routes" => classes.push(NodeStatusClass::Routes),
                // Calico's node passes over it with a word in its log.
                _ => unused.push((item.path().to_owned(), item.position())),
            }
        }
    }
    let request = NodeStatusRequest {
        name: identity.name.clone(),
        node: node.to_owned(),
        classes,
        period: Duration::from_secs(period.unsigned_abs()),
    };
    Ok(Outcome { unused, ..Outcome::of(Resource::NodeStatus(request)) })
}
