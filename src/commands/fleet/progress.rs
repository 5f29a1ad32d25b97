//! How far the work is, in one line on a terminal, until it is done.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::termios::tcgetwinsize;

use super::super::config_file::counted;
use crate::model::NodeName;

/// When so few nodes are left, they are named.
const NAMED: usize = 3;

/// Where a terminal does not say how wide it is.
const USUAL_WIDTH: usize = 80;

/// The counts, and the line that shows them: on stderr, when that is a terminal, and never beside
/// anything else.
///
/// The line is drawn only after a first [`period`](Self::period): what is quicker needs none.
#[derive(Debug)]
pub(in crate::commands) struct Progress {
    nodes: Vec<NodeName>,
    done: Mutex<Vec<bool>>,
    /// What each step is, such as `ban`, and what becomes of it, such as `taken`.
    step: (&'static str, &'static str),
    steps: usize,
    steps_done: AtomicUsize,
    /// What else there is to say.
    note: Mutex<String>,
    is_shown: bool,
    /// Whether the line stands on the terminal now. Held while anything is written.
    line: Mutex<bool>,
}

impl Progress {
    /// Of these nodes, which have so many steps together.
    pub(in crate::commands) fn new(
        nodes: Vec<NodeName>,
        step: &'static str,
        participle: &'static str,
        steps: usize,
    ) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            done: Mutex::new(vec![false; nodes.len()]),
            nodes,
            step: (step, participle),
            steps,
            steps_done: AtomicUsize::new(0),
            note: Mutex::default(),
            is_shown: !dumb && io::stderr().is_terminal(),
            line: Mutex::new(false),
        }
    }

    /// One step more is done.
    pub(in crate::commands) fn advance(&self) {
        self.steps_done.fetch_add(1, Ordering::Relaxed);
    }

    /// Says this besides, until something else is said.
    pub(in crate::commands) fn note(&self, text: String) {
        *self.note.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// Writes something else, the line out of its way.
    pub(in crate::commands) fn aside(&self, write: impl FnOnce()) {
        let mut stands = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        erase(&mut stands);
        write();
    }

    pub(in crate::commands) fn period(&self) -> Duration {
        Duration::from_millis(200)
    }

    pub(in crate::commands) fn is_shown(&self) -> bool {
        self.is_shown
    }

    /// All steps of this node are done.
    pub(in crate::commands) fn done(&self, node: usize) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(done) = done.get_mut(node) {
            *done = true;
        }
    }

    /// Draws the line, unless something else is being written: that may take its time, and nobody
    /// is to wait for it here.
    pub(in crate::commands) fn show(&self) {
        let Ok(mut stands) = self.line.try_lock() else { return };
        let columns = tcgetwinsize(io::stderr()).map_or(0, |size| usize::from(size.ws_col));
        let columns = if columns == 0 { USUAL_WIDTH } else { columns };
        let line = cut(self.text(), columns.saturating_sub(1));
        *stands = write!(io::stderr().lock(), "\r{line}\x1b[K").is_ok();
    }

    /// Takes the line away.
    pub(in crate::commands) fn clear(&self) {
        if let Ok(mut stands) = self.line.try_lock() {
            erase(&mut stands);
        }
    }

    fn text(&self) -> String {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let left: Vec<&NodeName> = self
            .nodes
            .iter()
            .zip(&*done)
            .filter(|(_, done)| !**done)
            .map(|(name, _)| name)
            .collect();
        let mut text = String::new();
        // Writing to a string cannot fail.
        if self.nodes.len() > 1 {
            let _ = write!(
                text,
                "{} of {} nodes done",
                self.nodes.len() - left.len(),
                self.nodes.len()
            );
        }
        if self.steps > self.nodes.len() {
            let (step, participle) = self.step;
            let between = if text.is_empty() { "" } else { ", " };
            let steps_done = self.steps_done.load(Ordering::Relaxed);
            let steps = counted(self.steps, step);
            let _ = write!(text, "{between}{steps_done} of {steps} {participle}");
        }
        if (1..=NAMED).contains(&left.len()) {
            let names: Vec<&str> = left.iter().map(|name| name.as_str()).collect();
            let between = if text.is_empty() { "" } else { "; " };
            let _ = write!(text, "{between}waiting for {}", names.join(", "));
        }
        let note = self.note.lock().unwrap_or_else(PoisonError::into_inner);
        if !note.is_empty() {
            let _ = write!(text, " ({note})");
        }
        text
    }
}

fn erase(stands: &mut bool) {
    if std::mem::take(stands) {
        let _ = write!(io::stderr().lock(), "\r\x1b[K");
    }
}

/// As much of a text as fits: a line that wraps could not be taken away again. Letters beyond
/// ASCII are taken for wide ones.
fn cut(mut text: String, columns: usize) -> String {
    let mut used = 0;
    let end = text.char_indices().find(|&(_, c)| {
        used += if c.is_ascii() { 1 } else { 2 };
        used > columns
    });
    if let Some((end, _)) = end {
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(nodes: usize, steps: usize) -> Progress {
        let name = |n| NodeName::new(&format!("cache-{n:02}")).unwrap();
        Progress::new((1..=nodes).map(name).collect(), "ban", "taken", steps)
    }

    #[test]
    fn says_how_many_are_done_and_who_is_waited_for() {
        let two_hundred = progress(200, 200);
        assert_eq!(two_hundred.text(), "0 of 200 nodes done");
        (0..197).for_each(|node| two_hundred.done(node));
        let text = "197 of 200 nodes done; waiting for cache-198, cache-199, cache-200";
        assert_eq!(two_hundred.text(), text);
        two_hundred.done(198);
        assert_eq!(two_hundred.text(), "198 of 200 nodes done; waiting for cache-198, cache-200");

        let batch = progress(2, 20_000);
        batch.done(0);
        (0..15).for_each(|_| batch.advance());
        let text = "1 of 2 nodes done, 15 of 20000 bans taken; waiting for cache-02";
        assert_eq!(batch.text(), text);
        assert_eq!(progress(1, 500).text(), "0 of 500 bans taken; waiting for cache-01");
        let one = progress(1, 1);
        assert_eq!(one.text(), "waiting for cache-01");
        one.note("5 left".to_owned());
        assert_eq!(one.text(), "waiting for cache-01 (5 left)");
    }

    #[test]
    fn never_wraps() {
        assert_eq!(cut("waiting".to_owned(), 7), "waiting");
        assert_eq!(cut("waiting".to_owned(), 4), "wait");
        assert_eq!(cut("ab日本".to_owned(), 5), "ab日");
        assert_eq!(cut("ab".to_owned(), 0), "");
    }
}
