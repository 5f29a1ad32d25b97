//! The three digits in front of every reply.

use std::fmt;

/// The status of a reply: a number from 100 to 999.
///
/// The constants are the complete set that varnishd has (varnish-cli(7), "Status codes"); a number
/// that is not among them is kept as it is, since a later version may add one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(u16);

impl Status {
    /// The line could not be split into words, or was empty.
    pub const SYNTAX: Self = Self(100);
    /// No such command; or one that needs the cache process while that is not running; or one
    /// that needs authentication.
    pub const UNKNOWN: Self = Self(101);
    /// The command exists and cannot do what its flags ask for.
    pub const UNIMPLEMENTED: Self = Self(102);
    /// Too few arguments.
    pub const TOO_FEW: Self = Self(104);
    /// Too many arguments.
    pub const TOO_MANY: Self = Self(105);
    /// An argument is wrong.
    pub const PARAMETER: Self = Self(106);
    /// The greeting of a server that wants a secret.
    pub const AUTH: Self = Self(107);
    /// Done.
    pub const OK: Self = Self(200);
    /// Done, and the body was cut at the server's `cli_limit`.
    pub const TRUNCATED: Self = Self(201);
    /// Not possible as things stand.
    pub const CANNOT: Self = Self(300);
    /// The manager lost its cache process while that was carrying out the command: nobody knows
    /// whether it was done.
    pub const COMMS: Self = Self(400);
    /// The server closes the connection: it refused the secret, or was asked to `quit`.
    pub const CLOSE: Self = Self(500);

    /// `number` as a status, if it has three digits.
    #[must_use]
    pub const fn new(number: u16) -> Option<Self> {
        if number >= 100 && number <= 999 { Some(Self(number)) } else { None }
    }

    /// The number, 100 to 999.
    #[must_use]
    pub const fn as_u16(self) -> u16 {
        self.0
    }

    /// Whether the command was carried out: 200, and 201, which only says that the body was cut.
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self, Self::OK | Self::TRUNCATED)
    }

    /// What the status means, in a few words; `None` for one that varnishd does not have.
    #[must_use]
    pub const fn meaning(self) -> Option<&'static str> {
        Some(match self {
            Self::SYNTAX => "syntax error",
            Self::UNKNOWN => "unknown command",
            Self::UNIMPLEMENTED => "not implemented",
            Self::TOO_FEW => "too few arguments",
            Self::TOO_MANY => "too many arguments",
            Self::PARAMETER => "wrong argument",
            Self::AUTH => "authentication required",
            Self::OK => "ok",
            Self::TRUNCATED => "ok, cut short",
            Self::CANNOT => "not possible now",
            Self::COMMS => "no answer from the cache process",
            Self::CLOSE => "closing",
            _ => return None,
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_three_digits() {
        assert_eq!(Status::new(99), None);
        assert_eq!(Status::new(1_000), None);
        assert_eq!(Status::new(200), Some(Status::OK));
        let unheard_of = Status::new(999).unwrap();
        assert_eq!((unheard_of.meaning(), unheard_of.to_string().as_str()), (None, "999"));
    }

    #[test]
    fn only_two_mean_done() {
        let done: Vec<_> = (100..=999).filter(|&n| Status::new(n).unwrap().is_success()).collect();
        assert_eq!(done, [200, 201]);
    }
}
