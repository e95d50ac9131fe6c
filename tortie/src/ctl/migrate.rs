//! `datastore`: a site as one file, and the lock under which it is made.
//!
//! `migrate` is calicoctl's own way from etcd to Kubernetes; `export` and `import` move a site between etcd and a directory
//! of YAML, in the same form of file: resources, the cluster's own, and IPAM's books, each behind a line of `===`.

mod nodes;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use datastore::{Client, ClientError, Key, ResourceKind, Store, Under, read_objects};
use model::{Family, Prefix};
use serde_json::{Value, json};

use super::copy::{self, CopyArgs};
use super::execute::{Handled, strip_list_item};
use super::{GlobalArgs, Said, StoreArgs, gojson, with_store, yaml};
use nodes::Nodes;

/// Resources that move, in an order in which each finds what it needs.
const KINDS: [ResourceKind; 17] = [
    ResourceKind::IpPool,
    ResourceKind::BgpPeer,
    ResourceKind::Tier,
    ResourceKind::GlobalNetworkPolicy,
    ResourceKind::StagedGlobalNetworkPolicy,
    ResourceKind::GlobalNetworkSet,
    ResourceKind::HostEndpoint,
    ResourceKind::KubeControllersConfiguration,
    ResourceKind::NetworkPolicy,
    ResourceKind::StagedNetworkPolicy,
    ResourceKind::StagedKubernetesNetworkPolicy,
    ResourceKind::NetworkSet,
    ResourceKind::Node,
    ResourceKind::BgpConfiguration,
    ResourceKind::FelixConfiguration,
    ResourceKind::IpReservation,
    ResourceKind::BgpFilter,
];
/// What moves with them between our own stores.
const MORE_KINDS: [ResourceKind; 3] =
    [ResourceKind::Profile, ResourceKind::WorkloadEndpoint, ResourceKind::IpamConfiguration];
const PART: &str = "===\n";

/// What `datastore` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct DatastoreArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Print a whole site: resources, the cluster's own, IPAM's books
    Export(Whole),
    /// Write a whole site into an empty datastore
    Import(From),
    /// Write a whole site into another datastore, as it is
    Copy(CopyArgs),
    /// calicoctl's commands for a move from etcd to Kubernetes
    Migrate {
        #[command(subcommand)]
        step: Step,
    },
    /// Store policies under the names that they go by since Calico 3.30
    MigratePolicyNames(Whole),
}

#[derive(Clone, Debug, Subcommand)]
enum Step {
    /// Print the site, with nodes by their Kubernetes names
    Export(Whole),
    /// Write the site into Kubernetes
    Import(From),
    /// Nodes go on with what they have until unlock
    Lock(Whole),
    /// Nodes follow the datastore again
    Unlock(Whole),
    /// Store policies under the names that they go by since Calico 3.30
    PolicyNames(Whole),
}

#[derive(Clone, Debug, Args)]
struct Whole {
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Clone, Debug, Args)]
struct From {
    /// What export printed; - for standard input
    #[arg(short = 'f', long, value_name = "FILENAME")]
    filename: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
}

/// `datastore`.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn run(args: &DatastoreArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let any_version = GlobalArgs { allow_version_mismatch: true, ..global.clone() };
    match &args.verb {
        Verb::Export(whole) => with_store(&whole.store, global, |store| said(export(store, false))),
        Verb::Import(from) => with_store(&from.store, &any_version, |store| {
            said(read(from).and_then(|text| import(store, &text)))
        }),
        Verb::Copy(args) => with_store(&args.store, global, |store| copy::run(store, args)),
        Verb::MigratePolicyNames(whole) => {
            with_store(&whole.store, global, |store| said(policy_names(store)))
        }
        Verb::Migrate { step } => match step {
            Step::Export(whole) => with_store(&whole.store, global, |store| said(migrated(store))),
            Step::Import(from) => with_store(&from.store, &any_version, |_| {
                Said::failed(
                    "invalid datastore type: etcdv3 to import to for datastore migration. Datastore type must be \
                     kubernetes",
                )
            }),
            Step::Lock(whole) => with_store(&whole.store, global, |store| said(lock(store))),
            Step::Unlock(whole) => with_store(&whole.store, global, |store| said(unlock(store))),
            Step::PolicyNames(whole) => with_store(&whole.store, global, |store| said(policy_names(store))),
        },
    }
}

fn said(result: Result<String, String>) -> Said {
    result.map_or_else(Said::failed, Said::fine)
}

fn read(from: &From) -> Result<String, String> {
    let text = if from.filename.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(&from.filename)
    };
    text.map_err(|error| format!("error while reading migration file: {}: {error}", from.filename.display()))
}

pub(super) fn lock(store: &dyn Store) -> Result<String, String> {
    let client = Client::new(store);
    client.ensure_initialized().map_err(|error| {
        format!("unable to initialize cluster information for the datastore migration: {error}")
    })?;
    let set = client.set_ready(false);
    set.map_err(|error| format!("error updating ClusterInformation for locking: {error}"))?;
    Ok("Datastore locked.\n".to_owned())
}

pub(super) fn unlock(store: &dyn Store) -> Result<String, String> {
    let set = Client::new(store).set_ready(true);
    set.map_err(|error| format!("error updating ClusterInformation for unlocking: {error}"))?;
    Ok("Datastore unlocked.\n".to_owned())
}

/// What calicoctl exports: under the lock alone.
pub(super) fn migrated(store: &dyn Store) -> Result<String, String> {
    let cluster =
        Client::new(store).get(ResourceKind::ClusterInformation, "", "default").map_err(|error| {
            format!(
                "error while checking if datastore was locked: error retrieving ClusterInformation: {error}"
            )
        })?;
    if cluster.spec("datastoreReady").as_bool() != Some(false) {
        return Err(
            "datastore is not locked. Run the `calicoctl datastore migrate lock` command in order to begin \
                    migration"
                .to_owned(),
        );
    }
    export(store, true)
}

/// The whole site. For Kubernetes, nodes and what is named after them go by the names that it has for them.
pub(super) fn export(store: &dyn Store, for_kubernetes: bool) -> Result<String, String> {
    let client = Client::new(store);
    let mut nodes = Nodes::default();
    let mut text = String::new();
    let more: &[ResourceKind] = if for_kubernetes { &[] } else { &MORE_KINDS };
    for kind in KINDS.into_iter().chain(more.iter().copied()) {
        let mut list = client.list(kind, None).map_err(|error| error.to_string())?;
        list.items.retain(|object| {
            !object.name().starts_with("knp.default.") && object.name() != datastore::DEFAULT_ALLOW
        });
        list.items.iter_mut().for_each(strip_list_item);
        if for_kubernetes {
            nodes.rename(kind, &mut list.items)?;
        }
        text.push_str(&yaml::print(&Handled::List(list).value()));
        text.push_str("---\n");
    }
    let cluster = match client.get(ResourceKind::ClusterInformation, "", "default") {
        Ok(cluster) => cluster.value().clone(),
        Err(ClientError::NotFound(_)) => json!({}),
        Err(error) => return Err(error.to_string()),
    };
    let ipam = books(store, &nodes).map_err(|error| error.to_string())?;
    Ok(format!("{text}{PART}{}\n{PART}{}\n", gojson::print(&cluster), gojson::print(&ipam)))
}

/// IPAM's books, by the keys that etcd has them under.
fn books(store: &dyn Store, nodes: &Nodes) -> Result<Value, datastore::StoreError> {
    let mut books = json!({});
    for (name, unders) in [
        (
            "block_affinities",
            [Family::V4, Family::V6].map(|family| Under::Affinities { node: None, family }).to_vec(),
        ),
        ("blocks", [Family::V4, Family::V6].map(Under::Blocks).to_vec()),
        ("handles", vec![Under::Handles]),
    ] {
        let mut pairs = Vec::new();
        for under in unders {
            for stored in store.list(&under)?.stored {
                let (key, value) = nodes.book(stored.key, stored.value);
                pairs.push(json!({ "Key": path(&key), "Value": value, "TTL": 0 }));
            }
        }
        if !pairs.is_empty() {
            books[name] = pairs.into();
        }
    }
    match store.get(&Key::IpamConfig) {
        Ok(stored) => {
            books["config"] = json!({ "Key": path(&Key::IpamConfig), "Value": stored.value, "TTL": 0 });
        }
        Err(datastore::StoreError::NotFound(_)) => {}
        Err(error) => return Err(error),
    }
    Ok(books)
}

const IPAM: &str = "/calico/ipam/v2";

fn version(block: &Prefix) -> &'static str {
    match block.family() {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// The key in etcd, of what is IPAM's.
fn path(key: &Key) -> String {
    let dashed = |block: &Prefix| block.to_string().replace('/', "-");
    match key {
        Key::Block(block) => format!("{IPAM}/assignment/{}/block/{}", version(block), dashed(block)),
        Key::Affinity { node, block } => {
            format!("{IPAM}/host/{node}/{}/block/{}", version(block), dashed(block))
        }
        Key::Handle(handle) => format!("{IPAM}/handle/{handle}"),
        Key::IpamConfig => format!("{IPAM}/config"),
        Key::Resource(_) | Key::Status(_) => key.to_string(),
    }
}

fn key(path: &str) -> Option<Key> {
    let rest = path.strip_prefix(IPAM)?.strip_prefix('/')?;
    let block = |text: &str| {
        let (addr, len) = text.rsplit_once('-')?;
        format!("{addr}/{len}").parse::<Prefix>().ok()
    };
    let parts: Vec<&str> = rest.split('/').collect();
    match parts.as_slice() {
        ["config"] => Some(Key::IpamConfig),
        ["handle", handle] => Some(Key::Handle((*handle).to_owned())),
        ["assignment", _, "block", text] => block(text).map(Key::Block),
        ["host", node, _, "block", text] => {
            block(text).map(|block| Key::Affinity { node: (*node).to_owned(), block })
        }
        _ => None,
    }
}

/// Writes a whole site.
pub(super) fn import(store: &dyn Store, text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split(PART).collect();
    let [resources, cluster, ipam] = parts.as_slice() else {
        return Err(
            "imported file is improperly formatted. Try recreating with 'calicoctl export'".to_owned()
        );
    };
    let client = Client::new(store);
    let objects =
        read_objects(resources).map_err(|error| format!("failed to import v3 resources: {error}"))?;
    client.ensure_initialized().map_err(|error| error.to_string())?;
    // Nobody is to act on half a site.
    client.set_ready(false).map_err(|error| error.to_string())?;
    let count = objects.len();
    for mut object in objects {
        object.default_namespace();
        client
            .apply(&object)
            .map_err(|error| format!("failed to import {}: {error}", object.identifier()))?;
    }
    let mut said = format!("Successfully applied {count} resource(s)\n");
    let ipam: Value =
        serde_json::from_str(ipam).map_err(|error| format!("failed to read IPAM resources: {error}"))?;
    let listed = ["block_affinities", "blocks", "handles"].map(|name| ipam[name].as_array().cloned());
    let config = ipam.get("config").cloned();
    let pairs: Vec<Value> = listed.into_iter().flatten().flatten().chain(config).collect();
    for pair in &pairs {
        let path = pair["Key"].as_str().unwrap_or_default();
        let key = key(path)
            .ok_or_else(|| format!("failed to read IPAM resources: {path:?} is no key of IPAM's"))?;
        match store.create(&key, &pair["Value"]) {
            Ok(_) | Err(datastore::StoreError::AlreadyExists(_)) => {}
            Err(error) => return Err(format!("failed to import {key}: {error}")),
        }
    }
    said.push_str(&format!("Successfully applied {} IPAM resource(s)\n", pairs.len()));
    take_over(client, cluster)?;
    Ok(said)
}

/// The cluster stays the one that it was, and is ready if it was.
fn take_over(client: Client<'_>, cluster: &str) -> Result<(), String> {
    let migrated: Value = serde_json::from_str(cluster)
        .map_err(|error| format!("error reading exported cluster info for migration: {error}"))?;
    let mut own =
        client.get(ResourceKind::ClusterInformation, "", "default").map_err(|error| error.to_string())?;
    for field in ["clusterGUID", "calicoVersion", "clusterType"] {
        if let Some(text) = migrated["spec"][field].as_str() {
            own.set_spec(field, text);
        }
    }
    own.set_spec("datastoreReady", migrated["spec"]["datastoreReady"].as_bool().unwrap_or(true));
    client
        .write_cluster_information(own)
        .map_err(|error| format!("error updating current cluster info for migration: {error}"))
}

/// Policies that are stored as `default.NAME` and go by NAME are stored as NAME.
pub(super) fn policy_names(store: &dyn Store) -> Result<String, String> {
    let client = Client::new(store);
    let mut moved = 0;
    for kind in [
        ResourceKind::NetworkPolicy,
        ResourceKind::GlobalNetworkPolicy,
        ResourceKind::StagedNetworkPolicy,
        ResourceKind::StagedGlobalNetworkPolicy,
    ] {
        moved += client.migrate_policy_names(kind).map_err(|error| error.to_string())?;
    }
    Ok(format!("Migrated {moved} policies\n"))
}
