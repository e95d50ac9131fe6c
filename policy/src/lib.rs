//! # policy: Calico policy
//!
//! **What this room is for.** What Calico's policy resources mean: whom they select, and what they allow.
//!
//! **How things pass through it.** Text becomes a [`Selector`] once; a selector is asked of [`Labels`] as often as need
//! be, and tells by [`Selector::restrictions`] which labels it can't match without, so that an index need not ask it.
//! [`resolve::Resolver`] takes all resources as they come and go, and tells what changes of sets of addresses and of what
//! each endpoint is asked, its [`rule::Checks`].
//! [`compile::Compiler`] makes programs of sets and checks, and [`compile::Compiled`] judges packets by them.
//! [`judge::judge`] says of one packet what [`rule::Checks`] make of it, and by which steps. [`lint::lint`] finds what is
//! legal in resources and surely not meant.
//!
//! **What it promises.** Answers depend on the resources alone, never on the order in which they came. Any text is
//! either a selector or refused with the place and what was expected there. Judging allocates nothing, waits for nobody, and
//! says what the slow judge says; what found no room denies.
//!
//! **What it never does.** No sockets, no clock, no threads; it knows neither the datastore's forms nor the tables.

pub mod compile;
pub mod judge;
pub mod lint;
pub mod resolve;
pub mod rule;
mod rule_text;
pub mod selector;
pub mod sets;
pub mod similar;

pub use rule_text::rule_text;
pub use selector::{Labels, Selector, SelectorError};
