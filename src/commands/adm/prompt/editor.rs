//! The line editor, which blocks and therefore has a thread of its own.

use std::borrow::Cow;
use std::io;
use std::sync::mpsc as blocking;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use rustyline::completion::{Candidate, Completer};
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::{Hint, Hinter};
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use rustyline::{ColorMode, CompletionType, Config, Context, ExternalPrinter};
use tokio::sync::mpsc;

use super::completion::{self, complete, needs};
use super::hint::{self, Look, hint};
use super::history::{History, MOST};
use super::known::{Known, Subject};
use super::server::PATIENCE;
use crate::commands::output::{complain, complain_verbatim};

/// So many notices wait for their turn; more are dropped.
const NOTICES: usize = 16;

/// Where a terminal does not say how wide it is.
const USUAL_WIDTH: usize = 80;

/// The line editor.
#[derive(Debug)]
pub(super) struct Editor {
    orders: blocking::Sender<Order>,
    /// What became of the lines that were asked for.
    pub(super) events: mpsc::Receiver<Event>,
    /// What has to be learnt while somebody types.
    pub(super) queries: mpsc::Receiver<Query>,
    /// Prints above the line that is being typed; `None` on a terminal that cannot.
    notices: Option<blocking::SyncSender<String>>,
    /// As it was, where that was changed.
    terminal: Option<Termios>,
}

enum Order {
    Read { prompt: String, begins: bool },
    Keep(String),
}

/// What became of a line that was asked for.
#[derive(Debug)]
pub(super) enum Event {
    /// It was entered; pasted text may be several.
    Line(String),
    /// Ctrl-C.
    Interrupted,
    /// Ctrl-D, or the terminal has gone.
    End,
    /// It holds something that is no UTF-8.
    Unreadable,
    /// There is no reading any more.
    Failed(String),
}

/// A subject of which more has to be known. Whoever asked waits until it is dropped.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) subject: Subject,
    _asker: blocking::Sender<()>,
}

impl Editor {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When the terminal cannot be used, or no thread started.
    pub(super) fn start(known: Arc<Mutex<Known>>, colour: bool) -> io::Result<Self> {
        let (query, queries) = mpsc::channel(1);
        let (said, events) = mpsc::channel(1);
        let (orders, ordered) = blocking::channel();
        let helper =
            Helper { known, queries: query, look: look(colour), begins: true, prompt_width: 0 };
        let mut reader = Reader::new(helper, colour).map_err(io::Error::other)?;
        let notices = reader.editor.create_external_printer().ok().map(print_above).transpose()?;
        thread::Builder::new().name("editor".to_owned()).spawn(move || {
            while let Ok(order) = ordered.recv() {
                let is_heard = match order {
                    Order::Read { prompt, begins } => {
                        said.blocking_send(reader.read(&prompt, begins)).is_ok()
                    }
                    Order::Keep(text) => {
                        reader.keep(&text);
                        true
                    }
                };
                if !is_heard {
                    return;
                }
            }
        })?;
        let terminal = notices.as_ref().and_then(|_| tcgetattr(io::stdin()).ok());
        if let Some(terminal) = &terminal {
            keep_typed_ahead(terminal);
        }
        Ok(Self { orders, events, queries, notices, terminal })
    }

    /// Asks for a line; it comes as an event. One that `begins` a command can be completed, one
    /// that goes on with a here document cannot.
    pub(super) fn read(&self, prompt: &str, begins: bool) {
        // A thread that has gone shows in its events.
        let _ = self.orders.send(Order::Read { prompt: prompt.to_owned(), begins });
    }

    /// Adds a command to the history, unless it is one that is not kept.
    pub(super) fn keep(&self, text: &str) {
        let _ = self.orders.send(Order::Keep(text.to_owned()));
    }

    /// Says something while a line is being typed, without disturbing it.
    pub(super) fn say(&self, notice: &str) {
        match &self.notices {
            Some(notices) => {
                let safe = super::Harmless(notice.as_bytes());
                let _ = notices.try_send(format!("purgewatch: {safe}\n"));
            }
            None => complain(notice),
        }
    }

    /// Ends while a line is being typed.
    pub(super) fn abandon(&self) {
        if self.notices.is_some() {
            // Bracketed paste, which the editor switches on.
            complain_verbatim("\x1b[?2004l\n");
        }
    }
}

/// Leaves the terminal as it was, whatever the thread is at.
impl Drop for Editor {
    fn drop(&mut self) {
        if let Some(terminal) = &self.terminal {
            let _ = tcsetattr(io::stdin(), OptionalActions::Drain, terminal);
        }
    }
}

/// Between two lines, what is typed ahead stays as it is, for the next: with the terminal's own
/// line editing, a Ctrl-D would be lost. Ctrl-C remains a signal.
fn keep_typed_ahead(terminal: &Termios) {
    let mut quiet = terminal.clone();
    quiet.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
    quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
    let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &quiet);
}

/// How many columns the terminal has.
pub(super) fn width() -> usize {
    let columns = tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_col));
    if columns == 0 { USUAL_WIDTH } else { columns }
}

const fn look(colour: bool) -> Look {
    if colour { Look::Dimmed } else { Look::Plain }
}

/// A thread that prints above the line: to print may wait until the editor looks.
fn print_above(
    mut printer: impl ExternalPrinter + Send + 'static,
) -> io::Result<blocking::SyncSender<String>> {
    let (notices, said) = blocking::sync_channel(NOTICES);
    thread::Builder::new().name("notices".to_owned()).spawn(move || {
        while let Ok(notice) = said.recv() {
            if printer.print(notice).is_err() {
                return;
            }
        }
    })?;
    Ok(notices)
}

/// What the thread owns.
struct Reader {
    editor: rustyline::Editor<Helper, MemHistory>,
    history: Option<History>,
}

impl Reader {
    fn new(helper: Helper, colour: bool) -> rustyline::Result<Self> {
        let config = Config::builder()
            .max_history_size(MOST)?
            .history_ignore_dups(true)?
            .completion_type(CompletionType::List)
            .completion_show_all_if_ambiguous(true)
            .color_mode(if colour { ColorMode::Enabled } else { ColorMode::Disabled })
            .build();
        let history = MemHistory::with_config(&config);
        let mut editor = rustyline::Editor::with_history(config, history)?;
        editor.set_helper(Some(helper));
        let mut history = None;
        match History::usual_path().map(History::open) {
            Some(Ok((opened, kept))) => {
                history = Some(opened);
                for text in kept {
                    editor.add_history_entry(text)?;
                }
            }
            Some(Err(fault)) => complain(format_args!("no history is kept: {fault}")),
            None => {}
        }
        Ok(Self { editor, history })
    }

    fn read(&mut self, prompt: &str, begins: bool) -> Event {
        if let Some(helper) = self.editor.helper_mut() {
            helper.begins = begins;
            helper.prompt_width = prompt.chars().count();
        }
        match self.editor.readline(prompt) {
            Ok(line) => Event::Line(line),
            Err(ReadlineError::Interrupted) => Event::Interrupted,
            Err(ReadlineError::Eof) => Event::End,
            Err(ReadlineError::Io(fault)) if fault.kind() == io::ErrorKind::InvalidData => {
                Event::Unreadable
            }
            // A terminal that was closed answers so.
            Err(ReadlineError::Io(fault)) if fault.raw_os_error() == Some(EIO) => Event::End,
            Err(fault) => Event::Failed(fault.to_string()),
        }
    }

    fn keep(&mut self, text: &str) {
        if !super::history::is_kept(text) {
            return;
        }
        let is_new = self.editor.add_history_entry(text.trim_end()).unwrap_or(false);
        let Some(history) = self.history.as_ref().filter(|_| is_new) else { return };
        if let Err(fault) = history.add(text) {
            complain(format_args!("no history is kept any more: {fault}"));
            self.history = None;
        }
    }
}

const EIO: i32 = rustix::io::Errno::IO.raw_os_error();

/// What the editor asks while somebody types.
struct Helper {
    known: Arc<Mutex<Known>>,
    queries: mpsc::Sender<Query>,
    look: Look,
    /// Whether the line begins a command.
    begins: bool,
    prompt_width: usize,
}

impl Helper {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the subject was asked for, and no longer than somebody who presses a key does.
    fn learn(&self, subject: Subject) {
        let (asker, asked) = blocking::channel();
        if self.queries.try_send(Query { subject, _asker: asker }).is_ok() {
            // It ends when the query is dropped.
            let _ = asked.recv_timeout(2 * PATIENCE);
        }
    }
}

impl rustyline::Helper for Helper {}

impl Validator for Helper {}

impl Candidate for completion::Candidate {
    fn display(&self) -> &str {
        &self.shown
    }

    fn replacement(&self) -> &str {
        &self.text
    }
}

impl Completer for Helper {
    type Candidate = completion::Candidate;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Self::Candidate>)> {
        if !self.begins {
            return Ok((position, Vec::new()));
        }
        if let Some(subject) = needs(line, position)
            // VCLs and backends come and go, commands do not.
            && (subject != Subject::Commands || self.known().lacks(subject))
        {
            self.learn(subject);
        }
        let completion = complete(line, position, &self.known());
        Ok((completion.start, completion.candidates))
    }
}

impl Hint for hint::Hint {
    fn display(&self) -> &str {
        &self.shown
    }

    fn completion(&self) -> Option<&str> {
        self.takes.as_deref()
    }
}

impl Hinter for Helper {
    type Hint = hint::Hint;

    fn hint(&self, line: &str, position: usize, _: &Context<'_>) -> Option<hint::Hint> {
        if !self.begins {
            return None;
        }
        let used = self.prompt_width + line.chars().count() + 1;
        hint(line, position, &self.known(), self.look, width().saturating_sub(used))
    }
}

impl Highlighter for Helper {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        match self.look {
            Look::Dimmed => Cow::Owned(format!("\x1b[2m{hint}\x1b[0m")),
            Look::Plain => Cow::Borrowed(hint),
        }
    }

    fn highlight_char(&self, _: &str, _: usize, _: CmdKind) -> bool {
        false
    }
}
