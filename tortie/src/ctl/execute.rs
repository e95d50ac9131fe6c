//! One verb on many resources (`calicoctl/calicoctl/commands/common/resources.go`): each is tried, what fails is gathered.

use datastore::{ApiObject, Client, ClientError, ObjectList, ResourceKind, Store, check_object};
use serde_json::json;

use super::columns::Columns;
use super::files::{self, FileArgs, FileError};

/// What to do with each resource.
pub(super) enum Verb<'a> {
    Create { skip_exists: bool },
    Apply,
    Replace,
    Delete { skip_not_exists: bool },
    Get,
    Patch(&'a super::patch::Patch),
    Validate,
}

/// Which resources, and where.
#[derive(Debug, Default)]
pub(super) struct Asked<'a> {
    pub(super) files: Option<&'a FileArgs>,
    pub(super) kind: Option<&'a str>,
    pub(super) names: &'a [String],
    pub(super) namespace: Option<&'a str>,
    pub(super) all_namespaces: bool,
    /// Without what belongs to this cluster alone.
    pub(super) export: bool,
}

/// What came of one resource.
#[derive(Debug, PartialEq)]
pub(super) enum Handled {
    One(ApiObject),
    List(ObjectList),
}

impl Handled {
    /// As it is printed.
    pub(super) fn value(&self) -> serde_json::Value {
        match self {
            Handled::One(object) => object.value().clone(),
            Handled::List(list) => json!({
                "kind": format!("{}List", list.kind),
                "apiVersion": "projectcalico.org/v3",
                "metadata": { "resourceVersion": list.resource_version },
                "items": list.items.iter().map(ApiObject::value).collect::<Vec<_>>(),
            }),
        }
    }
}

/// What came of all.
#[derive(Debug, Default)]
pub(super) struct Results {
    /// A file is no good.
    pub(super) file_invalid: bool,
    /// How many resources were to be handled.
    pub(super) asked: usize,
    /// What was.
    pub(super) handled: Vec<Handled>,
    /// Why nothing was, or where it ended.
    pub(super) error: Option<String>,
    /// Why single resources weren't.
    pub(super) errors: Vec<String>,
    /// The kind, where all are of one.
    pub(super) single_kind: Option<ResourceKind>,
}

impl Results {
    fn failed(error: impl Into<String>) -> Results {
        Results { error: Some(error.into()), ..Results::default() }
    }

    /// One resource wasn't handled.
    fn fail(&mut self, verb: &Verb<'_>, error: String) {
        match verb {
            Verb::Replace | Verb::Patch(_) => self.error = Some(error),
            _ => self.errors.push(error),
        }
    }

    /// The errors as Go prints a slice of them.
    pub(super) fn all_errors(&self) -> String {
        format!("[{}]", self.errors.join(" "))
    }
}

/// Does it. Only validating needs no store.
pub(super) fn execute(asked: &Asked<'_>, verb: &Verb<'_>, store: Option<&dyn Store>) -> Results {
    let objects = match resources(asked) {
        Ok(objects) => objects,
        Err(results) => return results,
    };
    let kinds: Vec<ResourceKind> = objects.iter().map(ApiObject::kind).collect();
    let mut results = Results {
        asked: objects.len(),
        single_kind: kinds.first().copied().filter(|first| kinds.iter().all(|kind| kind == first)),
        ..Results::default()
    };
    if asked.names.iter().any(String::is_empty) {
        return Results::failed("resource name may not be empty");
    }
    let client = store.map(Client::new);
    if let (Some(client), Verb::Create { .. } | Verb::Apply | Verb::Replace) = (client, verb) {
        // Who may write single kinds alone can't, and needn't.
        let _ = client.ensure_initialized();
    }
    for mut object in objects {
        if !matches!(verb, Verb::Validate)
            && let Err(error) = settle_namespace(asked, &mut object)
        {
            results.fail(verb, error);
            continue;
        }
        let tried = object.clone();
        match one(verb, client, object) {
            Ok(mut handled) => {
                if let Handled::One(object) = &mut handled
                    && asked.export
                    && !asked.names.is_empty()
                {
                    strip(object);
                }
                results.handled.push(handled);
            }
            Err(error) => {
                if matches!(verb, Verb::Replace | Verb::Patch(_)) {
                    // calicoctl counts it as done all the same.
                    results.handled.push(Handled::One(tried));
                }
                results.fail(verb, error);
            }
        }
    }
    results
}

fn resources(asked: &Asked<'_>) -> Result<Vec<ApiObject>, Results> {
    if let Some((files, filename)) = asked.files.and_then(|files| Some((files, files.filename.as_deref()?))) {
        let objects = files::read(files, filename).map_err(|error| match error {
            FileError::Unreadable(error) | FileError::Invalid(error) => {
                Results { file_invalid: true, ..Results::failed(error) }
            }
            FileError::Empty(error) => Results::failed(error),
        })?;
        return if objects.is_empty() { Err(Results::default()) } else { Ok(objects) };
    }
    let Some(kind) = asked.kind else { return Err(Results::failed("no resources specified")) };
    let Some(columns) = Columns::named(kind) else {
        return Err(Results::failed(format!("resource type '{kind}' is not supported")));
    };
    let named = |name: &str| ApiObject::named(columns.kind, "", name);
    if asked.names.is_empty() {
        return Ok(vec![named("")]);
    }
    Ok(asked.names.iter().map(|name| named(name)).collect())
}

fn one(verb: &Verb<'_>, client: Option<Client<'_>>, mut object: ApiObject) -> Result<Handled, String> {
    let Some(client) = client else {
        object.default_namespace();
        return check_object(&object).map(|()| Handled::One(object)).map_err(|error| error.to_string());
    };
    let result = match verb {
        Verb::Create { .. } => client.create_new(&object).map(Handled::One),
        Verb::Apply => client.apply(&object).map(Handled::One),
        Verb::Replace => client.replace(&object).map(Handled::One),
        Verb::Delete { .. } => client.delete(&object).map(Handled::One),
        Verb::Get => return get(client, &object),
        Verb::Patch(patch) => return patch.apply(client, &object).map(Handled::One),
        Verb::Validate => check_object(&object).map(|()| Handled::One(object.clone())),
    };
    match (result, verb) {
        (Err(ClientError::AlreadyExists(_)), Verb::Create { skip_exists: true })
        | (Err(ClientError::NotFound(_)), Verb::Delete { skip_not_exists: true }) => Ok(Handled::One(object)),
        (result, _) => result.map_err(|error| error.to_string()),
    }
}

/// Fills in the namespace, or says why there can be none.
fn settle_namespace(asked: &Asked<'_>, object: &mut ApiObject) -> Result<(), String> {
    let (kind, own) = (object.kind(), object.namespace().to_owned());
    let cli = asked.namespace.unwrap_or_default();
    if !kind.is_namespaced() {
        if !own.is_empty() {
            return Err(format!(
                "namespace should not be specified for a non-namespaced resource. {kind} is not a namespaced resource"
            ));
        }
        if asked.all_namespaces || !cli.is_empty() {
            return Err(format!("{kind} is not namespaced"));
        }
        return Ok(());
    }
    match (own.as_str(), cli, asked.all_namespaces) {
        (_, cli, true) if !cli.is_empty() => {
            return Err("cannot use both --namespace and --all-namespaces flags at the same time".to_owned());
        }
        (_, _, true) => object.set_text("namespace", ""),
        ("", "", false) => object.set_text("namespace", "default"),
        ("", cli, false) => object.set_text("namespace", cli),
        (own, cli, false) if !cli.is_empty() && own != cli => {
            return Err(format!("resource namespace does not match client namespace. {own} != {cli}"));
        }
        _ => {}
    }
    Ok(())
}

fn get(client: Client<'_>, object: &ApiObject) -> Result<Handled, String> {
    let (kind, namespace, name) = (object.kind(), object.namespace(), object.name());
    if name.is_empty() {
        let namespace = (!namespace.is_empty()).then_some(namespace);
        let mut list = client.list(kind, namespace).map_err(|error| error.to_string())?;
        if kind == ResourceKind::Tier {
            // In the order in which they are asked; those without one come last.
            let order = |tier: &ApiObject| tier.spec("order").as_f64().unwrap_or(f64::INFINITY);
            list.items.sort_by(|one, other| order(one).total_cmp(&order(other)));
        }
        return Ok(Handled::List(list));
    }
    if kind.is_namespaced() && namespace.is_empty() {
        return Err("cannot use --all-namespace flag for getting a single resource".to_owned());
    }
    client.get(kind, namespace, name).map(Handled::One).map_err(|error| error.to_string())
}

/// Takes away what belongs to this cluster alone.
pub(super) fn strip(object: &mut ApiObject) {
    object.set_text("namespace", "");
    strip_list_item(object);
}

/// The same for an item of a list, which keeps its namespace.
pub(super) fn strip_list_item(object: &mut ApiObject) {
    for field in
        ["uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        object.set_text(field, "");
    }
}
