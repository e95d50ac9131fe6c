//! How full every table is that `limits:` sets the size of. One list for `tortie show tables` and for the metrics.

use serde::{Deserialize, Serialize};
use slowpath::status::Summary;
use tables::FlowCounts;

use crate::limits::Limits;

/// One table. The field names are an interface: programs read them. Add fields, don't rename them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableUse {
    /// Its key below `limits:` in tortie.yaml.
    pub(crate) limit: String,
    /// What its rows are.
    pub(crate) rows: String,
    /// Rows in use.
    pub(crate) in_use: u64,
    /// Rows in all.
    pub(crate) size: u64,
    /// What the full table has refused, where that is counted: now, or since the start.
    pub(crate) refused: Option<u64>,
}

/// `show tables`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TablesStatus {
    pub(crate) tables: Vec<TableUse>,
    /// Bytes that routes take in the fast path's look-up structures.
    pub(crate) lookup_bytes: u64,
}

impl TablesStatus {
    /// What is in use of these limits.
    pub(crate) fn new(limits: &Limits, summary: &Summary, flows: &FlowCounts, ports: usize) -> TablesStatus {
        let table = |limit: &str, rows: &str, in_use: usize, size: usize, refused: Option<u64>| TableUse {
            limit: limit.to_owned(),
            rows: rows.to_owned(),
            in_use: in_use as u64,
            size: size as u64,
            refused,
        };
        let Summary { fib_routes, policy_use: policy, .. } = summary;
        let refused = Some(summary.refused_routes as u64);
        TablesStatus {
            tables: vec![
                table("routes_v4", "IPv4 routes", fib_routes.ipv4 as usize, limits.routes_v4, refused),
                table("routes_v6", "IPv6 routes", fib_routes.ipv6 as usize, limits.routes_v6, refused),
                table("groups", "sets of next hops", summary.groups, limits.groups, None),
                table("adjacencies", "neighbours in use", summary.adjacencies, limits.adjacencies, None),
                table(
                    "neighbors",
                    "neighbours known",
                    summary.neighbors,
                    limits.neighbors,
                    Some(summary.refused_neighbors),
                ),
                table(
                    "mirror_routes",
                    "routes in the kernel",
                    summary.mirrored_routes,
                    limits.mirror_routes,
                    None,
                ),
                table("ports", "ports", ports, limits.ports, None),
                table("flows", "rows of flows", flows.in_use, flows.size, Some(flows.evicted)),
                table("policy_programs", "lists of rules", policy.programs, limits.policy_programs, None),
                table("policy_rules", "rules", policy.rules, limits.policy_rules, None),
                table("policy_members", "members of sets", policy.members, limits.policy_members, None),
                table(
                    "policy_bytes",
                    "bytes of policy",
                    policy.bytes,
                    limits.policy_bytes,
                    Some(policy.denying as u64),
                ),
            ],
            lookup_bytes: summary.fib_bytes as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_has_a_key_of_the_configuration_and_its_size() {
        let limits = Limits { groups: 77, ..Limits::default() };
        let mut summary = Summary { groups: 5, refused_routes: 2, ..Summary::default() };
        summary.fib_routes.ipv6 = 9;
        let flows = tables::Flows::new(1024).counts();
        let tables = TablesStatus::new(&limits, &summary, &flows, 3).tables;
        let row = |limit: &str| {
            let row = tables.iter().find(|table| table.limit == limit).unwrap();
            (row.in_use, row.size, row.refused)
        };
        assert_eq!(row("groups"), (5, 77, None));
        assert_eq!(row("routes_v6"), (9, Limits::default().routes_v6 as u64, Some(2)));
        assert_eq!(row("ports"), (3, 512, None));
        assert_eq!(row("flows").1, 1024);
    }
}
