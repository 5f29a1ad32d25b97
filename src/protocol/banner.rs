//! What a server says of itself.

use std::fmt;

use super::reply::Excerpt;
use super::{Reply, Status};

/// As many characters of a version are kept.
const LONGEST_VERSION: usize = 120;

/// The body of the reply that ends the greeting, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Banner {
    /// The server's version; `None` when no line of the banner states one.
    pub version: Option<ServerVersion>,
    /// Whether the banner offers to start the cache process, which it does while that is stopped.
    pub child_stopped: bool,
}

impl Banner {
    /// Reads a banner. Its wording differs between versions and products, so nothing of it is
    /// demanded.
    #[must_use]
    pub fn read(reply: &Reply) -> Self {
        let whole = match reply.body.iter().rposition(|&b| b == b'\n') {
            // The last line of a banner that was cut may be a part of a version.
            Some(end) if reply.status == Status::TRUNCATED => reply.body.get(..end),
            _ => Some(&*reply.body),
        };
        let mut lines = whole.unwrap_or_default().split(|&b| b == b'\n').map(<[u8]>::trim_ascii);
        let child_stopped = lines.clone().any(|line| line.starts_with(b"Type 'start'"));
        Self { version: lines.find_map(ServerVersion::from_line), child_stopped }
    }
}

/// The version of a server, as its banner states it: `varnish-7.1.1 revision 7cee...`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ServerVersion {
    text: String,
    numbers: Option<(u16, u16, u16)>,
}

impl ServerVersion {
    /// Reads one line of a banner, if it is the one that states the version: it begins with
    /// `varnish-` or `vinyl-`.
    #[must_use]
    pub fn from_line(line: &[u8]) -> Option<Self> {
        let name_ends = [&b"varnish-"[..], b"vinyl-cache-", b"vinyl-"]
            .into_iter()
            .find(|prefix| line.starts_with(prefix))?
            .len();
        let word_ends = line.iter().position(|&b| b == b' ').unwrap_or(line.len());
        let word = line.get(..word_ends)?;
        let shown = Excerpt::new(word, LONGEST_VERSION).lines().to_string();
        let release = std::str::from_utf8(word.get(name_ends..)?).ok();
        Some(Self { text: shown, numbers: release.and_then(numbers) })
    }

    /// The product and version without the revision, such as `varnish-7.1.1`, safe to print.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Major, minor and patch number; `None` for a version that has none, such as a development
    /// build.
    #[must_use]
    pub const fn numbers(&self) -> Option<(u16, u16, u16)> {
        self.numbers
    }

    /// Whether it is `major.minor` or later; `None` when it has no numbers.
    #[must_use]
    pub fn at_least(&self, major: u16, minor: u16) -> Option<bool> {
        self.numbers.map(|(a, b, _)| (a, b) >= (major, minor))
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `7.1.1`, `6.0.13r6` and `plus-6.0.13r6` have numbers; `trunk` has none.
fn numbers(release: &str) -> Option<(u16, u16, u16)> {
    let release = release.strip_prefix("plus-").unwrap_or(release);
    let mut parts = release.splitn(3, '.').map(|part| {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        part.get(..digits).and_then(|digits| digits.parse().ok())
    });
    let (major, minor) = (parts.next()??, parts.next()??);
    Some((major, minor, parts.next().flatten().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::parse;

    fn banner(bytes: &'static [u8]) -> Banner {
        let frame = parse(bytes, 1_000).unwrap().unwrap();
        assert_eq!(frame.status, Status::OK);
        Banner::read(&Reply { status: frame.status, body: frame.body.into() })
    }

    #[test]
    fn reads_what_varnishd_sent() {
        let running =
            include_bytes!("../../fixtures/transcripts/varnish-7.1.1/auth-accepted.reply");
        let stopped = include_bytes!(
            "../../fixtures/transcripts/varnish-7.1.1/auth-accepted-child-stopped.reply"
        );
        let running = banner(running);
        assert_eq!(running.version.as_ref().unwrap().as_str(), "varnish-7.1.1");
        assert_eq!(running.version.as_ref().unwrap().numbers(), Some((7, 1, 1)));
        assert!(!running.child_stopped);
        assert!(banner(stopped).child_stopped);
        assert_eq!(banner(b"200 2       \nhi\n").version, None);
    }

    #[test]
    fn knows_every_product() {
        let numbers = |line: &str| ServerVersion::from_line(line.as_bytes()).unwrap().numbers();
        assert_eq!(numbers("varnish-plus-6.0.13r6 revision 12"), Some((6, 0, 13)));
        assert_eq!(numbers("vinyl-9.0.0 revision 34"), Some((9, 0, 0)));
        assert_eq!(numbers("vinyl-cache-9.1.0"), Some((9, 1, 0)));
        assert_eq!(numbers("varnish-trunk revision 56"), None);
        assert_eq!(numbers("varnish-7.99999.1"), None);
        assert_eq!(ServerVersion::from_line(b"Varnish Cache CLI 1.0"), None);
        let newer = ServerVersion::from_line(b"varnish-7.10.0").unwrap();
        assert_eq!((newer.at_least(7, 4), newer.at_least(8, 0)), (Some(true), Some(false)));
        let hostile = ServerVersion::from_line(b"varnish-\x1b[2J").unwrap();
        assert_eq!(hostile.as_str(), "varnish-\\x1b[2J");
    }
}
