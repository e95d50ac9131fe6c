//! `cargo xtask simulate`: thousands of BGP speakers in virtual time.

use std::process::ExitCode;

use anyhow::Result;
use lab::simulation::{self, Shape};

/// The networks, by name, with as many nodes as the design is to hold.
const SHAPES: [(&str, Shape, usize); 3] =
    [("mesh", Shape::Mesh, 1000), ("reflectors", Shape::Reflectors, 1000), ("racks", Shape::Racks, 5000)];

/// What one may ask of `cargo xtask simulate`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// mesh, reflectors, racks; all of them when none is named.
    names: Vec<String>,
    /// Calico nodes; 1,000, and 5,000 in racks, where nothing is said.
    #[arg(long)]
    nodes: Option<usize>,
    /// Another history for each seed, the same one every time.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let known = || SHAPES.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ");
    if let Some(name) = arguments.names.iter().find(|name| SHAPES.iter().all(|(known, ..)| known != name)) {
        anyhow::bail!("there is no network {name:?}; there are {}", known());
    }
    let mut failed = false;
    for (name, shape, nodes) in SHAPES {
        if !arguments.names.is_empty() && !arguments.names.iter().any(|wanted| wanted == name) {
            continue;
        }
        let nodes = arguments.nodes.unwrap_or(nodes);
        println!("{name}: {nodes} nodes, seed {}", arguments.seed);
        match simulation::run(shape, nodes, arguments.seed, |what| println!("  {what}")) {
            Ok(outcome) => println!("{}", outcome.render()),
            Err(error) => {
                println!("{name} failed: {error:#}\n");
                failed = true;
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
