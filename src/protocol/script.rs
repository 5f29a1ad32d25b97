//! A stream of typed command lines, cut into requests exactly as varnishd reads them.

use std::fmt;

use super::command::Verb;
use super::here::{Ruling, first_word, rule};
use super::reply::Excerpt;

/// As much one request may have by default, in bytes: 64 MiB.
pub const REQUEST_LIMIT: usize = 64 << 20;

/// One request: the bytes that varnishd answers with exactly one reply.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    bytes: Vec<u8>,
    line: u64,
    verb: Option<Verb>,
}

impl Request {
    /// What has to be sent: the bytes as they were written, from the first that is no white space
    /// to the line end, which is a line feed or a carriage return; a here document whole, its
    /// closing line included. Where the input lacks the last line end, a line feed is supplied.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The line of the input that the request begins in, counted from 1.
    #[must_use]
    pub const fn line(&self) -> u64 {
        self.line
    }

    /// The command's name; `None` for a line that has none that varnishd could know, which is
    /// answered with status 100 or 101.
    #[must_use]
    pub const fn verb(&self) -> Option<&Verb> {
        self.verb.as_ref()
    }

    pub(super) fn into_parts(self) -> (Option<Verb>, Vec<u8>) {
        (self.verb, self.bytes)
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.verb == Some(Verb::AUTH) {
            return write!(f, "Request(line {}: auth redacted)", self.line);
        }
        write!(f, "Request(line {}: {})", self.line, Excerpt::new(&self.bytes, 200))
    }
}

/// A part of the input that is not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct RequestError {
    /// The line of the input that the request begins in, counted from 1.
    pub line: u64,
    /// What is wrong with it.
    pub fault: RequestFault,
}

/// Why a request is not sent. Always the input's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestFault {
    /// A zero byte, at which varnishd would drop the rest: of the line, or of the here document.
    /// No command can carry one.
    #[error("a zero byte in line {at}, at which varnishd would silently drop what follows")]
    Zero {
        /// The line of the input that holds it, counted from 1.
        at: u64,
    },
    /// To some versions of varnishd a here document begins with this line, to others not. It was
    /// taken for one, up to its closing line. Write the words without quotation marks.
    #[error(
        "whether a here document begins here depends on the version of varnishd; write \"<<\" and \
         the words beside it without quotation marks"
    )]
    Disputed,
    /// The input ended within a here document.
    #[error(
        "the input ends before the here document does: {} is missing",
        Excerpt::new(terminator, 80)
    )]
    Unterminated {
        /// The word that closes it.
        terminator: Vec<u8>,
    },
    /// Over the limit. Nothing after it is read, since where it ends was not looked for.
    #[error("longer than {limit} bytes; nothing after it was read")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
}

/// Cuts bytes, in pieces of any size, into requests as varnishd does.
///
/// The rules (varnish-cli(7), "Syntax"; what 7.1.1 does where that is silent): a line feed or a
/// carriage return ends a line. White space before a command is skipped, so a blank line is no
/// request and gets no reply. Everything else is one request a line, answered once, also when it
/// makes no sense; a quotation mark does not reach beyond its line. When the last word but one is
/// `<<`, in quotation marks or not, and the last is not empty, a here document follows. It ends
/// where the last word stands again, anywhere in a line, with a line end right behind it. After a
/// false start of that word the search goes on behind the byte that did not fit: `aaab` does not
/// close a document that `aab` closes.
///
/// As an iterator, `None` means that more bytes are needed, or, after [`finish`](Self::finish),
/// that there is nothing more.
///
/// ```
/// use purgewatch::protocol::{Command, Script};
///
/// let mut script = Script::new();
/// script.push(b"ban req.url ~ /a\r\n\nvcl.inline b << EOF\nvcl 4.1;\nbackend b none;\nEOF\nsta");
/// script.push(b"tus");
/// script.finish();
/// let requests = script.collect::<Result<Vec<_>, _>>()?;
/// let lines: Vec<_> = requests.iter().map(|request| request.line()).collect();
/// assert_eq!(lines, [1, 3, 7]);
/// assert_eq!(Command::verbatim(requests[2].clone()).as_line(), b"status\n");
/// # Ok::<(), purgewatch::protocol::RequestError>(())
/// ```
#[derive(Debug)]
pub struct Script {
    buffer: Vec<u8>,
    /// Where the current request begins.
    start: usize,
    /// The next byte to be looked at.
    at: usize,
    limit: usize,
    /// The line that `at` is in.
    line: u64,
    after_return: bool,
    state: State,
    begun: u64,
    fault: Option<RequestFault>,
    input: Input,
}

#[derive(Debug)]
enum State {
    Between,
    Line,
    Text {
        terminator: Vec<u8>,
        /// So many bytes of it were just read.
        matched: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    Finished,
    /// Given up: nothing more is read.
    Stopped,
}

impl Default for Script {
    fn default() -> Self {
        Self::new()
    }
}

impl Script {
    /// One at the beginning of its input, with [`REQUEST_LIMIT`].
    #[must_use]
    pub const fn new() -> Self {
        Self::with_limit(REQUEST_LIMIT)
    }

    /// One whose requests may have at most `limit` bytes each.
    #[must_use]
    pub const fn with_limit(limit: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            at: 0,
            limit,
            line: 1,
            after_return: false,
            state: State::Between,
            begun: 1,
            fault: None,
            input: Input::Open,
        }
    }

    /// Takes the next bytes of the input. They are kept until the requests in them are taken: take
    /// all of them in between, and no more is held than one request and one piece.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.input != Input::Open {
            return;
        }
        if self.start > 0 && self.start >= self.buffer.len() / 2 {
            self.buffer.drain(..self.start);
            self.at -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// There are no more bytes. A last line without its end is a request all the same.
    pub fn finish(&mut self) {
        if self.input == Input::Open {
            self.input = Input::Finished;
        }
    }

    /// Whether bytes of a request are held that is not complete yet.
    #[must_use]
    pub const fn is_within_request(&self) -> bool {
        !matches!(self.state, State::Between)
    }

    /// Skips the white space between requests.
    fn skip(&mut self) {
        while let Some(&byte) = self.buffer.get(self.at) {
            if !matches!(byte, b' ' | b'\t'..=b'\r') {
                self.begun = self.line;
                self.after_return = false;
                self.state = State::Line;
                break;
            }
            self.count(byte);
            self.at += 1;
        }
        self.start = self.at;
    }

    /// Reads a command line. `None`: more is needed, or a here document begins.
    fn read_line(&mut self) -> Option<Result<Request, RequestError>> {
        let rest = self.buffer.get(self.at..).unwrap_or_default();
        match rest.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            Some(length) => self.at += length,
            None => {
                self.at = self.buffer.len();
                if self.too_long() {
                    return Some(Err(self.stop()));
                }
                if self.input == Input::Open {
                    return None;
                }
                self.buffer.push(b'\n');
            }
        }
        let line = self.buffer.get(self.start..self.at).unwrap_or_default();
        // varnishd reads the line as a C string.
        let read = line.split(|&b| b == 0).next().unwrap_or_default();
        if read.len() < line.len() {
            self.fault = Some(RequestFault::Zero { at: self.line });
        }
        let ruling = rule(read.strip_prefix(b"-").unwrap_or(read));
        let end = self.buffer.get(self.at).copied().unwrap_or(b'\n');
        self.count(end);
        self.at += 1;
        if self.too_long() {
            return Some(Err(self.stop()));
        }
        let terminator = match ruling {
            Ruling::Line => return Some(self.complete()),
            Ruling::HereDocument(terminator) => terminator,
            Ruling::Disputed(terminator) => {
                self.fault.get_or_insert(RequestFault::Disputed);
                terminator
            }
        };
        self.state = State::Text { terminator, matched: 0 };
        None
    }

    /// Reads the text of a here document. `None`: more is needed.
    fn read_text(&mut self) -> Option<Result<Request, RequestError>> {
        let State::Text { terminator, matched } = &mut self.state else { return None };
        let (terminator, mut so_far) = (std::mem::take(terminator), *matched);
        let mut ended = false;
        while let Some(&byte) = self.buffer.get(self.at) {
            self.count(byte);
            self.at += 1;
            match terminator.get(so_far) {
                None if matches!(byte, b'\n' | b'\r') => {
                    ended = true;
                    break;
                }
                Some(&expected) if expected == byte => so_far += 1,
                _ => so_far = 0,
            }
            if byte == 0 {
                self.fault.get_or_insert(RequestFault::Zero { at: self.line });
            }
        }
        if self.too_long() {
            return Some(Err(self.stop()));
        }
        if !ended && self.input == Input::Finished {
            if so_far == terminator.len() {
                self.buffer.push(b'\n');
                self.at = self.buffer.len();
            } else {
                self.fault.get_or_insert(RequestFault::Unterminated { terminator });
            }
            ended = true;
        } else {
            self.state = State::Text { terminator, matched: so_far };
        }
        ended.then(|| self.complete())
    }

    /// Hands out what is between `start` and `at`.
    fn complete(&mut self) -> Result<Request, RequestError> {
        let line = self.begun;
        let bytes = self.buffer.get(self.start..self.at).unwrap_or_default();
        let request = match self.fault.take() {
            Some(fault) => Err(RequestError { line, fault }),
            None => Ok(Request { bytes: bytes.to_vec(), line, verb: verb(bytes) }),
        };
        self.start = self.at;
        self.state = State::Between;
        request
    }

    /// Gives up: the request is over the limit.
    fn stop(&mut self) -> RequestError {
        self.input = Input::Stopped;
        self.state = State::Between;
        self.buffer = Vec::new();
        (self.start, self.at) = (0, 0);
        RequestError { line: self.begun, fault: RequestFault::TooLong { limit: self.limit } }
    }

    const fn too_long(&self) -> bool {
        self.at - self.start > self.limit
    }

    /// Counts lines: a carriage return and a line feed in a row are one line end.
    const fn count(&mut self, byte: u8) {
        match byte {
            b'\n' if self.after_return => self.after_return = false,
            b'\n' => self.line = self.line.saturating_add(1),
            b'\r' => {
                self.line = self.line.saturating_add(1);
                self.after_return = true;
            }
            _ => self.after_return = false,
        }
    }
}

impl Iterator for Script {
    type Item = Result<Request, RequestError>;

    fn next(&mut self) -> Option<Self::Item> {
        if matches!(self.state, State::Between) {
            self.skip();
        }
        if matches!(self.state, State::Line)
            && let Some(request) = self.read_line()
        {
            return Some(request);
        }
        if matches!(self.state, State::Text { .. }) { self.read_text() } else { None }
    }
}

/// The name of the command that `bytes` begin with.
fn verb(bytes: &[u8]) -> Option<Verb> {
    let line = bytes.split(|b| matches!(b, b'\n' | b'\r')).next()?;
    let word = first_word(line.strip_prefix(b"-").unwrap_or(line))?;
    match word.as_slice() {
        b"ban" => Some(Verb::BAN),
        b"ping" => Some(Verb::PING),
        name => Verb::new(std::str::from_utf8(name).ok()?).ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each request's line and bytes, or what is wrong with it.
    fn cut(input: &[u8]) -> Vec<(u64, Result<String, RequestFault>)> {
        let mut script = Script::with_limit(1_000);
        script.push(input);
        script.finish();
        let text = |request: &Request| String::from_utf8_lossy(request.bytes()).into_owned();
        script
            .map(|item| match item {
                Ok(request) => (request.line(), Ok(text(&request))),
                Err(error) => (error.line, Err(error.fault)),
            })
            .collect()
    }

    /// The requests of an input without a fault, with their lines.
    fn requests(input: &str) -> Vec<(u64, String)> {
        cut(input.as_bytes()).into_iter().map(|(line, text)| (line, text.unwrap())).collect()
    }

    fn fault(input: &[u8]) -> (u64, RequestFault) {
        match cut(input).swap_remove(0) {
            (line, Err(fault)) => (line, fault),
            other => panic!("{other:?}"),
        }
    }

    fn lines<const N: usize>(expected: [(u64, &str); N]) -> Vec<(u64, String)> {
        expected.map(|(line, text)| (line, text.to_owned())).to_vec()
    }

    #[test]
    fn every_line_that_is_not_blank_is_a_request() {
        assert_eq!(requests(""), lines([]));
        assert_eq!(requests("\n \t\r\n\x0b\x0c\n"), lines([]));
        assert_eq!(
            requests("ping\r\n\r\n  status \rpid\n\n-ban x\n\"open\n#\nlast"),
            lines([
                (1, "ping\r"),
                (3, "status \r"),
                (4, "pid\n"),
                (6, "-ban x\n"),
                (7, "\"open\n"),
                (8, "#\n"),
                (9, "last\n"),
            ])
        );
    }

    #[test]
    fn a_here_document_is_one_request() {
        let whole = "vcl.inline a << EOF\nvcl 4.1;\n\nx EOFy\nEOFEOFz\nEOF\n";
        assert_eq!(requests(&format!("\n{whole}ping")), lines([(2, whole), (8, "ping\n")]));
        assert_eq!(requests("ping << E\nxE\nE\n"), lines([(1, "ping << E\nxE\n"), (3, "E\n")]));
        assert_eq!(requests("ping << E\r\nx\r\nE"), lines([(1, "ping << E\r\nx\r\nE\n")]));
        for written in ["\"<<\" EOF", "<< \"EOF\"", r"\x3c< E\x4fF", r"<<\0x EOF", "\"<<\"EOF"] {
            let request = format!("a {written}\nping\nEOF\n");
            assert_eq!(requests(&request), lines([(1, request.as_str())]), "{written}");
        }
        assert_eq!(requests("<< E\nE\n").len(), 1, "also in place of the command");
        for line in ["a <<EOF", "a << \"\"", "a <<", "a << b c", "\"a << EOF", "a\\z << EOF"] {
            let request = format!("{line}\nping\nEOF\n");
            assert_eq!(requests(&request).len(), 3, "{line}");
        }
    }

    #[test]
    fn a_false_start_of_the_closing_word_costs_its_last_byte() {
        assert_eq!(requests("a << aab\naaab\naab\nping\n").len(), 2);
        assert_eq!(requests("a << aab\naaab\naab\n"), lines([(1, "a << aab\naaab\naab\n")]));
    }

    #[test]
    fn what_cannot_be_sent_is_named() {
        assert_eq!(fault(b"ping\0x\nping\n"), (1, RequestFault::Zero { at: 1 }));
        assert_eq!(fault(b"a << E\nx\ny\0\nE\n"), (1, RequestFault::Zero { at: 3 }));
        assert_eq!(fault(b"a << E\0\nx\nE\n").1, RequestFault::Zero { at: 1 });
        assert_eq!(cut(b"a << E\0\nx\nE\nping\n").len(), 2, "and its text is not sent either");
        let terminator = b"E".to_vec();
        assert_eq!(fault(b"\na << E\nx\n"), (2, RequestFault::Unterminated { terminator }));
        let disputed = ["a \"<<\" \"E\"", "\"a\" \"b\" << E", "a\"b << E", "a \\x4  << E"];
        for line in disputed {
            let cut = cut(format!("{line}\nping\nE\nping\n").as_bytes());
            assert_eq!(cut[0], (1, Err(RequestFault::Disputed)), "{line}");
            assert_eq!(cut[1], (4, Ok("ping\n".to_owned())), "{line}");
        }
        assert_eq!(
            RequestError { line: 2, fault: RequestFault::Zero { at: 3 } }.to_string(),
            "line 2: a zero byte in line 3, at which varnishd would silently drop what follows"
        );
    }

    #[test]
    fn what_is_too_long_ends_it() {
        let long = "x".repeat(1_000);
        let limit = RequestFault::TooLong { limit: 1_000 };
        assert_eq!(cut(format!("ping\n{long}\nping\n").as_bytes())[1..], [(2, Err(limit.clone()))]);
        let text = format!("a << E\n{long}\nE\nping\n");
        assert_eq!(cut(text.as_bytes()), [(1, Err(limit))]);
        assert_eq!(requests(&"x".repeat(999))[0].1.len(), 1_000);
        let mut endless = Script::with_limit(1_000);
        for _ in 0..100 {
            endless.push(long.as_bytes());
            let _ = endless.next();
            assert!(endless.buffer.capacity() < 4_000);
        }
    }

    #[test]
    fn the_name_is_read_as_varnishd_reads_it() {
        let name = |line: &str| {
            let mut script = Script::new();
            script.push(line.as_bytes());
            script.finish();
            script.next().unwrap().unwrap().verb().map(|verb| verb.as_str().to_owned())
        };
        assert_eq!(name("-ban x").as_deref(), Some("ban"));
        assert_eq!(name("- vcl.load x").as_deref(), Some("vcl.load"));
        assert_eq!(name("\"ping\"").as_deref(), Some("ping"));
        assert_eq!(name(r"\x70ing").as_deref(), Some("ping"));
        assert_eq!(name("ping\\z"), None);
        assert_eq!(name("PING"), None);
        assert_eq!(name("-"), None);
        let mut script = Script::new();
        script.push(b"auth 0123\n?\n");
        let auth = Command::verbatim(script.next().unwrap().unwrap());
        assert_eq!(format!("{auth:?}"), "Command(auth redacted)");
        let unreadable = Command::verbatim(script.next().unwrap().unwrap());
        assert_eq!((unreadable.verb(), unreadable.as_line()), (&Verb::UNREADABLE, &b"?\n"[..]));
    }

    use super::super::Command;

    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let words: &[&[u8]] = &[
            b"ping",
            b" ",
            b"\n",
            b"\r",
            b"\r\n",
            b"<<",
            b" << ",
            b"E",
            b"E\n",
            b"\"",
            b"\\",
            b"-",
            b"x",
            b"\0",
            b"EE",
            b"a << E\n",
            b"a << aab\n",
            b"a",
            b"aab\n",
            b"\xff",
            b"\\x3c",
        ];
        proptest::collection::vec(proptest::sample::select(words), 0..40)
            .prop_map(|words| words.concat())
    }

    proptest! {
        #[test]
        fn the_pieces_do_not_matter(input in piece(), sizes in proptest::collection::vec(1_usize..9, 1..40)) {
            let mut script = Script::with_limit(60);
            let mut got = Vec::new();
            let mut rest = input.as_slice();
            for size in sizes.iter().cycle() {
                let (piece, after) = rest.split_at(rest.len().min(*size));
                script.push(piece);
                got.extend(script.by_ref());
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            script.finish();
            got.extend(script.by_ref());
            let mut whole = Script::with_limit(60);
            whole.push(&input);
            whole.finish();
            prop_assert_eq!(got, whole.collect::<Vec<_>>());
        }

        #[test]
        fn a_request_is_cut_into_itself(input in piece()) {
            let mut script = Script::new();
            script.push(&input);
            script.finish();
            for request in script.flatten() {
                let mut again = Script::new();
                again.push(request.bytes());
                let same = again.next().unwrap().unwrap();
                prop_assert_eq!(same.bytes(), request.bytes());
                prop_assert_eq!(again.next(), None);
                prop_assert!(!again.is_within_request());
            }
        }

        #[test]
        fn any_bytes_are_cut_without_a_panic(input: Vec<u8>) {
            let mut script = Script::with_limit(20);
            script.push(&input);
            script.finish();
            let kept: usize = script.flatten().map(|request| request.bytes().len()).sum();
            prop_assert!(kept <= input.len() + 1);
        }
    }
}
