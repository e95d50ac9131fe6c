//! A C program of ours that answers questions, one line each. It sleeps while nothing is asked.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout};

use anyhow::{Context, Result};

use super::dpdk::{Pages, Program};

/// A program that runs.
pub(super) struct Conversation {
    pub(super) program: Program,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Conversation {
    /// Starts a program on a core, to be asked.
    ///
    /// # Errors
    /// Where it can't be started.
    pub(super) fn start(
        program: &Path,
        pages: Pages<'_>,
        core: usize,
        arguments: &[String],
    ) -> Result<Conversation> {
        let environment = ["-l".to_owned(), core.to_string(), "--no-telemetry".to_owned()];
        let mut program = Program::start(program, pages, &environment, arguments, true)?;
        let to = program.child.stdin.take().context("its input is a pipe")?;
        let from = BufReader::new(program.child.stdout.take().context("its output is a pipe")?);
        Ok(Conversation { program, to, from })
    }

    /// The next line that is an answer, without its first word.
    ///
    /// # Errors
    /// Where the program ended instead: with its last words.
    pub(super) fn answer(&mut self, word: &str) -> Result<String> {
        let mut line = String::new();
        while self.from.read_line(&mut line)? > 0 {
            if let Some(answer) = line.strip_prefix("> ").and_then(|line| line.strip_prefix(word)) {
                return Ok(answer.trim().to_owned());
            }
            line.clear();
        }
        // It ended; its last words come a moment before its end.
        let _ = self.program.child.wait();
        Err(self.program.failed("ended"))
    }

    /// A question's answer, without its first word.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub(super) fn ask(&mut self, question: &str, word: &str) -> Result<String> {
        writeln!(self.to, "{question}")?;
        self.answer(word)
    }
}
