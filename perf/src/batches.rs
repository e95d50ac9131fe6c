//! Look-ups of many addresses, in batches as the walk asks them.

use lpm::{Key, Lookup};

/// Addresses in a batch, as many as the walk asks for at once.
pub const BATCH: usize = 64;
/// Addresses are brought near when so many others are still to be asked for. A router has just read them from headers; a
/// measurement's are more than its caches hold, and the processor doesn't ask for the next ones early enough: IPv6's took 6
/// of 16 clocks.
pub const NEAR: usize = 256;

/// Looks up all addresses of whole batches; says how many they are.
pub fn look_up<K: Key>(lookup: &Lookup<K>, keys: &[K]) -> usize {
    let mut answers = [0; BATCH];
    let mut sum = 0u32;
    for (number, batch) in keys.chunks_exact(BATCH).enumerate() {
        bring_near(keys, number * BATCH + NEAR);
        lookup.lookup_batch(batch, &mut answers);
        sum = answers.iter().fold(sum, |sum, answer| sum.wrapping_add(*answer));
    }
    // Summed, so that none can be left out.
    std::hint::black_box(sum);
    keys.len() / BATCH * BATCH
}

/// Asks for the lines that a batch lies in which begins with this address.
fn bring_near<K>(keys: &[K], first: usize) {
    const LINE: usize = 64;
    for at in (first..first + BATCH).step_by(LINE / size_of::<K>()) {
        lpm::prefetch(keys, at);
    }
}
