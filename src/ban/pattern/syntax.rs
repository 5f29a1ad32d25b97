//! A reader of PCRE2's pattern syntax (pcre2pattern(3)), as far as the analysis needs it.
//!
//! It is given patterns that PCRE2 compiled, so it need not refuse anything; what it does not
//! know becomes [`Node::Opaque`], which the analysis takes for the worst.

use super::bytes::ByteSet;
use super::class;

/// Groups within groups: PCRE2 itself allows 250.
const MAXIMUM_DEPTH: usize = 260;

/// A piece of a pattern.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::ban) enum Node {
    /// Matches without taking a byte, and cannot fail: nothing, comments, options, `\K`.
    Empty,
    /// `^` or `\A`.
    Start,
    /// `$`, `\z` or `\Z`.
    End,
    /// Matches without taking a byte, or fails: `\b`, a verb.
    Assertion,
    /// One byte of a set.
    Set(ByteSet),
    /// A text.
    Literal(Vec<u8>),
    /// One behind the other.
    Concat(Vec<Node>),
    /// One of them.
    Alternate(Vec<Node>),
    /// Repeated.
    Repeat(Box<Repeat>),
    /// Tried once: a possessive or atomic group.
    Atomic(Box<Node>),
    /// Looked for ahead or behind.
    Look(Box<Node>),
    /// What a group matched, again.
    BackReference,
    /// Anything at all.
    Opaque,
}

/// A repetition.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::ban) struct Repeat {
    pub(super) node: Node,
    pub(super) minimum: u32,
    /// `None`: without end.
    pub(super) maximum: Option<u32>,
    /// Gives nothing back.
    pub(super) possessive: bool,
}

/// A construct on which PCRE2 can return an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ban) enum Hazard {
    /// `(*UTF)`, `(*LIMIT_MATCH=1)`, ...
    Option(String),
    /// `(?R)`, `(?1)`, `(?&name)`, `\g<1>`, ...
    Recursion(String),
}

/// A pattern, read.
#[derive(Debug)]
pub(in crate::ban) struct Pattern {
    pub(super) root: Node,
    pub(in crate::ban) hazard: Option<Hazard>,
}

impl Pattern {
    /// Reads a pattern that PCRE2 compiled.
    pub(in crate::ban) fn read(pattern: &[u8]) -> Self {
        let mut reader = Reader { rest: pattern, hazard: None, depth: 0 };
        reader.leading_options();
        let mut nodes = Vec::new();
        // A `)` too many cannot be: PCRE2 would have refused it. Go on behind it all the same.
        loop {
            let mut flags = Flags::default();
            nodes.push(reader.alternation(&mut flags));
            if reader.next().is_none() {
                break;
            }
        }
        Self { root: concat(nodes), hazard: reader.hazard }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Flags {
    caseless: bool,
    extended: bool,
}

struct Reader<'a> {
    rest: &'a [u8],
    hazard: Option<Hazard>,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    fn take(&mut self, prefix: &[u8]) -> bool {
        match self.rest.strip_prefix(prefix) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Takes everything up to `end`, and `end` itself.
    fn until(&mut self, end: u8) -> &'a [u8] {
        let at = self.rest.iter().position(|&b| b == end);
        let (taken, rest) =
            self.rest.split_at_checked(at.unwrap_or(self.rest.len())).unwrap_or_default();
        self.rest = rest.get(1..).unwrap_or_default();
        taken
    }

    fn leading_options(&mut self) {
        while let Some(rest) = self.rest.strip_prefix(b"(*") {
            let name_ends =
                rest.iter().position(|b| !b.is_ascii_uppercase() && *b != b'_' && *b != b'8');
            let name = rest.get(..name_ends.unwrap_or(rest.len())).unwrap_or_default();
            let errs = name.starts_with(b"UTF") || name.starts_with(b"LIMIT_");
            let harmless = matches!(
                name,
                b"UCP"
                    | b"NO_JIT"
                    | b"NOTEMPTY"
                    | b"NOTEMPTY_ATSTART"
                    | b"NO_AUTO_POSSESS"
                    | b"NO_DOTSTAR_ANCHOR"
                    | b"NO_START_OPT"
                    | b"CR"
                    | b"LF"
                    | b"CRLF"
                    | b"ANYCRLF"
                    | b"ANY"
                    | b"NUL"
                    | b"BSR_ANYCRLF"
                    | b"BSR_UNICODE"
            );
            if !errs && !harmless {
                return;
            }
            self.take(b"(");
            let option = self.until(b')');
            if errs {
                self.hazard.get_or_insert(Hazard::Option(format!(
                    "({})",
                    String::from_utf8_lossy(option)
                )));
            }
        }
    }

    /// Alternatives up to a `)` or the end, neither of which is taken.
    fn alternation(&mut self, flags: &mut Flags) -> Node {
        let mut branches = vec![self.sequence(flags)];
        while self.peek() == Some(b'|') {
            self.next();
            branches.push(self.sequence(flags));
        }
        match branches.len() {
            1 => branches.pop().unwrap_or(Node::Empty),
            _ => Node::Alternate(branches),
        }
    }

    fn sequence(&mut self, flags: &mut Flags) -> Node {
        let mut nodes = Vec::new();
        let mut literal: Vec<u8> = Vec::new();
        while let Some(byte) = self.peek() {
            if matches!(byte, b'|' | b')') {
                break;
            }
            if flags.extended && (byte.is_ascii_whitespace() || byte == b'#') {
                if byte == b'#' {
                    self.until(b'\n');
                } else {
                    self.next();
                }
                continue;
            }
            if self.take(b"\\Q") {
                self.quoted(&mut literal, flags, &mut nodes);
                continue;
            }
            if self.take(b"\\E") {
                continue;
            }
            let atom = self.atom(flags);
            match (atom, self.quantifier(flags)) {
                (Node::Literal(text), None) => literal.extend(text),
                (Node::Empty, None) => {}
                (atom, quantifier) => {
                    flush(&mut literal, &mut nodes);
                    nodes.push(match quantifier {
                        Some(quantifier) => repeated(atom, quantifier),
                        None => atom,
                    });
                }
            }
        }
        flush(&mut literal, &mut nodes);
        concat(nodes)
    }

    /// What stands between `\Q` and `\E`; a quantifier behind `\E` belongs to its last byte.
    fn quoted(&mut self, literal: &mut Vec<u8>, flags: &Flags, nodes: &mut Vec<Node>) {
        let at = self.rest.windows(2).position(|pair| pair == b"\\E");
        let (text, rest) =
            self.rest.split_at_checked(at.unwrap_or(self.rest.len())).unwrap_or_default();
        self.rest = rest.get(2..).unwrap_or_default();
        for &byte in text {
            match byte_node(byte, flags) {
                Node::Literal(text) => literal.extend(text),
                node => {
                    flush(literal, nodes);
                    nodes.push(node);
                }
            }
        }
        if let Some(quantifier) = self.quantifier(flags) {
            if let Some(last) = literal.pop() {
                flush(literal, nodes);
                nodes.push(repeated(Node::Literal(vec![last]), quantifier));
            } else if let Some(last) = nodes.pop() {
                nodes.push(repeated(last, quantifier));
            }
        }
    }

    fn atom(&mut self, flags: &mut Flags) -> Node {
        match self.next() {
            Some(b'.') => Node::Set(ByteSet::DOT),
            Some(b'^') => Node::Start,
            Some(b'$') => Node::End,
            Some(b'(') => self.group(flags),
            // Word boundaries by another name.
            Some(b'[') if self.take(b"[:<:]]") || self.take(b"[:>:]]") => Node::Assertion,
            Some(b'[') => match class::read(self.rest) {
                Some((set, rest)) => {
                    self.rest = rest;
                    Node::Set(if flags.caseless { set.caseless() } else { set })
                }
                None => Node::Opaque,
            },
            Some(b'\\') => self.escape(flags),
            Some(byte) => byte_node(byte, flags),
            None => Node::Empty,
        }
    }

    fn escape(&mut self, flags: &Flags) -> Node {
        let Some(byte) = self.next() else { return Node::Opaque };
        match byte {
            b'A' | b'G' => Node::Start,
            b'b' | b'B' => Node::Assertion,
            b'Z' | b'z' => Node::End,
            b'K' => Node::Empty,
            b'N' if self.peek() != Some(b'{') => Node::Set(ByteSet::DOT),
            b'C' => Node::Set(ByteSet::ALL),
            // One character with its marks, of which Latin-1 has none.
            b'X' => Node::Set(ByteSet::ALL),
            // A line end of any kind, which is not given back.
            b'R' => Node::Atomic(Box::new(Node::Alternate(vec![
                Node::Literal(b"\r\n".to_vec()),
                Node::Set(ByteSet::EMPTY.with(b'\n', b'\r').with(0x85, 0x85)),
            ]))),
            b'1'..=b'9' => {
                while self.peek().is_some_and(|b| b.is_ascii_digit()) {
                    self.next();
                }
                Node::BackReference
            }
            b'g' => self.g_escape(),
            b'k' => {
                let end = match self.next() {
                    Some(b'<') => b'>',
                    Some(b'{') => b'}',
                    Some(quote) => quote,
                    None => return Node::Opaque,
                };
                self.until(end);
                Node::BackReference
            }
            _ => match class::escape(byte, &mut self.rest) {
                Some(set) => Node::Set(if flags.caseless { set.caseless() } else { set }),
                None => Node::Opaque,
            },
        }
    }

    /// `\g1`, `\g{-1}` and `\g{name}` refer back; `\g<1>` and `\g'name'` call.
    fn g_escape(&mut self) -> Node {
        match self.peek() {
            Some(open @ (b'<' | b'\'')) => {
                self.next();
                let name = self.until(if open == b'<' { b'>' } else { b'\'' });
                self.calls(&format!("\\g<{}>", String::from_utf8_lossy(name)))
            }
            Some(b'{') => {
                self.until(b'}');
                Node::BackReference
            }
            _ => {
                while self.peek().is_some_and(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+')) {
                    self.next();
                }
                Node::BackReference
            }
        }
    }

    fn calls(&mut self, construct: &str) -> Node {
        self.hazard.get_or_insert(Hazard::Recursion(construct.to_owned()));
        Node::Opaque
    }

    /// A group behind its `(`, with its `)`.
    fn group(&mut self, flags: &mut Flags) -> Node {
        if self.take(b"*") {
            return self.verb(*flags);
        }
        if !self.take(b"?") {
            return self.body(*flags);
        }
        if self.take(b"#") {
            self.until(b')');
            return Node::Empty;
        }
        if self.take(b":") || self.take(b"|") {
            return self.body(*flags);
        }
        if self.take(b">") {
            return Node::Atomic(Box::new(self.body(*flags)));
        }
        for look in [&b"="[..], b"!", b"<=", b"<!", b"*", b"<*"] {
            if self.take(look) {
                return Node::Look(Box::new(self.body(*flags)));
            }
        }
        if self.take(b"P=") {
            self.until(b')');
            return Node::BackReference;
        }
        for name_end in [(&b"P<"[..], b'>'), (b"<", b'>'), (b"'", b'\'')] {
            if self.take(name_end.0) {
                self.until(name_end.1);
                return self.body(*flags);
            }
        }
        match self.rest {
            [b'C', ..] => {
                self.until(b')');
                Node::Empty
            }
            [b'(', ..] => self.conditional(*flags),
            [b'R' | b'&' | b'0'..=b'9' | b'+', ..] | [b'P', b'>', ..] | [b'-', b'0'..=b'9', ..] => {
                let call = String::from_utf8_lossy(self.until(b')')).into_owned();
                self.calls(&format!("(?{call})"))
            }
            _ => self.options(flags),
        }
    }

    /// `(*ACCEPT)` and other verbs; `(*pla:...)` and other groups by name.
    fn verb(&mut self, flags: Flags) -> Node {
        let name_ends = self.rest.iter().position(|b| !b.is_ascii_alphabetic() && *b != b'_');
        let (name, rest) =
            self.rest.split_at_checked(name_ends.unwrap_or(self.rest.len())).unwrap_or_default();
        let lower = name.first().is_some_and(u8::is_ascii_lowercase);
        if lower && rest.first() == Some(&b':') {
            self.rest = rest.get(1..).unwrap_or_default();
            let body = self.body(flags);
            return match name {
                b"atomic" => Node::Atomic(Box::new(body)),
                b"script_run" | b"sr" | b"atomic_script_run" | b"asr" => Node::Opaque,
                _ => Node::Look(Box::new(body)),
            };
        }
        self.until(b')');
        Node::Assertion
    }

    fn conditional(&mut self, flags: Flags) -> Node {
        self.next();
        let condition = match self.rest {
            [b'?' | b'*', ..] => self.group(&mut flags.clone()),
            _ => {
                self.until(b')');
                Node::Empty
            }
        };
        // Both branches may be taken; the second may be missing.
        let mut branches = vec![Node::Empty, self.body(flags)];
        branches.rotate_left(1);
        concat(vec![condition, Node::Alternate(branches)])
    }

    /// `(?i)` for the rest of the group, `(?i:...)` for its own.
    fn options(&mut self, flags: &mut Flags) -> Node {
        let mut changed = *flags;
        let mut on = true;
        loop {
            match self.next() {
                Some(b'^') => changed = Flags::default(),
                Some(b'-') => on = false,
                Some(b'i') => changed.caseless = on,
                Some(b'x') => changed.extended = on,
                Some(b':') => return self.body(changed),
                Some(b')') | None => {
                    *flags = changed;
                    return Node::Empty;
                }
                Some(_) => {}
            }
        }
    }

    /// What stands in a group, with its `)`.
    fn body(&mut self, mut flags: Flags) -> Node {
        self.depth += 1;
        if self.depth > MAXIMUM_DEPTH {
            self.rest = &[];
            return Node::Opaque;
        }
        let node = self.alternation(&mut flags);
        self.depth -= 1;
        self.next();
        node
    }

    fn quantifier(&mut self, flags: &Flags) -> Option<Quantifier> {
        if flags.extended {
            while self.peek().is_some_and(|b| b.is_ascii_whitespace()) {
                self.next();
            }
        }
        let (minimum, maximum) = match self.peek()? {
            b'*' => (0, None),
            b'+' => (1, None),
            b'?' => (0, Some(1)),
            b'{' => {
                let (bounds, length) = bounds(self.rest)?;
                self.rest = self.rest.get(length - 1..).unwrap_or_default();
                bounds
            }
            _ => return None,
        };
        self.next();
        let possessive = self.take(b"+");
        if !possessive {
            self.take(b"?");
        }
        Some(Quantifier { minimum, maximum, possessive })
    }
}

#[derive(Debug, Clone, Copy)]
struct Quantifier {
    minimum: u32,
    maximum: Option<u32>,
    possessive: bool,
}

/// `{3}`, `{3,}`, `{3,5}`, `{,5}` (since PCRE2 10.43) and their length.
fn bounds(text: &[u8]) -> Option<((u32, Option<u32>), usize)> {
    let end = text.iter().take(16).position(|&b| b == b'}')?;
    let inner = std::str::from_utf8(text.get(1..end)?).ok()?;
    let number = |digits: &str| digits.trim_matches(' ').parse::<u32>().ok();
    let bounds = match inner.split_once(',') {
        None => {
            let exact = number(inner)?;
            (exact, Some(exact))
        }
        Some((minimum, maximum)) if maximum.trim_matches(' ').is_empty() => {
            (number(minimum)?, None)
        }
        Some((minimum, maximum)) if minimum.trim_matches(' ').is_empty() => {
            (0, Some(number(maximum)?))
        }
        Some((minimum, maximum)) => (number(minimum)?, Some(number(maximum)?)),
    };
    Some((bounds, end + 1))
}

fn repeated(node: Node, quantifier: Quantifier) -> Node {
    let Quantifier { minimum, maximum, possessive } = quantifier;
    match (node, minimum, maximum) {
        (_, _, Some(0)) => Node::Empty,
        (node, 1, Some(1)) => node,
        // A position cannot be taken twice: PCRE2 tries such a thing once at most.
        (Node::Empty, ..) => Node::Empty,
        (Node::Start | Node::End | Node::Assertion | Node::Look(_), 0, _) => Node::Empty,
        (node @ (Node::Start | Node::End | Node::Assertion | Node::Look(_)), ..) => node,
        (node, ..) => Node::Repeat(Box::new(Repeat { node, minimum, maximum, possessive })),
    }
}

fn byte_node(byte: u8, flags: &Flags) -> Node {
    if flags.caseless && byte.is_ascii_alphabetic() {
        Node::Set(ByteSet::one(byte).caseless())
    } else {
        Node::Literal(vec![byte])
    }
}

fn flush(literal: &mut Vec<u8>, nodes: &mut Vec<Node>) {
    if !literal.is_empty() {
        nodes.push(Node::Literal(std::mem::take(literal)));
    }
}

fn concat(mut nodes: Vec<Node>) -> Node {
    match nodes.len() {
        0 => Node::Empty,
        1 => nodes.pop().unwrap_or(Node::Empty),
        _ => Node::Concat(nodes),
    }
}
