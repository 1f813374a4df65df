//! Progress on standard error: a live bar on a terminal, a plain line now and then elsewhere.
//!
//! Enters: how far, out of how much, and a few words. Leaves: what a person sees, in one line however narrow the
//! terminal is. Must not be called for every key: once a batch or once a second is enough.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::say;
use crate::units::grouped;

const REDRAWS_PER_SECOND: u8 = 10;
/// Between the parts of a line.
const GAP: &str = "  ";
/// Of a terminal that does not tell how wide it is.
const USUAL_COLUMNS: usize = 80;
/// The bar takes so much of the width: words say more.
const COLUMNS_TO_ONE_OF_BAR: usize = 8;
const MAX_BAR_COLUMNS: usize = 30;

/// The progress of one run.
pub struct Progress {
    bar: ProgressBar,
    /// Of the terminal, when the bar was drawn for it.
    columns: usize,
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
        let mut progress = Self {
            bar,
            columns: 0,
            plain: plain.then_some(Plain {
                started: now,
                printed: now,
                every,
            }),
            unit,
        };
        progress.fit_bar();
        progress
    }

    /// Progress that nobody sees.
    #[must_use]
    pub fn silent() -> Self {
        Self {
            bar: ProgressBar::hidden(),
            columns: 0,
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

    /// Moves to `done`. `words` gives what else is worth seeing, and is asked only when it is shown: parts with two
    /// spaces between them, the most important first, as a narrow terminal shows no more than fit.
    pub fn update(&mut self, done: u64, words: impl FnOnce() -> String) {
        let now = Instant::now();
        let total = self.bar.length().unwrap_or_default();
        let far = format!("{} of {} {}", grouped(done), grouped(total), self.unit);
        if let Some(plain) = &mut self.plain {
            if now - plain.printed >= plain.every {
                plain.printed = now;
                let seconds = (now - plain.started).as_secs();
                say(&format!("{seconds:>4} s{GAP}{far}{GAP}{}", words()));
            }
        } else if !self.bar.is_hidden() {
            let bar_columns = self.fit_bar();
            self.bar.set_position(done);
            let percent = done.saturating_mul(100) / total.max(1);
            let far = format!("{percent:>3} %{GAP}{far}");
            let left = format!("ETA {:#}", HumanDuration(self.bar.eta()));
            // One column stays free, because a full line makes some terminals begin the next.
            let columns = self.columns.saturating_sub(bar_columns + 2);
            self.bar.set_message(fit(columns, far, &words(), &left));
        }
    }

    /// Gives the bar its share of the terminal, which may have changed, and says how much that is.
    fn fit_bar(&mut self) -> usize {
        let columns = columns();
        let bar_columns = (columns / COLUMNS_TO_ONE_OF_BAR).clamp(1, MAX_BAR_COLUMNS);
        if columns != self.columns {
            self.columns = columns;
            // A message that is too long by itself is cut off.
            let template = format!("{{bar:{bar_columns}.cyan/blue}} {{wide_msg}}");
            let style = ProgressStyle::with_template(&template);
            self.bar
                .set_style(style.expect("nothing but a number varies in it"));
        }
        bar_columns
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

/// Columns of the terminal that standard error goes to.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    let columns = size.map_or(0, |size| usize::from(size.ws_col));
    if columns == 0 { USUAL_COLUMNS } else { columns }
}

/// One line of at most so many columns, save that `far` is always in it: then as many of the words as fit, in their
/// order, and what is left of the time if there is still room.
fn fit(columns: usize, far: String, words: &str, left: &str) -> String {
    let mut line = far;
    let mut push = |part: &str| {
        let fits = line.chars().count() + GAP.len() + part.chars().count() <= columns;
        if fits {
            line.push_str(GAP);
            line.push_str(part);
        }
        fits
    };
    let parts = words.split(GAP).filter(|part| !part.is_empty());
    for part in parts {
        if !push(part) {
            break;
        }
    }
    push(left);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_as_much_as_fits_from_the_most_important_on() {
        let line = |columns| {
            fit(
                columns,
                " 15 %  9 of 60 keys".into(),
                "3 ok/s  p50 1 µs  failed 0",
                "ETA 2s",
            )
        };
        for (columns, expected) in [
            (
                200,
                " 15 %  9 of 60 keys  3 ok/s  p50 1 µs  failed 0  ETA 2s",
            ),
            (
                55,
                " 15 %  9 of 60 keys  3 ok/s  p50 1 µs  failed 0  ETA 2s",
            ),
            (54, " 15 %  9 of 60 keys  3 ok/s  p50 1 µs  failed 0"),
            (46, " 15 %  9 of 60 keys  3 ok/s  p50 1 µs  ETA 2s"),
            (35, " 15 %  9 of 60 keys  3 ok/s  ETA 2s"),
            (30, " 15 %  9 of 60 keys  3 ok/s"),
            (27, " 15 %  9 of 60 keys  3 ok/s"),
            (26, " 15 %  9 of 60 keys"),
            (0, " 15 %  9 of 60 keys"),
        ] {
            assert_eq!(line(columns), expected, "{columns}");
        }
    }

    #[test]
    fn no_words_leave_no_gap() {
        assert_eq!(fit(80, "far".into(), "", "ETA 2s"), "far  ETA 2s");
    }
}
