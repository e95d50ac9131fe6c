//! One file of resources, taken apart so that one of them can be changed without touching the text of the others.
//!
//! A document ends where a line begins with `---`, which YAML allows nowhere else. One that is a list of resources is
//! changed as a whole.

use std::path::Path;

use serde_json::{Value, json};

use crate::books;
use crate::convert::{self, DEFAULT_NAMESPACE};
use crate::document::{self, Content};
use crate::fields::Object;
use crate::store::{Key, ResourceKey};
use crate::{ResourceKind, v1};

/// Most documents in one file.
const MAX_DOCUMENTS: usize = 100_000;

/// A file's text and what stands in it.
#[derive(Debug)]
pub(super) struct File {
    /// Its documents' texts, each with the line that begins it; together they are the file's.
    documents: Vec<Document>,
    is_json: bool,
}

#[derive(Debug)]
struct Document {
    text: String,
    resources: Vec<Resource>,
}

/// A resource of a document.
#[derive(Debug)]
struct Resource {
    /// As it stands, as JSON.
    manifest: Value,
    /// What it is in the store; nothing for one that isn't Calico's.
    found: Option<(Key, Value)>,
}

impl File {
    /// # Errors
    /// Why it isn't YAML.
    pub(super) fn parse(path: &Path, text: &str) -> Result<File, String> {
        let is_json = path.extension().is_some_and(|extension| extension == "json");
        let texts = if is_json { vec![text] } else { split(text) };
        let documents = texts.into_iter().map(Document::parse).collect::<Result<_, _>>()?;
        Ok(File { documents, is_json })
    }

    /// What it holds, in its order.
    pub(super) fn entries(&self) -> impl Iterator<Item = &(Key, Value)> {
        let resources = self.documents.iter().flat_map(|document| &document.resources);
        resources.filter_map(|resource| resource.found.as_ref())
    }

    /// Puts a resource in the place of the one of this key, or takes that away. Nothing: it holds none.
    ///
    /// # Errors
    /// What the value can't be written for.
    pub(super) fn replace(mut self, key: &Key, resource: Option<&Value>) -> Option<Result<String, String>> {
        let holds = |document: &Document| document.position(key).is_some();
        let index = self.documents.iter().position(holds)?;
        let document = &self.documents[index];
        let position = document.position(key)?;
        let mut manifests: Vec<Value> =
            document.resources.iter().map(|resource| resource.manifest.clone()).collect();
        match resource {
            Some(resource) => manifests[position] = resource.clone(),
            None => drop(manifests.remove(position)),
        }
        if manifests.is_empty() {
            self.documents.remove(index);
        } else {
            let whole = if manifests.len() == 1 {
                manifests.remove(0)
            } else {
                json!({"apiVersion": convert::API_VERSION, "kind": "List", "items": manifests})
            };
            let separated = document.text.starts_with("---");
            match written(&whole, self.is_json) {
                Ok(text) => {
                    self.documents[index].text = if separated { format!("---\n{text}") } else { text };
                }
                Err(reason) => return Some(Err(reason)),
            }
        }
        if self.documents.iter().all(|document| document.resources.is_empty()) {
            return Some(Ok(String::new()));
        }
        let texts: Vec<&str> = self.documents.iter().map(|document| document.text.as_str()).collect();
        Some(Ok(texts.concat()))
    }
}

/// A resource as a file's text.
///
/// # Errors
/// What it can't be written for.
pub(super) fn written(resource: &Value, is_json: bool) -> Result<String, String> {
    let text = if is_json {
        serde_json::to_string_pretty(resource).map(|text| escaped(&text)).map_err(|error| error.to_string())
    } else {
        serde_saphyr::to_string(resource).map_err(|error| error.to_string())
    }?;
    Ok(format!("{}\n", text.trim_end_matches('\n')))
}

/// JSON with escapes for what YAML doesn't print (YAML 1.2 §5.1): the watcher reads either with one reader. Such letters
/// stand only in texts.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        if matches!(letter, '\u{7f}'..='\u{9f}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') {
            text.push_str(&format!("\\u{:04x}", u32::from(letter)));
        } else {
            text.push(letter);
        }
    }
    text
}

impl Document {
    fn parse(text: &str) -> Result<Document, String> {
        let trees = document::parse(text, MAX_DOCUMENTS).map_err(|(position, reason)| match position {
            Some(position) => format!("{position}: {reason}"),
            None => reason.to_string(),
        })?;
        let mut resources = Vec::new();
        trees.iter().for_each(|tree| collect(tree, &mut resources));
        Ok(Document { text: text.to_owned(), resources })
    }

    fn position(&self, key: &Key) -> Option<usize> {
        let is_it = |resource: &Resource| resource.found.as_ref().is_some_and(|(known, _)| known == key);
        self.resources.iter().position(is_it)
    }
}

/// The texts between the lines that begin documents.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
    for line in text.split_inclusive('\n') {
        let begins = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if begins && at > start {
            parts.push(&text[start..at]);
            start = at;
        }
        at += line.len();
    }
    parts.push(&text[start..]);
    parts
}

fn collect(tree: &document::Value, into: &mut Vec<Resource>) {
    match &tree.content {
        Content::Null => {}
        Content::List(items) => items.iter().for_each(|item| collect(item, into)),
        Content::Map(entries) => {
            let text = |name: &str| {
                let found = entries.iter().find(|(key, _)| key == name).map(|(_, value)| &value.content);
                if let Some(Content::Text(text)) = found { Some(text.as_str()) } else { None }
            };
            let items = entries.iter().find(|(key, _)| key == "items").map(|(_, value)| &value.content);
            match (text("kind"), items) {
                (Some(kind), Some(Content::List(items))) if kind.ends_with("List") => {
                    items.iter().for_each(|item| collect(item, into));
                }
                _ => into.push(Resource { manifest: tree.to_json(), found: found(tree) }),
            }
        }
        _ => into.push(Resource { manifest: tree.to_json(), found: None }),
    }
}

/// What a resource is in the store.
fn found(tree: &document::Value) -> Option<(Key, Value)> {
    let upgraded = v1::upgraded(tree);
    let tree = upgraded.as_ref().map_or(tree, |upgraded| &upgraded.document);
    let object = Object::top(tree).ok()?;
    let (_, kind) = object.text("kind").ok()??;
    let (_, version) = object.text("apiVersion").ok()??;
    if !convert::is_version_of(version, kind) {
        return None;
    }
    let mut value = tree.to_json();
    if convert::is_book(kind) {
        return books::book(kind, &value);
    }
    let kind = ResourceKind::named(kind)?;
    let metadata = object.object("metadata").ok()?;
    let name = match metadata.text("name").ok()? {
        Some((_, name)) => name.to_owned(),
        None if kind == ResourceKind::WorkloadEndpoint => {
            convert::endpoint_name(&object.object("spec").ok()?).ok()?
        }
        None => return None,
    };
    let namespace = match metadata.text("namespace").ok()? {
        _ if !kind.is_namespaced() => String::new(),
        Some((_, namespace)) => namespace.to_owned(),
        None => DEFAULT_NAMESPACE.to_owned(),
    };
    // As any other store would have it: the whole name, and no revision, which is the file's.
    let fields = value.as_object_mut()?.get_mut("metadata")?.as_object_mut()?;
    fields.insert("name".to_owned(), json!(name));
    if kind.is_namespaced() {
        fields.insert("namespace".to_owned(), json!(namespace));
    }
    fields.shift_remove("resourceVersion");
    Some((Key::Resource(ResourceKey { kind, namespace, name }), value))
}
