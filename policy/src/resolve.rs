//! From resources to what is asked of each endpoint's packets.

mod label_index;
