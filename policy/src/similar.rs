//! Words that are but a slip apart, to tell who misspelt one which was likely meant.

/// Slips with which a word is still taken for another.
const SLIPS_MAX: usize = 2;

/// The word that was likely meant, if there is one.
pub fn nearest<'a>(given: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_ascii_lowercase();
    let slips = |word: &str| slips(word.to_ascii_lowercase().as_bytes(), given.as_bytes());
    // Longer or shorter by more letters is further off, and what is given may be as long as a file.
    let words = words.into_iter().filter(|word| word.len().abs_diff(given.len()) <= SLIPS_MAX);
    let (slips, nearest) = words.map(|word| (slips(word), word)).min()?;
    (slips <= SLIPS_MAX && 2 * slips <= given.len()).then_some(nearest)
}

/// How many letters to put in, take out, change or swap with their neighbours until one word is the other
/// (optimal string alignment distance).
fn slips(one: &[u8], other: &[u8]) -> usize {
    let mut rows: Vec<Vec<usize>> = vec![(0..=other.len()).collect()];
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let changed = rows[i][j] + usize::from(a != b);
            let mut least = changed.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swapped_missing_and_changed_letters_are_slips() {
        for (one, other, count) in [
            ("ports", "ports", 0),
            ("prots", "ports", 1),
            ("port", "ports", 1),
            ("", "ab", 2),
            ("net", "nets", 1),
            ("source", "sauces", 3),
        ] {
            assert_eq!(slips(one.as_bytes(), other.as_bytes()), count, "{one} {other}");
        }
    }

    #[test]
    fn what_is_too_far_off_is_not_meant() {
        let words = ["selector", "order", "tier"];
        assert_eq!(nearest("selecter", words), Some("selector"));
        assert_eq!(nearest("Odrer", words), Some("order"));
        assert_eq!(nearest("preDNAT", words), None);
        assert_eq!(nearest("er", words), None, "most of it would be other letters");
        assert_eq!(nearest("x", []), None);
    }
}
