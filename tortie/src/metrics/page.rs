//! A page in Prometheus' text format 0.0.4, written from front to back: a router with a thousand endpoints has twenty thousand
//! series, and is asked for them every few seconds.
//!
//! https://prometheus.io/docs/instrumenting/exposition_formats/

use std::collections::HashSet;
use std::fmt::Write;

use ahash::RandomState;

/// Bytes that a page of a small router has.
const ROOM: usize = 64 * 1024;

/// A page being written.
pub(super) struct Page {
    text: String,
    hasher: RandomState,
}

impl Page {
    /// In the memory of a text that is empty.
    pub(super) fn on(mut empty: String) -> Page {
        empty.reserve(ROOM);
        Page { text: empty, hasher: RandomState::new() }
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
    fn family<L: AsRef<[S]>, S: AsRef<str>, V: Number>(
        &mut self,
        name: &str,
        help: &str,
        kind: &str,
        labels: &[&str],
        rows: impl IntoIterator<Item = (L, V)>,
    ) {
        let mut order: Vec<usize> = (0..labels.len()).collect();
        order.sort_unstable_by_key(|place| labels[*place]);
        let rows = rows.into_iter();
        let mut seen = HashSet::with_capacity_and_hasher(rows.size_hint().0, self.hasher.clone());
        for (values, value) in rows {
            let values = values.as_ref();
            if seen.is_empty() {
                self.text.push_str("# HELP ");
                self.text.push_str(name);
                self.text.push(' ');
                escape(&mut self.text, help, false);
                // Writing to a text can't fail, here and below.
                let _ = write!(self.text, "\n# TYPE {name} {kind}\n");
            }
            let row = self.text.len();
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
            if seen.insert(self.hasher.hash_one(&self.text[row..])) {
                self.text.push(' ');
                value.write(&mut self.text);
                self.text.push('\n');
            } else {
                self.text.truncate(row);
            }
        }
    }
}

/// What a row's value is.
trait Number {
    /// Writes it as Rust displays it.
    fn write(self, text: &mut String);
}

impl Number for u64 {
    fn write(mut self, text: &mut String) {
        // As many as the largest number has.
        let mut digits = [b'0'; 20];
        let mut first = digits.len();
        loop {
            first -= 1;
            digits[first] += (self % 10) as u8;
            self /= 10;
            if self == 0 {
                break;
            }
        }
        text.push_str(str::from_utf8(&digits[first..]).unwrap_or_default());
    }
}

impl Number for f64 {
    fn write(self, text: &mut String) {
        let whole = self as u64;
        // Most are counts, and small enough to be whole ones.
        if whole < 1 << f64::MANTISSA_DIGITS && whole as f64 == self && self.is_sign_positive() {
            whole.write(text);
        } else {
            let _ = write!(text, "{self}");
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
        let mut page = Page::on(String::new());
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
        fn numbers_are_written_as_rust_displays_them(whole: u64, broken: f64) {
            let written = |write: &dyn Fn(&mut String)| {
                let mut text = String::new();
                write(&mut text);
                text
            };
            prop_assert_eq!(written(&|text| whole.write(text)), whole.to_string());
            for number in [broken, broken.trunc(), f64::from(whole as u32), whole as f64, -0.0, f64::NAN, f64::INFINITY] {
                prop_assert_eq!(written(&|text| number.write(text)), number.to_string());
            }
        }

        #[test]
        fn whatever_stands_in_a_label_the_page_can_be_read(values in proptest::collection::vec(".{0,12}", 1..20)) {
            let mut page = Page::on(String::new());
            page.counters("x_total", "Help.", &["l"], values.iter().map(|value| ([value], 1)));
            let families = read(&page.done()).unwrap();
            let different: std::collections::BTreeSet<&String> = values.iter().collect();
            prop_assert_eq!(families["x_total"].samples.len(), different.len());
        }
    }
}
