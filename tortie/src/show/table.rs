//! Tables as calicoctl prints them: aligned columns (`calicoctl get`, or without the blanks at the ends of lines) and boxes
//! (`calicoctl node status`).

/// Blanks between two columns.
const PADDING: usize = 3;
/// Least width of a column of `get`, blanks included.
const MIN_WIDTH: usize = 5;

/// Rows under headings, in columns as wide as their widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    /// Columns of boxes whose cells, but not headings, stand at the right.
    right: Vec<usize>,
}

impl Table {
    pub(crate) fn new(headings: &[&str]) -> Table {
        Table {
            rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()],
            right: Vec::new(),
        }
    }

    /// With these columns of boxes at the right.
    pub(crate) fn right(mut self, columns: impl IntoIterator<Item = usize>) -> Table {
        self.right.extend(columns);
        self
    }

    /// Adds a row; it has as many cells as there are headings.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.rows[0].len(), "a cell for every heading");
        self.rows.push(cells);
    }

    /// Is there nothing but headings?
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// Aligned columns, as Go's `tabwriter` sets them for `calicoctl get`: blanks behind the last one, too.
    pub(crate) fn tabs(&self) -> String {
        self.lines(|width| (width + PADDING).max(MIN_WIDTH)).map(|line| line + "\n").collect()
    }

    /// Aligned columns without lines.
    pub(crate) fn columns(&self) -> String {
        self.lines(|width| width + PADDING).map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    /// The rows, each cell as wide as is said for the widest of its column.
    fn lines(&self, wide: impl Fn(usize) -> usize) -> impl Iterator<Item = String> {
        let widths: Vec<usize> = self.widths().into_iter().map(wide).collect();
        let line =
            move |row: &Vec<String>| row.iter().zip(&widths).map(|(cell, width)| pad(cell, *width)).collect();
        self.rows.iter().map(line)
    }

    /// Cells in boxes of `+`, `-` and `|`.
    pub(crate) fn boxes(&self) -> String {
        let widths = self.widths();
        let rule: String =
            widths.iter().map(|width| format!("+{}", "-".repeat(width + 2))).collect::<String>() + "+\n";
        let mut text = rule.clone();
        for (number, row) in self.rows.iter().enumerate() {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if number > 0 && self.right.contains(&column) {
                    text.push_str(&format!("| {cell:>width$} "));
                } else {
                    text.push_str(&format!("| {} ", pad(cell, *width)));
                }
            }
            text.push_str("|\n");
            if number == 0 {
                text.push_str(&rule);
            }
        }
        text.push_str(&rule);
        text
    }

    fn widths(&self) -> Vec<usize> {
        let column = |index: usize| self.rows.iter().map(|row| row[index].chars().count()).max().unwrap_or(0);
        (0..self.rows[0].len()).map(column).collect()
    }
}

fn pad(cell: &str, width: usize) -> String {
    format!("{cell:<width$}")
}

/// A cell for what isn't known, or isn't there.
pub(super) fn or_dash(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or("-").to_owned()
}

/// Bytes as people read them: three digits and a unit.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut value = count as f64;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Table {
        let mut table = Table::new(&["NAME", "CIDR"]);
        table.row(vec!["a".to_owned(), "10.0.0.0/8".to_owned()]);
        table.row(vec!["müller".to_owned(), "-".to_owned()]);
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_three() {
        assert_eq!(example().columns(), "NAME     CIDR\na        10.0.0.0/8\nmüller   -\n");
    }

    #[test]
    fn columns_of_get_have_blanks_behind_the_last_one() {
        let mut table = Table::new(&["NAME", "X", "SELECTOR"]);
        table.row(["pool", "", "foo == 'bar'"].map(str::to_owned).to_vec());
        assert_eq!(table.tabs(), "NAME   X    SELECTOR       \npool        foo == 'bar'   \n");
    }

    #[test]
    fn boxes_have_a_rule_under_the_headings() {
        assert_eq!(
            example().boxes(),
            "+--------+------------+\n\
             | NAME   | CIDR       |\n\
             +--------+------------+\n\
             | a      | 10.0.0.0/8 |\n\
             | müller | -          |\n\
             +--------+------------+\n"
        );
    }

    #[test]
    fn cells_of_boxes_may_stand_at_the_right() {
        let mut table = Table::new(&["NAME", "IPS"]).right([1]);
        table.row(vec!["a".to_owned(), "7".to_owned()]);
        assert_eq!(
            table.boxes(),
            "+------+-----+\n| NAME | IPS |\n+------+-----+\n| a    |   7 |\n+------+-----+\n"
        );
    }

    #[test]
    fn bytes_take_the_unit_that_fits() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
    }
}
