//! # datastore: Calico resources in and out
//!
//! **What this room is for.** To read the resources that an operator keeps as YAML or JSON files in one
//! directory, or that Calico keeps in etcd v3; to follow either and hand every change on as [`model::Update`]s; and to
//! read and write single values of either for commands and IPAM. Selectors are read to see that
//! they are good, by `policy`, and handed on as they were written.
//!
//! **How things pass through it.** From files, one at a time: bytes → `document` (a tree that knows its lines) →
//! `manifest` (its documents, each one resource; `v1` brings old ones into the present form) → `convert` (fields → `model`, held to the rules of
//! `validate`). All files together: `desired` merges what the files say into one set; `directory` scans,
//! watches, compares with what was announced before, and calls the sink with the difference.
//! From etcd, one key at a time: `etcd/path` (which resource) → `etcd/entry` (the value as that resource, through the same
//! `manifest` and `convert`) → `etcd/state` (all keys together, and what of them was told); `etcd/follow` lists, watches and
//! calls the sink.
//!
//! **The other way in.** [`Store`] is a datastore by key, each write by compare-and-swap; `etcd` and `store/directory` are
//! the two, `settings` says which, `transfer` moves a site from one to the other. `client` stands on it as Calico's own client does: it takes
//! resources as trees (`objects` reads them from manifests), held to the fields that Calico's types have (`schema`), fills in
//! defaults, holds them to the same rules, and stores what Calico would have stored.
//!
//! **What it promises.** The announced set is a function of the files' last good contents, or of etcd's present keys, alone, never of the
//! order in which they came. A malformed file is named with line, column, resource, field and reason; its last
//! good contents stay in force and no other file is disturbed. A malformed value in etcd is named likewise and counts as
//! absent, as with Calico's own readers. `InSync` is sent once, after the first full
//! load. What a file may cost is bounded: its size, depth, aliases and number of resources; so is how many resources etcd
//! may hold. A datastore that can't be reached changes nothing.
//!
//! **What it never does.** It never evaluates what resources mean for a node, never guesses at a
//! field it cannot honour, and lets no form of a file or of etcd leak past `convert`. Who follows never writes.
//!
//! YAML is read by `serde-saphyr`: it gives line and column for every value, counts lines over all documents
//! of a file, and has budgets against hostile input. The fields are read by hand from the spanned tree rather
//! than by derived structs, because serde's own errors know neither the path of a field nor its place.

mod books;
mod client;
mod convert;
mod desired;
mod directory;
mod document;
mod etcd;
mod event;
mod fields;
mod invalid;
pub mod ipam;
mod json;
mod kind;
mod kubernetes;
mod manifest;
mod metadata;
mod objects;
mod reading;
mod scan;
mod schema;
pub mod settings;
mod store;
pub mod transfer;
mod v1;
mod validate;
mod watch;

pub use client::{
    ApiObject, Client, ClientError, DEFAULT_ALLOW, ErroredField, ObjectList, check as check_object,
};
pub use directory::{Directory, DirectoryConfig, OpenError, check};
pub use etcd::{Etcd, EtcdConfig, EtcdStore};
pub use event::{Event, Ignored};
pub use invalid::{Invalid, Position, Reason};
pub use kind::ResourceKind;
pub use objects::{ConvertError, ReadError, convert_objects, read_objects};
pub use reading::{Found, Reading, Source, read};
pub use settings::{DatastoreSettings, Following};
pub use store::{
    DirectoryStore, Key, Listed, MemoryStore, ResourceKey, Revision, StatusKey, Store, StoreError, Stored,
    Under,
};
