//! Without a command, on a terminal: a prompt.
//!
//! The editor has a thread of its own, which blocks; the client lives in the runtime, and is asked
//! from here only. While nobody waits for an answer, the connection is looked after.
//!
//! | module | one idea |
//! |---|---|
//! | `editor` | the line editor and its thread |
//! | `history` | the commands of earlier sessions |
//! | `known` | what is known of the server |
//! | `server` | asks it for that |
//! | `completion` | what a line can go on with |
//! | `hint` | the syntax of the command that is being typed |
//! | `link` | whether there is a connection, and what is said when that changes |
//! | `shown` | answers as people read them |

mod completion;
mod editor;
mod hint;
mod history;
mod known;
mod link;
mod server;
mod shown;

use std::future::Future;
use std::io::{self, IsTerminal as _};
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};

use self::completion::EXIT;
use self::editor::{Editor, Event, width};
use self::known::{Known, Subject};
use self::link::Link;
use super::status::Status;
use super::words;
use super::written::Harmless;
use crate::admin::{AdminError, Client, Greeting, Options, Place};
use crate::ban;
use crate::commands::output::{Output, complain, complain_verbatim, stdout_takes_colour};
use crate::commands::target::Chosen;
use crate::protocol::answer::{Answer as _, Help};
use crate::protocol::{self, Command, Reply, Request, RequestError, Script, Verb};

/// Who waits longer than this is told what for.
const SLOW: Duration = Duration::from_secs(1);

/// How often is looked whether the connection is still there.
const LOOK: Duration = Duration::from_secs(1);

/// A peer that says nothing is asked after this time.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A connection that is there is known at once.
const AT_ONCE: Duration = Duration::from_millis(100);

/// The longest command that can be typed, in bytes.
const LONGEST: usize = 16 << 20;

/// What the prompt looks like within a here document.
const WITHIN: &str = "> ";

/// Whether there is somebody to prompt.
pub(super) fn has_somebody() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// The limits of a connection that stands idle, and whose user waits.
pub(super) fn options(mut options: Options) -> Options {
    options.keep_alive = Some(KEEP_ALIVE);
    options.backoff_most = SLOW;
    options
}

/// Prompts for commands until the end.
pub(super) async fn run(client: Client, chosen: &Chosen, output: &mut Output) -> Status {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(interrupt), Ok(terminate)) = signals else {
        complain("cannot listen for signals");
        return Status::NoAnswer;
    };
    let mut signals = Signals { interrupt, terminate };
    let greeting = match signals.patiently("a connection", client.connect()).await {
        Wait::Over(Ok(greeting)) => greeting,
        Wait::Over(Err(error)) => {
            words::no_answer(&error);
            return Status::NoAnswer;
        }
        Wait::GivenUp | Wait::Terminated => return Status::Interrupted,
    };
    for note in &greeting.notes {
        complain(note);
    }
    let known = Arc::new(Mutex::new(Known { version: version(&greeting), ..Known::default() }));
    let editor = match Editor::start(known.clone(), stdout_takes_colour()) {
        Ok(editor) => editor,
        Err(fault) => {
            complain(format_args!("the terminal cannot be used: {fault}"));
            return Status::Failed;
        }
    };
    let session = Session {
        prompt: prompt(chosen, &greeting),
        link: Link::Up(Box::new(greeting)),
        client,
        editor,
        known,
        signals,
        output,
        wants_commands: true,
    };
    session.run().await
}

/// `varnish> ` as varnishadm has it, with the node's name where that is not this machine.
fn prompt(chosen: &Chosen, greeting: &Greeting) -> String {
    let is_vinyl =
        greeting.version.as_ref().is_some_and(|version| version.as_str().starts_with("vinyl"));
    let product = if is_vinyl { "vinyl" } else { "varnish" };
    let is_local = |place: &Place| match place {
        Place::Workdir(_) => true,
        Place::Reverse(_) => false,
        Place::Addresses(addresses) => addresses.iter().all(|address| {
            let ip = address.host().parse::<std::net::IpAddr>();
            address.host() == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
        }),
    };
    match chosen.nodes.first() {
        Some(node) if chosen.config.is_some() || !is_local(&node.target.place) => {
            format!("{product} {}> ", node.target.node)
        }
        _ => format!("{product}> "),
    }
}

fn version(greeting: &Greeting) -> Option<ban::ServerVersion> {
    let (major, minor, _) = greeting.version.as_ref()?.numbers()?;
    Some(ban::ServerVersion::new(major, minor))
}

struct Session<'a> {
    prompt: String,
    client: Client,
    link: Link,
    editor: Editor,
    known: Arc<Mutex<Known>>,
    signals: Signals,
    output: &'a mut Output,
    /// Whether the commands of this server are still to be asked for.
    wants_commands: bool,
}

impl Session<'_> {
    async fn run(mut self) -> Status {
        if let Wait::Over(Ok(banner)) =
            self.signals.patiently("the banner", self.client.request(Command::banner())).await
        {
            self.show(&banner);
        }
        let mut typed = Typed::default();
        loop {
            self.output.flush();
            let prompt = if typed.is_within_request() { WITHIN } else { &self.prompt };
            self.editor.read(prompt, !typed.is_within_request());
            let Some(event) = self.idle().await else {
                self.editor.abandon();
                return Status::Interrupted;
            };
            let requests = match event {
                Event::Line(line) => typed.take(&line),
                Event::Interrupted => {
                    typed = Typed::default();
                    continue;
                }
                Event::Unreadable => {
                    complain("not sent: a line that is no UTF-8");
                    typed = Typed::default();
                    continue;
                }
                Event::End if typed.is_within_request() => {
                    complain("not sent: a here document without its end");
                    typed = Typed::default();
                    continue;
                }
                Event::End => return Status::Done,
                Event::Failed(fault) => {
                    complain(format_args!("the terminal cannot be read: {fault}"));
                    return Status::Failed;
                }
            };
            let Some(requests) = requests else { continue };
            self.editor.keep(&typed.text);
            typed = Typed::default();
            for request in requests {
                let carried_out = match request {
                    Ok(request) => self.carry_out(request).await,
                    Err(refused) => {
                        complain(format_args!("not sent: {}", refused.fault));
                        continue;
                    }
                };
                self.output.flush();
                if let ControlFlow::Break(status) = carried_out {
                    return status;
                }
            }
        }
    }

    /// Looks after the connection and helps typing until a line is there; `None` when the process
    /// is to end.
    async fn idle(&mut self) -> Option<Event> {
        loop {
            let notice = tokio::select! {
                biased;
                _ = self.signals.terminate.recv() => return None,
                event = self.editor.events.recv() => {
                    let ended = || Event::Failed("the editor has ended".to_owned());
                    return Some(event.unwrap_or_else(ended));
                }
                // In a line that is being typed, Ctrl-C is a key. This is somebody else's.
                _ = self.signals.interrupt.recv() => None,
                Some(query) = self.editor.queries.recv() => {
                    server::learn(&self.client, &self.known, query.subject).await;
                    None
                }
                () = server::learn(&self.client, &self.known, Subject::Commands),
                    if self.wants_commands && self.link.is_up() =>
                {
                    self.wants_commands = false;
                    None
                }
                heard = look(&self.client), if self.link.is_hopeful() => self.hear(heard),
            };
            if let Some(notice) = notice {
                self.editor.say(&notice);
            }
        }
    }

    /// Takes in what the connection is now; what is to be said of it.
    fn hear(&mut self, heard: Result<Greeting, AdminError>) -> Option<String> {
        let version = heard.as_ref().ok().map(version);
        let notice = self.link.hear(heard);
        if let Some(version) = version.filter(|_| notice.is_some()) {
            // Another varnishd may answer now, with other commands.
            self.wants_commands = true;
            self.known.lock().unwrap_or_else(PoisonError::into_inner).version = version;
        }
        notice
    }

    async fn carry_out(&mut self, request: Request) -> ControlFlow<Status> {
        let text = request.bytes().trim_ascii();
        let quits = request.verb() == Some(&Verb::QUIT) || text == EXIT.as_bytes();
        if quits && !self.link.is_up() {
            return ControlFlow::Break(Status::Done);
        }
        let is_help = text == b"help";
        let command = match (is_help, quits) {
            (true, _) => Command::help_json(),
            (_, true) => Command::quit(),
            (false, false) => Command::verbatim(request),
        };
        let verb = command.verb().clone();
        let what = format!("the answer to {verb}");
        let answer = self.signals.patiently(&what, self.client.request(command.clone())).await;
        let reply = match answer {
            Wait::Over(Ok(reply)) => reply,
            Wait::Over(Err(_)) if quits => return ControlFlow::Break(Status::Done),
            Wait::Over(Err(error)) => {
                self.link.failed(&error);
                complain(&error);
                return ControlFlow::Continue(());
            }
            Wait::GivenUp => {
                complain(self.given_up(&verb));
                return ControlFlow::Continue(());
            }
            Wait::Terminated => {
                complain(self.given_up(&verb));
                return ControlFlow::Break(Status::Interrupted);
            }
        };
        if quits {
            self.show(&reply);
            return ControlFlow::Break(Status::Done);
        }
        if reply.status == protocol::Status::CLOSE {
            // The connection ends with this answer; what becomes of it is said behind it.
            self.show(&reply);
            return ControlFlow::Continue(());
        }
        if let Ok(heard) = timeout(AT_ONCE, self.client.connect()).await
            && let Some(notice) = self.hear(heard)
        {
            complain(notice);
        }
        if is_help {
            self.show_help(&command, &reply).await;
        } else {
            self.show(&reply);
        }
        ControlFlow::Continue(())
    }

    /// What is said of a command that is not waited for any more.
    fn given_up(&self, verb: &Verb) -> String {
        match self.client.stage() {
            // There was no connection that it could go out on.
            Some(stage) => format!("{stage}: given up; {verb} was not sent"),
            None => format!("{verb}: given up; whether it was carried out is unknown"),
        }
    }

    fn show(&mut self, reply: &Reply) {
        self.output.text(shown::reply(reply, width(), stdout_takes_colour()));
    }

    async fn show_help(&mut self, asked: &Command, reply: &Reply) {
        if let Ok(help) = Help::read(reply, asked)
            && help.complete
        {
            self.output.text(shown::help(&help.commands, width()));
            return;
        }
        let Ok(plain) = Command::parse(b"help") else { return };
        match self.signals.patiently("the answer to help", self.client.request(plain)).await {
            Wait::Over(Ok(reply)) => self.show(&reply),
            Wait::Over(Err(error)) => {
                self.link.failed(&error);
                complain(error);
            }
            Wait::GivenUp | Wait::Terminated => {}
        }
    }
}

/// Asks, after a while, what the connection is, and makes it where there is none.
async fn look(client: &Client) -> Result<Greeting, AdminError> {
    sleep(LOOK).await;
    client.connect().await
}

/// What has been typed of a command that may go on in the next line.
struct Typed {
    script: Script,
    text: String,
    /// Complete ones. Nothing is sent before the last line is there: until then Ctrl-C clears it
    /// all.
    requests: Vec<Result<Request, RequestError>>,
}

impl Default for Typed {
    fn default() -> Self {
        Self { script: Script::with_limit(LONGEST), text: String::new(), requests: Vec::new() }
    }
}

impl Typed {
    /// Takes a line, or several that were pasted; `None` while they end within a here document.
    fn take(&mut self, line: &str) -> Option<Vec<Result<Request, RequestError>>> {
        for text in [line, "\n"] {
            self.text.push_str(text);
            self.script.push(text.as_bytes());
        }
        self.requests.extend(self.script.by_ref());
        (!self.script.is_within_request()).then(|| std::mem::take(&mut self.requests))
    }

    const fn is_within_request(&self) -> bool {
        self.script.is_within_request()
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

/// How waiting ended.
enum Wait<T> {
    Over(T),
    /// Ctrl-C.
    GivenUp,
    /// The process is to end.
    Terminated,
}

impl Signals {
    /// Waits, and says so when it takes long.
    async fn patiently<T>(&mut self, what: &str, work: impl Future<Output = T>) -> Wait<T> {
        let mut work = pin!(work);
        let mut slow = pin!(sleep(SLOW));
        let mut notice = Notice { is_shown: false };
        loop {
            tokio::select! {
                biased;
                result = &mut work => return Wait::Over(result),
                _ = self.terminate.recv() => return Wait::Terminated,
                _ = self.interrupt.recv() => return Wait::GivenUp,
                () = &mut slow, if !notice.is_shown => notice.show(what),
            }
        }
    }
}

/// A line that says what is waited for, for as long.
struct Notice {
    is_shown: bool,
}

impl Notice {
    fn show(&mut self, what: &str) {
        self.is_shown = true;
        if io::stderr().is_terminal() {
            let what = Harmless(what.as_bytes());
            complain_verbatim(format_args!("waiting for {what} (Ctrl-C gives up) ..."));
        }
    }
}

impl Drop for Notice {
    fn drop(&mut self) {
        if self.is_shown && io::stderr().is_terminal() {
            let is_dumb = std::env::var_os("TERM").is_some_and(|name| name == "dumb");
            complain_verbatim(if is_dumb { "\n" } else { "\r\x1b[K" });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Typed;

    #[test]
    fn a_here_document_goes_on_until_its_word() {
        let mut typed = Typed::default();
        assert!(typed.take("vcl.inline a << EOF").is_none());
        assert!(typed.is_within_request());
        assert!(typed.take("vcl 4.1;").is_none());
        assert!(typed.take("").is_none());
        let requests = typed.take("EOF").unwrap();
        assert_eq!(requests.len(), 1);
        let request = requests[0].as_ref().unwrap();
        assert_eq!(request.bytes(), b"vcl.inline a << EOF\nvcl 4.1;\n\nEOF\n");
        assert_eq!(typed.text, "vcl.inline a << EOF\nvcl 4.1;\n\nEOF\n");
    }

    #[test]
    fn pasted_lines_are_several_commands() {
        let mut typed = Typed::default();
        let requests = typed.take("ping\n\nstatus\nvcl.inline a << E\nx\nE").unwrap();
        assert_eq!(requests.len(), 3);
        assert!(Typed::default().take("ping\nvcl.inline a << E").is_none());
        assert!(Typed::default().take("").unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_sent_is_refused_by_itself() {
        let requests = Typed::default().take("ping a\0b\nstatus").unwrap();
        assert!(requests[0].is_err() && requests[1].is_ok());
    }
}
