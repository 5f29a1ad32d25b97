//! Sets of bytes as PCRE2 writes them: `[a-z]`, `\d`, `[[:alpha:]]` (pcre2pattern(3)), without
//! the UTF and UCP options and in the C locale, as varnishd uses it.

use super::bytes::ByteSet;

/// Reads a class behind its `[`; returns what follows its `]`.
pub(super) fn read(mut rest: &[u8]) -> Option<(ByteSet, &[u8])> {
    let negated = rest.first() == Some(&b'^');
    if negated {
        rest = rest.get(1..)?;
    }
    let mut set = ByteSet::EMPTY;
    let mut first = true;
    loop {
        if rest.first()? == &b']' && !first {
            rest = rest.get(1..)?;
            return Some((if negated { set.negated() } else { set }, rest));
        }
        if let Some(after) = rest.strip_prefix(b"\\E") {
            rest = after;
            continue;
        }
        if let Some(after) = rest.strip_prefix(b"\\Q") {
            let end = after.windows(2).position(|pair| pair == b"\\E")?;
            set = after.get(..end)?.iter().fold(set, |set, &b| set.with(b, b));
            rest = after.get(end + 2..)?;
            first = false;
            continue;
        }
        let from = member(&mut rest)?;
        first = false;
        // A range, unless the hyphen is the last character.
        if let (Some(start), [b'-', next, ..]) = (from.only(), rest)
            && *next != b']'
        {
            let mut after = rest.get(1..)?;
            let to = member(&mut after)?;
            if let Some(end) = to.only() {
                rest = after;
                set = set.with(start, end);
                continue;
            }
        }
        set = set.union(from);
    }
}

/// What a backslash and `byte` stand for, where that is a set; takes what belongs to it.
/// `None` for letters that mean something else.
pub(super) fn escape(byte: u8, rest: &mut &[u8]) -> Option<ByteSet> {
    let digits = ByteSet::EMPTY.with(b'0', b'9');
    let words = digits.with(b'a', b'z').with(b'A', b'Z').with(b'_', b'_');
    let spaces = ByteSet::one(b' ').with(b'\t', b'\r');
    let horizontal = ByteSet::one(b' ').with(b'\t', b'\t').with(0xa0, 0xa0);
    let vertical = ByteSet::EMPTY.with(b'\n', b'\r').with(0x85, 0x85);
    Some(match byte {
        b'd' => digits,
        b'D' => digits.negated(),
        b'w' => words,
        b'W' => words.negated(),
        b's' => spaces,
        b'S' => spaces.negated(),
        b'h' => horizontal,
        b'H' => horizontal.negated(),
        b'v' => vertical,
        b'V' => vertical.negated(),
        b'a' => ByteSet::one(0x07),
        b'e' => ByteSet::one(0x1b),
        b'f' => ByteSet::one(0x0c),
        b'n' => ByteSet::one(b'\n'),
        b'r' => ByteSet::one(b'\r'),
        b't' => ByteSet::one(b'\t'),
        b'c' => {
            let control = take(rest)?;
            ByteSet::one(control.to_ascii_uppercase() ^ 0x40)
        }
        b'0' => ByteSet::one(octal(rest, 2, 0)),
        b'o' => ByteSet::one(u8::from_str_radix(braced(rest)?, 8).unwrap_or(0xff)),
        b'x' if rest.first() == Some(&b'{') => {
            ByteSet::one(u8::from_str_radix(braced(rest)?, 16).unwrap_or(0xff))
        }
        b'x' => {
            let mut value = 0;
            for _ in 0..2 {
                let Some(digit) = rest.first().and_then(|&b| char::from(b).to_digit(16)) else {
                    break;
                };
                value = value * 16 + u8::try_from(digit).ok()?;
                take(rest);
            }
            ByteSet::one(value)
        }
        // A Unicode property, of bytes taken as Latin-1: any byte will do for the analysis.
        b'p' | b'P' => {
            if rest.first() == Some(&b'{') {
                braced(rest)?;
            } else {
                take(rest)?;
            }
            ByteSet::ALL
        }
        _ if byte.is_ascii_alphanumeric() => return None,
        _ => ByteSet::one(byte),
    })
}

/// One member of a class: a byte, a set, or a POSIX name.
fn member(rest: &mut &[u8]) -> Option<ByteSet> {
    if rest.starts_with(b"[:")
        && let Some(end) = rest.windows(2).position(|pair| pair == b":]")
    {
        let name = rest.get(2..end)?;
        if name.iter().all(|b| b.is_ascii_lowercase() || *b == b'^') {
            let set = posix(name);
            *rest = rest.get(end + 2..)?;
            return Some(set);
        }
    }
    match take(rest)? {
        b'\\' => match take(rest)? {
            b'b' => Some(ByteSet::one(0x08)),
            digit @ b'1'..=b'7' => Some(ByteSet::one(octal(rest, 2, digit - b'0'))),
            b'N' | b'R' | b'X' | b'B' => None,
            byte => escape(byte, rest),
        },
        byte => Some(ByteSet::one(byte)),
    }
}

fn posix(name: &[u8]) -> ByteSet {
    let (negated, name) = match name.strip_prefix(b"^") {
        Some(name) => (true, name),
        None => (false, name),
    };
    let e = ByteSet::EMPTY;
    let set = match name {
        b"alpha" => e.with(b'a', b'z').with(b'A', b'Z'),
        b"digit" => e.with(b'0', b'9'),
        b"alnum" => e.with(b'a', b'z').with(b'A', b'Z').with(b'0', b'9'),
        b"word" => e.with(b'a', b'z').with(b'A', b'Z').with(b'0', b'9').with(b'_', b'_'),
        b"upper" => e.with(b'A', b'Z'),
        b"lower" => e.with(b'a', b'z'),
        b"space" => e.with(b'\t', b'\r').with(b' ', b' '),
        b"blank" => e.with(b'\t', b'\t').with(b' ', b' '),
        b"cntrl" => e.with(0, 0x1f).with(0x7f, 0x7f),
        b"print" => e.with(0x20, 0x7e),
        b"graph" => e.with(0x21, 0x7e),
        b"punct" => e.with(0x21, 0x2f).with(0x3a, 0x40).with(0x5b, 0x60).with(0x7b, 0x7e),
        b"xdigit" => e.with(b'0', b'9').with(b'a', b'f').with(b'A', b'F'),
        b"ascii" => e.with(0, 0x7f),
        _ => ByteSet::ALL,
    };
    if negated { set.negated() } else { set }
}

fn take(rest: &mut &[u8]) -> Option<u8> {
    let (&byte, after) = rest.split_first()?;
    *rest = after;
    Some(byte)
}

fn octal(rest: &mut &[u8], digits: usize, start: u8) -> u8 {
    let mut value = start;
    for _ in 0..digits {
        match rest.first() {
            Some(digit @ b'0'..=b'7') => value = value.wrapping_mul(8).wrapping_add(digit - b'0'),
            _ => break,
        }
        take(rest);
    }
    value
}

/// What stands in braces, with the braces taken.
fn braced<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let after = rest.strip_prefix(b"{")?;
    let end = after.iter().position(|&b| b == b'}')?;
    *rest = after.get(end + 1..)?;
    std::str::from_utf8(after.get(..end)?).ok().map(str::trim)
}
