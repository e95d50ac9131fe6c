//! That a node claims a block, as it is stored (`libcalico-go/lib/backend/model/block_affinity.go`).

use serde_json::{Value, json};

/// How far a claim has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The block is the node's. So are those whose claim says nothing: it is from before there were states.
    Confirmed,
    /// It is to be, once the block is written. Routes and owners don't count it.
    Pending,
    /// It is being given up.
    PendingDeletion,
}

impl State {
    /// A stored claim's.
    pub fn of_value(value: &Value) -> State {
        match value["state"].as_str() {
            Some("pending") => State::Pending,
            Some("pendingDeletion") => State::PendingDeletion,
            _ => State::Confirmed,
        }
    }

    /// The claim as it is stored.
    pub fn to_value(self) -> Value {
        let state = match self {
            State::Confirmed => "confirmed",
            State::Pending => "pending",
            State::PendingDeletion => "pendingDeletion",
        };
        json!({"state": state, "deleted": false})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_stored_as_calico_stores_them() {
        assert_eq!(State::Confirmed.to_value().to_string(), r#"{"state":"confirmed","deleted":false}"#);
        for state in [State::Confirmed, State::Pending, State::PendingDeletion] {
            assert_eq!(State::of_value(&state.to_value()), state);
        }
        assert_eq!(State::of_value(&json!({})), State::Confirmed, "from before there were states");
    }
}
