//! A page in Prometheus' text format 0.0.4, written from front to back: a router with a thousand endpoints has twenty thousand
//! series, and is asked for them every few seconds.
//!
//! https://prometheus.io/docs/instrumenting/exposition_formats/

use std::collections::HashSet;
use std::fmt::{Display, Write};
use std::hash::{BuildHasher, RandomState};

/// Bytes that a page of a small router has.
const ROOM: usize = 64 * 1024;

/// A page being written.
pub(super) struct Page {
    text: String,
    hasher: RandomState,
}

impl Page {
    pub(super) fn new() -> Page {
        Page { text: String::with_capacity(ROOM), hasher: RandomState::new() }
    }

    /// The text.
    pub(super) fn done(self) -> String {
        self.text
    }

    /// A row has as many values as there are labels.
    pub(super) fn counters<L: AsRef<[S]>, S: AsRef<str>>(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
        rows: impl IntoIterator<Item = (L, u64)>,
    ) {
        self.family(name, help, "counter", labels, rows);
    }

    /// As [`Self::counters`].
    pub(super) fn gauges<L: AsRef<[S]>, S: AsRef<str>>(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
        rows: impl IntoIterator<Item = (L, f64)>,
    ) {
        self.family(name, help, "gauge", labels, rows);
    }

    /// A counter without labels.
    pub(super) fn counter(&mut self, name: &str, help: &str, count: u64) {
        self.counters(name, help, &[], [([""; 0], count)]);
    }

    /// A gauge without labels.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.gauges(name, help, &[], [([""; 0], value)]);
    }

    /// A family without a row isn't written; of rows with the same labels only the first is, as Prometheus would refuse the page.
    fn family<L: AsRef<[S]>, S: AsRef<str>, V: Display>(
        &mut self,
        name: &str,
        help: &str,
        kind: &str,
        labels: &[&str],
        rows: impl IntoIterator<Item = (L, V)>,
    ) {
        let mut order: Vec<usize> = (0..labels.len()).collect();
        order.sort_unstable_by_key(|place| labels[*place]);
        let mut seen = HashSet::new();
        for (values, value) in rows {
            let values = values.as_ref();
            let hash = self.hasher.hash_one(Labels(values));
            if seen.is_empty() {
                self.text.push_str("# HELP ");
                self.text.push_str(name);
                self.text.push(' ');
                escape(&mut self.text, help, false);
                // Writing to a text can't fail, here and below.
                let _ = write!(self.text, "\n# TYPE {name} {kind}\n");
            }
            if !seen.insert(hash) {
                continue;
            }
            self.text.push_str(name);
            for (number, place) in order.iter().enumerate() {
                self.text.push(if number == 0 { '{' } else { ',' });
                self.text.push_str(labels[*place]);
                self.text.push_str("=\"");
                escape(&mut self.text, values.get(*place).map_or("", AsRef::as_ref), true);
                self.text.push('"');
            }
            if !order.is_empty() {
                self.text.push('}');
            }
            let _ = writeln!(self.text, " {value}");
        }
    }
}

/// Values of labels, as they are hashed.
struct Labels<'a, S>(&'a [S]);

impl<S: AsRef<str>> std::hash::Hash for Labels<'_, S> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        for value in self.0 {
            value.as_ref().hash(state);
        }
    }
}

/// Within quotes, these are escaped, too.
fn escape(to: &mut String, text: &str, is_quoted: bool) {
    if !text.bytes().any(|byte| matches!(byte, b'\\' | b'\n' | b'"')) {
        to.push_str(text);
        return;
    }
    for letter in text.chars() {
        match letter {
            '\\' => to.push_str("\\\\"),
            '\n' => to.push_str("\\n"),
            '"' if is_quoted => to.push_str("\\\""),
            other => to.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::exposition::read;
    use proptest::prelude::*;

    #[test]
    fn labels_stand_in_order_and_a_family_without_rows_is_left_out() {
        let mut page = Page::new();
        page.counters(
            "b_total",
            "Help with a \\ and\na line.",
            &["z", "a"],
            [(["1", "2"], 7), (["1", "2"], 9)],
        );
        page.gauges("none", "Nothing.", &["z"], [(["1"], 0.0); 0]);
        page.gauge("c", "Plain.", 0.5);
        assert_eq!(
            page.done(),
            "# HELP b_total Help with a \\\\ and\\na line.\n# TYPE b_total counter\nb_total{a=\"2\",z=\"1\"} 7\n\
             # HELP c Plain.\n# TYPE c gauge\nc 0.5\n"
        );
    }

    proptest! {
        #[test]
        fn whatever_stands_in_a_label_the_page_can_be_read(values in proptest::collection::vec(".{0,12}", 1..20)) {
            let mut page = Page::new();
            page.counters("x_total", "Help.", &["l"], values.iter().map(|value| ([value], 1)));
            let families = read(&page.done()).unwrap();
            let different: std::collections::BTreeSet<&String> = values.iter().collect();
            prop_assert_eq!(families["x_total"].samples.len(), different.len());
        }
    }
}
