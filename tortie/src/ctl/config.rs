//! `config get` and `config set`: single settings of the cluster or of a node, as calicoctl had them before the resources
//! that hold them now.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use datastore::{ApiObject, Client, ClientError, ResourceKind, Store};
use serde_json::Value;

use super::{GlobalArgs, Said, StoreArgs, gotext, with_store};

/// What `config` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Print a setting
    Get {
        /// The setting
        #[arg(value_enum)]
        name: Setting,
        #[command(flatten)]
        of: Of,
    },
    /// Change a setting
    Set {
        /// The setting
        #[arg(value_enum)]
        name: Setting,
        /// Its value
        value: String,
        #[command(flatten)]
        of: Of,
    },
}

#[derive(Clone, Debug, Args)]
struct Of {
    /// Of this node alone: logLevel and ipip have such
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "camelCase")]
enum Setting {
    /// The AS number of nodes that have none of their own
    AsNumber,
    /// on or off: does every node have a session with every other?
    NodeToNodeMesh,
    /// none, debug, info, warning, error or fatal
    LogLevel,
    /// on or off: is there a tunnel device for IP in IP?
    Ipip,
}

impl Setting {
    /// The resource and field that hold it, and what it is where they don't say.
    fn place(self) -> (ResourceKind, &'static str, &'static str) {
        match self {
            Setting::AsNumber => (ResourceKind::BgpConfiguration, "asNumber", "64512"),
            Setting::NodeToNodeMesh => (ResourceKind::BgpConfiguration, "nodeToNodeMeshEnabled", "on"),
            Setting::LogLevel => (ResourceKind::BgpConfiguration, "logSeverityScreen", "info"),
            Setting::Ipip => (ResourceKind::FelixConfiguration, "ipipEnabled", "off"),
        }
    }

    /// The field's value of a word.
    fn value(self, word: &str) -> Result<Value, String> {
        let bad = |expected: &str| Err(format!("invalid value {word:?}: expected {expected}"));
        match (self, word) {
            (Setting::NodeToNodeMesh | Setting::Ipip, "on") => Ok(true.into()),
            (Setting::NodeToNodeMesh | Setting::Ipip, "off") => Ok(false.into()),
            (Setting::NodeToNodeMesh | Setting::Ipip, _) => bad("on or off"),
            (Setting::AsNumber, word) => match word.parse::<model::AsNumber>() {
                Ok(_) => Ok(word.into()),
                Err(_) => bad("an AS number"),
            },
            (Setting::LogLevel, word) => {
                let level = ["none", "debug", "info", "warning", "error", "fatal"];
                match level.iter().find(|level| **level == word.to_ascii_lowercase()) {
                    Some(level) => Ok(format!("{}{}", level[..1].to_ascii_uppercase(), &level[1..]).into()),
                    None => bad(&level.join(", ")),
                }
            }
        }
    }

    /// The word for a field's value.
    fn word(self, value: &Value) -> String {
        match value {
            Value::Null => self.place().2.to_owned(),
            Value::Bool(true) => "on".to_owned(),
            Value::Bool(false) => "off".to_owned(),
            Value::String(text) if self == Setting::LogLevel => text.to_ascii_lowercase(),
            other => gotext::print(other),
        }
    }
}

/// `config`.
///
/// # Errors
/// Standard output can't be written.
pub(crate) fn run(args: &ConfigArgs, global: &GlobalArgs) -> anyhow::Result<ExitCode> {
    let store = match &args.verb {
        Verb::Get { of, .. } | Verb::Set { of, .. } => &of.store,
    };
    with_store(store, global, |store| configured(args, store))
}

pub(super) fn configured(args: &ConfigArgs, store: &dyn Store) -> Said {
    let result = match &args.verb {
        Verb::Get { name, of } => get(Client::new(store), *name, of),
        Verb::Set { name, value, of } => set(Client::new(store), *name, value, of).map(|()| String::new()),
    };
    result.map_or_else(Said::failed, Said::fine)
}

fn resource(name: Setting, of: &Of) -> Result<(ResourceKind, String), String> {
    let (kind, _, _) = name.place();
    match &of.node {
        None => Ok((kind, "default".to_owned())),
        Some(node) if matches!(name, Setting::LogLevel | Setting::Ipip) => Ok((kind, format!("node.{node}"))),
        Some(_) => Err("only logLevel and ipip can be set for one node".to_owned()),
    }
}

fn get(client: Client<'_>, name: Setting, of: &Of) -> Result<String, String> {
    let (kind, resource) = resource(name, of)?;
    let (_, field, _) = name.place();
    let read = |resource: &str| match client.get(kind, "", resource) {
        Ok(object) => Ok(object.spec(field).clone()),
        Err(ClientError::NotFound(_)) => Ok(Value::Null),
        Err(error) => Err(error.to_string()),
    };
    let mut value = read(&resource)?;
    if value.is_null() {
        // What a node doesn't say for itself, the cluster says.
        value = read("default")?;
    }
    Ok(name.word(&value) + "\n")
}

fn set(client: Client<'_>, name: Setting, word: &str, of: &Of) -> Result<(), String> {
    let (kind, resource) = resource(name, of)?;
    let (_, field, _) = name.place();
    let value = name.value(word)?;
    let written = match client.get(kind, "", &resource) {
        Ok(mut object) => {
            object.set_spec(field, value);
            client.update(&object)
        }
        Err(ClientError::NotFound(_)) => {
            let mut object = ApiObject::named(kind, "", &resource);
            object.set_spec(field, value);
            client.create(&object)
        }
        Err(error) => Err(error),
    };
    written.map(drop).map_err(|error| error.to_string())
}
