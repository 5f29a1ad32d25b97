//! Where a placeholder stands within a regex.

/// Reads a regex up to a placeholder, to tell what the value would be part of.
///
/// It knows as much of the language of PCRE2 (pcre2pattern(3)) as that takes, and where it is not
/// sure, it says that the placeholder cannot stand there.
#[derive(Debug, Default)]
pub(super) struct Walker {
    state: State,
    extended: bool,
}

/// Why a placeholder cannot stand at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlaceFault {
    Class,
    Escape,
    Quoted,
    GroupHead,
    Comment,
    Quantifier,
    Extended,
    Repeated,
}

impl PlaceFault {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Class => "within [...], where a value would be a set of characters",
            Self::Escape => "right behind an escape that its value would become part of",
            Self::Quoted => {
                "behind \\Q, which a value may end: what is filled in is escaped anyway"
            }
            Self::GroupHead => "within the head of a group",
            Self::Comment => "within a comment",
            Self::Quantifier => "within a quantifier",
            Self::Extended => "in a regex with (?x), where parts may be a comment",
            Self::Repeated => {
                "before a quantifier, which would repeat its last character alone: write (?:{...})"
            }
        }
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Where a text stands for itself.
    #[default]
    Plain,
    /// Behind a backslash.
    Backslash,
    /// Behind `\x`, with so many digits.
    Hex(u8),
    /// Behind an escape that takes letters and digits along: `\1`, `\g2`, `\c`.
    Taker,
    /// Within the braces, quotes or angle brackets of an escape, up to this byte.
    Until(u8),
    /// Within `\Q`; whether a backslash stands before.
    Quoted { backslash: bool },
    /// Behind `[` or `[^`: a bracket here stands for itself.
    ClassStart { negated: bool },
    /// Further within a class.
    Class,
    /// Within a class behind a backslash.
    ClassBackslash,
    /// Within a class behind another `[`.
    ClassBracket,
    /// Within a class within `[:alpha:]`; whether its second sign stands before.
    ClassNamed { sign: u8, seen: bool },
    /// Behind `(`.
    Group,
    /// Behind `(?`: how many bytes of the head were read, and whether all are options.
    Head { first: bool, options: bool, extended: bool },
    /// Within the name of a group that is called: up to `)`.
    Call,
    /// Within `(?#`: up to `)`.
    Comment,
    /// Behind `{` and digits.
    Quantifier,
}

impl Walker {
    /// Reads on.
    pub(super) fn walk(&mut self, text: &str) {
        for byte in text.bytes() {
            self.state = self.step(byte);
        }
    }

    /// Why no placeholder can stand here, if none can.
    pub(super) fn fault(&mut self) -> Option<PlaceFault> {
        let fault = match self.state {
            _ if self.extended => PlaceFault::Extended,
            State::Plain | State::Hex(2) => {
                // A value stands here, and what comes behind it is a text again.
                self.state = State::Plain;
                return None;
            }
            // `(` and a value, which never begins with `?` or `*`.
            State::Group => {
                self.state = State::Plain;
                return None;
            }
            State::Backslash | State::Hex(_) | State::Taker | State::Until(_) => PlaceFault::Escape,
            State::Quoted { .. } => PlaceFault::Quoted,
            State::ClassStart { .. }
            | State::Class
            | State::ClassBackslash
            | State::ClassBracket
            | State::ClassNamed { .. } => PlaceFault::Class,
            State::Head { .. } | State::Call => PlaceFault::GroupHead,
            State::Comment => PlaceFault::Comment,
            State::Quantifier => PlaceFault::Quantifier,
        };
        Some(fault)
    }

    fn step(&mut self, byte: u8) -> State {
        match self.state {
            State::Plain => plain(byte),
            State::Backslash => match byte {
                b'Q' => State::Quoted { backslash: false },
                b'x' => State::Hex(0),
                b'0'..=b'9' | b'c' | b'g' | b'k' | b'o' | b'p' | b'P' | b'N' | b'u' | b'U' => {
                    State::Taker
                }
                _ => State::Plain,
            },
            State::Hex(0) if byte == b'{' => State::Until(b'}'),
            State::Hex(digits @ (0 | 1)) if byte.is_ascii_hexdigit() => State::Hex(digits + 1),
            State::Hex(_) => plain(byte),
            State::Taker => match byte {
                b'{' => State::Until(b'}'),
                b'<' => State::Until(b'>'),
                b'\'' => State::Until(b'\''),
                b'-' => State::Taker,
                byte if byte.is_ascii_alphanumeric() => State::Taker,
                byte => plain(byte),
            },
            State::Until(end) if byte == end => State::Plain,
            State::Quoted { backslash: true } if byte == b'E' => State::Plain,
            State::Quoted { .. } => State::Quoted { backslash: byte == b'\\' },
            State::ClassStart { negated: false } if byte == b'^' => {
                State::ClassStart { negated: true }
            }
            State::ClassStart { .. } if byte == b']' => State::Class,
            State::ClassStart { .. } | State::Class => in_class(byte),
            State::ClassBackslash => State::Class,
            State::ClassBracket => match byte {
                b':' | b'.' | b'=' => State::ClassNamed { sign: byte, seen: false },
                byte => in_class(byte),
            },
            State::ClassNamed { seen: true, .. } if byte == b']' => State::Class,
            State::ClassNamed { sign, .. } => State::ClassNamed { sign, seen: byte == sign },
            State::Group => match byte {
                b'?' => State::Head { first: true, options: true, extended: false },
                b'*' => State::Call,
                byte => plain(byte),
            },
            State::Head { first, options, extended } => self.head(byte, first, options, extended),
            State::Call | State::Comment if byte == b')' => State::Plain,
            State::Quantifier => match byte {
                b'0'..=b'9' | b',' => State::Quantifier,
                byte => plain(byte),
            },
            same @ (State::Until(_) | State::Call | State::Comment) => same,
        }
    }

    fn head(&mut self, byte: u8, first: bool, options: bool, extended: bool) -> State {
        match byte {
            b'#' if first => State::Comment,
            b'&' | b'R' | b'0'..=b'9' | b'+' | b'(' | b'C' if first => State::Call,
            b'=' | b'>' if !first && options => State::Call,
            b':' | b')' | b'=' | b'!' | b'>' | b'|' => {
                self.extended |= extended && options;
                State::Plain
            }
            b'\'' => State::Until(b'\''),
            byte => State::Head {
                first: false,
                // `P` for the names as Python writes them: `(?P=name)` and `(?P>name)` are calls.
                options: options && (byte.is_ascii_alphabetic() || b"^-".contains(&byte)),
                extended: extended || byte == b'x',
            },
        }
    }
}

fn plain(byte: u8) -> State {
    match byte {
        b'\\' => State::Backslash,
        b'[' => State::ClassStart { negated: false },
        b'(' => State::Group,
        b'{' => State::Quantifier,
        _ => State::Plain,
    }
}

fn in_class(byte: u8) -> State {
    match byte {
        b']' => State::Plain,
        b'\\' => State::ClassBackslash,
        b'[' => State::ClassBracket,
        _ => State::Class,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_a_value_would_be_part_of() {
        for (before, expected) in [
            ("", None),
            ("^/a/", None),
            ("^/a.*", None),
            (r"\.", None),
            (r"\d", None),
            (r"a\x20", None),
            (r"\x{41}", None),
            ("(", None),
            ("(?:", None),
            ("(?i)^", None),
            ("(?i:", None),
            ("(?<=", None),
            ("(?!", None),
            ("(?<name>", None),
            ("(?P<name>", None),
            ("(?'name'", None),
            ("[a-z]", None),
            ("[]a]", None),
            ("[^]a]", None),
            (r"[\]]", None),
            ("[[:alpha:]]", None),
            ("a{2}", None),
            (r"\Qa\E", None),
            (r"\1x", Some(PlaceFault::Escape)),
            ("\\", Some(PlaceFault::Escape)),
            (r"\\\", Some(PlaceFault::Escape)),
            (r"\x", Some(PlaceFault::Escape)),
            (r"\x4", Some(PlaceFault::Escape)),
            (r"\x{4", Some(PlaceFault::Escape)),
            (r"\1", Some(PlaceFault::Escape)),
            (r"\g{", Some(PlaceFault::Escape)),
            (r"\k<", Some(PlaceFault::Escape)),
            (r"\c", Some(PlaceFault::Escape)),
            (r"\p", Some(PlaceFault::Escape)),
            ("[", Some(PlaceFault::Class)),
            ("[^", Some(PlaceFault::Class)),
            ("[]", Some(PlaceFault::Class)),
            ("[a-", Some(PlaceFault::Class)),
            ("[[:alpha:]", Some(PlaceFault::Class)),
            (r"[\]", Some(PlaceFault::Class)),
            (r"\Qa", Some(PlaceFault::Quoted)),
            ("(?", Some(PlaceFault::GroupHead)),
            ("(?<", Some(PlaceFault::GroupHead)),
            ("(?P=", Some(PlaceFault::GroupHead)),
            ("(?P>", Some(PlaceFault::GroupHead)),
            ("(?&", Some(PlaceFault::GroupHead)),
            ("(?(", Some(PlaceFault::GroupHead)),
            ("(*VERB:", Some(PlaceFault::GroupHead)),
            ("(?#", Some(PlaceFault::Comment)),
            ("a{", Some(PlaceFault::Quantifier)),
            ("a{1,", Some(PlaceFault::Quantifier)),
            ("(?x)a", Some(PlaceFault::Extended)),
            ("(?ix:a", Some(PlaceFault::Extended)),
        ] {
            let mut walker = Walker::default();
            walker.walk(before);
            assert_eq!(walker.fault(), expected, "{before}");
        }
    }
}
