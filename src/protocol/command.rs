//! One line that is one command and cannot become two.

use std::borrow::Cow;
use std::fmt;

use sha2::{Digest as _, Sha256};

use super::quote::{QuoteError, SplitError, quote, split};
use super::reply::Excerpt;
use super::script::Request;

/// A text that cannot be sent as a command. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// A command's name begins with a lower-case letter and goes on with letters, digits, `.`,
    /// `_` and `-`; everything else would be answered with status 101.
    #[error("{} is no name of a command", Excerpt::new(got, 40))]
    Verb {
        /// What was given.
        got: Vec<u8>,
    },
    /// `<<` as the last argument but one starts a here document: varnishd would take everything
    /// that follows on the connection as its text and not answer.
    #[error("\"<<\" as the last argument but one would make varnishd wait for more text")]
    HereDocument,
    /// An argument that the protocol cannot carry.
    #[error("argument {number}: {source}")]
    Argument {
        /// Which argument, counted from 1.
        number: usize,
        /// Why.
        source: QuoteError,
    },
    /// A blank in an argument of a ban. The manager drops quotes and escapes when it hands a ban
    /// to the cache process, which splits the text at blanks again, so that one condition could
    /// turn into two. In a regular expression write `\s` or `\x20`.
    #[error("argument {number} holds a blank, which no argument of a ban can")]
    Blank {
        /// Which argument, counted from 1.
        number: usize,
    },
    /// An empty argument of a ban: it is lost on the way to the cache process.
    #[error("argument {number} is empty, which no argument of a ban can be")]
    Empty {
        /// Which argument, counted from 1.
        number: usize,
    },
    /// A line that varnishd could not split into words.
    #[error(transparent)]
    Line(#[from] SplitError),
}

/// The name of a command, such as `ban` or `vcl.load`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Verb(Cow<'static, str>);

impl Verb {
    /// Does nothing and is answered by the manager.
    pub const PING: Self = Self(Cow::Borrowed("ping"));
    /// The state of the cache process.
    pub const STATUS: Self = Self(Cow::Borrowed("status"));
    /// The welcome text.
    pub const BANNER: Self = Self(Cow::Borrowed("banner"));
    /// The process ids of the manager and its cache process.
    pub const PID: Self = Self(Cow::Borrowed("pid"));
    /// Invalidates objects.
    pub const BAN: Self = Self(Cow::Borrowed("ban"));
    /// The bans in force.
    pub const BAN_LIST: Self = Self(Cow::Borrowed("ban.list"));
    /// Answers a challenge.
    pub const AUTH: Self = Self(Cow::Borrowed("auth"));
    /// Parameters.
    pub const PARAM_SHOW: Self = Self(Cow::Borrowed("param.show"));
    /// The last panic of the cache process.
    pub const PANIC_SHOW: Self = Self(Cow::Borrowed("panic.show"));
    /// Forgets the last panic.
    pub const PANIC_CLEAR: Self = Self(Cow::Borrowed("panic.clear"));
    /// The VCLs.
    pub const VCL_LIST: Self = Self(Cow::Borrowed("vcl.list"));
    /// The storages.
    pub const STORAGE_LIST: Self = Self(Cow::Borrowed("storage.list"));
    /// Starts the cache process.
    pub const START: Self = Self(Cow::Borrowed("start"));
    /// Stops the cache process.
    pub const STOP: Self = Self(Cow::Borrowed("stop"));
    /// The commands.
    pub const HELP: Self = Self(Cow::Borrowed("help"));
    /// Closes the connection.
    pub const QUIT: Self = Self(Cow::Borrowed("quit"));
    /// Stands for the name of a request that has none that varnishd could know, in place of it.
    pub const UNREADABLE: Self = Self(Cow::Borrowed("command"));

    /// `text` as the name of a command.
    ///
    /// # Errors
    /// [`CommandError::Verb`] for what varnishd takes for no command at all.
    pub fn new(text: &str) -> Result<Self, CommandError> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        let named = text.len() <= 64
            && text.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
            && text.bytes().all(fits);
        if named {
            Ok(Self(Cow::Owned(text.to_owned())))
        } else {
            Err(CommandError::Verb { got: text.as_bytes().to_vec() })
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A command with its arguments: one line, whatever bytes the arguments hold.
///
/// ```
/// use purgewatch::protocol::Command;
///
/// let ban = Command::ban(["req.url", "~", r"\.png$"])?;
/// assert_eq!(ban.as_line(), b"ban req.url ~ \\\\.png$\n");
///
/// let name = "x\nstop";
/// let load = Command::new("vcl.load", [name, "/etc/varnish/a.vcl"])?;
/// assert_eq!(load.as_line(), b"vcl.load x\\nstop /etc/varnish/a.vcl\n");
///
/// assert!(Command::ban(["req.url", "==", "/a && obj.status == 200"]).is_err());
/// # Ok::<(), purgewatch::protocol::CommandError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    verb: Verb,
    line: Vec<u8>,
}

impl Command {
    /// The command `verb` with `arguments`, each of which arrives as it is.
    ///
    /// Blanks and empty arguments arrive at commands that the manager carries out itself, such as
    /// `param.set` and `vcl.inline`; those that it hands on to the cache process, such as
    /// `backend.list`, get them split and dropped. A ban goes through [`Command::ban`] here too.
    ///
    /// # Errors
    /// [`CommandError`]; nothing is sent then.
    pub fn new<A>(verb: &str, arguments: impl IntoIterator<Item = A>) -> Result<Self, CommandError>
    where
        A: AsRef<[u8]>,
    {
        if verb == "ban" {
            return Self::ban(arguments);
        }
        Self::build(Verb::new(verb)?, arguments, false)
    }

    /// `line` as an operator types it at a prompt, with varnishd's own quotes and escapes
    /// (varnish-cli(7)), spelt anew so that every version reads it alike. One `-` before the
    /// command is ignored, as varnishd does.
    ///
    /// # Errors
    /// [`CommandError`]; a blank line has no command ([`CommandError::Verb`]).
    pub fn parse(line: &[u8]) -> Result<Self, CommandError> {
        let mut words = split(line)?.into_iter();
        let verb = words.next().unwrap_or_default();
        let verb = verb.strip_prefix(b"-").unwrap_or(&verb);
        match std::str::from_utf8(verb) {
            Ok(name) => Self::new(name, words),
            Err(_) => Err(CommandError::Verb { got: verb.to_vec() }),
        }
    }

    /// The command `verb` with `arguments`, and `text` as its last argument in a here document.
    ///
    /// Escapes ([`Command::new`]) carry any text and are what short ones are sent with: one line,
    /// which no version reads otherwise. A here document is better for a long text of many lines:
    /// a VCL grows by a half to double its size by escapes, since every blank becomes four bytes.
    /// Its costs: it can only be the last argument, and varnishd hands on the line end in front of
    /// the word that closes it, so that a text without a line feed at its end arrives with one.
    ///
    /// That word is made from a digest of the text and, should the text hold it all the same,
    /// another is made: varnishd looks for it everywhere, not at the beginning of a line.
    ///
    /// # Errors
    /// [`CommandError`] for a zero byte, at which varnishd would cut the text, and for `ban` and
    /// the like, to whose arguments a line feed would be added.
    pub fn with_text<A>(
        verb: &str,
        arguments: impl IntoIterator<Item = A>,
        text: &[u8],
    ) -> Result<Self, CommandError>
    where
        A: AsRef<[u8]>,
    {
        let command = Self::new(verb, arguments)?;
        if command.verb == Verb::BAN {
            return Err(CommandError::HereDocument);
        }
        let mut line = command.line;
        line.pop();
        if text.contains(&0) {
            let number = split(&line)?.len();
            return Err(CommandError::Argument { number, source: QuoteError::Zero });
        }
        let word = closing_word(text);
        line.reserve(text.len() + 2 * word.len() + 8);
        line.extend_from_slice(b" << ");
        line.extend_from_slice(word.as_bytes());
        line.push(b'\n');
        line.extend_from_slice(text.strip_suffix(b"\n").unwrap_or(text));
        line.push(b'\n');
        line.extend_from_slice(word.as_bytes());
        line.push(b'\n');
        Ok(Self { verb: command.verb, line })
    }

    /// A request passed on byte for byte, as it was written.
    ///
    /// Nothing is checked or spelt anew: varnishd judges it. Where its name cannot be read,
    /// [`verb`](Self::verb) is [`Verb::UNREADABLE`].
    #[must_use]
    pub fn verbatim(request: Request) -> Self {
        let (verb, line) = request.into_parts();
        Self { verb: verb.unwrap_or(Verb::UNREADABLE), line }
    }

    /// `ping`: is anybody there? Answered by the manager, with `PONG` and the time.
    #[must_use]
    pub fn ping() -> Self {
        Self::named(Verb::PING)
    }

    /// `status`: the state of the cache process.
    #[must_use]
    pub fn status() -> Self {
        Self::named(Verb::STATUS)
    }

    /// `banner`: the welcome text again.
    #[must_use]
    pub fn banner() -> Self {
        Self::named(Verb::BANNER)
    }

    /// `pid`: the process ids; a cache process that was restarted has another one.
    #[must_use]
    pub fn pid() -> Self {
        Self::named(Verb::PID)
    }

    /// `ban` with the words of its expression: field, operator, argument, `&&`, and so on.
    ///
    /// The expression is not checked here beyond what it takes to arrive as it is.
    ///
    /// # Errors
    /// [`CommandError::Blank`] and [`CommandError::Empty`] for arguments that would be split or
    /// lost between the manager and the cache process.
    pub fn ban<A>(arguments: impl IntoIterator<Item = A>) -> Result<Self, CommandError>
    where
        A: AsRef<[u8]>,
    {
        Self::build(Verb::BAN, arguments, true)
    }

    /// `ban.list`: the bans in force, newest first.
    #[must_use]
    pub fn ban_list() -> Self {
        Self::named(Verb::BAN_LIST)
    }

    /// `quit`: the server answers with status 500 and closes the connection.
    #[must_use]
    pub fn quit() -> Self {
        Self::named(Verb::QUIT)
    }

    /// `auth` with the answer to a challenge. Only a session needs it.
    #[must_use]
    pub(super) fn auth(answer: &str) -> Self {
        let verb = Verb::AUTH;
        Self { line: format!("{verb} {answer}\n").into_bytes(), verb }
    }

    /// The command's name.
    #[must_use]
    pub fn verb(&self) -> &Verb {
        &self.verb
    }

    /// The bytes as they are sent, their line end included: one line of printable ASCII, unless
    /// the command was made by [`verbatim`](Self::verbatim) or [`with_text`](Self::with_text).
    #[must_use]
    pub fn as_line(&self) -> &[u8] {
        &self.line
    }

    pub(super) fn with_json(verb: Verb) -> Self {
        Self { line: format!("{verb} -j\n").into_bytes(), verb }
    }

    /// A command that the manager hands on to the cache process.
    pub(super) fn handed_on<'a>(
        verb: &str,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, CommandError> {
        Self::build(Verb::new(verb)?, arguments, true)
    }

    pub(super) fn named(verb: Verb) -> Self {
        Self { line: format!("{verb}\n").into_bytes(), verb }
    }

    fn build<A: AsRef<[u8]>>(
        verb: Verb,
        arguments: impl IntoIterator<Item = A>,
        handed_on: bool,
    ) -> Result<Self, CommandError> {
        let mut line = Vec::with_capacity(64);
        line.extend_from_slice(verb.as_str().as_bytes());
        // Whether the argument before the last one was "<<".
        let (mut previous, mut last) = (false, false);
        for (index, argument) in arguments.into_iter().enumerate() {
            let (number, argument) = (index + 1, argument.as_ref());
            if handed_on && argument.is_empty() {
                return Err(CommandError::Empty { number });
            }
            if handed_on && argument.contains(&b' ') {
                return Err(CommandError::Blank { number });
            }
            line.push(b' ');
            quote(argument, &mut line)
                .map_err(|source| CommandError::Argument { number, source })?;
            (previous, last) = (last, argument == b"<<");
        }
        if previous {
            return Err(CommandError::HereDocument);
        }
        line.push(b'\n');
        Ok(Self { verb, line })
    }
}

/// A word that `text` does not hold. Its first letter is nowhere else in it, so that a false start
/// of the word cannot hide a true one.
fn closing_word(text: &[u8]) -> String {
    let digest = Sha256::new().chain_update(text);
    let words = (0_u64..).map(|attempt| {
        let digest = digest.clone().chain_update(attempt.to_be_bytes()).finalize();
        format!("E{}", hex::encode(digest))
    });
    absent(text, words).unwrap_or_default()
}

/// The first of `words` that `text` does not hold.
fn absent(text: &[u8], mut words: impl Iterator<Item = String>) -> Option<String> {
    words.find(|word| !text.windows(word.len()).any(|window| window == word.as_bytes()))
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.verb == Verb::AUTH {
            return f.write_str("Command(auth redacted)");
        }
        write!(f, "Command({})", Excerpt::new(&self.line, 200))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::script::Script;
    use super::*;

    #[test]
    fn what_would_not_arrive_is_refused() {
        let ban = |words: &[&str]| Command::ban(words).unwrap_err();
        assert_eq!(ban(&["req.url", "~", "a b"]), CommandError::Blank { number: 3 });
        assert_eq!(ban(&["req.url", "~", ""]), CommandError::Empty { number: 3 });
        assert_eq!(ban(&["req.url", "<<", "x"]), CommandError::HereDocument);
        let zero = CommandError::Argument { number: 1, source: QuoteError::Zero };
        assert_eq!(ban(&["a\0b"]), zero);
        assert_eq!(Command::new("ban", ["a b"]), Err(CommandError::Blank { number: 1 }));
        for verb in ["", "Ban", "ban x", "ban\n", "-ban", "\"ban\""] {
            let wrong = CommandError::Verb { got: verb.into() };
            assert_eq!(Command::new(verb, [""; 0]), Err(wrong));
        }
    }

    #[test]
    fn a_here_document_needs_its_place() {
        let line = |arguments: &[&str]| {
            Command::new("vcl.inline", arguments).map(|c| c.as_line().to_vec())
        };
        assert_eq!(line(&["a", "<<", "EOF"]), Err(CommandError::HereDocument));
        assert_eq!(line(&["<<", "EOF"]), Err(CommandError::HereDocument));
        assert_eq!(line(&["a", "<<EOF"]).as_deref(), Ok(&b"vcl.inline a <<EOF\n"[..]));
        assert_eq!(line(&["a", "<<"]).as_deref(), Ok(&b"vcl.inline a <<\n"[..]));
        assert_eq!(line(&["<<", "a", "b"]).as_deref(), Ok(&b"vcl.inline << a b\n"[..]));
    }

    #[test]
    fn a_text_is_one_request_with_a_word_that_it_does_not_hold() {
        let request = |text: &[u8]| {
            let command = Command::with_text("vcl.inline", ["a b"], text).unwrap();
            let mut script = Script::new();
            script.push(command.as_line());
            let request = script.next().unwrap().unwrap();
            assert_eq!((request.bytes(), script.next()), (command.as_line(), None));
            assert!(!script.is_within_request());
            String::from_utf8(request.bytes().to_vec()).unwrap()
        };
        let word = closing_word(b"vcl 4.1;\n");
        let expected = format!("vcl.inline a\\x20b << {word}\nvcl 4.1;\n{word}\n");
        assert_eq!(request(b"vcl 4.1;\n"), expected);
        request(b"");
        request(b"E");
        request(b"\r\n\n<< x\n");
        let words = ["EOF", "EOT", "END"].map(String::from);
        assert_eq!(absent(b"EOF xEOTx", words.into_iter()).as_deref(), Some("END"));
        let zero = CommandError::Argument { number: 2, source: QuoteError::Zero };
        assert_eq!(Command::with_text("vcl.inline", ["a"], b"x\0"), Err(zero));
        let ban = Command::with_text("ban", ["req.url", "~"], b"x");
        assert_eq!(ban, Err(CommandError::HereDocument));
    }

    #[test]
    fn a_typed_line_is_spelt_anew() {
        let parsed = |line: &str| Command::parse(line.as_bytes()).map(|c| c.as_line().to_vec());
        assert_eq!(
            parsed(r#" -param.set  "cli_banner" "a b" "#).as_deref(),
            Ok(&b"param.set cli_banner a\\x20b\n"[..])
        );
        assert_eq!(parsed(""), Err(CommandError::Verb { got: Vec::new() }));
        assert_eq!(parsed("ban a\\.b"), Err(SplitError::Backslash { at: 5 }.into()));
        assert_eq!(parsed("ban req.url ~ \"a b\""), Err(CommandError::Blank { number: 3 }));
    }

    #[test]
    fn an_answer_to_a_challenge_is_not_shown() {
        assert_eq!(format!("{:?}", Command::auth("5ec2e7")), "Command(auth redacted)");
        assert_eq!(format!("{:?}", Command::ping()), r#"Command("ping")"#);
    }

    proptest! {
        #[test]
        fn any_text_is_one_request(text: Vec<u8>) {
            let Ok(command) = Command::with_text("vcl.inline", ["a"], &text) else {
                prop_assert!(text.contains(&0));
                return Ok(());
            };
            let mut script = Script::new();
            script.push(command.as_line());
            let request = script.next().unwrap().unwrap();
            prop_assert_eq!(request.bytes(), command.as_line());
        }

        #[test]
        fn a_command_is_one_line_whatever_its_arguments(
            arguments in proptest::collection::vec(any::<Vec<u8>>(), 0..5),
        ) {
            let Ok(command) = Command::new("vcl.inline", &arguments) else { return Ok(()) };
            let (end, line) = command.as_line().split_last().unwrap();
            prop_assert_eq!(*end, b'\n');
            prop_assert!(line.iter().all(|b| (0x20..0x7f).contains(b)));
            let words = split(line).unwrap();
            prop_assert_eq!(&words[0], b"vcl.inline");
            prop_assert_eq!(&words[1..], arguments.as_slice());
        }
    }
}
