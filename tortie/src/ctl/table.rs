//! Tables as Go's `tabwriter` sets them for calicoctl: columns as wide as their widest cell, three blanks between them and
//! behind the last.

use std::fmt::Write;

/// Least width of a column, blanks included.
const MIN_WIDTH: usize = 5;
const PADDING: usize = 3;

/// A table of these lines, of as many cells each.
pub(super) fn table(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        let widest = cells.map(|cell| cell.chars().count() + PADDING).max().unwrap_or_default();
        widest.max(MIN_WIDTH)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        for (cell, &width) in line.iter().zip(&widths) {
            // A String takes whatever is written to it.
            let _ = write!(text, "{cell:<width$}");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_three_blanks() {
        let lines = [vec!["NAME", "X", "SELECTOR"], vec!["pool", "", "foo == 'bar'"]];
        let lines = lines.map(|line| line.into_iter().map(str::to_owned).collect());
        assert_eq!(table(&lines), "NAME   X    SELECTOR       \npool        foo == 'bar'   \n");
    }
}
