//! The matrix written down: the table, and behind it a word on every cell that isn't a yes.

use std::fmt::Write;

use super::{COLUMNS, Cell, Line, head, row};

/// What the columns stand for, and what was at our end.
const COLUMNS_MEAN: &str = "\
A cell says yes where every route that was sent is there on the other side, both ways, and nothing of it is missing.
MD5, GTSM and BFD are held with the whole router at our end; all else with the BGP room alone.

| column | shows |
| --- | --- |
| IPv4, AS4 | eBGP over IPv4 between two ASes of four octets |
| refresh | asked, the daemon announces its routes again |
| extended | a route with 7,200 octets of attributes is there, in a message longer than 4,096 octets (RFC 8654) |
| add-path | of a network that two ASes announce the daemon has both paths (RFC 7911) |
| restart | the daemon is killed: its routes stay, stale, and are fresh when it is back (RFC 4724) |
| IPv6 | the same over IPv6, of IPv6 |
| v4 over v6 | IPv4 routes with IPv6 next hops (RFC 8950) |
| reflection | the daemon is our client: it gets another client's routes, and that one gets its (RFC 4456) |
| MD5 | signed with a password; what isn't signed our kernel drops (RFC 2385) |
| GTSM | what has come over a router our kernel drops (RFC 5082) |
| BFD | both ends say that it is up; its packets alone are lost, and the session ends (RFC 5880) |
";

/// The record's text: `date` is the day, `kernel` what it ran on.
pub fn text(lines: &[Line], date: &str, kernel: &str) -> String {
    let mut text = format!(
        "# Interop, {date}\n\n`cargo xtask interop --record FILE` wrote this, on {kernel}; packages of Debian 12 and of sid as of that \
         day.\n{COLUMNS_MEAN}\n{}\n",
        head()
    );
    for line in lines {
        let _ = writeln!(text, "{}", row(line));
    }
    let failed = notes(lines, |cell| match cell {
        Cell::Failed(why) => Some(why),
        _ => None,
    });
    let not_held = notes(lines, |cell| match cell {
        Cell::NotHeld(why) => Some(why),
        _ => None,
    });
    for (title, notes) in
        [("What ought to be and wasn't (NO)", failed), ("What daemons aren't held to (-)", not_held)]
    {
        if !notes.is_empty() {
            let _ = write!(text, "\n## {title}\n\n{notes}");
        }
    }
    text
}

/// A line for each cell that there is something to say of.
fn notes(lines: &[Line], why: impl Fn(&Cell) -> Option<&String>) -> String {
    let mut notes = String::new();
    for line in lines {
        let cells = line.cells.iter().flatten();
        for (column, why) in COLUMNS.iter().zip(cells).filter_map(|(column, cell)| Some((column, why(cell)?)))
        {
            let _ = writeln!(notes, "* {}, {column}: {why}.", line.daemon);
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_that_is_no_yes_has_its_word_behind_the_table() {
        let mut cells = vec![Cell::Yes; COLUMNS.len()];
        cells[1] = Cell::NotHeld("it can't".to_owned());
        cells[10] = Cell::Failed("it ought to".to_owned());
        let lines = [
            Line { daemon: "BIRD 4".to_owned(), cells: Ok(cells) },
            Line { daemon: "FRR".to_owned(), cells: Err("skipped: no mirror".to_owned()) },
        ];
        let text = text(&lines, "2026-11-21", "Linux 6.18");
        let after = |title: &str| text.split(title).nth(1).unwrap_or_default().trim_start();
        assert!(after("(NO)\n").starts_with("* BIRD 4, BFD: it ought to.\n"), "{text}");
        assert_eq!(after("(-)\n"), "* BIRD 4, refresh: it can't.\n");
        assert!(text.contains(&row(&lines[0])) && text.contains("skipped: no mirror"));
    }
}
