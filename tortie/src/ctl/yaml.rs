//! YAML as Go's `yaml.v2` writes it after a passage through JSON: keys sorted, lists at the indent of their key, texts quoted where
//! a reader would take them for something else.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::gotext;

/// A document.
pub(super) fn print(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(&mut text, map, 0),
        Value::Array(items) if !items.is_empty() => sequence(&mut text, items, 0),
        other => {
            text.push_str(&scalar(other, 0));
            text.push('\n');
        }
    }
    text
}

fn mapping(text: &mut String, map: &Map<String, Value>, indent: usize) {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by(|(one, _), (other, _)| natural(one, other));
    for (position, (name, value)) in entries.into_iter().enumerate() {
        // The first key of a list's item stands beside its dash.
        if position > 0 || text.is_empty() || text.ends_with('\n') {
            text.push_str(&" ".repeat(indent));
        }
        text.push_str(&string(name, indent));
        text.push(':');
        match value {
            Value::Object(map) if !map.is_empty() => {
                text.push('\n');
                mapping(text, map, indent + 2);
            }
            Value::Array(items) if !items.is_empty() => {
                text.push('\n');
                sequence(text, items, indent);
            }
            other => {
                text.push(' ');
                text.push_str(&scalar(other, indent + 2));
                text.push('\n');
            }
        }
    }
}

fn sequence(text: &mut String, items: &[Value], indent: usize) {
    for (position, item) in items.iter().enumerate() {
        if position > 0 || text.is_empty() || text.ends_with('\n') {
            text.push_str(&" ".repeat(indent));
        }
        text.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => mapping(text, map, indent + 2),
            Value::Array(items) if !items.is_empty() => sequence(text, items, indent + 2),
            other => {
                text.push_str(&scalar(other, indent + 2));
                text.push('\n');
            }
        }
    }
}

fn scalar(value: &Value, indent: usize) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::String(text) => string(text, indent),
        Value::Array(_) => "[]".to_owned(),
        Value::Object(_) => "{}".to_owned(),
        other => gotext::print(other),
    }
}

fn string(text: &str, indent: usize) -> String {
    if text.contains('\n') && !text.starts_with([' ', '\n']) {
        let keep = match (text.ends_with('\n'), text.ends_with("\n\n")) {
            (false, _) => "-",
            (true, true) => "+",
            (true, false) => "",
        };
        let lines = text.trim_end_matches('\n').split('\n');
        let lines: Vec<String> = lines
            .map(|line| if line.is_empty() { String::new() } else { format!("{}{line}", " ".repeat(indent)) })
            .collect();
        let more =
            "\n".repeat(text.len() - text.trim_end_matches('\n').len()).chars().skip(1).collect::<String>();
        return format!("|{keep}\n{}{more}", lines.join("\n"));
    }
    let printable = text.chars().all(|c| !c.is_control() && c != '\u{feff}');
    if !printable || is_another_type(text) {
        return double_quoted(text);
    }
    if may_be_plain(text) { text.to_owned() } else { format!("'{}'", text.replace('\'', "''")) }
}

fn double_quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            other if other.is_control() || other == '\u{feff}' => {
                quoted.push_str(&match u32::from(other) {
                    code @ ..0x100 => format!("\\x{code:02X}"),
                    code => format!("\\u{code:04X}"),
                });
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// Words that YAML 1.1 takes for truth values or nothing.
const WORDS: [&str; 26] = [
    "", "~", "null", "Null", "NULL", "y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "n", "N", "no", "No",
    "NO", "off", "Off", "OFF", ".nan", ".NaN", ".NAN", "<<", "=",
];

/// Would a reader take it for something else than a text?
fn is_another_type(text: &str) -> bool {
    if WORDS.contains(&text) || matches!(text.to_ascii_lowercase().as_str(), "true" | "false") {
        return true;
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return true;
    }
    let Some(first) = unsigned.bytes().next() else { return false };
    if !first.is_ascii_digit() && first != b'.' {
        return false;
    }
    is_number(unsigned) || is_time(text) || is_base_60(unsigned)
}

fn is_number(text: &str) -> bool {
    let digits = text.replace('_', "");
    let radix = |prefix: &str, radix| {
        digits
            .strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix)))
    };
    radix("0x", 16)
        || radix("0b", 2)
        || radix("0o", 8)
        || digits.bytes().any(|b| b.is_ascii_digit())
            && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
            && digits.parse::<f64>().is_ok()
}

/// A date, or a date and a time.
fn is_time(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(3, '-').collect();
    let [year, month, rest] = parts.as_slice() else { return false };
    let digits = |text: &str, most: usize| {
        (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
    };
    let day = rest.split(['T', 't', ' ']).next().unwrap_or_default();
    let time = rest[day.len()..].trim_start_matches(['T', 't', ' ']);
    year.len() == 4
        && digits(year, 4)
        && digits(month, 2)
        && digits(day, 2)
        && (rest.len() == day.len() || time.bytes().filter(|b| *b == b':').count() >= 2)
}

/// `1:30`: sixty times one and thirty (YAML 1.1).
fn is_base_60(text: &str) -> bool {
    let mut parts = text.split(':');
    let whole = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let first = parts.next().is_some_and(whole);
    let mut rest = parts.peekable();
    first
        && rest.peek().is_some()
        && rest.all(|part| {
            let (part, fraction) = part.split_once('.').unwrap_or((part, ""));
            part.len() <= 2
                && whole(part)
                && part.parse::<u8>().is_ok_and(|n| n < 60)
                && fraction.bytes().all(|b| b.is_ascii_digit())
        })
}

/// Can it stand without quotes?
fn may_be_plain(text: &str) -> bool {
    let mut letters = text.chars();
    let (Some(first), second) = (letters.next(), letters.next()) else { return false };
    let breaks = |next: Option<char>| next.is_none_or(char::is_whitespace);
    if "#,[]{}&*!|>'\"%@`".contains(first) || matches!(first, '-' | '?' | ':') && breaks(second) {
        return false;
    }
    let bounded = text.starts_with([' ', '\t']) || text.ends_with([' ', '\t']) || text.ends_with(':');
    !bounded
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.starts_with("---")
        && !text.starts_with("...")
}

/// The order of keys: letters behind all else, runs of digits by their value.
fn natural(one: &str, other: &str) -> Ordering {
    let (a, b): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let Some(i) = a.iter().zip(&b).position(|(a, b)| a != b) else { return a.len().cmp(&b.len()) };
    match (a[i].is_alphabetic(), b[i].is_alphabetic()) {
        (true, true) => return a[i].cmp(&b[i]),
        (false, true) => return Ordering::Less,
        (true, false) => return Ordering::Greater,
        (false, false) => {}
    }
    let run =
        |letters: &[char]| -> String { letters[i..].iter().take_while(|c| c.is_ascii_digit()).collect() };
    let (x, y) = (run(&a), run(&b));
    let value = |digits: &str| digits.parse::<u64>().unwrap_or(if digits.is_empty() { 0 } else { u64::MAX });
    value(&x).cmp(&value(&y)).then(x.len().cmp(&y.len())).then(a[i].cmp(&b[i]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_sorted_and_lists_stand_at_their_keys_indent() {
        let value = json!({
            "kind": "IPPool",
            "apiVersion": "projectcalico.org/v3",
            "spec": { "cidr": "10.0.1.0/24", "allowedUses": ["Workload", "Tunnel"], "nodeSelector": "foo == 'bar'" },
            "items": [{ "b": 1, "a": { "x": [] } }, {}],
            "metadata": { "resourceVersion": "12", "creationTimestamp": "2026-01-01T00:00:00Z" }
        });
        let text = "\
apiVersion: projectcalico.org/v3
items:
- a:
    x: []
  b: 1
- {}
kind: IPPool
metadata:
  creationTimestamp: \"2026-01-01T00:00:00Z\"
  resourceVersion: \"12\"
spec:
  allowedUses:
  - Workload
  - Tunnel
  cidr: 10.0.1.0/24
  nodeSelector: foo == 'bar'
";
        assert_eq!(print(&value), text);
    }

    #[test]
    fn texts_are_quoted_where_they_would_be_read_as_something_else() {
        for (text, printed) in [
            ("", "\"\""),
            ("yes", "\"yes\""),
            ("True", "\"True\""),
            ("1e3", "\"1e3\""),
            ("0x1f", "\"0x1f\""),
            ("1:30", "\"1:30\""),
            ("110:1050", "110:1050"),
            ("2026-01-01", "\"2026-01-01\""),
            ("10.0.0.1", "10.0.0.1"),
            ("all()", "all()"),
            ("!has(a)", "'!has(a)'"),
            ("*", "'*'"),
            ("a: b", "'a: b'"),
            ("fd00::/8", "fd00::/8"),
            ("type=='x'", "type=='x'"),
            ("a\tb", "\"a\\tb\""),
        ] {
            assert_eq!(string(text, 0), printed);
        }
    }

    #[test]
    fn what_is_printed_is_read_back_as_it_was() {
        let texts = [
            "a\nb", "a\nb\n", " lead", "trail ", "- x", "-x", "? x", "it's", "\"q\"", "#c", "a #c", "%d",
            "@x", "012", "1_000", "...", "---x", "null", "~", "=", "é",
        ];
        for text in texts {
            let printed = print(&json!({ "k": text, "l": [text] }));
            let read: serde_json::Value = serde_saphyr::from_str(&printed).expect(&printed);
            assert_eq!(read, json!({ "k": text, "l": [text] }), "{printed}");
        }
    }
}
