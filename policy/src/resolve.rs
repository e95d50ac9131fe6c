//! From resources to what is asked of each endpoint's packets.

mod address_sets;
pub mod compose;
mod label_index;
mod order;
mod rules;
