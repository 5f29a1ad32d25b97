//! What makes two responses "the same" for an endpoint.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::PointerValue;

/// The version of one response: its status and the mark that the endpoint's `compare` rule reads.
///
/// The status belongs to it: a product that the origin answers with 404 and the cache with 200 is
/// the very incident this program exists for.
///
/// Printed and parsed as `STATUS KIND:VALUE`, which is how it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version {
    /// The HTTP status.
    pub status: u16,
    /// What was read from the response.
    pub mark: Mark,
}

/// What a `compare` rule reads from a response.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Mark {
    /// SHA-256 of the decoded body, after `ignore` was blanked out.
    Body([u8; 32]),
    /// The opaque part of an `ETag`, without `W/`: weak and strong forms compare equal, because
    /// Varnish weakens them on gunzip and ESI.
    Etag(Arc<str>),
    /// `Last-Modified`, in seconds since the Unix epoch. Ordered.
    LastModified(u64),
    /// A header's value, or a value within a JSON body. Ordered where both sides are numbers.
    Token(Arc<str>),
    /// What a pointer names. Not ordered: a pointer that was taken back names an older version.
    Value(PointerValue),
    /// Where a redirect leads. Redirects are compared, not followed.
    Location(Arc<str>),
    /// Nothing beyond the status: errors such as 404 and 410, whose bodies tend to hold request
    /// ids, and answers without a body.
    Status,
}

/// How the version that a node serves relates to the origin's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The same.
    Same,
    /// Both are ordered, and the node's is the newer one.
    Newer,
    /// Both are ordered, and the node's is the older one.
    Older,
    /// Not the same, and nothing tells which is newer.
    Different,
}

impl Version {
    /// How `self`, served by a node, relates to `origin`. Order beats equality.
    #[must_use]
    pub fn relation_to(&self, origin: &Self) -> Relation {
        if self == origin {
            return Relation::Same;
        }
        if self.status != origin.status {
            return Relation::Different;
        }
        let order = match (&self.mark, &origin.mark) {
            (Mark::LastModified(node), Mark::LastModified(origin)) => Some(node.cmp(origin)),
            (Mark::Token(node), Mark::Token(origin)) => compare_numbers(node, origin),
            _ => None,
        };
        match order {
            Some(Ordering::Less) => Relation::Older,
            Some(Ordering::Equal) => Relation::Same,
            Some(Ordering::Greater) => Relation::Newer,
            None => Relation::Different,
        }
    }

    /// A short form for people: the status, and enough of the value to tell two apart.
    #[must_use]
    pub fn short(&self) -> String {
        let status = self.status;
        let text = match &self.mark {
            Mark::Body(digest) => format!("{status} body {}", hex::encode(digest)),
            Mark::Etag(tag) => format!("{status} ETag {tag}"),
            Mark::LastModified(seconds) => {
                let at = std::time::UNIX_EPOCH.checked_add(Duration::from_secs(*seconds));
                // Beyond the year 9999 there is no HTTP date.
                match at.filter(|_| *seconds < 253_402_300_800) {
                    Some(at) => return format!("{status} {}", httpdate::fmt_http_date(at)),
                    None => format!("{status} {seconds} s after 1970"),
                }
            }
            Mark::Token(value) => format!("{status} {value}"),
            Mark::Value(value) => format!("{status} {value}"),
            Mark::Location(target) => format!("{status} to {target}"),
            Mark::Status => return status.to_string(),
        };
        let mut short: String = text.chars().take(28).collect();
        if short.len() < text.len() {
            short.push('…');
        }
        short
    }
}

/// Orders two decimal numbers (digits, at most one point) of any length, without rounding.
fn compare_numbers(a: &str, b: &str) -> Option<Ordering> {
    let split = |text: &str| -> Option<(String, String)> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
        let number = !whole.is_empty() && digits(whole) && digits(fraction);
        number.then(|| {
            let whole = whole.trim_start_matches('0').to_owned();
            (whole, fraction.trim_end_matches('0').to_owned())
        })
    };
    let ((a_whole, a_fraction), (b_whole, b_fraction)) = (split(a)?, split(b)?);
    Some(
        a_whole
            .len()
            .cmp(&b_whole.len())
            .then_with(|| a_whole.cmp(&b_whole))
            .then_with(|| a_fraction.cmp(&b_fraction)),
    )
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.status)?;
        match &self.mark {
            Mark::Body(digest) => write!(f, "body:{}", hex::encode(digest)),
            Mark::Etag(tag) => write!(f, "etag:{tag}"),
            Mark::LastModified(seconds) => write!(f, "last-modified:{seconds}"),
            Mark::Token(value) => write!(f, "token:{value}"),
            Mark::Value(value) => write!(f, "value:{value}"),
            Mark::Location(target) => write!(f, "location:{target}"),
            Mark::Status => f.write_str("status:"),
        }
    }
}

/// A stored version that cannot be read: the file is from another program or damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a version such as \"200 etag:abc\", got {got:?}")]
pub struct VersionError {
    /// What was found.
    pub got: String,
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let wrong = || VersionError { got: text.chars().take(100).collect() };
        let (status, rest) = text.split_once(' ').ok_or_else(wrong)?;
        let (kind, value) = rest.split_once(':').ok_or_else(wrong)?;
        let mark = match kind {
            "body" => {
                let mut digest = [0; 32];
                hex::decode_to_slice(value, &mut digest).map_err(|_| wrong())?;
                Mark::Body(digest)
            }
            "etag" => Mark::Etag(value.into()),
            "last-modified" => Mark::LastModified(value.parse().map_err(|_| wrong())?),
            "token" => Mark::Token(value.into()),
            "value" => Mark::Value(PointerValue::new(value).map_err(|_| wrong())?),
            "location" => Mark::Location(value.into()),
            "status" if value.is_empty() => Mark::Status,
            _ => return Err(wrong()),
        };
        Ok(Self { status: status.parse().map_err(|_| wrong())?, mark })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(value: &str) -> Version {
        Version { status: 200, mark: Mark::Token(value.into()) }
    }

    #[test]
    fn order_beats_equality() {
        assert_eq!(token("10").relation_to(&token("9")), Relation::Newer);
        assert_eq!(token("9").relation_to(&token("10")), Relation::Older);
        assert_eq!(token("1.50").relation_to(&token("01.5")), Relation::Same);
        assert_eq!(token("1.10").relation_to(&token("1.9")), Relation::Older);
        assert_eq!(token("8f3e").relation_to(&token("9")), Relation::Different);
        let huge = "340282366920938463463374607431768211457";
        assert_eq!(token(huge).relation_to(&token(&huge.replace("57", "56"))), Relation::Newer);
        let at = |s| Version { status: 200, mark: Mark::LastModified(s) };
        assert_eq!(at(5).relation_to(&at(6)), Relation::Older);
        let value = |v| Version { status: 200, mark: Mark::Value(PointerValue::new(v).unwrap()) };
        assert_eq!(value("10").relation_to(&value("9")), Relation::Different, "no pointer is");
    }

    #[test]
    fn the_status_belongs_to_the_version() {
        let gone = Version { status: 404, mark: Mark::Status };
        let there = Version { status: 200, mark: Mark::Body([1; 32]) };
        assert_eq!(there.relation_to(&gone), Relation::Different);
        let newer = Version { status: 404, mark: Mark::Token("9".into()) };
        assert_eq!(newer.relation_to(&token("1")), Relation::Different);
    }

    #[test]
    fn the_short_form_is_for_people() {
        let short = |mark| Version { status: 200, mark }.short();
        assert_eq!(short(Mark::Token("7".into())), "200 7");
        assert_eq!(short(Mark::Status), "200");
        let date = "200 Tue, 14 Nov 2023 22:13:20 GMT";
        assert_eq!(short(Mark::LastModified(1_700_000_000)), date);
        assert_eq!(short(Mark::LastModified(u64::MAX)).chars().count(), 29);
        assert_eq!(short(Mark::Body([0xab; 32])), format!("200 body {}…", "ab".repeat(9) + "a"));
    }

    #[test]
    fn prints_what_it_parses() {
        for mark in [
            Mark::Body([0xab; 32]),
            Mark::Etag("\"a:b c\"".into()),
            Mark::LastModified(1_700_000_000),
            Mark::Token("model: 7".into()),
            Mark::Value(PointerValue::new("2024/11:7").unwrap()),
            Mark::Location("http://x/?a b".into()),
            Mark::Status,
        ] {
            let version = Version { status: 301, mark };
            assert_eq!(version.to_string().parse(), Ok(version));
        }
        for wrong in ["", "200", "200 body:zz", "x etag:1", "200 status:1", "200 other:"] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong}");
        }
    }
}
