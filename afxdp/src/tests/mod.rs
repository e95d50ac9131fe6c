//! Tests against the kernel: BPF test runs, and veth pairs in network namespaces that end with their thread.

mod attaching;
mod closing;
mod cost;
mod delivering;
mod devices;
mod jumbo;
mod misbehaving;
mod moving;
mod namespace;
mod programs;
mod sharing;
mod tunnels;
mod when_due;
