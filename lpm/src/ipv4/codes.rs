//! Codes: a byte or two in a leaf for the four of a value.
//!
//! A small value's code is the value plus one, wherever that is free: then readers need no table to undo it. Other
//! values are given codes from the top down, and are found again by a map.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;

use super::{CODES, LONGER, NONE, Shared, UNIT};
use crate::{Full, Value};

/// The most values that can be told apart.
pub(super) const MAX_VALUES: u32 = LONGER as u32 - 1;

/// The writer's book of codes.
#[derive(Debug)]
pub(super) struct Codes {
    /// How many routes have the value of each code.
    routes: Box<[u32]>,
    /// Codes that aren't their value plus one.
    given: HashMap<Value, u16>,
    /// Codes from here on were given.
    lowest: u16,
    /// No route's any more since the last `retire`; since before it, oldest first; given once and free again.
    dropped: Vec<u16>,
    waiting: VecDeque<(u64, u16)>,
    free: Vec<u16>,
}

impl Codes {
    /// About what this can take when every code is in use.
    pub(super) const BYTES: usize = (1 << 16) * 40;

    pub(super) fn new() -> Codes {
        Codes {
            routes: vec![0; 1 << 16].into(),
            given: HashMap::new(),
            lowest: LONGER,
            dropped: Vec::new(),
            waiting: VecDeque::new(),
            free: Vec::new(),
        }
    }

    /// Another route has this value.
    ///
    /// # Errors
    /// [`Full::Values`].
    pub(super) fn hold(&mut self, value: Value, shared: &Shared) -> Result<(), Full> {
        let code = match self.find(value, shared) {
            NONE => self.give(value, shared)?,
            code => code,
        };
        self.routes[usize::from(code)] += 1;
        Ok(())
    }

    /// One route less has it. The last one frees a code that was given, when no reader can be holding it any more;
    /// small values keep theirs.
    pub(super) fn let_go(&mut self, value: Value, shared: &Shared) {
        let code = self.find(value, shared);
        let routes = &mut self.routes[usize::from(code)];
        *routes -= 1;
        if *routes == 0 {
            self.dropped.extend(self.given.remove(&value));
        }
    }

    /// As [`crate::Table::retire`].
    pub(super) fn retire(&mut self, epoch: u64, safe: u64) {
        self.waiting.extend(self.dropped.drain(..).map(|code| (epoch, code)));
        while let Some((_, code)) = self.waiting.pop_front_if(|(tag, _)| *tag <= safe) {
            self.free.push(code);
        }
    }

    /// The code of a value that a route has; [`NONE`] where it has no code.
    pub(super) fn find(&self, value: Value, shared: &Shared) -> u16 {
        match own_code(value) {
            Some(code) if shared.value(code) == value => code,
            _ => self.given.get(&value).copied().unwrap_or(NONE),
        }
    }

    fn give(&mut self, value: Value, shared: &Shared) -> Result<u16, Full> {
        let untaken = |code: &u16| shared.values[usize::from(*code)].load(Ordering::Relaxed) == 0;
        let code = match own_code(value).filter(untaken) {
            Some(code) => code,
            None => {
                let never_given = || {
                    let code = (NONE + 1..self.lowest).rev().find(untaken);
                    self.lowest = code.unwrap_or(NONE + 1);
                    code
                };
                let code = self.free.pop().or_else(never_given).ok_or(Full::Values { max: MAX_VALUES })?;
                self.given.insert(value, code);
                shared.coded.store(true, Ordering::Release);
                code
            }
        };
        shared.values[usize::from(code)].store(!value, Ordering::Release);
        shared.write(CODES + UNIT * usize::from(code), code);
        Ok(code)
    }
}

/// The code that a value has if it can.
fn own_code(value: Value) -> Option<u16> {
    u16::try_from(value).ok()?.checked_add(1).filter(|code| *code < LONGER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new() -> (Codes, Shared) {
        (Codes::new(), Shared::new(0, 0))
    }

    #[test]
    fn small_values_need_no_table() {
        let (mut codes, shared) = new();
        for value in [0, 1, MAX_VALUES - 1] {
            codes.hold(value, &shared).unwrap();
            assert_eq!(u32::from(codes.find(value, &shared)), value + 1);
        }
        assert!(!shared.coded.load(Ordering::Relaxed));
        codes.hold(MAX_VALUES, &shared).unwrap();
        assert!(shared.coded.load(Ordering::Relaxed), "its own code would be LONGER");
        assert_eq!(shared.value(codes.find(MAX_VALUES, &shared)), MAX_VALUES);
    }

    #[test]
    fn a_code_is_given_again_when_nobody_can_hold_it() {
        let (mut codes, shared) = new();
        codes.hold(1 << 20, &shared).unwrap();
        codes.hold(1 << 20, &shared).unwrap();
        let code = codes.find(1 << 20, &shared);
        codes.let_go(1 << 20, &shared);
        assert_eq!(codes.find(1 << 20, &shared), code, "one route still has it");
        codes.let_go(1 << 20, &shared);
        codes.retire(1, 0);
        codes.hold(1 << 21, &shared).unwrap();
        assert_ne!(
            codes.find(1 << 21, &shared),
            code,
            "a reader may be about to ask what the code stands for"
        );
        codes.retire(2, 1);
        codes.hold(1 << 22, &shared).unwrap();
        assert_eq!((codes.find(1 << 22, &shared), shared.value(code)), (code, 1 << 22));
    }

    #[test]
    fn a_value_too_many_is_refused_and_one_less_makes_room() {
        let (mut codes, shared) = new();
        for value in 0..MAX_VALUES {
            codes.hold(value + (1 << 16), &shared).unwrap();
        }
        let full = Err(Full::Values { max: MAX_VALUES });
        assert_eq!((codes.hold(7, &shared), codes.hold(1, &shared)), (full, full));
        codes.hold(1 << 16, &shared).unwrap();
        codes.let_go((1 << 16) + 9, &shared);
        codes.retire(1, 1);
        codes.hold(7, &shared).unwrap();
        assert_eq!(shared.value(codes.find(7, &shared)), 7, "where its own code is another's, it gets one");
        assert_eq!(codes.hold(1, &shared), full);
    }
}
