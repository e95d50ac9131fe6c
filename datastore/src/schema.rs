//! Calico's resources as its Go types lay them out: which fields there are, in which order, of which type, and when
//! one is left out (`api/pkg/apis/projectcalico/v3`, `libcalico-go/lib/apis/internalapi`).
//!
//! What is stored has to equal, field by field, what Calico's own client would store, and a field that Calico doesn't know is
//! refused with the words of Go's decoder. Both follow from these tables. `decode` holds a tree to them.

mod decode;
mod felix;
mod kinds;
mod metadata;
mod policy;
mod scalar;
mod shape;
mod spelling;

pub(crate) use decode::{DecodeError, decode};
pub(crate) use felix::SPEC as FELIX_CONFIGURATION;
pub(crate) use scalar::nanoseconds;
pub(crate) use shape::{check, check_names};
pub(crate) use spelling::spell;

/// A struct of Go's.
#[derive(Debug)]
pub(crate) struct Struct {
    /// Its Go name, as errors give it.
    pub(crate) name: &'static str,
    /// Its fields in their order.
    pub(crate) members: &'static [Member],
}

/// A field of a struct.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub(crate) name: &'static str,
    pub(crate) ty: Type,
    pub(crate) presence: Presence,
}

/// When a field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Where it isn't zero: `omitempty` or `omitzero`.
    Filled,
    /// Where it was given, zero or not: a pointer with `omitempty`.
    Given,
    /// Always.
    Always,
}

/// A field's type.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Type {
    /// `string`.
    Text,
    /// `bool`.
    Bool,
    /// A whole number.
    Int(Int),
    /// `float64`.
    Float,
    /// `metav1.Duration`: a text that is written again as Go prints durations.
    Duration,
    /// `metav1.Time` (RFC 3339).
    Time,
    /// `numorstring.ASNumber`.
    AsNumber,
    /// `numorstring.Port`.
    Port,
    /// `numorstring.Protocol`.
    Protocol,
    /// A number from 0 to 255 or a text: `numorstring.DSCP`.
    Dscp,
    /// `intstr.IntOrString`.
    IntOrText,
    /// A slice.
    List(&'static Type),
    /// A map of texts.
    Texts,
    /// A struct.
    Struct(&'static Struct),
    /// Whatever stands there: `metav1.FieldsV1`.
    Any,
}

/// A width of whole numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Int {
    pub(crate) name: &'static str,
    pub(crate) min: i64,
    pub(crate) max: i64,
}

pub(crate) const INT: Int = Int { name: "int", min: i64::MIN, max: i64::MAX };
const INT64: Int = Int { name: "int64", min: i64::MIN, max: i64::MAX };
const INT32: Int = Int { name: "int32", min: i32::MIN as i64, max: i32::MAX as i64 };
const UINT32: Int = Int { name: "uint32", min: 0, max: u32::MAX as i64 };
const UINT16: Int = Int { name: "uint16", min: 0, max: u16::MAX as i64 };
const UINT8: Int = Int { name: "uint8", min: 0, max: u8::MAX as i64 };

const TEXTS: Type = Type::List(&Type::Text);

/// A field that is left out where it is zero.
const fn filled(name: &'static str, ty: Type) -> Member {
    Member { name, ty, presence: Presence::Filled }
}

/// A field that is left out where it wasn't given.
const fn given(name: &'static str, ty: Type) -> Member {
    Member { name, ty, presence: Presence::Given }
}

/// A field that is always written.
const fn always(name: &'static str, ty: Type) -> Member {
    Member { name, ty, presence: Presence::Always }
}

const fn text(name: &'static str) -> Member {
    filled(name, Type::Text)
}

const fn texts(name: &'static str) -> Member {
    filled(name, TEXTS)
}

const fn flag(name: &'static str) -> Member {
    filled(name, Type::Bool)
}

/// `*bool`.
const fn choice(name: &'static str) -> Member {
    given(name, Type::Bool)
}

/// `*int`.
const fn number(name: &'static str) -> Member {
    given(name, Type::Int(INT))
}

/// `*metav1.Duration`.
const fn duration(name: &'static str) -> Member {
    given(name, Type::Duration)
}

pub(crate) use kinds::of;
