//! Values as Go's `fmt` prints them with `%v`.

use serde_json::Value;

/// A value's text; what isn't there is `<nil>`.
pub(super) fn print(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number
            .as_i64()
            .map_or_else(|| float(number.as_f64().unwrap_or_default()), |whole| whole.to_string()),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(print).collect::<Vec<_>>().join(" ")),
        // A struct's fields in their order, a map's sorted ones: both come in that order.
        Value::Object(map) => format!("{{{}}}", map.values().map(print).collect::<Vec<_>>().join(" ")),
    }
}

/// A `float64`: the fewest digits that tell it from others, with an exponent from a million on (`strconv`'s `'g'`).
pub(super) fn float(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value == 0.0 { "0".to_owned() } else { format!("{value:+}") };
    }
    let shortest = format!("{value:e}");
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_have_as_many_digits_as_it_takes() {
        for (value, text) in
            [(100.0, "100"), (0.5, "0.5"), (1e6, "1e+06"), (6543215.5, "6.5432155e+06"), (1e-5, "1e-05")]
        {
            assert_eq!(float(value), text);
        }
    }
}
