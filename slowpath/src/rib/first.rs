//! The first of many routes.

use model::Prefix;

use super::Offer;

/// The first `most` of these by their prefixes, in order, and how many there are: not all are put in order for a few.
pub fn first_of(
    winners: impl Iterator<Item = (Prefix, Offer)>,
    most: usize,
) -> (Vec<(Prefix, Offer)>, usize) {
    let (mut first, mut all) = (Vec::new(), 0);
    for winner in winners {
        all += 1;
        first.push(winner);
        if first.len() >= most.saturating_mul(2).max(1024) {
            keep_first(&mut first, most);
        }
    }
    keep_first(&mut first, most);
    first.sort_unstable_by_key(|(prefix, _)| *prefix);
    (first, all)
}

fn keep_first(winners: &mut Vec<(Prefix, Offer)>, most: usize) {
    if winners.len() > most {
        winners.select_nth_unstable_by_key(most, |(prefix, _)| *prefix);
        winners.truncate(most);
    }
}
