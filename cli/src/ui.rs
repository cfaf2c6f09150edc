//! What the person at the terminal sees: progress bars on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::LazyLock;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

static BARS: LazyLock<MultiProgress> =
    LazyLock::new(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));

/// Between two plain lines of one step.
const PLAIN_EVERY: Duration = Duration::from_secs(20);

/// Whether bars can be drawn.
#[must_use]
pub fn is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Prints a line on standard error, above the bars.
pub fn say(line: impl AsRef<str>) {
    BARS.suspend(|| eprintln!("{}", line.as_ref()));
}

/// A long step: a bar or a spinner on a terminal; a line at its start, its end and now and then elsewhere.
pub struct Step {
    name: String,
    began: Instant,
    bar: ProgressBar,
    printed: Mutex<Instant>,
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Step").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Step {
    /// Begins a step of unknown length.
    pub fn begin(name: impl Into<String>) -> Self {
        let name = name.into();
        let bar = if is_terminal() {
            let bar = BARS.add(ProgressBar::new_spinner());
            bar.set_style(style("{spinner} {prefix:28} {wide_msg} {elapsed}"));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        } else {
            eprintln!("  ... {name}");
            ProgressBar::hidden()
        };
        bar.set_prefix(name.clone());
        Self { name, began: Instant::now(), bar, printed: Mutex::new(Instant::now()) }
    }

    /// Says what it does now.
    pub fn message(&self, message: impl Into<String>) {
        let message = message.into();
        self.plainly(&message);
        self.bar.set_message(message);
    }

    /// Says how far it is, in bytes.
    pub fn bytes(&self, done: u64, total: u64) {
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
            self.bar.set_style(style("{spinner} {prefix:28} [{wide_bar}] {bytes}/{total_bytes}"));
        }
        self.bar.set_position(done.min(total));
        self.plainly(&format!("{} of {} MB", done >> 20, total >> 20));
    }

    /// Says how far it is, in steps.
    pub fn count(&self, done: u64, total: u64, message: impl Into<String>) {
        let message = message.into();
        if self.bar.length() != Some(total) {
            self.bar.set_length(total);
            self.bar.set_style(style("{spinner} {prefix:28} [{bar:24}] {pos}/{len} {wide_msg}"));
        }
        self.bar.set_position(done.min(total));
        self.plainly(&format!("{done} of {total} {message}"));
        self.bar.set_message(message);
    }

    /// Ends it well.
    pub fn done(self) {
        self.bar.finish_and_clear();
        say(format!("  ok  {} ({})", self.name, seconds(self.began.elapsed())));
    }

    /// Takes it from the screen.
    pub fn hide(&self) {
        self.bar.finish_and_clear();
    }

    /// Ends it without a word.
    pub fn clear(self) {
        self.bar.finish_and_clear();
    }

    fn plainly(&self, message: &str) {
        let Ok(mut printed) = self.printed.lock() else { return };
        if !is_terminal() && printed.elapsed() >= PLAIN_EVERY {
            *printed = Instant::now();
            eprintln!("  ... {}: {message}", self.name);
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.bar.is_finished() {
            self.bar.finish_and_clear();
        }
    }
}

/// A style, or the plainest one where the template has a mistake.
pub fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .map(|style| style.progress_chars("=> "))
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// `0.3 s`, `12 s`, `2 min 5 s`.
#[must_use]
pub fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        s @ 10..120 => format!("{s} s"),
        s => format!("{} min {} s", s / 60, s % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well() {
        assert_eq!(seconds(Duration::from_millis(340)), "0.3 s");
        assert_eq!(seconds(Duration::from_secs(12)), "12 s");
        assert_eq!(seconds(Duration::from_secs(125)), "2 min 5 s");
    }
}
