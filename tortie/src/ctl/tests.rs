//! The commands on a store in memory, with the resources and the expectations of Calico's own system tests.

mod kinds;
mod reading;
mod site;
mod writing;

use datastore::MemoryStore;
use serde_json::{Value, json};

use super::command::{Command, Own};
use super::{Said, command, config, convert, get, label, migrate, optimize, patch, write};

/// A shell before an empty store.
struct Shell {
    store: MemoryStore,
    place: tempfile::TempDir,
}

impl Shell {
    fn new() -> Shell {
        Shell { store: MemoryStore::default(), place: tempfile::tempdir().unwrap() }
    }

    /// A shell whose store has these.
    fn with(resources: &[Value]) -> Shell {
        let shell = Shell::new();
        for resource in resources {
            shell.good(&["create", "-f", &shell.file(resource)]);
        }
        shell
    }

    /// The path of a file that holds this.
    fn file(&self, content: &Value) -> String {
        self.text("resource.json", &content.to_string())
    }

    fn text(&self, name: &str, content: &str) -> String {
        let path = self.place.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    fn say(&self, words: &[&str]) -> Said {
        let line = command::parsed(["calicoctl"].iter().chain(words)).unwrap();
        let store = &self.store;
        match line.command {
            Own::Validate(args) => write::validated(&args),
            Own::Optimize(files) => optimize::optimized(&files),
            Own::Shared(command) => match command {
                Command::Create(args) => write::created(&args, store),
                Command::Apply(args) => write::applied(&args, store),
                Command::Replace(args) => write::replaced(&args, store),
                Command::Delete(args) => write::deleted(&args, store),
                Command::Patch(args) => patch::patched(&args, store),
                Command::Get(args) => get::got(&args, store),
                Command::Label(args) => label::labelled(&args, store),
                Command::Convert(args) => convert::converted(&args),
                Command::Config(args) => config::configured(&args, store),
                other => panic!("{other:?} has no store"),
            },
        }
    }

    /// What a command prints that has to succeed.
    fn good(&self, words: &[&str]) -> String {
        let Said { out, error } = self.say(words);
        assert_eq!(error, None, "{words:?}");
        out
    }

    /// The error of a command that has to fail.
    fn bad(&self, words: &[&str]) -> String {
        let Said { error, .. } = self.say(words);
        error.unwrap_or_else(|| panic!("{words:?} should fail"))
    }

    /// A resource as the store has it.
    fn yaml(&self, kind: &str, name: &str) -> Value {
        self.read(&["get", kind, name, "-o", "json"])
    }

    fn read(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.good(words)).unwrap()
    }
}

fn resource(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": kind,
        "metadata": { "name": name },
        "spec": spec,
    })
}

fn pool(name: &str, cidr: &str) -> Value {
    resource(
        "IPPool",
        name,
        json!({ "cidr": cidr, "ipipMode": "Always", "blockSize": 27, "nodeSelector": "foo == 'bar'" }),
    )
}

fn peer(name: &str, address: &str) -> Value {
    resource("BGPPeer", name, json!({ "node": "node1", "peerIP": address, "asNumber": 64514 }))
}

fn list(items: &[Value]) -> Value {
    Value::Array(items.to_vec())
}
