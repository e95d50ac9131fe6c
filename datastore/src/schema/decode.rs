//! A tree, held to a struct: unknown fields and wrong types are refused in the words of Go's `encoding/json`, which
//! operators know from calicoctl; what remains is written in the struct's own order.

use serde_json::{Map, Value};

use super::scalar::{self, Refusal};
use super::{Int, Member, Presence, Struct, Type};

/// Why a tree isn't one of the struct.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// A field that the struct doesn't have.
    #[error("json: unknown field {0:?}")]
    UnknownField(String),
    /// A value of another type.
    #[error("json: cannot unmarshal {found} into Go {place} of type {expected}")]
    WrongType {
        /// What stands there, in JSON's terms.
        found: String,
        /// `struct field BGPPeerSpec.spec.asNumber`, or `value`.
        place: String,
        /// The Go type.
        expected: String,
    },
    /// A value that its own decoder refused.
    #[error("{0}")]
    Value(String),
}

/// Decodes the value of a struct.
///
/// # Errors
/// What Go's decoder would say. Like it, this gives up at the first value that its own decoder refuses, and reads on past other
/// errors, of which the first is then given; fields come in the order of their names, as they do once YAML has become JSON.
pub(crate) fn decode(of: &'static Struct, value: &Value) -> Result<Value, DecodeError> {
    let mut decoder = Decoder { saved: None };
    let map = decoder.structure(of, value, &At { owner: of.name, path: String::new() })?;
    match decoder.saved {
        Some(error) => Err(error),
        None => Ok(Value::Object(map.unwrap_or_default())),
    }
}

/// Where a value stands: in which struct, and under which names from the top.
struct At<'a> {
    owner: &'a str,
    path: String,
}

impl At<'_> {
    fn wrong_type(&self, value: &Value, expected: &str) -> DecodeError {
        let place = if self.path.is_empty() {
            "value".to_owned()
        } else {
            format!("struct field {}.{}", self.owner, self.path)
        };
        DecodeError::WrongType { found: found(value, expected), place, expected: expected.to_owned() }
    }
}

/// A JSON type. A number that doesn't fit among numbers is given, too.
fn found(value: &Value, expected: &str) -> String {
    let numeric = ["int", "uint", "float"].iter().any(|kind| expected.starts_with(kind));
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(number) if numeric => format!("number {number}"),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
}

struct Decoder {
    /// The first error that was read past.
    saved: Option<DecodeError>,
}

impl Decoder {
    /// Notes an error and goes on without the value.
    fn save<T>(&mut self, error: DecodeError) -> Option<T> {
        self.saved.get_or_insert(error);
        None
    }

    fn structure(
        &mut self,
        of: &'static Struct,
        value: &Value,
        at: &At<'_>,
    ) -> Result<Option<Map<String, Value>>, DecodeError> {
        let given = match value {
            Value::Object(given) => given,
            Value::Null => return Ok(None),
            _ => return Ok(self.save(at.wrong_type(value, &format!("v3.{}", of.name)))),
        };
        let mut entries: Vec<_> = given.iter().collect();
        entries.sort_by_key(|(name, _)| *name);
        let mut values = vec![None; of.members.len()];
        for (name, value) in entries {
            let Some(place) = of.members.iter().position(|member| member.name.eq_ignore_ascii_case(name))
            else {
                self.saved.get_or_insert(DecodeError::UnknownField(name.clone()));
                continue;
            };
            let member = &of.members[place];
            let path = if at.path.is_empty() {
                member.name.to_owned()
            } else {
                format!("{}.{}", at.path, member.name)
            };
            if !value.is_null() {
                values[place] = self.typed(member.ty, value, &At { owner: of.name, path })?;
            }
        }
        let written = |(member, value): (&Member, Option<Value>)| {
            let value = match member.presence {
                Presence::Given => value?,
                Presence::Filled => value.filter(|value| !is_zero(value))?,
                Presence::Always => value.unwrap_or_else(|| zero(member.ty)),
            };
            Some((member.name.to_owned(), value))
        };
        Ok(Some(of.members.iter().zip(values).filter_map(written).collect()))
    }

    fn typed(&mut self, ty: Type, value: &Value, at: &At<'_>) -> Result<Option<Value>, DecodeError> {
        let plain = match ty {
            Type::Text | Type::Time => value.is_string().then(|| value.clone()),
            Type::Bool => value.is_boolean().then(|| value.clone()),
            Type::Float => value.is_number().then(|| short(value)),
            Type::Int(int) => whole(int, value),
            Type::Texts => texts(value),
            Type::Any => Some(value.clone()),
            Type::Duration => return own(scalar::duration(value), value, at),
            Type::AsNumber => return own(scalar::as_number(value), value, at),
            Type::Port => return own(scalar::port(value), value, at),
            Type::Protocol | Type::Dscp => return own(scalar::byte_or_text(value), value, at),
            Type::IntOrText => return own(scalar::int_or_text(value), value, at),
            Type::Struct(of) => return Ok(self.structure(of, value, at)?.map(Value::Object)),
            Type::List(item) => match value {
                Value::Array(items) => Some(self.items(*item, items, at)?),
                _ => None,
            },
        };
        Ok(plain.or_else(|| self.save(at.wrong_type(value, &name(ty)))))
    }

    fn items(&mut self, ty: Type, items: &[Value], at: &At<'_>) -> Result<Value, DecodeError> {
        let mut decoded = Vec::with_capacity(items.len());
        for value in items {
            let value = if value.is_null() { None } else { self.typed(ty, value, at)? };
            decoded.push(value.unwrap_or_else(|| zero(ty)));
        }
        Ok(Value::Array(decoded))
    }
}

/// What a decoder of its own made of the value.
fn own(result: Result<Value, Refusal>, value: &Value, at: &At<'_>) -> Result<Option<Value>, DecodeError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Refusal::Type(expected)) => Err(at.wrong_type(value, expected)),
        Err(Refusal::Text(text)) => Err(DecodeError::Value(text)),
    }
}

fn whole(int: Int, value: &Value) -> Option<Value> {
    let number = match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let number = number.as_f64()?;
            // YAML's `1e3` is 1000 to Go's decoder of YAML, too.
            (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
        })?,
        _ => return None,
    };
    (int.min..=int.max).contains(&number).then(|| number.into())
}

/// A map of texts: in the order of its keys, as Go writes maps.
fn texts(value: &Value) -> Option<Value> {
    let mut entries: Vec<_> = value.as_object()?.iter().collect();
    entries.sort_by_key(|(name, _)| *name);
    let text = |(name, value): (&String, &Value)| match value {
        Value::String(_) => Some((name.clone(), value.clone())),
        Value::Null => Some((name.clone(), "".into())),
        _ => None,
    };
    entries.into_iter().map(text).collect::<Option<Map<_, _>>>().map(Value::Object)
}

fn name(ty: Type) -> String {
    match ty {
        Type::Text | Type::Duration | Type::Time => "string".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Float => "float64".to_owned(),
        Type::Int(int) => int.name.to_owned(),
        Type::AsNumber => "numorstring.ASNumber".to_owned(),
        Type::Port => "numorstring.Port".to_owned(),
        Type::Protocol => "numorstring.Protocol".to_owned(),
        Type::Dscp => "numorstring.DSCP".to_owned(),
        Type::IntOrText => "intstr.IntOrString".to_owned(),
        Type::Texts => "map[string]string".to_owned(),
        Type::List(item) => format!("[]{}", name(*item)),
        Type::Struct(of) => format!("v3.{}", of.name),
        Type::Any => "interface {}".to_owned(),
    }
}

fn zero(ty: Type) -> Value {
    match ty {
        Type::Text | Type::Protocol | Type::Dscp => "".into(),
        Type::Bool => false.into(),
        Type::Int(_) | Type::Float | Type::AsNumber | Type::Port | Type::IntOrText => 0.into(),
        Type::Duration => "0s".into(),
        Type::Time | Type::List(_) | Type::Texts | Type::Any => Value::Null,
        Type::Struct(of) => {
            let always = of.members.iter().filter(|member| member.presence == Presence::Always);
            Value::Object(always.map(|member| (member.name.to_owned(), zero(member.ty))).collect())
        }
    }
}

/// Is it what Go leaves out? A struct is where all that it holds is.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// A number as Go writes it: 100, and not 100.0.
fn short(number: &Value) -> Value {
    /// Above it Go writes an exponent, and a double no longer holds every whole number.
    const WHOLE: f64 = 9_007_199_254_740_992.0;
    match number.as_f64() {
        Some(value) if value.fract() == 0.0 && value.abs() < WHOLE => (value as i64).into(),
        _ => number.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ResourceKind;
    use crate::schema::of;

    fn spec(kind: ResourceKind, spec: &Value) -> Result<Value, String> {
        decode(of(kind), &json!({"spec": spec}))
            .map(|value| value["spec"].clone())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_stored_has_gos_order_and_leaves_out_what_go_leaves_out() {
        let given = json!({
            "nodeSelector": "all()", "disabled": false, "ipipMode": "CrossSubnet", "CIDR": "10.1.0.0/16",
            "natOutgoing": true, "allowedUses": [], "vxlanMode": ""
        });
        let stored = spec(ResourceKind::IpPool, &given).unwrap();
        let expected =
            r#"{"cidr":"10.1.0.0/16","ipipMode":"CrossSubnet","natOutgoing":true,"nodeSelector":"all()"}"#;
        assert_eq!(stored.to_string(), expected);
    }

    #[test]
    fn a_pointer_is_kept_where_it_was_given_and_a_plain_field_where_it_is_not_zero() {
        let given = json!({"ipv6Support": false, "interfacePrefix": "", "failsafeInboundHostPorts": []});
        let stored = spec(ResourceKind::FelixConfiguration, &given).unwrap();
        assert_eq!(stored, json!({"ipv6Support": false, "failsafeInboundHostPorts": []}));
    }

    #[test]
    fn wrong_fields_and_types_are_refused_in_gos_words() {
        for (kind, given, words) in [
            (ResourceKind::BgpPeer, json!({"unknown": "thing"}), "json: unknown field \"unknown\""),
            (
                ResourceKind::BgpPeer,
                json!({"asNumber": 4_294_967_296_u64, "above": "it"}),
                "json: cannot unmarshal number into Go struct field BGPPeerSpec.spec.asNumber of type string",
            ),
            (
                ResourceKind::IpPool,
                json!({"disabled": "True"}),
                "json: cannot unmarshal string into Go struct field IPPoolSpec.spec.disabled of type bool",
            ),
            (
                ResourceKind::NetworkPolicy,
                json!({"Egress": [{"action": "Deny", "source": {"ports": [10, 65536]}}]}),
                "json: cannot unmarshal number 65536 into Go struct field EntityRule.spec.egress.source.ports of type \
                 uint16",
            ),
            (
                ResourceKind::NetworkPolicy,
                json!({"Egress": [{"source": {"ports": ["1:65536"]}}]}),
                "invalid maximum port number in range (1:65536)",
            ),
            (
                ResourceKind::NetworkPolicy,
                json!({"Egress": [{"source": {"ports": ["65535:1"]}}]}),
                "minimum port number (65535) is greater than maximum port number (1) in port range",
            ),
        ] {
            assert_eq!(spec(kind, &given), Err(words.to_owned()));
        }
    }
}
