//! A node as the writer thinks of it: runs of equal entries.

use super::super::layout::{Content, GROUP, HEADER, Leaf, Run, STRIDE, push_run};
use super::Engine;

/// Entries of a node.
const ENTRIES: u16 = 1 << STRIDE;

impl Engine {
    /// Reads a node's runs into `old_runs`; how many.
    pub(super) fn read_runs(&mut self, start: usize) -> usize {
        self.old_runs.clear();
        let mut cell = start + HEADER;
        for group in 0..HEADER {
            let mut begins = self.begins(start + group);
            while begins != 0 {
                let first = (group * GROUP as usize) as u8 + begins.trailing_zeros() as u8;
                begins &= begins - 1;
                self.old_runs.push(Run { first, content: self.content(cell) });
                cell += 1;
            }
        }
        self.old_runs.len()
    }

    /// Makes `new_runs` of `old_runs`, those joined that one route has come to fill.
    pub(super) fn join_runs(&mut self, depth: u8) {
        self.new_runs.clear();
        for run in &self.old_runs {
            push_run(&mut self.new_runs, *run, depth);
        }
    }

    /// Makes `new_runs` of `old_runs`, with `leaf` in these entries, first and last, in place of leaves of shorter routes.
    pub(super) fn cover(&mut self, depth: u8, entries: (u8, u8), leaf: Leaf) {
        let gives_way = |content| matches!(content, Content::Leaf(old) if old.len <= leaf.len);
        let (first, last) = entries;
        let is_covered =
            |run: &Run| matches!(run.content, Content::Child(_)) && (first..=last).contains(&run.first);
        self.covers_children |= self.old_runs.iter().any(is_covered);
        self.put(depth, entries, Content::Leaf(leaf), gives_way);
    }

    /// Makes `new_runs` of `old_runs`, with something else in one entry.
    pub(super) fn set(&mut self, depth: u8, entry: u8, content: Content) {
        self.put(depth, (entry, entry), content, |_| true);
    }

    fn put(
        &mut self,
        depth: u8,
        (first, last): (u8, u8),
        content: Content,
        gives_way: impl Fn(Content) -> bool,
    ) {
        self.new_runs.clear();
        let mut push =
            |first: u16, content| push_run(&mut self.new_runs, Run { first: first as u8, content }, depth);
        let (first, behind) = (u16::from(first), u16::from(last) + 1);
        for (at, run) in self.old_runs.iter().enumerate() {
            let begin = u16::from(run.first);
            let end = self.old_runs.get(at + 1).map_or(ENTRIES, |next| u16::from(next.first));
            if end <= first || behind <= begin || !gives_way(run.content) {
                push(begin, run.content);
                continue;
            }
            if begin < first {
                push(begin, run.content);
            }
            push(begin.max(first), content);
            if behind < end {
                push(behind, run.content);
            }
        }
    }

    /// Makes `old_runs` of a node all of whose entries are one leaf.
    pub(super) fn begin_with(&mut self, leaf: Leaf) {
        self.old_runs.clear();
        self.old_runs.push(Run { first: 0, content: Content::Leaf(leaf) });
    }
}
