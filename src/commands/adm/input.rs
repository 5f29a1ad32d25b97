//! Commands as they come in, and the book that is kept of them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;

use futures_util::{Stream, stream};
use tokio::io::AsyncReadExt as _;

use crate::commands::output::complain;
use crate::protocol::{self, Command, Excerpt, Request, Verb};

/// As much of a command is shown where it is named, in bytes.
const SHOWN: usize = 60;

/// So much is read from standard input at a time, in bytes.
const READ: usize = 64 * 1024;

/// Where commands come from.
pub(super) enum Input {
    /// The words of the command line, joined, with their line end.
    Words(Vec<u8>),
    /// Standard input.
    Stdin,
}

/// The request that `text` is, if it is exactly one.
pub(super) fn one(text: &[u8]) -> Option<Request> {
    let mut requests = protocol::Script::default();
    requests.push(text);
    requests.finish();
    let first = requests.next()?.ok()?;
    requests.next().is_none().then_some(first)
}

/// A command on its way.
#[derive(Debug)]
pub(super) struct Sent {
    /// The line of the input that it begins in, counted from 1.
    pub(super) line: u64,
    pub(super) command: Command,
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if *self.command.verb() == Verb::AUTH {
            // What follows is an answer to a challenge.
            return f.write_str("auth");
        }
        let line = self.command.as_line();
        let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii();
        let shown = line.get(..line.len().min(SHOWN)).unwrap_or_default();
        write!(f, "{}", Excerpt::new(shown, SHOWN).lines())?;
        if shown.len() < line.len() { f.write_str(" ...") } else { Ok(()) }
    }
}

/// What is known of the commands that were taken from the input. All clones are one book.
#[derive(Clone, Default)]
pub(super) struct Book(Rc<RefCell<Entries>>);

#[derive(Default)]
struct Entries {
    without_answer: VecDeque<Sent>,
    refused: u64,
    fault: Option<io::Error>,
}

impl Book {
    /// A command was taken, to be sent after all that were noted before.
    pub(super) fn note(&self, sent: Sent) {
        self.0.borrow_mut().without_answer.push_back(sent);
    }

    /// The oldest command has its answer.
    pub(super) fn answered(&self) -> Option<Sent> {
        self.0.borrow_mut().without_answer.pop_front()
    }

    /// Takes out every command without an answer, in order.
    pub(super) fn without_answer(&self) -> Vec<Sent> {
        self.0.borrow_mut().without_answer.drain(..).collect()
    }

    /// How many lines could not be sent as they stand.
    pub(super) fn refused(&self) -> u64 {
        self.0.borrow().refused
    }

    /// What kept the input from being read to its end.
    pub(super) fn input_fault(&self) -> Option<io::Error> {
        self.0.borrow_mut().fault.take()
    }
}

/// The commands of `input`, as they come. What cannot be sent is said, and left out.
pub(super) fn commands(input: Input, book: Book) -> Pin<Box<dyn Stream<Item = Sent>>> {
    let mut requests = protocol::Script::default();
    let stdin = match input {
        Input::Words(text) => {
            requests.push(&text);
            requests.finish();
            None
        }
        Input::Stdin => Some(tokio::io::stdin()),
    };
    let source = Source { requests, stdin, buffer: Vec::with_capacity(READ), book };
    Box::pin(stream::unfold(source, async |mut source| {
        let sent = source.next().await?;
        Some((sent, source))
    }))
}

struct Source {
    requests: protocol::Script,
    /// Until its end.
    stdin: Option<tokio::io::Stdin>,
    buffer: Vec<u8>,
    book: Book,
}

impl Source {
    async fn next(&mut self) -> Option<Sent> {
        loop {
            match self.requests.next() {
                Some(Ok(request)) => {
                    let line = request.line();
                    return Some(Sent { line, command: Command::verbatim(request) });
                }
                Some(Err(fault)) => {
                    complain(format_args!("not sent: {fault}"));
                    self.book.0.borrow_mut().refused += 1;
                }
                None => self.read().await?,
            }
        }
    }

    /// Reads on; `None` at the end.
    async fn read(&mut self) -> Option<()> {
        let stdin = self.stdin.as_mut()?;
        self.buffer.clear();
        match stdin.read_buf(&mut self.buffer).await {
            Ok(1..) => self.requests.push(&self.buffer),
            end => {
                self.book.0.borrow_mut().fault = end.err();
                self.stdin = None;
                self.requests.finish();
            }
        }
        Some(())
    }
}
