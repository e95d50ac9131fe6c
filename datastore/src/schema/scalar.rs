//! Values that Go decodes by code of their own: durations, ports, AS numbers, protocols.

use serde_json::Value;

use crate::validate::digits;

/// What their decoders say.
pub(super) enum Refusal {
    /// That it isn't of this Go type.
    Type(&'static str),
    /// Words of their own.
    Text(String),
}

/// Nanoseconds of Go's units.
const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// `time.ParseDuration`, and back as `Duration.String` prints it.
pub(super) fn duration(value: &Value) -> Result<Value, Refusal> {
    let Value::String(text) = value else { return Err(Refusal::Type("string")) };
    nanoseconds(text)
        .map(|nanoseconds| Value::String(print_duration(nanoseconds)))
        .ok_or_else(|| Refusal::Text(format!("time: invalid duration {text:?}")))
}

/// Those of `time.ParseDuration`, where it takes the text.
pub(crate) fn nanoseconds(text: &str) -> Option<i128> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_i128;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let (_, scale) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let mut part = whole.checked_mul(scale)?;
        let mut place = scale;
        for digit in fraction.bytes() {
            place /= 10;
            part += i128::from(digit - b'0') * place;
        }
        total = total.checked_add(part)?;
        rest = next;
    }
    let total = sign * total;
    i64::try_from(total).is_ok().then_some(total)
}

fn print_duration(nanoseconds: i128) -> String {
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let all = nanoseconds.unsigned_abs();
    let decimal = |unit: u128| {
        let fraction = format!("{:0width$}", all % unit, width = unit.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        format!("{}{point}{fraction}", all / unit)
    };
    match all {
        0..1_000 => format!("{sign}{all}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", decimal(1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", decimal(1_000_000)),
        _ => {
            let whole = all / 1_000_000_000;
            let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
            let fraction = format!("{:09}", all % 1_000_000_000);
            let fraction = fraction.trim_end_matches('0');
            let point = if fraction.is_empty() { "" } else { "." };
            let seconds = format!("{seconds}{point}{fraction}s");
            match (hours, minutes) {
                (0, 0) => format!("{sign}{seconds}"),
                (0, _) => format!("{sign}{minutes}m{seconds}"),
                _ => format!("{sign}{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

/// A number, or a text of one, or two joined by a dot (RFC 5396 §2).
pub(super) fn as_number(value: &Value) -> Result<Value, Refusal> {
    if let Some(number) = value.as_u64().and_then(|number| u32::try_from(number).ok()) {
        return Ok(number.into());
    }
    let Value::String(text) = value else { return Err(Refusal::Type("string")) };
    let bad = || Refusal::Text(format!("invalid AS Number format ({text})"));
    match text.split_once('.') {
        Some((high, low)) => {
            let part = |text: &str| digits::<u16>(text).ok_or_else(bad);
            Ok((u32::from(part(high)?) << 16 | u32::from(part(low)?)).into())
        }
        None => digits::<u32>(text).map(Value::from).ok_or_else(bad),
    }
}

/// A number, `first:last`, or a name.
pub(super) fn port(value: &Value) -> Result<Value, Refusal> {
    let Value::String(text) = value else {
        let number = value.as_u64().and_then(|number| u16::try_from(number).ok());
        return number.map(Value::from).ok_or(Refusal::Type("uint16"));
    };
    if text.is_empty() {
        return Err(Refusal::Text("invalid port name ()".to_owned()));
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits(text) {
        let number = text.parse::<u16>();
        return number.map(Value::from).map_err(|_| Refusal::Text(format!("invalid port number ({text})")));
    }
    if let Some((first, last)) = text.split_once(':')
        && digits(first)
        && digits(last)
    {
        let which =
            |which| move |_| Refusal::Text(format!("invalid {which} port number in range ({first}:{last})"));
        let first: u16 = first.parse().map_err(which("minimum"))?;
        let last: u16 = last.parse().map_err(which("maximum"))?;
        if first > last {
            return Err(Refusal::Text(format!(
                "minimum port number ({first}) is greater than maximum port number ({last}) in port range"
            )));
        }
        return Ok(if first == last { first.into() } else { format!("{first}:{last}").into() });
    }
    Ok(Value::String(text.clone()))
}

/// A number from 0 to 255, or a name.
pub(super) fn byte_or_text(value: &Value) -> Result<Value, Refusal> {
    match value {
        Value::String(text) => Ok(digits::<u8>(text).map_or_else(|| text.as_str().into(), Value::from)),
        _ => {
            let number = value.as_u64().and_then(|number| u8::try_from(number).ok());
            number.map(Value::from).ok_or(Refusal::Type("uint8"))
        }
    }
}

/// A number of 32 bits, or a text.
pub(super) fn int_or_text(value: &Value) -> Result<Value, Refusal> {
    let fits = value.as_i64().is_some_and(|number| i32::try_from(number).is_ok());
    if fits || value.is_string() { Ok(value.clone()) } else { Err(Refusal::Type("int32")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_are_written_again_as_go_prints_them() {
        for (given, printed) in [
            ("125s", "2m5s"),
            ("9910s", "2h45m10s"),
            ("500ms", "500ms"),
            ("1.5h", "1h30m0s"),
            ("0", "0s"),
            ("1500us", "1.5ms"),
            ("100ns", "100ns"),
            ("1.25s", "1.25s"),
            ("-90s", "-1m30s"),
        ] {
            assert_eq!(duration(&json!(given)).ok(), Some(json!(printed)), "{given}");
        }
        for given in ["", "10", "s", "1d", "1..5s", "9999999999999999999999h"] {
            assert!(duration(&json!(given)).is_err(), "{given}");
        }
    }

    #[test]
    fn ports_are_numbers_ranges_or_names() {
        for (given, taken) in [
            (json!(80), json!(80)),
            (json!("80"), json!(80)),
            (json!("10:20"), json!("10:20")),
            (json!("5:5"), json!(5)),
            (json!("0:65535"), json!("0:65535")),
            (json!("http"), json!("http")),
        ] {
            assert_eq!(port(&given).ok(), Some(taken));
        }
        for given in [json!(65536), json!("1:65536"), json!("20:10"), json!(""), json!(true)] {
            assert!(port(&given).is_err(), "{given}");
        }
    }
}
