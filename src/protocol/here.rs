//! Whether a here document begins with a line, to every version of varnishd.

/// What a command line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ruling {
    /// A request by itself.
    Line,
    /// The beginning of a here document, which this word closes.
    HereDocument(Vec<u8>),
    /// The beginning of one to some versions, and a line by itself to others.
    Disputed(Vec<u8>),
}

/// How a version splits a line. They differ in quotation marks and `\x`, and so in which lines are
/// errors; a line that is one never begins a here document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grammar {
    /// 6.x: a quotation mark within a word stands for itself, and `\x4` passes.
    Lenient,
    /// 7.0 to 7.4: no two quoted words in a row, even with blanks between them.
    Apart,
    /// 7.5 and later: no two quoted words without a blank between them.
    Strict,
}

/// The words of a line that matter. Each ends at its first zero byte, as a C string does.
#[derive(Debug, Default, PartialEq, Eq)]
struct Words {
    first: Vec<u8>,
    last_but_one: Vec<u8>,
    last: Vec<u8>,
    count: usize,
}

/// Judges a line without its line end and without the `-` that may precede a command.
pub(super) fn rule(line: &[u8]) -> Ruling {
    // Nearly every line ends here: `<` is written as it is, or as an escape.
    if !line.windows(2).any(|pair| pair == b"<<") && !line.contains(&b'\\') {
        return Ruling::Line;
    }
    let terminators = [Grammar::Lenient, Grammar::Apart, Grammar::Strict]
        .map(|grammar| terminator(line, grammar));
    match terminators {
        [None, None, None] => Ruling::Line,
        [Some(lenient), Some(apart), Some(strict)] if lenient == apart && apart == strict => {
            Ruling::HereDocument(strict)
        }
        [lenient, apart, strict] => {
            Ruling::Disputed(strict.or(apart).or(lenient).unwrap_or_default())
        }
    }
}

/// The first word of a line, if that can be split at all.
pub(super) fn first_word(line: &[u8]) -> Option<Vec<u8>> {
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(b);
    let word = line.trim_ascii_start();
    let length = word.iter().position(|b| !plain(b)).unwrap_or(word.len());
    match word.get(length) {
        None | Some(b' ' | b'\t') if length > 0 => word.get(..length).map(<[u8]>::to_vec),
        _ => split(line, Grammar::Strict).map(|words| words.first),
    }
}

fn terminator(line: &[u8], grammar: Grammar) -> Option<Vec<u8>> {
    let words = split(line, grammar)?;
    let begins = words.count >= 2 && words.last_but_one == b"<<" && !words.last.is_empty();
    begins.then_some(words.last)
}

/// Splits as varnishd does. `None`: it would answer with status 100.
fn split(line: &[u8], grammar: Grammar) -> Option<Words> {
    let mut words = Words::default();
    // Where the quoted word before this one ended.
    let mut quoted_end = None;
    let mut at = 0;
    loop {
        while line.get(at).is_some_and(|&b| is_blank(b)) {
            at += 1;
        }
        let Some(&first) = line.get(at) else { break };
        let quoted = first == b'"';
        let apart = match grammar {
            Grammar::Lenient => true,
            Grammar::Apart => quoted_end.is_none(),
            Grammar::Strict => quoted_end != Some(at),
        };
        if quoted && !apart {
            return None;
        }
        at += usize::from(quoted);
        let mut word = Vec::new();
        quoted_end = None;
        loop {
            match line.get(at).copied() {
                None if quoted => return None,
                None => break,
                Some(b'\\') => {
                    let (byte, length) = escape(line.get(at + 1..).unwrap_or_default(), grammar)?;
                    word.push(byte);
                    at += 1 + length;
                }
                Some(b'"') if quoted => {
                    at += 1;
                    quoted_end = Some(at);
                    break;
                }
                Some(b'"') if grammar != Grammar::Lenient => return None,
                Some(byte) if !quoted && is_blank(byte) => break,
                Some(byte) => {
                    word.push(byte);
                    at += 1;
                }
            }
        }
        word.truncate(word.iter().position(|&b| b == 0).unwrap_or(word.len()));
        words.count += 1;
        if words.count == 1 {
            words.first.clone_from(&word);
        }
        words.last_but_one = std::mem::replace(&mut words.last, word);
    }
    Some(words)
}

/// The byte that an escape stands for, and how many bytes follow its backslash.
fn escape(rest: &[u8], grammar: Grammar) -> Option<(u8, usize)> {
    let byte = match rest.first()? {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'"' => b'"',
        b'\\' => b'\\',
        b'x' => {
            let digit = |at: usize| char::from(*rest.get(at)?).to_digit(16);
            let value = match (digit(1), digit(2)) {
                (Some(high), Some(low)) => 16 * high + low,
                (Some(low), None) if grammar == Grammar::Lenient => low,
                _ => return None,
            };
            return u8::try_from(value).ok().map(|byte| (byte, 3.min(rest.len())));
        }
        b'0'..=b'7' => {
            let digits = rest.iter().take(3).take_while(|b| (b'0'..=b'7').contains(b));
            let (mut value, mut length) = (0_u8, 0);
            for digit in digits {
                // Over 255 it wraps around, as a char does in C.
                value = value.wrapping_shl(3) | (digit - b'0');
                length += 1;
            }
            return Some((value, length));
        }
        _ => return None,
    };
    Some((byte, 1))
}

/// What C's `isspace` takes for white space.
const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}
