//! `[redis]`: where invalidation events come from.

use std::path::PathBuf;
use std::str::FromStr;

use super::SecretSettings;
use super::diagnostic::{Finding, Kind};
use super::reader::{Findings, Section, Value};
use super::table::name;
use super::value;
use crate::model::{AddressError, HostName, HostPort};

const PORT: u16 = 6_379;
/// Redis has sixteen unless told otherwise, and takes any number in its own configuration.
const LAST_DATABASE: u32 = 65_535;

/// The Redis server that events are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// Where it listens.
    pub address: HostPort,
    /// Whether TLS is spoken there (`rediss://`).
    pub tls: bool,
    /// The number of the database; 0 unless the URL names another. Channels have none.
    pub database: u32,
    /// The user to log in as; none: the default user (Redis' page on ACLs).
    pub username: Option<String>,
    /// Where the password comes from.
    pub password: SecretSettings,
    /// Certificates (PEM) that are trusted for `rediss` in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// What this host is called at the stream; none: by the name that the system has.
    pub name: Option<HostName>,
}

/// What a URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    address: HostPort,
    tls: bool,
    database: u32,
    username: Option<String>,
}

/// Why a text is no URL of a Redis server. The operator's to put right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisUrlError {
    /// No scheme, or another one.
    #[error("expected a URL such as redis://127.0.0.1:6379, or rediss:// for TLS, got {got:?}")]
    Scheme {
        /// What was written; of a URL the scheme alone, since a password may stand behind it.
        got: String,
    },
    /// One of Redis Sentinel.
    #[error(
        "Redis Sentinel is not supported: name the server itself, or an address that leads to the \
         one that is written to"
    )]
    Sentinel,
    /// One of Redis Cluster.
    #[error(
        "Redis Cluster is not supported: name one server that is no part of a cluster; events are \
         few, and one server holds them"
    )]
    Cluster,
    /// One of a Unix socket.
    #[error("a Unix socket is not supported: expected redis:// or rediss:// with a host")]
    Socket,
    /// More than one host.
    #[error("several servers are not supported: expected one HOST:PORT")]
    SeveralHosts,
    /// A password, which is not repeated here.
    #[error(
        "a password must not stand in the configuration: name its file as `password_file`, or a \
         `password_credential`"
    )]
    Password,
    /// No host, or none with a port.
    #[error("the host of the URL is malformed")]
    Host(#[source] AddressError),
    /// A path that is no number of a database.
    #[error("expected the number of a database from 0 to {LAST_DATABASE} as the path, got {got:?}")]
    Database {
        /// The path.
        got: String,
    },
    /// A query or a fragment.
    #[error("the URL of a Redis server has no query and no #fragment")]
    Query,
    /// A user's name with escapes, blanks or the like.
    #[error("the user's name in the URL holds {found:?}: write it as it is, without escapes")]
    User {
        /// The first character that does not fit.
        found: char,
    },
}

/// What a URL says by itself: without a password, a file of authorities and a name.
impl FromStr for RedisSettings {
    type Err = RedisUrlError;

    fn from_str(text: &str) -> Result<Self, RedisUrlError> {
        let Place { address, tls, database, username } = parse(text)?;
        let password = SecretSettings::None;
        Ok(Self { address, tls, database, username, password, ca_file: None, name: None })
    }
}

pub(super) fn read(mut section: Section<'_>) -> Option<RedisSettings> {
    let place = section.required("url", |v, f| value::named(v, f, parse));
    let file = section.optional("password_file", value::absolute_path);
    let credential =
        section.optional("password_credential", |v, f| value::credential_or(v, f, "password_file"));
    let ca_file = section.optional("ca_file", value::absolute_path);
    let own_name = section.optional("name", name(HostName::new));
    if ca_file.is_some() && place.as_ref().is_some_and(|place| !place.tls) {
        let message = "`ca_file` is for rediss, and this URL is redis: no certificate is asked for";
        section.findings().add(Finding::warning(section.key_place("ca_file"), message));
    }
    let password = SecretSettings::of(file, credential);
    if let (Some(Place { username: Some(_), .. }), SecretSettings::None) = (&place, &password)
        && section.place("password_file").or(section.place("password_credential")).is_none()
    {
        let message = "the URL names a user, and there is no password for it";
        let finding = Finding::error(Kind::Relation, section.key_place("url"), message);
        section.findings().add(finding.help("add `password_file` or `password_credential`"));
    }
    section.finish();
    let Place { address, tls, database, username } = place?;
    Some(RedisSettings { address, tls, database, username, password, ca_file, name: own_name })
}

fn parse(text: &str) -> Result<Place, RedisUrlError> {
    let (scheme, rest) =
        text.split_once("://").ok_or_else(|| RedisUrlError::Scheme { got: text.to_owned() })?;
    let tls = match scheme {
        "redis" => false,
        "rediss" => true,
        "unix" | "redis+unix" | "redis+socket" => return Err(RedisUrlError::Socket),
        other if other.contains("sentinel") => return Err(RedisUrlError::Sentinel),
        other if other.contains("cluster") => return Err(RedisUrlError::Cluster),
        // What stands behind the scheme may be a password.
        other => return Err(RedisUrlError::Scheme { got: format!("{other}://...") }),
    };
    // A password may hold whatever else is looked for below.
    let (username, rest) = match rest.rsplit_once('@') {
        None => (None, rest),
        Some((user, _)) if user.contains(':') => return Err(RedisUrlError::Password),
        Some((user, rest)) => {
            let odd = |c: &char| !c.is_ascii_graphic() || "%/?#".contains(*c);
            if let Some(found) = user.chars().find(odd) {
                return Err(RedisUrlError::User { found });
            }
            (Some(user.to_owned()).filter(|user| !user.is_empty()), rest)
        }
    };
    if rest.contains(['?', '#']) {
        return Err(RedisUrlError::Query);
    }
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if host.contains(',') {
        return Err(RedisUrlError::SeveralHosts);
    }
    let database = match path {
        "" => 0,
        path => {
            let number = path.parse().ok().filter(|_| path.bytes().all(|b| b.is_ascii_digit()));
            number
                .filter(|number| *number <= LAST_DATABASE)
                .ok_or_else(|| RedisUrlError::Database { got: path.to_owned() })?
        }
    };
    Ok(Place { address: address(host).map_err(RedisUrlError::Host)?, tls, database, username })
}

fn address(text: &str) -> Result<HostPort, AddressError> {
    if text.is_empty() || text.starts_with(':') {
        return Err(AddressError::Host { got: text.to_owned() });
    }
    if let Some(v6) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return HostPort::new(v6, PORT);
    }
    if text.contains(':') { text.parse() } else { HostPort::new(text, PORT) }
}

/// Notes that events are subscribed to and there is no server to have them from.
pub(super) fn check_is_there(
    redis_written: bool,
    first_subscription: Option<std::ops::Range<usize>>,
    findings: &Findings,
) {
    if let Some(place) = first_subscription.filter(|_| !redis_written) {
        let message = "a [[subscription]] needs the table [redis]";
        let finding = Finding::error(Kind::Relation, place, message);
        findings.add(finding.help("for example: [redis] with url = \"redis://127.0.0.1:6379\""));
    }
}

/// A key of Redis, such as a stream has: a name, no pattern.
pub(super) fn key(value: &Value<'_>, findings: &Findings) -> Option<String> {
    const LONGEST: usize = 1_024;
    let text = value::text(value, findings)?;
    let message = if text.is_empty() {
        "expected the name of a stream, got an empty text".to_owned()
    } else if text.len() > LONGEST {
        format!("the name of a stream has at most {LONGEST} bytes, this one has {}", text.len())
    } else if let Some(found) = text.chars().find(|c| c.is_control()) {
        format!("the name of a stream holds no control characters, found {found:?}")
    } else if text.contains('*') {
        "a stream has one name: patterns are for a `channel`".to_owned()
    } else {
        return Some(text.to_owned());
    };
    findings.wrong(value.span(), message);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_client_of_redis_reads() {
        let place = |text: &str| parse(text).unwrap();
        assert_eq!(place("redis://h").address.to_string(), "h:6379");
        assert_eq!(place("redis://[::1]/2").database, 2);
        assert_eq!(place("rediss://user@[::1]:6380/").address.to_string(), "[::1]:6380");
        assert_eq!(place("rediss://user@h").username.as_deref(), Some("user"));
        assert!(place("rediss://h").tls && !place("redis://h/").tls);
    }

    #[test]
    fn no_message_holds_a_password() {
        for text in [
            "redis://:hunter2@h",
            "redis://user:hunter2@h:1/0",
            "redis://u:hunt@hunter2@h",
            "rediss://:hunter2?@h",
            "rediss://:hunter2/@h",
            "http://user:hunter2@h",
            "redis-sentinel://:hunter2@h",
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(!message.contains("hunt"), "{text}: {message}");
        }
    }
}
