//! What nft has counted, given back to the rules that it belongs to.

use std::collections::BTreeMap;

use serde_json::Value;

use super::ruleset::{About, Counts, Ruleset};
use crate::nft;
use crate::status::{HostEndpointStatus, HostPolicyStatus, HostRuleStatus};

/// Packets and bytes of the lines of each chain, in order; `None` for a line without a counter.
pub type Counted = BTreeMap<String, Vec<Option<(u64, u64)>>>;

/// Asks nft.
///
/// # Errors
/// Words for people: nft doesn't answer, or there is no table.
pub fn read(table: &str) -> Result<Counted, String> {
    let text = nft::table(table).map_err(|error| error.to_string())?;
    let text = text.ok_or_else(|| format!("the nftables table inet {table} is gone"))?;
    parse(&text).ok_or_else(|| "nft's list of counters can't be read".to_owned())
}

/// Reads nft's JSON (`libnftables-json(5)`).
fn parse(text: &str) -> Option<Counted> {
    let list: Value = serde_json::from_str(text).ok()?;
    let mut counted = Counted::new();
    for rule in list.get("nftables")?.as_array()?.iter().filter_map(|object| object.get("rule")) {
        let counter = rule.get("expr")?.as_array()?.iter().find_map(|expression| expression.get("counter"));
        let number = |field: &str| counter?.get(field)?.as_u64();
        let chain = rule.get("chain")?.as_str()?.to_owned();
        counted.entry(chain).or_default().push(number("packets").zip(number("bytes")));
    }
    Some(counted)
}

/// What is in force and what it has counted. Lines of one rule are summed up.
pub fn status(ruleset: &Ruleset, counted: &Counted) -> HostPolicyStatus {
    let mut status = HostPolicyStatus::default();
    let mut endpoints: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for (name, chain) in &ruleset.chains {
        if let About::Endpoint { name, interface, class, direction } = &chain.about {
            let asked = endpoints.entry((name.clone(), interface.clone())).or_default();
            asked.push(format!("{class} {direction}"));
        }
        let counters = counted.get(name).filter(|counters| counters.len() == chain.lines.len());
        let mut rows: Vec<(&Counts, HostRuleStatus)> = Vec::new();
        for (at, line) in chain.lines.iter().enumerate() {
            let Some(counts) = &line.counts else { continue };
            let counter = counters.and_then(|counters| counters[at]);
            let (packets, bytes) = counter.unzip();
            match rows.last_mut() {
                Some((last, row)) if *last == counts => {
                    row.packets = row.packets.zip(packets).map(|(sum, more)| sum + more);
                    row.bytes = row.bytes.zip(bytes).map(|(sum, more)| sum + more);
                }
                _ => rows.push((counts, row(&chain.about, counts, packets, bytes))),
            }
        }
        status.rules.extend(rows.into_iter().map(|(_, row)| row));
    }
    status.endpoints = (endpoints.into_iter())
        .map(|((name, interface), asked)| HostEndpointStatus { name, interface, asked })
        .collect();
    let sets = ruleset.sets.iter().map(|(name, set)| (name.clone(), set.elements.len()));
    status.sets = sets.collect();
    status
}

fn row(about: &About, counts: &Counts, packets: Option<u64>, bytes: Option<u64>) -> HostRuleStatus {
    let (of, name, interface, class, direction) = match about {
        About::Hook => ("hook", "", None, "", ""),
        About::Endpoint { name, interface, class, direction } => {
            ("endpoint", name.as_str(), Some(interface.clone()), *class, *direction)
        }
        About::Policy { name, class, direction } => ("policy", name.as_str(), None, *class, *direction),
        About::Profile { name, direction } => ("profile", name.as_str(), None, "normal", *direction),
        About::Before { class, direction } => ("before", "", None, *class, *direction),
    };
    let (rule, what, action) = match counts {
        Counts::Rule { number, action } => (Some(*number), format!("rule {number}"), *action),
        Counts::Other { what, action } => (None, what.clone(), *action),
    };
    HostRuleStatus {
        of: of.to_owned(),
        name: name.to_owned(),
        interface,
        class: class.to_owned(),
        direction: direction.to_owned(),
        rule,
        what,
        action: action.to_owned(),
        packets,
        bytes,
    }
}
