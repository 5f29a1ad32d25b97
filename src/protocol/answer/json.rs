//! JSON as varnishd writes it, with its known faults.

/// A value of JSON. Strings are bytes, since varnishd repeats what it was given in any encoding;
/// numbers are the text that stood there, so that no digit of a time is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as it was written.
    Number(String),
    /// A string, its escapes resolved.
    Text(Vec<u8>),
    /// An array.
    List(Vec<Self>),
    /// An object: names and values in their order.
    Object(Vec<(Vec<u8>, Self)>),
}

/// Text that is no JSON, not even with the faults that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonError {
    /// It ends too early.
    Cut,
    /// It goes wrong here.
    Wrong {
        /// Where, counted from 0.
        at: usize,
    },
}

/// So deep may values stand within each other; varnishd's own go to four.
const DEEPEST: usize = 32;

impl Json {
    /// Reads `bytes`, which hold one value and white space around it.
    ///
    /// Beyond RFC 8259 it takes what varnishd is known to write: a comma with nothing behind it
    /// (varnish-cache issue 3677), octal escapes (`\303`) and bytes that are no UTF-8 in strings,
    /// and pointers such as `0x7f12` outside of them.
    ///
    /// # Errors
    /// [`JsonError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, JsonError> {
        let mut reader = Reader::new(bytes);
        let value = reader.value()?;
        reader.blanks();
        if reader.peek().is_some() { Err(reader.wrong()) } else { Ok(value) }
    }

    /// The member `name` of an object.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => {
                members.iter().find(|(key, _)| key == name.as_bytes()).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// The bytes of a string.
    #[must_use]
    pub fn as_text(&self) -> Option<&[u8]> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The elements of an array; none for anything else.
    #[must_use]
    pub fn elements(&self) -> &[Self] {
        match self {
            Self::List(elements) => elements,
            _ => &[],
        }
    }

    /// The members of an object; none for anything else.
    #[must_use]
    pub fn members(&self) -> &[(Vec<u8>, Self)] {
        match self {
            Self::Object(members) => members,
            _ => &[],
        }
    }

    /// A number that is whole and fits.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(number) => number.parse().ok(),
            _ => None,
        }
    }

    /// `true` or `false`.
    #[must_use]
    pub const fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }
}

/// Reads values one after the other.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    /// What there is of the object that the text ended in.
    unfinished: Option<Json>,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, depth: 0, unfinished: None }
    }

    /// Where it is.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub(super) fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Skips white space and `expected`, if it is there.
    pub(super) fn skip(&mut self, expected: u8) -> bool {
        self.blanks();
        let there = self.peek() == Some(expected);
        self.at += usize::from(there);
        there
    }

    /// Skips white space and `expected`, which has to be there.
    pub(super) fn need(&mut self, expected: u8) -> Result<(), JsonError> {
        if self.skip(expected) { Ok(()) } else { Err(self.wrong()) }
    }

    /// After [`JsonError::Cut`]: the members that were whole of the outermost object that the text
    /// ended in.
    pub(super) fn into_unfinished(self) -> Option<Json> {
        self.unfinished
    }

    pub(super) const fn wrong(&self) -> JsonError {
        if self.at < self.bytes.len() { JsonError::Wrong { at: self.at } } else { JsonError::Cut }
    }

    pub(super) fn value(&mut self) -> Result<Json, JsonError> {
        self.blanks();
        if self.depth == DEEPEST {
            return Err(self.wrong());
        }
        self.depth += 1;
        let value = match self.peek() {
            Some(b'{') => self.object(),
            Some(b'[') => self.list(),
            Some(b'"') => self.string().map(Json::Text),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'a'..=b'z') => self.word(),
            _ => Err(self.wrong()),
        };
        self.depth -= 1;
        value
    }

    fn object(&mut self) -> Result<Json, JsonError> {
        self.need(b'{')?;
        let mut members = Vec::new();
        loop {
            if self.skip(b'}') {
                return Ok(Json::Object(members));
            }
            match self.member() {
                Ok(member) => members.push(member),
                Err(error) => {
                    self.unfinished = Some(Json::Object(members));
                    return Err(error);
                }
            }
            if !self.skip(b',') && self.peek() != Some(b'}') {
                self.unfinished = Some(Json::Object(members));
                return Err(self.wrong());
            }
        }
    }

    fn member(&mut self) -> Result<(Vec<u8>, Json), JsonError> {
        self.blanks();
        let name = self.string()?;
        self.need(b':')?;
        Ok((name, self.value()?))
    }

    fn list(&mut self) -> Result<Json, JsonError> {
        self.need(b'[')?;
        let mut elements = Vec::new();
        loop {
            if self.skip(b']') {
                return Ok(Json::List(elements));
            }
            elements.push(self.value()?);
            if !self.skip(b',') && self.peek() != Some(b']') {
                return Err(self.wrong());
            }
        }
    }

    fn number(&mut self) -> Result<Json, JsonError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let fits = |b: &u8| b.is_ascii_alphanumeric() || b"+-.".contains(b);
        let length = rest.iter().position(|b| !fits(b)).ok_or(JsonError::Cut)?;
        let number = rest.get(..length).unwrap_or_default();
        let number = std::str::from_utf8(number).map_err(|_| self.wrong())?;
        let pointer = number.strip_prefix("0x");
        let value = match pointer {
            Some(digits) if u64::from_str_radix(digits, 16).is_ok() => Json::Text(number.into()),
            None if length <= 40 && number.parse::<f64>().is_ok() => Json::Number(number.into()),
            _ => return Err(self.wrong()),
        };
        self.at += length;
        Ok(value)
    }

    fn word(&mut self) -> Result<Json, JsonError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let words =
            [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))];
        for (word, value) in words {
            if rest.starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(value);
            }
            if word.as_bytes().starts_with(rest) {
                return Err(JsonError::Cut);
            }
        }
        Err(self.wrong())
    }

    fn string(&mut self) -> Result<Vec<u8>, JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.wrong());
        }
        self.at += 1;
        let mut text = Vec::new();
        loop {
            let byte = self.peek().ok_or(JsonError::Cut)?;
            match byte {
                b'"' => {
                    self.at += 1;
                    return Ok(text);
                }
                b'\\' => self.escape(&mut text)?,
                _ => {
                    text.push(byte);
                    self.at += 1;
                }
            }
        }
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), JsonError> {
        let rest = self.bytes.get(self.at + 1..).unwrap_or_default();
        let (byte, length) = match rest.first().ok_or(JsonError::Cut)? {
            b'b' => (0x08, 1),
            b'f' => (0x0c, 1),
            b'n' => (b'\n', 1),
            b'r' => (b'\r', 1),
            b't' => (b'\t', 1),
            byte @ (b'"' | b'\\' | b'/') => (*byte, 1),
            b'u' => {
                let digits = rest.get(1..5).ok_or(JsonError::Cut)?;
                let unit = hex(digits).ok_or_else(|| self.wrong())?;
                // varnishd writes no surrogates.
                let letter = char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER);
                text.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                self.at += 6;
                return Ok(());
            }
            b'0'..=b'7' => {
                let digits = rest.get(..3).ok_or(JsonError::Cut)?;
                let value = digits.iter().try_fold(0_u8, |value, digit| match digit {
                    b'0'..=b'7' => value.checked_mul(8)?.checked_add(digit - b'0'),
                    _ => None,
                });
                (value.ok_or_else(|| self.wrong())?, 3)
            }
            _ => return Err(self.wrong()),
        };
        text.push(byte);
        self.at += 1 + length;
        Ok(())
    }
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, &digit| Some(value * 16 + char::from(digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<Json, JsonError> {
        Json::parse(text.as_bytes())
    }

    #[test]
    fn reads_json() {
        let value = parsed(r#" {"a": [1, -2.50, true, null], "b": "x\n\u00fc\/"} "#).unwrap();
        let list = value.get("a").unwrap().elements();
        assert_eq!(list[0].as_u64(), Some(1));
        assert_eq!(list[1], Json::Number("-2.50".into()));
        assert_eq!((list[2].as_bool(), &list[3]), (Some(true), &Json::Null));
        assert_eq!(value.get("b").unwrap().as_text(), Some("x\nü/".as_bytes()));
        assert_eq!(value.get("c"), None);
    }

    #[test]
    fn reads_what_only_varnishd_takes_for_json() {
        assert_eq!(parsed("[1,\n\n]").unwrap().elements().len(), 1);
        assert_eq!(parsed(r#""\303\274""#), Ok(Json::Text("ü".into())));
        assert_eq!(Json::parse(b"\"\xff\""), Ok(Json::Text(vec![0xff])));
        assert_eq!(
            parsed("[0x7fa7a94000]").unwrap().elements()[0].as_text(),
            Some(&b"0x7fa7a94000"[..])
        );
    }

    #[test]
    fn tells_what_is_cut_from_what_is_wrong() {
        let whole = r#"[ 2, {"a": "\u00fc\303", "b": [true, 0x1f, -1.5]}, "x" ]"#;
        assert!(parsed(whole).is_ok());
        for end in 0..whole.len() {
            assert_eq!(Json::parse(&whole.as_bytes()[..end]), Err(JsonError::Cut), "{end} bytes");
        }
        assert_eq!(parsed("[1 2]"), Err(JsonError::Wrong { at: 3 }));
        assert_eq!(parsed(r#"{"a" 1}"#), Err(JsonError::Wrong { at: 5 }));
        assert_eq!(parsed(r#""\x""#), Err(JsonError::Wrong { at: 1 }));
        assert_eq!(parsed(r#""\777" "#), Err(JsonError::Wrong { at: 1 }));
        assert_eq!(parsed("[]x"), Err(JsonError::Wrong { at: 2 }));
        assert_eq!(parsed(&"[".repeat(1_000)), Err(JsonError::Wrong { at: DEEPEST }));
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes: Vec<u8>) {
            let _ = Json::parse(&bytes);
        }

        #[test]
        fn nothing_that_looks_like_it_panics(text in r#"[\[\]{}",:0-9tfn\\ux ]{0,60}"#) {
            let _ = Json::parse(text.as_bytes());
        }
    }
}
