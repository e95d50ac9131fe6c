//! The ordinary change of a node, by copying its words as they lie: a route that begins inside one leaf, or ends beside
//! its like.
//!
//! Nodes of an internet table that many routes end in have a hundred runs and more. Reading them all to write them all
//! again ([`super::rewrite`]) is most of what a change of such a table costs; here only what differs is looked at. What
//! may change a node's form is left to the other way: both give the same node.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::super::layout::{
    GROUP, HEADER, Leaf, Run, WIDE, goes_on_with, group_of, is_child, line_start, lines_of, node_word,
    run_index, runs,
};
use super::super::load;
use super::Engine;
use crate::Full;

/// Runs of a node up to which it may be a way, or come to nothing.
const SMALL: usize = 3;

/// What becomes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spliced {
    /// Its copy, by this word.
    Node(u32),
    /// Nothing.
    AsItWas,
    /// It takes a closer look.
    Unclear,
}

/// A node's header, on its way from one form to the next.
#[derive(Clone, Copy)]
struct Header([u32; HEADER]);

impl Header {
    fn begin(&mut self, entry: u8) {
        let (group, within) = group_of(entry);
        self.0[group as usize] |= 1 << within;
    }

    fn begin_no_more(&mut self, entry: u8) {
        let (group, within) = group_of(entry);
        self.0[group as usize] &= !(1 << within);
    }

    /// With how many runs begin before each group.
    fn counted(mut self) -> [u32; HEADER] {
        let mut before = 0;
        for group in &mut self.0 {
            let begins = *group & ((1 << GROUP) - 1);
            *group = begins | before << GROUP;
            before += begins.count_ones();
        }
        self.0
    }
}

impl Engine {
    /// Puts a leaf, which no run of the node at `start` has, into these entries.
    pub(super) fn splice_in(
        &mut self,
        start: usize,
        (first, last): (u8, u8),
        leaf: Leaf,
    ) -> Result<Spliced, Full> {
        let (run, runs) = (self.run_of(start, first), runs(self.shared.words(), start));
        let cell = start + HEADER + run;
        if self.run_of(start, last) != run || is_child(self.word(cell)) || self.lens[cell] > leaf.len {
            return Ok(Spliced::Unclear);
        }
        // The run's first entry, and whether it goes on behind the leaf.
        let begin = self.nth_begin(start, run) as u8;
        let goes_on = last < u8::MAX && self.run_of(start, last + 1) == run;
        let (before, behind) = (usize::from(begin < first), usize::from(goes_on));
        let mut header = self.header(start);
        header.begin(first);
        if goes_on {
            header.begin(last + 1);
        }
        let word = node_word(self.take(lines_of(runs + before + behind))?);
        self.write_header(line_start(word), header);
        let to = line_start(word) + HEADER;
        self.copy_words(cell - run..cell + before, to);
        self.write_leaf(to + run + before, leaf);
        // The rest of the run it lies in, then those behind.
        let rest = cell + 1 - behind..cell - run + runs;
        self.copy_words(rest, to + run + before + 1);
        Ok(Spliced::Node(word))
    }

    /// Joins what is in these entries of the node at `start` with its like on both sides.
    pub(super) fn splice_out(
        &mut self,
        start: usize,
        (first, last): (u8, u8),
        depth: u8,
    ) -> Result<Spliced, Full> {
        let (run, runs) = (self.run_of(start, first), runs(self.shared.words(), start));
        if self.run_of(start, last) != run {
            return Ok(Spliced::Unclear);
        }
        let begin = self.nth_begin(start, run) as u8;
        let next = (run + 1 < runs).then(|| self.nth_begin(start, run + 1) as u8);
        let joins_last = run > 0 && self.are_alike(start, run - 1, depth);
        let joins_next = next.is_some() && self.are_alike(start, run, depth);
        let gone = usize::from(joins_last) + usize::from(joins_next);
        if runs - gone <= SMALL {
            return Ok(Spliced::Unclear);
        }
        if gone == 0 {
            return Ok(Spliced::AsItWas);
        }
        let mut header = self.header(start);
        if joins_last {
            header.begin_no_more(begin);
        }
        if let Some(next) = next.filter(|_| joins_next) {
            header.begin_no_more(next);
        }
        let word = node_word(self.take(lines_of(runs - gone))?);
        self.write_header(line_start(word), header);
        let (from, to) = (start + HEADER, line_start(word) + HEADER);
        let kept = run + 1 - usize::from(joins_last);
        self.copy_words(from..from + kept, to);
        self.copy_words(from + kept + gone..from + runs, to + kept);
        Ok(Spliced::Node(word))
    }

    /// Would this run and the next one be one?
    fn are_alike(&self, start: usize, run: usize, depth: u8) -> bool {
        let [one, next] = [run, run + 1].map(|run| Run {
            first: self.nth_begin(start, run) as u8,
            content: self.content(start + HEADER + run),
        });
        goes_on_with(&one, &next, depth)
    }

    /// The number of the run that an entry belongs to.
    fn run_of(&self, start: usize, entry: u8) -> usize {
        let header = load(self.shared.words(), start + group_of(entry).0 as usize);
        run_index(header, entry) as usize - HEADER
    }

    fn header(&self, start: usize) -> Header {
        Header(std::array::from_fn(|group| self.word(start + group)))
    }

    fn write_header(&self, start: usize, header: Header) {
        for (cell, word) in (start..).zip(header.counted()) {
            self.write(cell, word);
        }
    }

    /// Copies words and what the writer knows of them.
    fn copy_words(&mut self, from: Range<usize>, to: usize) {
        let words = self.shared.words();
        let mut is_any_wide = false;
        for (old, new) in words[from.clone()].iter().zip(&words[to..to + from.len()]) {
            let word = old.load(Ordering::Relaxed);
            is_any_wide |= word == WIDE;
            new.store(word, Ordering::Release);
        }
        if is_any_wide {
            let wide = &self.shared.wide;
            for (old, new) in wide[from.clone()].iter().zip(&wide[to..to + from.len()]) {
                new.store(old.load(Ordering::Relaxed), Ordering::Release);
            }
        }
        self.lens.copy_within(from, to);
    }
}
