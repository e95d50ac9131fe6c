//! One file's text → the resources it holds, what of it is ignored, and what is wrong with it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use model::{Key, Resource};

use crate::ResourceKind;
use crate::convert::{self, Outcome};
use crate::document::{self, Content, Value};
use crate::event::Ignored;
use crate::fields::{Fault, Field, Object};
use crate::invalid::{Invalid, Position, Reason};
use crate::metadata;
use crate::schema;
use crate::v1;
use crate::validate;

/// A resource and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) resource: Arc<Resource>,
    pub(crate) position: Option<Position>,
}

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// The router, in files: fields that it doesn't read can be anything, and those that nobody knows are told of.
    Router,
    /// The router, in what others write to etcd: besides, as with Felix, most settings that are no good are as if they
    /// weren't given.
    Follower,
    /// Who writes, or asks what is good: held to all of Calico's rules.
    Writer,
}

/// What a good file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Manifest {
    pub(crate) entries: Vec<Entry>,
    pub(crate) ignored: Vec<Ignored>,
    /// What is wrong with settings that are as if they weren't given.
    pub(crate) left_out: Vec<Invalid>,
    /// It says that the datastore may not be used: ClusterInformation, `datastoreReady: false`.
    pub(crate) closes: bool,
}

/// Reads a file's text. One problem anywhere makes the whole file invalid, so that nobody runs with half of it.
///
/// # Errors
/// Every problem found, in the file's order; a text that isn't YAML has just one.
pub(crate) fn parse(
    file: &Path,
    text: &str,
    max_resources: usize,
    reader: Reader,
) -> Result<Manifest, Vec<Invalid>> {
    if let Some(manifest) = parse_quickly(file, text, max_resources, reader) {
        return Ok(manifest);
    }
    let mut reading = Reading::new(file, reader);
    match document::parse(text, max_resources) {
        Ok(documents) => documents.iter().for_each(|document| reading.document(document)),
        Err((position, reason)) => reading.problem(None, None, position, reason),
    }
    reading.refuse_duplicates();
    if reading.problems.is_empty() { Ok(reading.manifest) } else { Err(reading.problems) }
}

/// A file that there is nothing to say of but its resources: places within them cost as much as all the rest of reading.
fn parse_quickly(file: &Path, text: &str, max_resources: usize, reader: Reader) -> Option<Manifest> {
    let documents = document::parse_without_places(text, max_resources)?;
    let mut reading = Reading::new(file, reader);
    documents.iter().for_each(|document| reading.document(document));
    reading.refuse_duplicates();
    let is_all_said = reading.problems.is_empty()
        && reading.manifest.ignored.is_empty()
        && reading.manifest.left_out.is_empty()
        && reading.manifest.entries.iter().all(|entry| entry.position.is_some());
    is_all_said.then_some(reading.manifest)
}

/// The first rule that a resource alone breaks, and the field's path.
pub(crate) fn fault(document: &Value) -> Option<(String, Reason)> {
    single(document).err()
}

/// The resource of a document that holds one; nothing where it is of a kind that the router doesn't read.
///
/// # Errors
/// The first rule that it breaks, and the field's path.
pub(crate) fn single(document: &Value) -> Result<Option<Resource>, (String, Reason)> {
    let mut reading = Reading::new(Path::new(""), Reader::Writer);
    reading.document(document);
    match reading.problems.into_iter().next() {
        Some(problem) => Err((problem.field.unwrap_or_default(), problem.reason)),
        None => Ok(reading.manifest.entries.into_iter().next().map(|entry| Resource::clone(&entry.resource))),
    }
}

/// Reads a resource that has been taken apart already, for who follows etcd.
///
/// # Errors
/// Every problem found.
pub(crate) fn of_tree(file: &Path, tree: &Value) -> Result<Manifest, Vec<Invalid>> {
    let mut reading = Reading::new(file, Reader::Follower);
    reading.document(tree);
    if reading.problems.is_empty() { Ok(reading.manifest) } else { Err(reading.problems) }
}

/// A problem of a whole file.
pub(crate) fn whole_file(file: &Path, reason: Reason) -> Invalid {
    Invalid { file: file.to_owned(), position: None, resource: None, field: None, reason, more: 0 }
}

struct Reading<'a> {
    file: &'a Path,
    reader: Reader,
    manifest: Manifest,
    problems: Vec<Invalid>,
}

impl Reading<'_> {
    fn new(file: &Path, reader: Reader) -> Reading<'_> {
        Reading { file, reader, manifest: Manifest::default(), problems: Vec::new() }
    }

    fn document(&mut self, document: &Value) {
        if let Content::List(items) = &document.content {
            return items.iter().for_each(|item| self.document(item));
        }
        if let Some(upgraded) = v1::upgraded(document) {
            return self.document(&upgraded.document);
        }
        let (title, result) = read_title(document);
        let name = title.to_string();
        match result.and_then(|object| self.object(&title, &object)) {
            Ok(()) => {}
            Err(fault) => {
                let resource = (!name.is_empty()).then_some(name);
                let field = (!fault.path.is_empty()).then_some(fault.path);
                self.problem(resource, field, fault.position, fault.reason);
            }
        }
    }

    fn object(&mut self, title: &Title, object: &Object<'_>) -> Result<(), Fault> {
        let (kind_field, kind) = object.required_text("kind")?;
        let (version_field, version) = object.required_text("apiVersion")?;
        let is_list = kind == "List" || kind.strip_suffix("List").is_some_and(convert::is_known);
        // Kubernetes writes plain lists with its own version.
        if !(convert::is_version_of(version, kind) || kind == "List" && version == "v1") {
            return Err(version_field.fault(Reason::UnknownApiVersion(version.to_owned())));
        }
        if is_list {
            return self.list(object);
        }
        self.shape(title, kind, object)?;
        self.unread(title, kind, object)?;
        let Some(kind) = convert::Kind::named(kind) else {
            if !convert::is_known(kind) {
                return Err(kind_field.fault(Reason::UnknownKind(kind.to_owned())));
            }
            // Handles and IPAM's settings are for those who write them, and there may be one a workload.
            if !convert::is_book(kind) {
                self.ignore(title, None, object.position());
            }
            return Ok(());
        };
        if kind == convert::Kind::ClusterInformation && title.name == "default" {
            self.manifest.closes |= says_not_ready(object);
        }
        self.resource(title, kind, object)
    }

    /// Finds fields that the kind doesn't have: one that is misspelt says nothing of what it was meant to say. Who writes is
    /// refused it, as by calicoctl; in what is stored, perhaps by another version of Calico's own client, it is told of and
    /// left alone, as with Felix.
    fn shape(&mut self, title: &Title, kind: &str, object: &Object<'_>) -> Result<(), Fault> {
        let Some(kind) = ResourceKind::named(kind) else { return Ok(()) };
        let of = schema::of(kind);
        if self.reader == Reader::Writer {
            check_metadata(kind, &object.object("metadata")?)?;
        }
        match self.reader {
            // Kubernetes' form of IPAM's books has texts where Calico's own has others.
            Reader::Writer if !convert::is_book(kind.name()) => schema::check(of, object),
            Reader::Writer => schema::check_names(of, object),
            Reader::Router | Reader::Follower => {
                if let Err(fault) = schema::check_names(of, object) {
                    self.ignore(title, Some(fault.path), fault.position);
                }
                Ok(())
            }
        }
    }

    /// Holds what nobody reads to Calico's rules: the router says no more than that it has no effect.
    fn unread(&mut self, title: &Title, kind: &str, object: &Object<'_>) -> Result<(), Fault> {
        match (convert::unread::check(kind, object), self.reader) {
            (Err(fault), Reader::Router | Reader::Follower) => {
                self.ignore(title, Some(fault.path), fault.position);
                Ok(())
            }
            (held, _) => held,
        }
    }

    fn list(&mut self, object: &Object<'_>) -> Result<(), Fault> {
        let Some(items) = object.field("items") else { return Ok(()) };
        for item in items.items()? {
            self.document(item.value());
        }
        Ok(())
    }

    fn resource(&mut self, title: &Title, kind: convert::Kind, object: &Object<'_>) -> Result<(), Fault> {
        let metadata = object.object("metadata")?;
        let spec = object.object("spec")?;
        let namespace = match metadata.text("namespace")? {
            Some((field, _)) => validate::name(&field)?,
            None => convert::DEFAULT_NAMESPACE.to_owned(),
        };
        let (name, name_field) = name(kind, &metadata, &spec)?;
        let identity = convert::Identity {
            name,
            name_field,
            namespace,
            created: metadata::created(&metadata),
            labels: metadata::labels(&metadata.object("labels")?)?,
            annotations: metadata::annotations(&metadata)?,
        };
        let outcome = convert::resource(kind, &identity, &spec)?;
        let Outcome { resource, unused, left_out } = outcome;
        for fault in left_out {
            if self.reader != Reader::Follower {
                return Err(fault);
            }
            let left_out =
                self.invalid(Some(title.to_string()), Some(fault.path), fault.position, fault.reason);
            self.manifest.left_out.push(left_out);
        }
        if self.reader == Reader::Writer {
            convert::written::check(kind, object)?;
        }
        for (path, position) in unused {
            self.ignore(title, Some(path), position);
        }
        if let Some(resource) = resource {
            self.manifest.entries.push(Entry { resource: Arc::new(resource), position: object.position() });
        }
        Ok(())
    }

    fn refuse_duplicates(&mut self) {
        let mut seen: BTreeMap<Key, Option<Position>> = BTreeMap::new();
        for entry in &self.manifest.entries {
            let key = entry.resource.key();
            let Some(first) = seen.get(&key).copied() else {
                seen.insert(key, entry.position);
                continue;
            };
            self.problems.push(duplicate(self.file, entry, &key, self.file, first));
        }
    }

    fn ignore(&mut self, title: &Title, field: Option<String>, position: Option<Position>) {
        let (file, resource) = (self.file.to_owned(), title.to_string());
        self.manifest.ignored.push(Ignored { file, position, resource, field });
    }

    fn problem(
        &mut self,
        resource: Option<String>,
        field: Option<String>,
        position: Option<Position>,
        reason: Reason,
    ) {
        let problem = self.invalid(resource, field, position, reason);
        self.problems.push(problem);
    }

    fn invalid(
        &self,
        resource: Option<String>,
        field: Option<String>,
        position: Option<Position>,
        reason: Reason,
    ) -> Invalid {
        Invalid { file: self.file.to_owned(), position, resource, field, reason, more: 0 }
    }
}

/// Only a plain no closes a datastore: whoever doesn't say anything of it forbids nothing.
fn says_not_ready(cluster: &Object<'_>) -> bool {
    let spec = cluster.object("spec").ok();
    let flag = spec.and_then(|spec| spec.field("datastoreReady"));
    flag.is_some_and(|flag| flag.value().content == Content::Bool(false))
}

/// Holds labels, annotations and names to Kubernetes' rules; the latter where a kind has none of its own. Endpoints' names are
/// made of other names, some of them OpenStack's.
fn check_metadata(kind: ResourceKind, metadata: &Object<'_>) -> Result<(), Fault> {
    metadata::labels(&metadata.object("labels")?)?;
    metadata::annotations(metadata)?;
    match metadata.text("name")? {
        Some((field, _)) if !kind.is_tiered() && kind != ResourceKind::WorkloadEndpoint => {
            metadata::Naming::Subdomain.check(kind.name(), &field)
        }
        _ => Ok(()),
    }
}

/// The name given, and where; an endpoint that gives none has one made of its fields, as with calicoctl.
fn name<'a>(
    kind: convert::Kind,
    metadata: &Object<'a>,
    spec: &Object<'a>,
) -> Result<(String, Field<'a>), Fault> {
    match metadata.text("name")? {
        Some((field, _)) => Ok((validate::name(&field)?, field)),
        None if kind == convert::Kind::WorkloadEndpoint => {
            Ok((convert::endpoint_name(spec)?, spec.required("node")?))
        }
        None => metadata.required("name").and_then(|field| Err(field.fault(Reason::Missing))),
    }
}

/// The problem of an entry whose key another one has already.
pub(crate) fn duplicate(
    file: &Path,
    entry: &Entry,
    key: &Key,
    first_file: &Path,
    first: Option<Position>,
) -> Invalid {
    let reason = Reason::Duplicate {
        resource: key.to_string(),
        first_file: first_file.to_owned(),
        first_line: first.map_or(0, |position| position.line),
    };
    Invalid {
        file: file.to_owned(),
        position: entry.position,
        resource: Some(key.to_string()),
        field: None,
        reason,
        more: 0,
    }
}

/// Kind and name as far as they can be read, for messages about a resource that may be broken anywhere.
struct Title {
    kind: String,
    namespace: String,
    name: String,
}

impl std::fmt::Display for Title {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.kind)?;
        match (self.namespace.as_str(), self.name.as_str()) {
            (_, "") => Ok(()),
            ("", name) => write!(f, "({name})"),
            (namespace, name) => write!(f, "({namespace}/{name})"),
        }
    }
}

fn read_title(document: &Value) -> (Title, Result<Object<'_>, Fault>) {
    let object = Object::top(document);
    let text = |object: &Object<'_>, name: &str| match object.text(name) {
        Ok(Some((_, text))) => text.to_owned(),
        _ => String::new(),
    };
    let mut title = Title { kind: String::new(), namespace: String::new(), name: String::new() };
    if let Ok(object) = &object {
        title.kind = text(object, "kind");
        if let Ok(metadata) = object.object("metadata") {
            title.namespace = text(&metadata, "namespace");
            title.name = text(&metadata, "name");
        }
    }
    (title, object)
}

#[cfg(test)]
mod tests;
