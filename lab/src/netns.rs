//! Network namespaces.

use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

/// Settings of every namespace: no waiting for duplicate addresses in a network that we made ourselves,
/// no guessing of routes from what routers say, and no reverse-path filter between the tests and what they test.
const SETTINGS: &[(&str, &str)] = &[
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
];

/// A network namespace of a lab. The lab removes it.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    full: String,
}

impl Namespace {
    /// Makes the namespace `full`, called `name` within its lab, with its loopback up.
    pub(crate) fn create(name: &str, full: &str) -> Result<Namespace> {
        command::run(Command::new("ip").args(["netns", "add", full]), command::SETTING)?;
        let namespace = Namespace { name: name.to_owned(), full: full.to_owned() };
        namespace.set(SETTINGS)?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name within the lab.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name for `ip netns`.
    pub fn full(&self) -> &str {
        &self.full
    }

    /// A program that will run inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.full]).arg(program);
        command
    }

    /// Runs a program inside, which must succeed, and returns what it printed.
    ///
    /// # Errors
    /// As [`command::run`].
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        command::run(self.command(program).args(arguments), command::SETTING)
            .with_context(|| format!("in {}", self.name))
    }

    /// `ip` on this namespace, its arguments separated by blanks.
    ///
    /// # Errors
    /// `ip` refuses.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.full]).args(arguments.split_whitespace());
        command::run(&mut command, command::SETTING)
    }

    /// Writes settings below `/proc/sys`.
    ///
    /// # Errors
    /// The kernel does not know a setting, or refuses the value.
    pub fn set(&self, settings: &[(&str, &str)]) -> Result<()> {
        let lines = settings.iter().map(|(key, value)| format!("echo {value} > /proc/sys/{key}"));
        let script = lines.collect::<Vec<_>>().join(" && ");
        self.run("sh", &["-c", &script]).map(|_| ())
    }

    /// Lets the kernel forward between the interfaces inside.
    ///
    /// # Errors
    /// As [`Namespace::set`].
    pub fn forward(&self) -> Result<()> {
        self.set(&[
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/ipv6/conf/default/forwarding", "1"),
        ])
    }
}
