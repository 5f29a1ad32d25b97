//! Commands in order, from the command line or standard input: all sent, all answered, and each
//! that was not named with its line.

use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::signal::unix::{SignalKind, signal};

use super::input::{Book, Input, Sent, commands, one};
use super::status::Status;
use super::words;
use super::written::{Style, write};
use crate::admin::{AdminError, Client, Outcome, Retry};
use crate::commands::output::{Output, complain};
use crate::protocol::{Command, Reply, Request, Verb};

/// How commands are carried out.
pub(super) struct Script {
    pub(super) client: Client,
    pub(super) style: Style,
    /// How often what a lost connection left open is sent again.
    pub(super) retries: u32,
}

impl Script {
    /// Sends what `input` holds and writes the answers, in order.
    pub(super) async fn run(self, input: Input, output: &mut Output) -> Status {
        let alone = match &input {
            Input::Words(text) => one(text),
            Input::Stdin => None,
        };
        match alone {
            // A start is most of what a single command costs: no signal is listened for, and one
            // that comes ends the process as it ends varnishadm.
            Some(request) => self.single(request, output).await,
            None => self.sequence(input, output).await,
        }
    }

    async fn single(&self, request: Request, output: &mut Output) -> Status {
        match self.client.request(Command::verbatim(request)).await {
            Ok(reply) => {
                write(output, self.style, &reply);
                if reply.is_success() {
                    return Status::Done;
                }
                output.flush();
                if self.style != Style::AsSent {
                    words::failed(reply.status, None);
                }
                Status::Failed
            }
            Err(error) => {
                words::no_answer(&error);
                Status::NoAnswer
            }
        }
    }

    async fn sequence(&self, input: Input, output: &mut Output) -> Status {
        let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            complain("cannot listen for signals");
            return Status::NoAnswer;
        };
        let book = Book::default();
        let mut sequence =
            Sequence { script: self, book: book.clone(), status: Status::Done, answered: 0 };
        let interrupted = tokio::select! {
            biased;
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
            () = sequence.carry_out(input, output) => false,
        };
        output.flush();
        if interrupted {
            complain("interrupted");
            sequence.summarise(&book.without_answer(), &[]);
            return Status::Interrupted;
        }
        sequence.status
    }
}

/// A run through all commands.
struct Sequence<'a> {
    script: &'a Script,
    book: Book,
    status: Status,
    answered: u64,
}

/// The end of a connection before the end of the input.
struct Break {
    error: AdminError,
    /// The commands without an answer, in order.
    left: Vec<Sent>,
    /// So many of them, from the first, may have been carried out.
    unknown: usize,
}

impl Sequence<'_> {
    async fn carry_out(&mut self, input: Input, output: &mut Output) {
        let mut fresh = commands(input, self.book.clone());
        let (mut again, mut attempt) = (Vec::new(), 0);
        let broken = loop {
            let all = stream::iter(again).chain(&mut fresh);
            let Some(broken) = self.attempt(all, output).await else { break None };
            if attempt == self.script.retries || broken.error.retry() == Retry::Never {
                break Some(broken);
            }
            attempt += 1;
            complain(format_args!("{}; sending what is left again", broken.error));
            again = broken.left;
        };
        output.flush();
        if let Some(Break { error, left, unknown }) = broken {
            words::no_answer(&error);
            let (unknown, unsent) = left.split_at(unknown.min(left.len()));
            self.summarise(unknown, unsent);
            self.worst(Status::NoAnswer);
        }
        if let Some(fault) = self.book.input_fault() {
            words::unreadable(&fault);
            self.worst(Status::Failed);
        }
        if self.book.refused() > 0 {
            self.worst(Status::Failed);
        }
    }

    /// Carries out what there is, until the end or the first command without an answer.
    async fn attempt(
        &mut self,
        commands: impl futures_util::Stream<Item = Sent> + Unpin,
        output: &mut Output,
    ) -> Option<Break> {
        let book = self.book.clone();
        let noted = commands.map(move |sent| {
            let command = sent.command.clone();
            book.note(sent);
            command
        });
        let mut batch = self.script.client.batch(noted);
        loop {
            let next = match batch.next_reply().now_or_never() {
                Some(next) => next,
                None => {
                    // Whoever drives the program waits for the answers that are there.
                    output.flush();
                    batch.next_reply().await
                }
            };
            match next? {
                Ok(reply) => {
                    let sent = self.book.answered();
                    self.take(sent.as_ref(), &reply, output);
                    if sent.is_some_and(|sent| sent.quits()) && !reply.is_success() {
                        return self.closed_on_request();
                    }
                }
                Err(error) => {
                    let others = batch.abandon();
                    let open = |error: &AdminError| error.outcome() == Outcome::Unknown;
                    let unknown = std::iter::once(&error).chain(&others);
                    let unknown = unknown.filter(|error| open(error)).count();
                    return Some(Break { left: self.book.without_answer(), error, unknown });
                }
            }
        }
    }

    fn take(&mut self, sent: Option<&Sent>, reply: &Reply, output: &mut Output) {
        self.answered += 1;
        write(output, self.script.style, reply);
        let quits = sent.is_some_and(Sent::quits);
        if !reply.is_success() && !quits {
            // In the order in which both are read on a terminal.
            output.flush();
            words::failed(reply.status, sent);
            self.worst(Status::Failed);
        }
    }

    /// `quit` was answered: what stands behind it has no connection to go out on.
    fn closed_on_request(&mut self) -> Option<Break> {
        if let Some(first) = self.book.without_answer().first() {
            complain(format_args!(
                "not sent: line {} and what follows, since `quit` closed the connection",
                first.line
            ));
            self.worst(Status::Failed);
        }
        None
    }

    fn worst(&mut self, status: Status) {
        self.status = self.status.max(status);
    }

    /// Says which commands were not answered, and what is known of them.
    fn summarise(&self, unknown: &[Sent], unsent: &[Sent]) {
        let answered = match self.answered {
            1 => "1 command was answered".to_owned(),
            n => format!("{n} commands were answered"),
        };
        complain(answered);
        for sent in unknown {
            complain(format_args!("unknown whether it was carried out: {sent}"));
        }
        if let Some(first) = unsent.first() {
            complain(format_args!("not sent: line {} and what follows", first.line));
        }
    }
}

impl Sent {
    /// Whether varnishd closes the connection as this asks for.
    fn quits(&self) -> bool {
        *self.command.verb() == Verb::QUIT
    }
}
