//! Between trees that know their places and plain JSON.

use serde_json::{Number, Value as Json};

use crate::document::{Content, Value};

impl Value {
    /// The tree of a JSON value; it has no places.
    pub(crate) fn of_json(json: &Json) -> Value {
        let content = match json {
            Json::Null => Content::Null,
            Json::Bool(flag) => Content::Bool(*flag),
            Json::Number(number) => number
                .as_i64()
                .map_or_else(|| Content::Fraction(number.as_f64().unwrap_or(f64::NAN)), Content::Int),
            Json::String(text) => Content::Text(text.clone()),
            Json::Array(items) => Content::List(items.iter().map(Value::of_json).collect()),
            Json::Object(map) => {
                Content::Map(map.iter().map(|(name, value)| (name.clone(), Value::of_json(value))).collect())
            }
        };
        Value { content, position: None }
    }

    /// The same as JSON, where what isn't a number of JSON's is nothing.
    pub(crate) fn to_json(&self) -> Json {
        match &self.content {
            Content::Null => Json::Null,
            Content::Bool(flag) => Json::Bool(*flag),
            Content::Int(number) => Json::from(*number),
            Content::Fraction(number) => Number::from_f64(*number).map_or(Json::Null, Json::Number),
            Content::Text(text) => Json::String(text.clone()),
            Content::List(values) => values.iter().map(Value::to_json).collect(),
            Content::Map(entries) => {
                Json::Object(entries.iter().map(|(name, value)| (name.clone(), value.to_json())).collect())
            }
        }
    }
}
