//! Work that may go on side by side.

use std::sync::Mutex;

/// Does the work for every item, so many at a time, and gives the results in the order in which they came.
pub(crate) fn each<'a, T: Sync, R: Send>(
    lanes: usize,
    items: &'a [T],
    work: impl Fn(&'a T) -> R + Sync,
) -> Vec<R> {
    let waiting = Mutex::new(items.iter());
    let done = Mutex::new(Vec::new());
    let next = || lock(&waiting).next();
    let lane = || {
        while let Some(item) = next() {
            let result = work(item);
            lock(&done).push(result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..lanes.clamp(1, items.len().max(1)) {
            scope.spawn(lane);
        }
    });
    done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The cores there are.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn every_item_is_done_once_whatever_the_number_of_lanes() {
        let items: Vec<u32> = (0..100).collect();
        for lanes in [0, 1, 3, 1000] {
            let mut done = each(lanes, &items, |item| *item);
            done.sort_unstable();
            assert_eq!(done, items);
        }
        assert!(each(4, &[] as &[u32], |item| *item).is_empty());
    }

    #[test]
    fn lanes_go_on_side_by_side() {
        // Ends only where both are there at once.
        let both = Barrier::new(2);
        each(2, &[(), ()], |()| {
            both.wait();
        });
    }
}
