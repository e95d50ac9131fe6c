//! Which datastore a command works on: calicoctl's configuration file, or environment variables where there is none
//! (`libcalico-go/lib/apiconfig`, `calicoctl/commands/clientmgr`).
//!
//! What calicoctl doesn't know is the `directory` type: `datastoreType: directory` with `directory: PATH`, or
//! `DATASTORE_TYPE=directory` with `DATASTORE_DIRECTORY`. It is also what holds where nothing is said.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::directory::{Directory, DirectoryConfig, OpenError};
use crate::etcd::{Etcd, EtcdConfig, EtcdStore};
use crate::event::Event;
use crate::store::{DirectoryStore, Store, StoreError};

/// Where calicoctl looks for its configuration unless it is told otherwise.
pub const CALICOCTL_CONFIG: &str = "/etc/calico/calicoctl.cfg";
/// Where resources are kept unless anything is said.
pub const DEFAULT_DIRECTORY: &str = "/etc/tortie/resources";
/// Largest configuration file that is read, in bytes: inline certificates need some ten thousand.
const MAX_BYTES: u64 = 1 << 20;

/// A datastore, and how to get at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatastoreSettings {
    /// A directory of resources.
    Directory(PathBuf),
    /// etcd v3.
    Etcd(EtcdSettings),
}

/// How to get at an etcd.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EtcdSettings {
    /// Members, such as `https://etcd1:2379`; any of them will do.
    pub endpoints: Vec<String>,
    /// A domain whose SRV records name the members, instead of `endpoints`.
    pub discovery_srv: Option<String>,
    /// User and password.
    pub login: Option<(String, String)>,
    /// Whom to trust; the system's own authorities where absent.
    pub ca: Option<Pem>,
    /// Our own certificate and its key.
    pub identity: Option<(Pem, Pem)>,
}

/// Certificates or a key in PEM.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// In a file.
    File(PathBuf),
    /// Here.
    Inline(String),
}

/// As an operator is told of it.
impl fmt::Display for DatastoreSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatastoreSettings::Directory(path) => write!(f, "directory {}", path.display()),
            DatastoreSettings::Etcd(EtcdSettings { discovery_srv: Some(domain), .. }) => {
                write!(f, "etcd of {domain}")
            }
            DatastoreSettings::Etcd(settings) => write!(f, "etcd at {}", settings.endpoints.join(", ")),
        }
    }
}

/// Passwords and keys are not for logs.
impl fmt::Debug for EtcdSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdSettings")
            .field("endpoints", &self.endpoints)
            .field("discovery_srv", &self.discovery_srv)
            .field("user", &self.login.as_ref().map(|(user, _)| user))
            .field("ca", &self.ca)
            .field("identity", &self.identity)
            .finish()
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => write!(f, "{path:?}"),
            Pem::Inline(_) => f.write_str("inline"),
        }
    }
}

/// Why it isn't known which datastore to work on, or it can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file was named that isn't there.
    #[error("Error reading config file: {}", .0.display())]
    NoFile(PathBuf),
    /// It can't be read.
    #[error("open {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It isn't what calicoctl reads.
    #[error("syntax error in {}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Some value of the file or the environment.
    #[error("{0}")]
    Bad(String),
    /// Nothing says which datastore, and the one that is meant then isn't there.
    #[error(
        "no datastore is named, and there is no {DEFAULT_DIRECTORY}: name an etcd by ETCD_ENDPOINTS, or a directory by \
         DATASTORE_TYPE=directory and DATASTORE_DIRECTORY, in the environment or in {CALICOCTL_CONFIG}"
    )]
    NoDatastore,
    /// The store itself.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Opens the store that a command is to work on.
///
/// # Errors
/// What is wrong with the settings or, where it shows at once, with the store.
pub fn open(config: &Path) -> Result<Box<dyn Store>, SettingsError> {
    let spec = Spec::read(config)?;
    let settings = spec.settings()?;
    // A directory that nobody asked for isn't made either.
    if spec.names_nothing() && !Path::new(DEFAULT_DIRECTORY).is_dir() {
        return Err(SettingsError::NoDatastore);
    }
    Ok(settings.open()?)
}

/// Reads calicoctl's configuration: the file, or the environment where the usual file is missing.
///
/// # Errors
/// What is wrong with it.
pub fn load(config: &Path) -> Result<DatastoreSettings, SettingsError> {
    Spec::read(config)?.settings()
}

/// A datastore that is followed. Dropping it ends that; when `drop` returns, the sink is called no more.
#[derive(Debug)]
pub enum Following {
    /// A watched directory.
    Directory(Directory),
    /// An etcd.
    Etcd(Etcd),
}

impl DatastoreSettings {
    /// Begins to follow the datastore: all that is there, `InSync`, then changes, to a sink that is called from a thread of
    /// this room.
    ///
    /// # Errors
    /// As [`Directory::open`] and [`Etcd::open`].
    pub fn follow(&self, sink: impl FnMut(Event) + Send + 'static) -> Result<Following, OpenError> {
        Ok(match self {
            DatastoreSettings::Directory(path) => {
                Following::Directory(Directory::open(DirectoryConfig::at(path), sink)?)
            }
            DatastoreSettings::Etcd(settings) => {
                Following::Etcd(Etcd::open(EtcdConfig::at(settings.clone()), sink)?)
            }
        })
    }

    /// Opens the store. An etcd is asked for the first time when it is first used.
    ///
    /// # Errors
    /// Certificates that can't be read, or a directory that can't be made.
    pub fn open(&self) -> Result<Box<dyn Store>, StoreError> {
        match self {
            DatastoreSettings::Directory(path) => Ok(Box::new(DirectoryStore::open(path)?)),
            DatastoreSettings::Etcd(settings) => Ok(Box::new(EtcdStore::open(settings)?)),
        }
    }
}

/// The fields that calicoctl knows (`apiconfig.go`): name in the file, and environment variable where it has one.
const FIELDS: &[(&str, Option<&str>)] = &[
    ("datastoreType", Some("DATASTORE_TYPE")),
    ("directory", Some("DATASTORE_DIRECTORY")),
    ("etcdEndpoints", Some("ETCD_ENDPOINTS")),
    ("etcdDiscoverySrv", Some("ETCD_DISCOVERY_SRV")),
    ("etcdUsername", Some("ETCD_USERNAME")),
    ("etcdPassword", Some("ETCD_PASSWORD")),
    ("etcdKeyFile", Some("ETCD_KEY_FILE")),
    ("etcdCertFile", Some("ETCD_CERT_FILE")),
    ("etcdCACertFile", Some("ETCD_CA_CERT_FILE")),
    ("etcdKey", None),
    ("etcdCert", None),
    ("etcdCACert", None),
];

/// Those about Kubernetes, which are read over.
const KUBERNETES_FIELDS: &[&str] = &[
    "kubeconfig",
    "k8sAPIEndpoint",
    "k8sKeyFile",
    "k8sCertFile",
    "k8sCAFile",
    "k8sAPIToken",
    "k8sInsecureSkipTLSVerify",
    "k8sDisableNodePoll",
    "usePodCIDR",
    "kubeconfigInline",
    "k8sClientQPS",
    "k8sCurrentContext",
    "calicoAPIGroup",
];

/// The fields that are given and not empty.
#[derive(Debug, Default)]
struct Spec(BTreeMap<&'static str, String>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, rename = "apiVersion")]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: Option<serde_json::Value>,
    #[serde(default)]
    spec: Option<BTreeMap<String, serde_json::Value>>,
}

impl Spec {
    fn read(config: &Path) -> Result<Spec, SettingsError> {
        let environment = |name: &str| std::env::var(name).ok();
        match std::fs::metadata(config) {
            Ok(metadata) => {
                let unreadable = |source| SettingsError::Unreadable { path: config.to_owned(), source };
                let syntax = |reason| SettingsError::Syntax { path: config.to_owned(), reason };
                if metadata.len() > MAX_BYTES {
                    return Err(syntax(format!("it has {} bytes, and may have {MAX_BYTES}", metadata.len())));
                }
                let text = std::fs::read_to_string(config).map_err(unreadable)?;
                Spec::of_file(&text).map_err(syntax)
            }
            Err(_) if config == Path::new(CALICOCTL_CONFIG) => Ok(Spec::of_environment(environment)),
            Err(_) => Err(SettingsError::NoFile(config.to_owned())),
        }
    }

    fn names_nothing(&self) -> bool {
        ["datastoreType", "directory", "etcdEndpoints", "etcdDiscoverySrv"]
            .iter()
            .all(|field| self.get(field).is_none())
    }

    fn of_file(text: &str) -> Result<Spec, String> {
        let file: File = serde_saphyr::from_str(text)
            .map_err(|error| format!("failed to parse config as YAML/JSON: {}", error.without_snippet()))?;
        let File { api_version, kind, spec, .. } = file;
        if api_version != crate::convert::API_VERSION {
            return Err(format!("invalid config file: unknown APIVersion '{api_version}'"));
        }
        if kind != "CalicoAPIConfig" {
            return Err(format!("invalid config file: expected kind 'CalicoAPIConfig', got '{kind}'"));
        }
        let mut fields = BTreeMap::new();
        for (name, value) in spec.unwrap_or_default() {
            if KUBERNETES_FIELDS.iter().any(|known| known.eq_ignore_ascii_case(&name)) {
                continue;
            }
            let known = FIELDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name));
            let Some((known, _)) = known else {
                return Err(format!("failed to parse config as YAML/JSON: unknown field \"spec.{name}\""));
            };
            match value {
                serde_json::Value::String(text) => drop(fields.insert(*known, text)),
                serde_json::Value::Null => {}
                _ => return Err(format!("failed to parse config as YAML/JSON: spec.{name} must be a text")),
            }
        }
        Ok(Spec(fields))
    }

    /// As `envconfig` has it: a variable that begins with `CALICO_` goes before the one that doesn't.
    fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Spec {
        let value = |name: &str| variable(&format!("CALICO_{name}")).or_else(|| variable(name));
        let fields = FIELDS.iter().filter_map(|(field, name)| Some((*field, value((*name)?)?)));
        Spec(fields.collect())
    }

    fn get(&self, field: &str) -> Option<&str> {
        self.0.get(field).map(String::as_str).filter(|text| !text.is_empty())
    }

    fn settings(&self) -> Result<DatastoreSettings, SettingsError> {
        let names_etcd = self.get("etcdEndpoints").or(self.get("etcdDiscoverySrv")).is_some();
        match self.get("datastoreType") {
            Some("etcdv3") => self.etcd(),
            Some("directory") => Ok(self.directory()),
            None if names_etcd => self.etcd(),
            None => Ok(self.directory()),
            Some("kubernetes") => Err(SettingsError::Bad(
                "the datastore is Kubernetes, which is not supported: name an etcd by ETCD_ENDPOINTS, or a directory by DATASTORE_TYPE=directory and DATASTORE_DIRECTORY".to_owned(),
            )),
            Some(other) => Err(SettingsError::Bad(format!("unknown datastore type: {other}"))),
        }
    }

    fn directory(&self) -> DatastoreSettings {
        DatastoreSettings::Directory(self.get("directory").unwrap_or(DEFAULT_DIRECTORY).into())
    }

    fn etcd(&self) -> Result<DatastoreSettings, SettingsError> {
        let bad = |reason: &str| Err(SettingsError::Bad(reason.to_owned()));
        if self.get("etcdEndpoints").is_some() && self.get("etcdDiscoverySrv").is_some() {
            return bad(
                "multiple discovery or bootstrap options specified, use either \"etcdEndpoints\" or \"etcdDiscoverySrv\"",
            );
        }
        let given = self.get("etcdEndpoints").unwrap_or_default().split(',').map(str::trim);
        let endpoints: Vec<String> =
            given.filter(|endpoint| !endpoint.is_empty()).map(str::to_owned).collect();
        let discovery_srv = self.get("etcdDiscoverySrv").map(str::to_owned);
        if endpoints.is_empty() && discovery_srv.is_none() {
            return bad("no etcd endpoints specified");
        }
        let inline = |field| self.get(field).map(|text| Pem::Inline(text.to_owned()));
        let file = |field| self.get(field).map(|path| Pem::File(path.into()));
        let inline = [inline("etcdCACert"), inline("etcdCert"), inline("etcdKey")];
        let files = [file("etcdCACertFile"), file("etcdCertFile"), file("etcdKeyFile")];
        let [ca, certificate, key] = match (
            inline.iter().any(Option::is_some),
            files.iter().any(Option::is_some),
        ) {
            (true, true) => return bad("Cannot mix inline certificate-key and certificate / key files"),
            (true, false) if inline.iter().any(Option::is_none) => {
                return bad(
                    "could not initialize etcdv3 client: etcdKey, etcdCert and etcdCACert are given together or not at all",
                );
            }
            (true, false) => inline,
            (false, _) => files,
        };
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return bad("could not initialize etcdv3 client: KeyFile and CertFile must both be present"),
        };
        // As Calico's client has it: one without the other is none.
        let login = self.get("etcdUsername").zip(self.get("etcdPassword"));
        let login = login.map(|(user, password)| (user.to_owned(), password.to_owned()));
        Ok(DatastoreSettings::Etcd(EtcdSettings { endpoints, discovery_srv, login, ca, identity }))
    }
}

#[cfg(test)]
mod tests;
