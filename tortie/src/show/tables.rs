//! `tortie show tables`: how full each table is.

use slowpath::status::FingerprintsStatus;

use crate::table_use::{TableUse, TablesStatus};

use super::table::{Table, bytes};

pub(super) fn table(status: &TablesStatus) -> String {
    let mut table = Table::new(&["LIMIT", "ROWS ARE", "IN USE", "SIZE", "FULL", "REFUSED"]);
    for row in &status.tables {
        table.row(vec![
            row.limit.clone(),
            row.rows.clone(),
            row.in_use.to_string(),
            row.size.to_string(),
            full(row),
            row.refused.map_or_else(|| "-".to_owned(), |refused| refused.to_string()),
        ]);
    }
    format!(
        "{}\nRoutes take {} in the structures that packets are looked up in.\n\
         Sizes are set by these keys below `limits:` in tortie.yaml; `tortie run --check` says what memory they come to.\n",
        table.columns(),
        bytes(status.lookup_bytes)
    )
}

/// What each table means.
pub(super) fn fingerprints(status: &FingerprintsStatus) -> String {
    let mut table = Table::new(&["TABLE", "ROWS", "FINGERPRINT"]);
    for print in &status.fingerprints {
        table.row(vec![print.table.clone(), print.rows.to_string(), print.fingerprint.clone()]);
    }
    format!(
        "{}\nThe same number is the same meaning, by whatever detours it came about; comparable between routers of one build.\n",
        table.columns()
    )
}

/// Rounded up: what isn't empty isn't shown as empty, and what isn't full is never shown as more than full.
fn full(row: &TableUse) -> String {
    format!("{} %", (row.in_use * 100).div_ceil(row.size.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_how_full_its_table_is() {
        let row = |limit: &str, in_use, refused| TableUse {
            limit: limit.to_owned(),
            rows: "rows".to_owned(),
            in_use,
            size: 1000,
            refused,
        };
        let tables = vec![row("one", 1, None), row("all", 1000, Some(7)), row("none", 0, Some(0))];
        let text = table(&TablesStatus { tables, lookup_bytes: 2048 });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..4],
            [
                "LIMIT   ROWS ARE   IN USE   SIZE   FULL    REFUSED",
                "one     rows       1        1000   1 %     -",
                "all     rows       1000     1000   100 %   7",
                "none    rows       0        1000   0 %     0",
            ]
        );
        assert!(text.contains("2.0 KiB"));
    }
}
