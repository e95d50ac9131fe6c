//! What an operator wants to be told of a node.

use std::time::Duration;

/// `CalicoNodeStatus`: its `spec`, for `status` is what the node itself writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatusRequest {
    /// `metadata.name`.
    pub name: String,
    /// `spec.node`: who is to tell.
    pub node: String,
    /// `spec.classes`: what of.
    pub classes: Vec<NodeStatusClass>,
    /// `spec.updatePeriodSeconds`: how often; zero is once.
    pub period: Duration,
}

/// What a node can tell of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeStatusClass {
    /// The BGP daemon itself.
    Agent,
    /// Sessions.
    Bgp,
    /// Routes.
    Routes,
}
