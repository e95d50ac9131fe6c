//! Where resources are kept: `datastore`.

use datastore::DatastoreSettings;
use datastore::settings::{EtcdSettings, Pem};

use super::error::Reason;
use super::field::{Fault, Field};
use super::file::{Entry, EtcdFields, File, Section};

const EXAMPLE: &str = "datastore: { directory: /etc/tortie/resources }";
const ETCD_EXAMPLE: &str = "datastore: { etcd: { endpoints: [\"https://etcd1:2379\"] } }";

pub(super) fn datastore(file: &File) -> Result<DatastoreSettings, Fault> {
    let missing = Fault::missing("datastore.directory", EXAMPLE);
    let Section(section) = file.datastore.as_ref().ok_or(missing)?;
    let directory = text("datastore.directory", &section.directory)?;
    match (directory, &section.etcd) {
        (Some(_), Some(_)) => Err(Fault::of("datastore.etcd", Reason::TwoDatastores)),
        (None, Some(Section(fields))) => Ok(DatastoreSettings::Etcd(etcd(fields)?)),
        (Some(directory), None) => Ok(DatastoreSettings::Directory(directory.into())),
        (None, None) => Err(Fault::missing("datastore.directory", EXAMPLE)),
    }
}

fn etcd(fields: &EtcdFields) -> Result<EtcdSettings, Fault> {
    const ENDPOINTS: &str = "datastore.etcd.endpoints";
    const DISCOVERY: &str = "datastore.etcd.discovery_srv";
    let discovery_srv = text(DISCOVERY, &fields.discovery_srv)?;
    let given = fields.endpoints.as_ref().and_then(|entry| Field::new(ENDPOINTS, entry));
    let endpoints: Vec<String> = match &given {
        Some(given) => {
            given.items()?.iter().map(|item| item.text().map(str::to_owned)).collect::<Result<_, _>>()?
        }
        None => Vec::new(),
    };
    match (endpoints.is_empty(), &discovery_srv) {
        (true, None) => return Err(Fault::missing(ENDPOINTS, ETCD_EXAMPLE)),
        (false, Some(_)) => return Err(Fault::of(DISCOVERY, Reason::TwoWaysToMembers)),
        _ => {}
    }
    let file = |path: &'static str, entry| Ok(text(path, entry)?.map(|path| Pem::File(path.into())));
    Ok(EtcdSettings {
        endpoints,
        discovery_srv,
        login: both(
            text("datastore.etcd.username", &fields.username)?,
            text("datastore.etcd.password", &fields.password)?,
            "datastore.etcd.password",
            "etcd: { username: tortie, password: secret }",
        )?,
        ca: file("datastore.etcd.ca_file", &fields.ca_file)?,
        identity: both(
            file("datastore.etcd.cert_file", &fields.cert_file)?,
            file("datastore.etcd.key_file", &fields.key_file)?,
            "datastore.etcd.key_file",
            "etcd: { cert_file: /etc/tortie/etcd.crt, key_file: /etc/tortie/etcd.key }",
        )?,
    })
}

/// Two that make sense only together.
fn both<T>(
    one: Option<T>,
    other: Option<T>,
    path: &str,
    example: &'static str,
) -> Result<Option<(T, T)>, Fault> {
    match (one, other) {
        (Some(one), Some(other)) => Ok(Some((one, other))),
        (None, None) => Ok(None),
        _ => Err(Fault::missing(path, example)),
    }
}

fn text(path: &'static str, entry: &Option<Entry>) -> Result<Option<String>, Fault> {
    let field = entry.as_ref().and_then(|entry| Field::new(path, entry));
    field.map(|field| field.text().map(str::to_owned)).transpose()
}
