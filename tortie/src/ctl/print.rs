//! What `get` prints: tables, YAML, JSON and templates (`calicoctl/calicoctl/commands/common/printer.go`).

use std::cell::OnceCell;

use datastore::{ApiObject, Client, ClientError, ResourceKind, Store};
use serde_json::Value;

use super::columns::Columns;
use super::execute::Handled;
use super::template::Template;
use super::{gojson, gotext, yaml};
use crate::show::table::Table;

/// The AS number of a cluster that names none (RFC 6996).
const DEFAULT_AS: &str = "64512";

/// A form of printing.
#[derive(Debug)]
pub(super) enum Printer {
    Yaml,
    Json,
    /// The columns, or all narrow or wide ones.
    Table {
        headings: Option<Vec<String>>,
        wide: bool,
        namespace: bool,
    },
    Template(String),
}

impl Printer {
    /// The form of `-o`.
    ///
    /// # Errors
    /// There is none of this name, or it lacks something.
    pub(super) fn new(output: &str, namespace: bool) -> Result<Printer, String> {
        let (key, value) = output.split_once('=').unwrap_or((output, ""));
        let given =
            |what: &str| if value.is_empty() { Err(format!("need to specify {what}")) } else { Ok(()) };
        match (output, key) {
            ("yaml" | "yml", _) => Ok(Printer::Yaml),
            ("json", _) => Ok(Printer::Json),
            ("ps", _) => Ok(Printer::Table { headings: None, wide: false, namespace }),
            ("wide", _) => Ok(Printer::Table { headings: None, wide: true, namespace }),
            (_, "go-template") => given("a template").map(|()| Printer::Template(value.to_owned())),
            (_, "go-template-file") => {
                given("a template file")?;
                let text =
                    std::fs::read_to_string(value).map_err(|error| format!("open {value}: {error}"))?;
                Ok(Printer::Template(text))
            }
            (_, "custom-columns") => {
                given("at least one column")?;
                let headings = Some(value.split(',').map(str::to_owned).collect());
                Ok(Printer::Table { headings, wide: false, namespace: false })
            }
            _ => Err(format!("unrecognized output format '{output}'")),
        }
    }

    /// What is printed of these as YAML.
    pub(super) fn yaml(handled: &[Handled]) -> String {
        yaml::print(&whole(handled))
    }

    /// What is printed of these.
    ///
    /// # Errors
    /// A column that a kind doesn't have, or a template that can't be filled in.
    pub(super) fn print(&self, store: &dyn Store, handled: &[Handled]) -> Result<String, String> {
        let known = OnceCell::new();
        let as_number = || known.get_or_init(|| cluster_as(store)).clone();
        match self {
            Printer::Yaml => Ok(Printer::yaml(handled)),
            Printer::Json => Ok(gojson::print(&whole(handled)) + "\n"),
            Printer::Template(text) => {
                let data = Value::Array(handled.iter().map(Handled::value).collect());
                Template::parse(text)?.fill(&data, &as_number)
            }
            Printer::Table { headings, wide, namespace } => {
                let tables = handled.iter().map(|one| {
                    let (kind, objects) = match one {
                        Handled::One(object) => (object.kind(), std::slice::from_ref(object)),
                        Handled::List(list) => (list.kind, list.items.as_slice()),
                    };
                    let columns = Columns::of(kind)
                        .ok_or_else(|| format!("resource type '{kind}' is not supported"))?;
                    let headings = self::headings(columns, headings.as_deref(), *wide, *namespace)?;
                    Ok(self::table(columns, &headings, objects, &as_number) + "\n")
                });
                tables.collect()
            }
        }
    }
}

/// The only one itself, or a list of several.
fn whole(handled: &[Handled]) -> Value {
    match handled {
        [one] => one.value(),
        many => Value::Array(many.iter().map(Handled::value).collect()),
    }
}

fn headings<'a>(
    columns: &'a Columns,
    asked: Option<&'a [String]>,
    wide: bool,
    namespace: bool,
) -> Result<Vec<&'a str>, String> {
    let usual = if wide { columns.wide } else { columns.narrow };
    let mut headings: Vec<&str> = match asked {
        Some(asked) => asked.iter().map(String::as_str).collect(),
        None => usual.to_vec(),
    };
    if namespace && columns.has("NAMESPACE") {
        headings.insert(0, "NAMESPACE");
    }
    match headings.iter().find(|heading| !columns.has(heading)) {
        Some(unknown) => {
            let valid = columns.headings().collect::<Vec<_>>().join(", ");
            Err(format!("unknown heading {unknown}, valid values are: {valid}"))
        }
        None => Ok(headings),
    }
}

fn table(
    columns: &Columns,
    headings: &[&str],
    objects: &[ApiObject],
    as_number: &dyn Fn() -> String,
) -> String {
    let mut table = Table::new(headings);
    for object in objects {
        table.row(headings.iter().map(|heading| columns.cell(heading, object, as_number)).collect());
    }
    table.tabs()
}

/// The AS number that nodes have which name none.
fn cluster_as(store: &dyn Store) -> String {
    match Client::new(store).get(ResourceKind::BgpConfiguration, "", "default") {
        Ok(config) => match config.spec("asNumber") {
            Value::Null => DEFAULT_AS.to_owned(),
            number => gotext::print(number),
        },
        Err(ClientError::NotFound(_)) => DEFAULT_AS.to_owned(),
        Err(_) => "unknown".to_owned(),
    }
}
