//! Progress on standard error: a live bar on a terminal, a plain line now and then elsewhere.
//!
//! Enters: how far, out of how much, and a few words. Leaves: what a person sees. Must not be called for
//! every key: once a batch or once a second is enough.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::say;
use crate::units::grouped;

const REDRAWS_PER_SECOND: u8 = 10;

/// The progress of one run.
pub struct Progress {
    bar: ProgressBar,
    plain: Option<Plain>,
    unit: &'static str,
}

struct Plain {
    started: Instant,
    printed: Instant,
    every: Duration,
}

impl Progress {
    /// Progress towards `total` of `unit`, such as `keys`; off a terminal it is a line `every` so often.
    #[must_use]
    pub fn new(total: u64, unit: &'static str, every: Duration) -> Self {
        let now = Instant::now();
        let plain = !std::io::stderr().is_terminal();
        let target = if plain {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_SECOND)
        };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let template = format!(
            "{{bar:30.cyan/blue}} {{percent:>3}} %  {{human_pos}} of {{human_len}} {unit}  \
             {{msg}}  ETA {{eta}}"
        );
        bar.set_style(ProgressStyle::with_template(&template).expect("the template is constant"));
        Self {
            bar,
            plain: plain.then_some(Plain {
                started: now,
                printed: now,
                every,
            }),
            unit,
        }
    }

    /// Progress that nobody sees.
    #[must_use]
    pub fn silent() -> Self {
        Self {
            bar: ProgressBar::hidden(),
            plain: None,
            unit: "",
        }
    }

    /// Counts the seconds from now on.
    pub fn restart(&mut self) {
        self.bar.reset_elapsed();
        if let Some(plain) = &mut self.plain {
            plain.started = Instant::now();
        }
    }

    /// Moves to `done`; `words` gives what else is worth seeing, and is asked only when it is shown.
    pub fn update(&mut self, done: u64, words: impl FnOnce() -> String) {
        self.bar.set_position(done);
        let Some(plain) = &mut self.plain else {
            if !self.bar.is_hidden() {
                self.bar.set_message(words());
            }
            return;
        };
        let now = Instant::now();
        if now - plain.printed >= plain.every {
            plain.printed = now;
            say(&format!(
                "{:>4} s  {} of {} {}  {}",
                (now - plain.started).as_secs(),
                grouped(done),
                grouped(self.bar.length().unwrap_or_default()),
                self.unit,
                words()
            ));
        }
    }

    /// Prints a line above the bar.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| say(line));
    }

    /// Takes the bar away, so that what is printed next stands alone.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
