//! Go templates over resources, as far as `get -o go-template` needs them: fields by their Go names, `range`, `if`, `with`,
//! variables, pipelines, and the functions that calicoctl and `text/template` have for such data.

mod parse;

use std::cmp::Ordering;

use serde_json::Value;

use super::gotext;

/// A template, read.
#[derive(Debug)]
pub(super) struct Template(Vec<Node>);

#[derive(Debug)]
enum Node {
    Text(String),
    Print(Pipeline),
    If { condition: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    With { value: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    Range { names: Vec<String>, over: Pipeline, each: Vec<Node>, otherwise: Vec<Node> },
}

/// Commands, each with the value before it as its last argument.
#[derive(Debug)]
struct Pipeline {
    /// `$name :=`.
    name: Option<String>,
    commands: Vec<Vec<Operand>>,
}

#[derive(Debug)]
enum Operand {
    /// `.A.B`, from the dot.
    Path(Vec<String>),
    /// `$name.A`; the name is empty for `$` itself.
    Variable(String, Vec<String>),
    Literal(Value),
    /// A function, or `nil`.
    Word(String),
    /// `(…)`, and fields of it.
    Nested(Box<Pipeline>, Vec<String>),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What isn't a template about it.
    pub(super) fn parse(text: &str) -> Result<Template, String> {
        parse::nodes(text).map(Template)
    }

    /// Fills it in. `as_number` answers `config "asnumber"`.
    ///
    /// # Errors
    /// What can't be evaluated.
    pub(super) fn fill(&self, data: &Value, as_number: &dyn Fn() -> String) -> Result<String, String> {
        let mut filler = Filler { root: data, variables: Vec::new(), as_number, text: String::new() };
        filler.nodes(&self.0, data)?;
        Ok(filler.text)
    }
}

struct Filler<'a> {
    root: &'a Value,
    variables: Vec<(String, Value)>,
    as_number: &'a dyn Fn() -> String,
    text: String,
}

impl Filler<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), String> {
        let scope = self.variables.len();
        for node in nodes {
            match node {
                Node::Text(text) => self.text.push_str(text),
                Node::Print(pipeline) => {
                    let value = self.evaluate(pipeline, dot)?;
                    match &pipeline.name {
                        Some(name) => self.variables.push((name.clone(), value)),
                        // What a resource doesn't say is an empty text in Go's structs.
                        None if value.is_null() => {}
                        None => self.text.push_str(&gotext::print(&value)),
                    }
                }
                Node::If { condition, then, otherwise } => {
                    let holds = is_true(&self.evaluate(condition, dot)?);
                    self.nodes(if holds { then } else { otherwise }, dot)?;
                }
                Node::With { value, then, otherwise } => {
                    let value = self.evaluate(value, dot)?;
                    if is_true(&value) { self.nodes(then, &value)? } else { self.nodes(otherwise, dot)? }
                }
                Node::Range { names, over, each, otherwise } => {
                    let over = self.evaluate(over, dot)?;
                    self.range(names, &over, each, otherwise, dot)?;
                }
            }
        }
        self.variables.truncate(scope);
        Ok(())
    }

    fn range(
        &mut self,
        names: &[String],
        over: &Value,
        each: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<(), String> {
        let items: Vec<(Value, &Value)> = match over {
            Value::Array(items) => items.iter().enumerate().map(|(at, item)| (at.into(), item)).collect(),
            Value::Object(map) => map.iter().map(|(name, item)| (name.as_str().into(), item)).collect(),
            Value::Null => Vec::new(),
            other => return Err(format!("template: range can't iterate over {}", gotext::print(other))),
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        for (key, item) in items {
            let scope = self.variables.len();
            match names {
                [name] => self.variables.push((name.clone(), item.clone())),
                [first, second, ..] => {
                    self.variables.push((first.clone(), key));
                    self.variables.push((second.clone(), item.clone()));
                }
                [] => {}
            }
            self.nodes(each, item)?;
            self.variables.truncate(scope);
        }
        Ok(())
    }

    fn evaluate(&self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, last, dot)?);
        }
        Ok(last.unwrap_or_default())
    }

    fn command(&self, command: &[Operand], last: Option<Value>, dot: &Value) -> Result<Value, String> {
        let Some((Operand::Word(function), arguments)) = command.split_first() else {
            return match (command, last) {
                ([one], None) => self.operand(one, dot),
                _ => Err("template: can't give argument to non-function".to_owned()),
            };
        };
        let arguments = arguments.iter().map(|argument| self.operand(argument, dot));
        let mut arguments = arguments.collect::<Result<Vec<Value>, String>>()?;
        arguments.extend(last);
        self.call(function, &arguments)
    }

    fn operand(&self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        match operand {
            Operand::Path(path) => Ok(walk(dot, path)),
            Operand::Variable(name, path) if name.is_empty() => Ok(walk(self.root, path)),
            Operand::Variable(name, path) => {
                let found = self.variables.iter().rev().find(|(variable, _)| variable == name);
                found
                    .map(|(_, value)| walk(value, path))
                    .ok_or(format!("template: undefined variable \"${name}\""))
            }
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Word(word) if word == "nil" => Ok(Value::Null),
            Operand::Word(word) => self.call(word, &[]),
            Operand::Nested(pipeline, path) => Ok(walk(&self.evaluate(pipeline, dot)?, path)),
        }
    }

    fn call(&self, function: &str, arguments: &[Value]) -> Result<Value, String> {
        let text = |at: usize| arguments.get(at).map(gotext::print).unwrap_or_default();
        let compared = || match arguments {
            [a, b] => compare(a, b).ok_or_else(|| "template: incompatible types for comparison".to_owned()),
            _ => Err(format!("template: wrong number of args for {function}")),
        };
        Ok(match (function, arguments) {
            ("eq", [first, others @ ..]) => others.iter().any(|other| same(first, other)).into(),
            ("ne", [a, b]) => (!same(a, b)).into(),
            ("lt", _) => compared()?.is_lt().into(),
            ("le", _) => compared()?.is_le().into(),
            ("gt", _) => compared()?.is_gt().into(),
            ("ge", _) => compared()?.is_ge().into(),
            ("not", [value]) => (!is_true(value)).into(),
            ("and", [.., last]) => arguments.iter().find(|value| !is_true(value)).unwrap_or(last).clone(),
            ("or", [.., last]) => arguments.iter().find(|value| is_true(value)).unwrap_or(last).clone(),
            ("len", [value]) => match value {
                Value::Array(items) => items.len(),
                Value::Object(map) => map.len(),
                Value::String(text) => text.len(),
                _ => 0,
            }
            .into(),
            ("index", [value, keys @ ..]) => keys.iter().fold(value.clone(), |value, key| match key {
                Value::String(name) => value[name.as_str()].clone(),
                key => value[usize::try_from(key.as_u64().unwrap_or(u64::MAX)).unwrap_or(usize::MAX)].clone(),
            }),
            ("join", [items, separator]) => join(items, &gotext::print(separator), 0).into(),
            ("joinAndTruncate", [items, separator, letters]) => {
                let letters = usize::try_from(letters.as_u64().unwrap_or_default()).unwrap_or_default();
                join(items, &gotext::print(separator), letters).into()
            }
            ("config", [_]) if text(0).eq_ignore_ascii_case("asnumber") => (self.as_number)().into(),
            ("print", _) => arguments.iter().map(gotext::print).collect::<String>().into(),
            ("println", _) => {
                (arguments.iter().map(gotext::print).collect::<Vec<_>>().join(" ") + "\n").into()
            }
            ("printf", [_, values @ ..]) => printf(&text(0), values).into(),
            _ => {
                return Err(format!(
                    "template: function {function:?} not defined, or not with these arguments"
                ));
            }
        })
    }
}

/// The verbs that make sense for such values.
fn printf(format: &str, values: &[Value]) -> String {
    let mut text = String::new();
    let mut values = values.iter();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let mut width = String::new();
        let verb = letters.by_ref().find(|c| {
            let part = c.is_ascii_digit() || *c == '-';
            if part {
                width.push(*c);
            }
            !part
        });
        let value = match verb {
            Some('%') | None => "%".to_owned(),
            Some('q') => format!("{:?}", values.next().map(gotext::print).unwrap_or_default()),
            Some(_) => values.next().map(gotext::print).unwrap_or_default(),
        };
        let columns = width.trim_start_matches('-').parse().unwrap_or(0).min(1000_usize);
        text.push_str(&if width.starts_with('-') {
            format!("{value:<columns$}")
        } else {
            format!("{value:>columns$}")
        });
    }
    text
}

/// A field by its Go name: names differ from those in JSON by case, and metadata's own stand in the resource, too.
fn walk(value: &Value, path: &[String]) -> Value {
    let mut value = value;
    for name in path {
        let Value::Object(map) = value else { return Value::Null };
        let named = |name: &str| {
            map.get(name)
                .or_else(|| map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v))
        };
        let found = match name.as_str() {
            "ObjectMeta" | "ListMeta" => map.get("metadata"),
            "TypeMeta" => Some(value),
            "NATOutgoing" => named("natOutgoing"),
            name => named(name),
        };
        let promoted = || {
            map.get("metadata").and_then(|metadata| {
                metadata
                    .as_object()?
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value)
            })
        };
        match found.or_else(promoted) {
            Some(found) => value = found,
            None => return Value::Null,
        }
    }
    value.clone()
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(_) => true,
    }
}

/// Nothing and an empty text are the same in a field that Go has as a text.
fn same(a: &Value, b: &Value) -> bool {
    let empty = |value: &Value| value.is_null() || value.as_str() == Some("");
    a == b || empty(a) && empty(b) || compare(a, b) == Some(Ordering::Equal)
}

fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

/// A list's items or a map's `key=value`s, joined; cut to so many letters where that isn't 0.
pub(super) fn join(items: &Value, separator: &str, letters: usize) -> String {
    let texts: Vec<String> = match items {
        Value::Null => return String::new(),
        Value::Object(map) => {
            let mut pairs: Vec<String> =
                map.iter().map(|(name, value)| format!("{name}={}", gotext::print(value))).collect();
            pairs.sort();
            pairs
        }
        Value::Array(items) => items.iter().map(gotext::print).collect(),
        other => vec![gotext::print(other)],
    };
    let text = texts.join(separator);
    if letters == 0 { text } else { super::columns::cut(&text, letters) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filled(template: &str) -> Result<String, String> {
        let data = json!([{
            "kind": "IPPoolList",
            "metadata": { "resourceVersion": "7" },
            "items": [
                { "metadata": { "name": "a", "labels": { "x": "1" } }, "spec": { "cidr": "10.1.0.0/16", "blockSize": 26,
                  "allowedUses": ["Workload", "Tunnel"], "natOutgoing": true } },
                { "metadata": { "name": "b" }, "spec": { "cidr": "fd00::/48", "blockSize": 122 } }
            ]
        }]);
        Template::parse(template)?.fill(&data, &|| "64512".to_owned())
    }

    #[test]
    fn fields_go_by_their_go_names() {
        let template =
            "{{range .}}{{range .Items}}{{.ObjectMeta.Name}} {{.Name}} {{.Spec.CIDR}};{{end}}{{end}}";
        assert_eq!(filled(template).unwrap(), "a a 10.1.0.0/16;b b fd00::/48;");
    }

    #[test]
    fn conditions_variables_and_functions_are_evaluated() {
        for (template, text) in [
            (
                "{{range .}}{{range .Items}}{{if .Spec.NATOutgoing}}nat{{else}}-{{end}} {{end}}{{end}}",
                "nat - ",
            ),
            ("{{range .}}{{range $i, $p := .Items}}{{$i}}={{$p.Name}} {{end}}{{end}}", "0=a 1=b "),
            (
                "{{range .}}{{range .Items}}{{join .Spec.AllowedUses \",\"}}|{{end}}{{end}}",
                "Workload,Tunnel||",
            ),
            ("{{(index . 0).Kind}} {{len (index . 0).Items}}", "IPPoolList 2"),
            ("{{range .}}{{range .Items}}{{if eq .Name `b`}}{{.Spec.BlockSize}}{{end}}{{end}}{{end}}", "122"),
            ("{{config \"asnumber\"}}", "64512"),
            ("a {{- /* nothing */ -}} b", "ab"),
            ("{{range .}}{{with .Items}}{{. | len}}{{end}}{{end}}", "2"),
            ("{{printf \"%s-%5v|%-4d|\" \"x\" 1 2}}", "x-    1|2   |"),
            ("{{if and true (gt 2 1)}}yes{{else if true}}no{{end}}", "yes"),
        ] {
            assert_eq!(filled(template).as_deref(), Ok(text), "{template}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for template in
            ["{{", "{{if .}}", "{{end}}", "{{nosuch .}}", "{{range .}}{{else}}", "{{\"a}}", "{{$x}}"]
        {
            assert!(filled(template).is_err(), "{template}");
        }
    }
}
