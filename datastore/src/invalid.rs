//! Why a file can't be used: the place, and a reason in an operator's words.

use std::fmt;
use std::io;
use std::path::PathBuf;

use model::{ParseAddrError, ParseAsNumberError, Prefix};
use policy::SelectorError;

/// A place in a file. Both numbers begin at 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line, counted over all documents of the file.
    pub line: u32,
    /// The column.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A problem of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The file, or the directory.
    pub file: PathBuf,
    /// Line and column; absent where the whole file is meant (unreadable, too large).
    pub position: Option<Position>,
    /// Kind and name, such as `IPPool(pool1)`, as far as they could be read.
    pub resource: Option<String>,
    /// The field's path, such as `spec.ipNetworks[1]`.
    pub field: Option<String>,
    /// What is wrong with it.
    pub reason: Reason,
    /// How many more problems the file has. Always 0 in the answer of [`crate::check`], which lists them all.
    pub more: usize,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(position) = self.position {
            write!(f, ":{position}")?;
        }
        if let Some(resource) = &self.resource {
            write!(f, ": {resource}")?;
        }
        if let Some(field) = &self.field {
            write!(f, ": {field}")?;
        }
        write!(f, ": {}", self.reason)?;
        match self.more {
            0 => Ok(()),
            more => write!(f, " (and {more} more in this file)"),
        }
    }
}

impl std::error::Error for Invalid {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The watched directory vanished or can't be listed. It is tried again until it can.
    #[error("the directory can't be read ({0}); what it last held stays in force")]
    DirectoryUnavailable(io::ErrorKind),
    /// The file can't be read.
    #[error("can't be read: {0}")]
    Unreadable(io::ErrorKind),
    /// A value of etcd's isn't JSON.
    #[error("it isn't JSON: {0}")]
    Json(String),
    /// The file exceeds [`crate::DirectoryConfig::max_file_bytes`].
    #[error("{bytes} bytes are too many: a file may have {max}; split it")]
    FileTooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The directory holds more files than it may hold resources.
    #[error("more than {max} files; keep several resources in one file, or raise the limit")]
    TooManyFiles {
        /// The limit.
        max: usize,
    },
    /// All files together exceed [`crate::DirectoryConfig::max_resources`].
    #[error("more than {max} resources in all files together; this one and those after it are left out")]
    TooManyResources {
        /// The limit.
        max: usize,
    },
    /// The file isn't UTF-8.
    #[error("is not UTF-8 text")]
    NotText,
    /// The file isn't YAML, or exceeds a budget against hostile YAML.
    #[error("not readable as YAML: {0}")]
    Yaml(String),
    /// A value has another type than the field.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// What the field takes.
        expected: &'static str,
        /// What stands there.
        found: &'static str,
    },
    /// A required field is absent or empty.
    #[error("is required")]
    Missing,
    /// Another group or version of resources.
    #[error("{0:?} is not known: expected \"projectcalico.org/v3\"")]
    UnknownApiVersion(String),
    /// A kind that Calico doesn't have either.
    #[error("{0:?} is not a kind of Calico's projectcalico.org/v3")]
    UnknownKind(String),
    /// A field that the kind doesn't have.
    #[error("{}", unknown_field(given, *meant))]
    UnknownField {
        /// Its name.
        given: String,
        /// The field that was likely meant.
        meant: Option<&'static str>,
    },
    /// A name that no resource may have.
    #[error("{0:?} can't name a resource: at most 253 characters, without spaces, '/' or control characters")]
    BadName(String),
    /// A second resource of the same name.
    #[error("{resource} exists already in {} at line {first_line}; this one is left out", first_file.display())]
    Duplicate {
        /// Kind and name.
        resource: String,
        /// Where the one stands that stays in force.
        first_file: PathBuf,
        /// Its line, 0 where unknown.
        first_line: u32,
    },
    /// A value that is none of the words the field takes.
    #[error("{given:?} is none of {}", allowed.join(", "))]
    NotOneOf {
        /// The words it takes.
        allowed: &'static [&'static str],
        /// What stands there.
        given: String,
    },
    /// A number beyond the field's range.
    #[error("{given} is out of range: expected {min} to {max}")]
    OutOfRange {
        /// What stands there.
        given: i64,
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// Not an address, prefix or MAC address.
    #[error(transparent)]
    Addr(#[from] ParseAddrError),
    /// Not an AS number.
    #[error(transparent)]
    AsNumber(#[from] ParseAsNumberError),
    /// Not a duration in Go's notation.
    #[error("{0:?} is not a duration: expected a form such as \"90s\", \"2m30s\" or \"1h\"")]
    BadDuration(String),
    /// A network with bits set beyond its length.
    #[error("{given} must be strictly masked: write {masked}")]
    NotStrictlyMasked {
        /// What stands there.
        given: String,
        /// The network it lies in.
        masked: Prefix,
    },
    /// An address of the other family.
    #[error("{given} is not an {expected} address")]
    WrongFamily {
        /// What stands there.
        given: String,
        /// The field's family.
        expected: model::Family,
    },
    /// An address that no node or peer can have.
    #[error("{0} can't be the address of a node or peer: it is unspecified or multicast")]
    UnusableAddress(std::net::IpAddr),
    /// A workload's network that is no single address.
    #[error("{0} must be a single address: a /32 or a /128")]
    NotSingleAddress(Prefix),
    /// Not `ip`, `ip:port` or `[v6]:port`.
    #[error("{0:?} is not a peer's address: expected ip, ip:port or [ipv6]:port")]
    BadPeerIp(String),
    /// An interface's name that the kernel wouldn't take.
    #[error("{0:?} can't name an interface: 1 to 15 letters, digits, '_', '.', '-'")]
    BadInterface(String),
    /// Not `PORT` or `FIRST:LAST`.
    #[error("{0:?} is not a range of ports: expected a number, or \"FIRST:LAST\" from 1 to 65535")]
    BadPortRange(String),
    /// A floating IP for an address that the workload doesn't have.
    #[error("{0} is none of the workload's own addresses (spec.ipNetworks)")]
    NotOwnAddress(std::net::IpAddr),
    /// Neither a number nor a name of a code point.
    #[error("{0:?} is not a DSCP: expected 0 to 63, or a name such as \"EF\", \"AF21\" or \"CS3\"")]
    BadDscp(String),
    /// IPIP carries IPv4 only.
    #[error("IPIP is not supported on an IPv6 pool: use vxlanMode, or Never")]
    IpipOnV6,
    /// Both encapsulations asked for.
    #[error("ipipMode and vxlanMode can't both be enabled: set one of them to Never")]
    BothEncapsulations,
    /// Pools never lie in 169.254.0.0/16 or fe80::/10.
    #[error("overlaps the link-local range {0}")]
    LinkLocal(Prefix),
    /// A pool that can't hold one block.
    #[error("the pool is smaller than its blocks of /{block_size}")]
    PoolSmallerThanBlock {
        /// `spec.blockSize`, given or by default.
        block_size: u8,
    },
    /// `BGPConfiguration` has two forms of name.
    #[error("{0:?}: a BGPConfiguration is named \"default\" or \"node.NODENAME\"")]
    BadBgpConfigurationName(String),
    /// A field that only the cluster-wide configuration may have.
    #[error("can be set on the BGPConfiguration named \"default\" only")]
    DefaultOnly,
    /// A mapping that must say something.
    #[error("must not be empty: give it a field, or leave it out")]
    Empty,
    /// A name that the kind's resources can't have.
    #[error("{given:?} can't name a {kind}: expected {expected}")]
    BadKindName {
        /// The kind.
        kind: &'static str,
        /// Which names it takes.
        expected: &'static str,
        /// What stands there.
        given: String,
    },
    /// A name that labels and annotations can't have.
    #[error(
        "{0:?} can't name a label or annotation: at most 63 letters, digits, '-', '_' and '.', a letter or digit at both \
         ends, and before a '/' at most a domain's name"
    )]
    BadLabelName(String),
    /// A value that labels can't have.
    #[error(
        "{0:?} can't be a label's value: at most 63 letters, digits, '-', '_' and '.', a letter or digit at both ends"
    )]
    BadLabelValue(String),
    /// A label that only Calico itself gives.
    #[error("the label {0} is Calico's own: leave it out")]
    ReservedLabel(&'static str),
    /// Not a selector.
    #[error("not a selector: {0}")]
    Selector(#[from] SelectorError),
    /// `global()` where it means nothing.
    #[error("global() can stand in a rule's namespaceSelector only, and only alone")]
    GlobalSelector,
    /// A text or list that is too long.
    #[error("too long: {given} {unit}, at most {max}")]
    TooLong {
        /// How long it is.
        given: usize,
        /// The limit.
        max: usize,
        /// Of what.
        unit: &'static str,
    },
    /// Neither a number nor a name of a protocol.
    #[error(
        "{0:?} is not a protocol: expected TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255"
    )]
    BadProtocol(String),
    /// A protocol without ports, where ports are meant.
    #[error("{0} has no ports: expected TCP, UDP or SCTP")]
    ProtocolWithoutPorts(String),
    /// Not a port as rules write it.
    #[error("{0:?} is not a port: expected 1 to 65535, a range such as \"1000:2000\", or a name")]
    BadPort(String),
    /// Not a name of a port.
    #[error(
        "{0:?} can't name a port: at most 15 of a-z, 0-9 and '-', with a letter, and no '-' at the ends or twice in a row"
    )]
    BadPortName(String),
    /// Ports by number without a protocol.
    #[error("ports by number need a protocol that has ports: set protocol to TCP, UDP or SCTP")]
    PortsNeedProtocol,
    /// ICMP types without a protocol.
    #[error("needs protocol ICMP or ICMPv6")]
    IcmpNeedsProtocol,
    /// A protocol of one family in a rule of the other.
    #[error("{protocol} needs ipVersion {family}")]
    ProtocolOfOtherFamily {
        /// The protocol.
        protocol: model::Protocol,
        /// The family's number.
        family: u8,
    },
    /// Networks of both families in one rule, or of another than the rule's.
    #[error("a rule's networks must be of one family, and of its ipVersion: make it two rules")]
    MixedFamilies,
    /// A rule that can match nothing.
    #[error("{0} is everything, so the rule would match nothing: leave it out, or leave out the rule")]
    NegatedEverything(Prefix),
    /// A value that stands twice in a set.
    #[error("{0:?} stands twice")]
    Twice(String),
    /// A value that only stands together with another field.
    #[error("needs {0}")]
    Needs(&'static str),
    /// A field that has no place here.
    #[error("has no place in {0}")]
    OutOfPlace(&'static str),
    /// A standard tier that isn't as it always is.
    #[error("the tier {tier} always has {expected}")]
    StandardTier {
        /// Its name.
        tier: String,
        /// How it is.
        expected: String,
    },
    /// Not a path that HTTP knows.
    #[error("{0:?} is not a path: expected one that begins with '/', without '?', '#' and blanks")]
    BadHttpPath(String),
    /// Not `NUMBER/UNIT`.
    #[error(
        "{0:?} is not a rate: expected a form such as \"100/second\", up to 9999, by second, minute, hour or day"
    )]
    BadRate(String),
    /// Characters that the field doesn't take.
    #[error("{given:?}: expected {expected}")]
    BadForm {
        /// What it takes.
        expected: &'static str,
        /// What stands there.
        given: String,
    },
    /// Parts that a name is made of, and that are missing or malformed.
    #[error("no name can be made of the fields: give {0}, without '-' at its ends, or give metadata.name")]
    NoName(&'static str),
    /// Two fields that exclude each other.
    #[error("can't be set together with {0}")]
    Exclusive(&'static str),
}

fn unknown_field(given: &str, meant: Option<&str>) -> String {
    match meant {
        Some(meant) => format!("there is no field {given:?} here: is {meant:?} meant?"),
        None => format!("there is no field {given:?} here"),
    }
}
