//! What is going on, on one line of a terminal, and lines that stay, anywhere.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use super::Quiet;

/// One line on standard error that says what is going on, gone when this is dropped.
pub(super) struct Progress {
    /// Whether the line is shown.
    shown: bool,
    /// Whether nothing is said at all.
    quiet: bool,
    done: AtomicU64,
}

impl Progress {
    /// The line is shown only if standard error is a terminal.
    pub(super) fn new(Quiet { quiet }: Quiet) -> Self {
        Progress { shown: !quiet && io::stderr().is_terminal(), quiet, done: AtomicU64::new(0) }
    }

    /// Begins something.
    pub(super) fn phase(&self, what: impl std::fmt::Display) {
        self.done.store(0, Ordering::Relaxed);
        self.draw(format_args!("{what} …"));
    }

    /// `more` bytes of `all` are done. Threads may call this at once.
    pub(super) fn advance(&self, what: impl std::fmt::Display, more: u64, all: u64) {
        if !self.shown {
            return;
        }
        let before = self.done.fetch_add(more, Ordering::Relaxed);
        let percent = |n: u64| u128::from(n) * 100 / u128::from(all.max(1));
        let now = percent(before.saturating_add(more)).min(100);
        if now != percent(before) {
            self.draw(format_args!("{what} … {now} %"));
        }
    }

    /// Leaves a line that stays.
    pub(super) fn done(&self, what: impl std::fmt::Display) {
        if self.shown {
            self.draw(format_args!("{what}\n"));
        } else if !self.quiet {
            // Nobody is left to tell when this fails.
            let _ = writeln!(io::stderr(), "{what}");
        }
    }

    fn draw(&self, line: std::fmt::Arguments<'_>) {
        if self.shown {
            // A terminal that is gone is no reason to stop.
            let _ = write!(io::stderr(), "\r\x1b[K{line}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.draw(format_args!(""));
    }
}
