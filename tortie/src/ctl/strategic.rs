//! Patches: strategic merge as Kubernetes has it, JSON merge (RFC 7386) and JSON patch (RFC 6902).

use serde_json::{Map, Value};

/// Merges as RFC 7386 says; Calico's types have no lists that a strategic merge would join, so that only its directive
/// `$patch` (`replace`, `delete`) makes a difference.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    match patch.get("$patch").and_then(Value::as_str) {
        Some("delete") => {
            *target = Value::Object(Map::new());
            return;
        }
        Some("replace") => *target = Value::Object(Map::new()),
        _ => {}
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else { return };
    for (name, value) in patch.iter().filter(|(name, _)| *name != "$patch") {
        if value.is_null() {
            map.shift_remove(name);
        } else {
            merge(map.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Applies the operations in their order.
///
/// # Errors
/// The first that can't be applied.
pub(super) fn operations(target: &mut Value, patch: &Value) -> Result<(), String> {
    let Value::Array(operations) = patch else {
        return Err("a JSON patch is a list of operations".to_owned());
    };
    for operation in operations {
        let text = |field: &str| operation[field].as_str().unwrap_or_default();
        let (op, path) = (text("op"), text("path"));
        match op {
            "add" => add(target, path, operation["value"].clone())?,
            "remove" => drop(remove(target, path)?),
            "replace" => {
                remove(target, path)?;
                add(target, path, operation["value"].clone())?;
            }
            "move" => {
                let value = remove(target, text("from"))?;
                add(target, path, value)?;
            }
            "copy" => {
                let value = target.pointer(text("from")).cloned().ok_or_else(|| missing(text("from")))?;
                add(target, path, value)?;
            }
            "test" if target.pointer(path) == Some(&operation["value"]) => {}
            "test" => return Err(format!("test failed at {path}")),
            other => return Err(format!("unknown operation {other:?}")),
        }
    }
    Ok(())
}

fn missing(path: &str) -> String {
    format!("there is nothing at {path:?}")
}

/// The place's parent, and its name there.
fn split(path: &str) -> Result<(&str, String), String> {
    let (parent, name) = path.rsplit_once('/').ok_or_else(|| missing(path))?;
    Ok((parent, name.replace("~1", "/").replace("~0", "~")))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), String> {
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    let (parent, name) = split(path)?;
    match target.pointer_mut(parent) {
        Some(Value::Object(map)) => drop(map.insert(name, value)),
        Some(Value::Array(items)) => {
            let at = if name == "-" { items.len() } else { name.parse().map_err(|_| missing(path))? };
            if at > items.len() {
                return Err(missing(path));
            }
            items.insert(at, value);
        }
        _ => return Err(missing(path)),
    }
    Ok(())
}

fn remove(target: &mut Value, path: &str) -> Result<Value, String> {
    let (parent, name) = split(path)?;
    let removed = match target.pointer_mut(parent) {
        Some(Value::Object(map)) => map.shift_remove(&name),
        Some(Value::Array(items)) => {
            name.parse::<usize>().ok().filter(|at| *at < items.len()).map(|at| items.remove(at))
        }
        _ => None,
    };
    removed.ok_or_else(|| missing(path))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_merge_keeps_what_it_does_not_name_and_removes_what_is_null() {
        let mut target = json!({ "a": { "b": 1, "c": 2 }, "l": [1, 2] });
        merge(&mut target, &json!({ "a": { "b": null, "d": 3 }, "l": [9] }));
        assert_eq!(target, json!({ "a": { "c": 2, "d": 3 }, "l": [9] }));
        merge(&mut target, &json!({ "a": { "$patch": "replace", "x": 1 } }));
        assert_eq!(target["a"], json!({ "x": 1 }));
    }

    #[test]
    fn operations_are_applied_in_their_order() {
        let mut target = json!({ "spec": { "l": [1, 3] }, "a/b": 1 });
        let patch = json!([
            { "op": "test", "path": "/spec/l/0", "value": 1 },
            { "op": "add", "path": "/spec/l/1", "value": 2 },
            { "op": "add", "path": "/spec/l/-", "value": 4 },
            { "op": "move", "from": "/a~1b", "path": "/c" },
            { "op": "copy", "from": "/c", "path": "/d" },
            { "op": "replace", "path": "/d", "value": 7 },
        ]);
        operations(&mut target, &patch).unwrap();
        assert_eq!(target, json!({ "spec": { "l": [1, 2, 3, 4] }, "c": 1, "d": 7 }));
        for bad in [
            json!({}),
            json!([{ "op": "remove", "path": "/nothing" }]),
            json!([{ "op": "test", "path": "/c", "value": 2 }]),
            json!([{ "op": "add", "path": "/spec/l/99", "value": 2 }]),
            json!([{ "op": "fly", "path": "/c" }]),
        ] {
            assert!(operations(&mut target, &bad).is_err(), "{bad}");
        }
    }
}
