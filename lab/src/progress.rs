//! What a person sees while a lab works: one moving line on a terminal; plain lines elsewhere, and where labs work side by
//! side.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often the moving line moves.
const TICK: Duration = Duration::from_millis(120);

/// The progress of one piece of work. Clones tell of the same.
#[derive(Clone)]
pub struct Progress {
    bar: Option<ProgressBar>,
    /// What each line begins with.
    whose: String,
}

impl Progress {
    /// A moving line where standard error is a terminal and nobody else tells of work meanwhile; then lines begin with
    /// `beside_others`, the name of this work.
    pub fn new(beside_others: Option<&str>) -> Progress {
        let bar = (beside_others.is_none() && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(TICK);
            bar
        });
        let whose = beside_others.map_or_else(String::new, |name| format!("[{name}] "));
        Progress { bar, whose }
    }

    /// What is being done or waited for now.
    pub fn step(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(what.to_owned()),
            None => eprintln!("{}  ... {what}", self.whose),
        }
    }

    /// What moves too fast to be told anywhere but on a moving line.
    pub fn waiting(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        }
    }

    /// Lines that stay.
    pub fn line(&self, text: &str) {
        let text: Vec<String> = text.split('\n').map(|line| format!("{}{line}", self.whose)).collect();
        let text = text.join("\n");
        match &self.bar {
            Some(bar) => bar.suspend(|| println!("{text}")),
            None => println!("{text}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
