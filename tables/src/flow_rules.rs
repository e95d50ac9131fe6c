//! What FelixConfiguration says of flows from and to workloads, besides policy.

/// What is dropped besides what policy denies, and what passes without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRules {
    /// What workloads send to this node itself, neighbours' and multicast listeners' messages excepted:
    /// `defaultEndpointToHostAction: Drop`.
    pub drops_to_host: bool,
    /// DHCP and DNS from workloads to this node itself pass, whatever policy says: OpenStack's instances have both from their
    /// host (`felix/rules/static.go`, `OpenStackSpecialCasesEnabled`).
    pub passes_dhcp_and_dns: bool,
    /// What belongs to no flow and can begin none: unless `disableConntrackInvalidCheck`. Else policy judges it alone.
    pub drops_invalid: bool,
    /// The sender is told of what policy denies after routing: `nftablesFilterDenyAction: Reject`.
    pub tells_denied: bool,
}

impl Default for FlowRules {
    /// Before anybody has said otherwise: without policy, nothing is asked.
    fn default() -> FlowRules {
        FlowRules {
            drops_to_host: false,
            passes_dhcp_and_dns: false,
            drops_invalid: true,
            tells_denied: false,
        }
    }
}
