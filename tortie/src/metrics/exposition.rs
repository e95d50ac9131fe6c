//! A strict reader of Prometheus' text format 0.0.4, for tests: what Prometheus would refuse, it refuses.
//!
//! https://prometheus.io/docs/instrumenting/exposition_formats/

use std::collections::{BTreeMap, BTreeSet};

/// One metric family as read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Family {
    pub(crate) help: String,
    pub(crate) kind: String,
    /// By the text between the braces.
    pub(crate) samples: BTreeMap<String, f64>,
}

/// Reads a page, or says which line is wrong.
pub(crate) fn read(page: &str) -> Result<BTreeMap<String, Family>, String> {
    if !page.is_empty() && !page.ends_with('\n') {
        return Err("the last line must end in a line feed".to_owned());
    }
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut closed: BTreeSet<String> = BTreeSet::new();
    let mut current = String::new();
    for line in page.lines() {
        let name = line_family(line)?;
        if name != current {
            if !current.is_empty() {
                closed.insert(std::mem::replace(&mut current, name.clone()));
            }
            if closed.contains(&name) {
                return Err(format!("{name} is split: {line}"));
            }
            current.clone_from(&name);
        }
        let family = families.entry(name.clone()).or_default();
        read_line(family, &name, line)?;
    }
    for (name, family) in &families {
        if family.help.is_empty() || family.kind.is_empty() || family.samples.is_empty() {
            return Err(format!("{name} lacks HELP, TYPE or samples"));
        }
        if (family.kind == "counter") != name.ends_with("_total") {
            return Err(format!("{name} is a {}: counters, and only they, end in _total", family.kind));
        }
    }
    Ok(families)
}

fn line_family(line: &str) -> Result<String, String> {
    let rest = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE ")).unwrap_or(line);
    let name: String = rest.chars().take_while(|c| !" {".contains(*c)).collect();
    let good = |(index, c): (usize, char)| {
        c == '_' || c == ':' || c.is_ascii_alphabetic() || (index > 0 && c.is_ascii_digit())
    };
    if name.is_empty() || !name.chars().enumerate().all(good) {
        return Err(format!("not a metric name: {line}"));
    }
    Ok(name)
}

fn read_line(family: &mut Family, name: &str, line: &str) -> Result<(), String> {
    if let Some(rest) = line.strip_prefix("# HELP ") {
        if !family.help.is_empty() || !family.kind.is_empty() {
            return Err(format!("HELP comes once and first: {line}"));
        }
        family.help = rest[name.len()..].trim_start().to_owned();
    } else if let Some(rest) = line.strip_prefix("# TYPE ") {
        let kind = rest[name.len()..].trim_start();
        if !family.kind.is_empty() || !family.samples.is_empty() || !["counter", "gauge"].contains(&kind) {
            return Err(format!("TYPE comes once and before samples: {line}"));
        }
        family.kind = kind.to_owned();
    } else {
        let (labels, value) = sample(&line[name.len()..]).ok_or_else(|| format!("not a sample: {line}"))?;
        if family.samples.insert(labels, value).is_some() {
            return Err(format!("twice: {line}"));
        }
    }
    Ok(())
}

/// `{a="b",c="d"} 1` or ` 1`.
fn sample(rest: &str) -> Option<(String, f64)> {
    let (labels, value) = match rest.strip_prefix('{') {
        Some(inside) => {
            let end = labels_end(inside)?;
            (inside[..end].to_owned(), inside[end + 1..].strip_prefix(' ')?)
        }
        None => (String::new(), rest.strip_prefix(' ')?),
    };
    Some((labels, value.parse().ok()?))
}

/// Where the closing brace is, every label before it being well-formed.
fn labels_end(text: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        let name = text[at..].find("=\"")?;
        let label = &text[at..at + name];
        if label.is_empty() || !label.chars().all(|c| c == '_' || c.is_ascii_alphanumeric()) {
            return None;
        }
        at += name + 2;
        let mut escaped = false;
        let quote = text[at..].char_indices().find_map(|(index, c)| match c {
            _ if escaped => {
                escaped = false;
                None
            }
            '\\' => {
                escaped = true;
                None
            }
            '"' => Some(index),
            _ => None,
        })?;
        at += quote + 1;
        match text[at..].chars().next()? {
            ',' => at += 1,
            '}' => return Some(at),
            _ => return None,
        }
    }
}

#[test]
fn the_reader_refuses_what_prometheus_refuses() {
    let good = "# HELP a_total x\n# TYPE a_total counter\na_total{b=\"c\\\"}\",d=\"\"} 1\n";
    assert_eq!(read(good).unwrap()["a_total"].samples["b=\"c\\\"}\",d=\"\""], 1.0);
    for bad in [
        "# HELP a_total x\n# TYPE a_total counter\na_total 1",
        "# TYPE a_total counter\na_total 1\n",
        "# HELP a x\n# TYPE a counter\na 1\n",
        "# HELP a_total x\n# TYPE a_total counter\na_total 1\na_total 2\n",
        "# HELP a x\n# TYPE a gauge\na one\n",
        "# HELP a x\n# TYPE a gauge\na{b=c} 1\n",
        "# HELP a x\n# TYPE a gauge\na{b=\"c\" 1\n",
        "# HELP a x\n# TYPE a gauge\na 1\n# HELP b x\n# TYPE b gauge\nb 1\na{c=\"d\"} 1\n",
        "# HELP 1a x\n# TYPE 1a gauge\n1a 1\n",
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
}
