//! `network-config`, version 2 (netplan's form), as units of systemd-networkd.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use model::{InterfaceAddr, MacAddr};
use serde::Deserialize;
use serde::de::IgnoredAny;

const FOLDER: &str = "etc/systemd/network";
/// What files of ours begin with, and others' don't.
const OURS: &str = "10-drive-";

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Network {
    /// Some put everything one level deeper.
    network: Option<Box<Network>>,
    version: Option<u32>,
    ethernets: BTreeMap<String, Ethernet>,
    #[serde(flatten)]
    others: BTreeMap<String, IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Ethernet {
    r#match: Match,
    set_name: Option<String>,
    dhcp4: bool,
    dhcp6: bool,
    accept_ra: Option<bool>,
    addresses: Vec<String>,
    gateway4: Option<IpAddr>,
    gateway6: Option<IpAddr>,
    routes: Vec<Route>,
    nameservers: Nameservers,
    mtu: Option<u32>,
    #[serde(flatten)]
    others: BTreeMap<String, IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Match {
    macaddress: Option<String>,
    name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Nameservers {
    addresses: Vec<IpAddr>,
    #[serde(rename = "search")]
    _search: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Route {
    to: String,
    via: IpAddr,
    metric: Option<u32>,
    #[serde(flatten)]
    others: BTreeMap<String, IgnoredAny>,
}

impl Network {
    fn inner(&self) -> &Network {
        self.network.as_deref().unwrap_or(self)
    }

    /// The units, and `resolv.conf` where name servers are given.
    pub(super) fn files(&self) -> Result<Vec<(PathBuf, String)>> {
        let network = self.inner();
        match network.version {
            Some(2) => {}
            Some(version) => bail!("version {version} is not read here, version 2 is"),
            None => bail!("it has no version"),
        }
        let mut files = Vec::new();
        let mut servers = String::new();
        for (key, ethernet) in &network.ethernets {
            for (end, text) in ethernet.units(key).with_context(|| format!("ethernets: {key}"))? {
                let name = ethernet.name(key);
                files.push((Path::new(FOLDER).join(format!("{OURS}{name}.{end}")), text));
            }
            for server in &ethernet.nameservers.addresses {
                let _ = writeln!(servers, "nameserver {server}");
            }
        }
        if !servers.is_empty() {
            files.push((PathBuf::from("etc/resolv.conf"), servers));
        }
        Ok(files)
    }

    /// What was asked for and isn't done.
    pub(super) fn ignored(&self) -> Vec<String> {
        let network = self.inner();
        let mut ignored: Vec<String> =
            network.others.keys().map(|key| format!("{key} of network-config")).collect();
        for (name, ethernet) in &network.ethernets {
            let routes = ethernet.routes.iter().flat_map(|route| route.others.keys());
            ignored
                .extend(ethernet.others.keys().chain(routes).map(|key| format!("{key} of ethernet {name}")));
        }
        ignored
    }
}

impl Ethernet {
    fn name<'a>(&'a self, key: &'a str) -> &'a str {
        self.set_name.as_deref().or(self.r#match.name.as_deref()).unwrap_or(key)
    }

    /// A link that gives the name, and a network that gives the rest.
    fn units(&self, key: &str) -> Result<Vec<(&'static str, String)>> {
        let name = self.name(key);
        ensure!(is_interface(name), "{name:?} is no name of an interface");
        let mut units = Vec::new();
        if let Some(mac) = &self.r#match.macaddress {
            let mac: MacAddr =
                mac.parse().ok().with_context(|| format!("macaddress {mac:?} is no MAC address"))?;
            let mut link = format!("[Match]\nMACAddress={mac}\nType=ether\n\n[Link]\nName={name}\n");
            if let Some(mtu) = self.mtu {
                let _ = writeln!(link, "MTUBytes={mtu}");
            }
            units.push(("link", link));
        } else if self.set_name.is_some() {
            bail!("set-name needs `match: {{ macaddress: … }}`");
        }
        units.push(("network", self.network(name)?));
        Ok(units)
    }

    fn network(&self, name: &str) -> Result<String> {
        let mut text = format!("[Match]\nName={name}\n");
        if let Some(mtu) = self.mtu {
            let _ = write!(text, "\n[Link]\nMTUBytes={mtu}\n");
        }
        let dhcp = match (self.dhcp4, self.dhcp6) {
            (true, true) => "yes",
            (true, false) => "ipv4",
            (false, true) => "ipv6",
            (false, false) => "no",
        };
        let _ = write!(text, "\n[Network]\nDHCP={dhcp}\n");
        // A router doesn't guess routes from what others say, unless it is told to.
        let _ = writeln!(text, "IPv6AcceptRA={}", if self.accept_ra == Some(true) { "yes" } else { "no" });
        for address in &self.addresses {
            let parsed: Option<InterfaceAddr> = address.parse().ok();
            let address = parsed
                .filter(|_| address.contains('/'))
                .with_context(|| format!("{address:?} is no address with its prefix length"))?;
            let _ = writeln!(text, "Address={address}");
        }
        for gateway in self.gateway4.iter().chain(&self.gateway6) {
            let _ = write!(text, "\n[Route]\nGateway={gateway}\n");
        }
        for route in &self.routes {
            let _ = write!(text, "\n[Route]\nGateway={}\n", route.via);
            match route.to.as_str() {
                // With the gateway's family.
                "default" => {}
                to => {
                    let to: model::Prefix =
                        to.parse().ok().with_context(|| format!("routes: {to:?} is no network"))?;
                    let _ = writeln!(text, "Destination={to}");
                }
            }
            if let Some(metric) = route.metric {
                let _ = writeln!(text, "Metric={metric}");
            }
        }
        Ok(text)
    }
}

/// Removes the units of an earlier drive.
pub(super) fn remove_earlier(root: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(root.join(FOLDER)) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(OURS) {
            fs::remove_file(entry.path())
                .with_context(|| format!("can't remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// What Linux takes (`dev_valid_name`), less what has a meaning in a unit.
fn is_interface(name: &str) -> bool {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "_-.".contains(char);
    (1..=15).contains(&name.len()) && name.chars().all(is_plain) && !name.starts_with('.')
}
