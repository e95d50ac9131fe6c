//! JSON as Go's `json.MarshalIndent` writes it.

use serde_json::Value;

/// Two blanks a level; what HTML would take for its own is escaped.
pub(super) fn print(value: &Value) -> String {
    let text = format!("{value:#}");
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            // These stand in texts alone.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(letter)));
            }
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_html_takes_for_its_own_is_escaped() {
        let value = json!({ "selector": "a == 'b' && !has(c)", "list": [], "map": {} });
        let text =
            "{\n  \"selector\": \"a == 'b' \\u0026\\u0026 !has(c)\",\n  \"list\": [],\n  \"map\": {}\n}";
        assert_eq!(print(&value), text);
    }
}
