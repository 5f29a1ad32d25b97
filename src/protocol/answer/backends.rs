//! `backend.list`: the backends and their health.

use std::time::{Duration, UNIX_EPOCH};

use super::envelope::{Envelope, seconds};
use super::json::Json;
use super::{Answer, AnswerError, success, text, whole_lines};
use crate::protocol::{Command, Reply};

/// What decides on the health of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminHealth {
    /// Its probe, if it has one.
    Probe,
    /// It was set to healthy, or has no probe.
    Healthy,
    /// It was set to sick.
    Sick,
    /// It was taken out of the VCL and is being waited for.
    Deleted,
    /// Something that this program does not know, in varnishd's words.
    Other(String),
}

impl AdminHealth {
    fn named(name: &str) -> Self {
        match name {
            "probe" | "auto" => Self::Probe,
            "healthy" => Self::Healthy,
            "sick" => Self::Sick,
            "deleted" => Self::Deleted,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// A backend or director.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// The name of the VCL, a dot, and the name that it has there.
    pub name: String,
    /// `backend`, or the kind of director; `None` in text, which does not tell.
    pub kind: Option<String>,
    /// What decides on its health.
    pub admin: AdminHealth,
    /// What its probe, or the director, makes of it: good ones and all of them, of the last probes
    /// or of the backends within. Zeros for a backend without a probe; `None` where varnishd does
    /// not tell, or tells otherwise.
    pub probes: Option<(u64, u64)>,
    /// Whether the probe finds it healthy; `None` in words that this program does not know. A
    /// backend that was set to sick or healthy is that, whatever its probe says.
    pub healthy: Option<bool>,
    /// When that last changed, since 1970: to the second in text, to the millisecond in JSON.
    pub last_change: Option<Duration>,
}

/// The backends, from `backend.list` or `backend.list -j`.
///
/// Without a pattern those of the active VCL, with `*.*` all of them. varnishd 6.0 knows no `-j`
/// and answers it with status 102.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendList {
    /// The backends, in varnishd's order.
    pub backends: Vec<Backend>,
    /// Whether these are all. If not, the reply was cut at the server's `cli_limit`.
    pub complete: bool,
}

impl Answer for BackendList {
    fn read(reply: &Reply, asked: &Command) -> Result<Self, AnswerError> {
        if !Envelope::is_one(reply) {
            return from_text(reply);
        }
        let envelope = Envelope::read(reply, asked)?;
        let objects = envelope.data.iter().chain(envelope.partial.as_ref());
        let backends = objects.flat_map(Json::members).map(|(name, json)| from_json(name, json));
        Ok(Self { backends: backends.collect(), complete: envelope.complete })
    }
}

fn from_json(name: &[u8], json: &Json) -> Backend {
    let words = |name| json.get(name).and_then(Json::as_text).map(text);
    let probe = json.get("probe_message").map(Json::elements).unwrap_or_default();
    let (probes, state) = match probe {
        [good, all, state] => (good.as_u64().zip(all.as_u64()), state.as_text().map(text)),
        _ => (None, words("probe_message")),
    };
    Backend {
        name: text(name),
        kind: words("type"),
        admin: AdminHealth::named(&words("admin_health").unwrap_or_default()),
        probes,
        healthy: state.and_then(|state| healthy(&state)),
        last_change: match json.get("last_change") {
            Some(Json::Number(time)) => seconds(time),
            _ => None,
        },
    }
}

fn healthy(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "healthy" | "good" => Some(true),
        "sick" | "bad" => Some(false),
        _ => None,
    }
}

fn from_text(reply: &Reply) -> Result<BackendList, AnswerError> {
    let body = success(reply)?;
    let (lines, complete) = whole_lines(reply);
    let lines = text(lines);
    let mut lines = lines.lines();
    let title = match lines.next() {
        Some(title) if title.starts_with("Backend name") => title,
        None if !complete => return Err(AnswerError::Cut { expected: "the backends" }),
        _ => return Err(AnswerError::malformed("Backend name", body, 0)),
    };
    // 6.0 has no column of that name.
    let read = if title.contains("Health") { columns } else { columns_of_6 };
    // Details of probes are indented, and blank lines stand around them.
    let mut details = false;
    let mut backends = Vec::new();
    for line in lines {
        details |= line.starts_with(' ') || line.is_empty();
        match read(line) {
            Some(backend) => backends.push(backend),
            None if details => {}
            None => return Err(AnswerError::malformed("a backend", line.as_bytes(), 0)),
        }
    }
    Ok(BackendList { backends, complete })
}

/// `boot.default   healthy    0/0      healthy    Mon, 23 Nov 2026 23:37:17 GMT`.
fn columns(line: &str) -> Option<Backend> {
    let mut words = line.split_whitespace();
    let name = words.next().filter(|_| !line.starts_with(' '))?.to_owned();
    let admin = AdminHealth::named(words.next()?);
    let probes = fraction(words.next()?);
    let healthy = healthy(words.next()?);
    let last_change = date(&words.collect::<Vec<_>>().join(" "));
    Some(Backend { name, kind: None, admin, probes, healthy, last_change })
}

/// `boot.default   probe      Healthy (no probe)   Mon, 23 Nov 2026 23:37:17 GMT`, or with `5/5`
/// in place of the parentheses.
fn columns_of_6(line: &str) -> Option<Backend> {
    let mut words = line.split_whitespace();
    let name = words.next().filter(|_| !line.starts_with(' '))?.to_owned();
    let admin = AdminHealth::named(words.next()?);
    let healthy = healthy(words.next()?);
    let rest: Vec<&str> = words.collect();
    let (probes, rest) = match rest.as_slice() {
        ["(no", "probe)", rest @ ..] => (Some((0, 0)), rest),
        [probes, rest @ ..] if probes.contains('/') => (fraction(probes), rest),
        rest => (None, rest),
    };
    let last_change = date(&rest.join(" "));
    Some(Backend { name, kind: None, admin, probes, healthy, last_change })
}

fn fraction(word: &str) -> Option<(u64, u64)> {
    let (good, all) = word.split_once('/')?;
    Some((good.parse().ok()?, all.parse().ok()?))
}

fn date(text: &str) -> Option<Duration> {
    let time = httpdate::parse_http_date(text).ok()?;
    time.duration_since(UNIX_EPOCH).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{asked, reply, transcript};
    use super::*;

    fn read(name: &str, line: &str) -> BackendList {
        BackendList::read(&transcript(name), &asked(line)).unwrap()
    }

    #[test]
    fn reads_what_varnishd_sent() {
        let list = read("backend-list-json", "backend.list -j");
        assert!(list.complete);
        let [default, probed] = &list.backends[..] else { panic!("{list:?}") };
        assert_eq!(
            (default.name.as_str(), default.kind.as_deref()),
            ("two.default", Some("backend"))
        );
        assert_eq!((&default.admin, default.healthy), (&AdminHealth::Healthy, Some(true)));
        assert_eq!((&probed.admin, probed.healthy), (&AdminHealth::Probe, Some(false)));
        assert_eq!(probed.probes, Some((2, 8)));
        assert_eq!(probed.last_change, Some(Duration::from_millis(1_795_477_037_986)));
        let as_text = read("backend-list", "backend.list");
        assert_eq!(as_text.backends.len(), 2);
        for (json, text) in list.backends.iter().zip(&as_text.backends) {
            let seconds = json.last_change.map(|time| Duration::from_secs(time.as_secs()));
            let same = Backend { kind: None, last_change: seconds, ..json.clone() };
            assert_eq!(*text, same);
        }
        assert_eq!(read("backend-list-probe", "backend.list -p"), as_text);
        assert_eq!(read("backend-list-probe-json", "backend.list -j -p"), list);
        let sick = read("backend-list-sick-json", "backend.list -j");
        assert_eq!(sick.backends[1].admin, AdminHealth::Sick);
        for (name, line) in [
            ("backend-list-none", "backend.list nope"),
            ("backend-list-none-json", "backend.list -j nope"),
        ] {
            assert_eq!(read(name, line), BackendList { backends: Vec::new(), complete: true });
        }
    }

    #[test]
    fn reads_the_layout_of_6() {
        let body = "Backend name                   Admin      Probe                Last updated\n\
            boot.default                   probe      Healthy (no probe)   Tue, 01 Sep 2026 10:00:00 GMT\n\
            boot.b2                        sick       Sick 2/8             Tue, 01 Sep 2026 10:00:01 GMT\n";
        let list = BackendList::read(&reply(200, body), &asked("backend.list")).unwrap();
        let [default, other] = &list.backends[..] else { panic!("{list:?}") };
        assert_eq!((default.probes, default.healthy), (Some((0, 0)), Some(true)));
        assert_eq!((other.probes, other.healthy), (Some((2, 8)), Some(false)));
        assert_eq!(other.admin, AdminHealth::Sick);
        assert_eq!(
            other.last_change.unwrap() - default.last_change.unwrap(),
            Duration::from_secs(1)
        );
    }

    #[test]
    fn a_list_that_was_cut_is_never_whole() {
        let mut cut = transcript("backend-list-json");
        cut.status = crate::protocol::Status::TRUNCATED;
        for end in 60..cut.body.len() - 2 {
            let cut = Reply { body: cut.body.slice(..end), ..cut.clone() };
            let list = BackendList::read(&cut, &asked("backend.list -j")).unwrap();
            assert!(!list.complete);
            assert!(list.backends.iter().all(|backend| backend.last_change.is_some()));
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(lines in "([a-z0-9./( )]{0,30}\n?){0,9}", six: bool) {
            let title = if six { "Backend name Admin" } else { "Backend name Health" };
            let body = format!("{title}\n{lines}").into();
            let reply = Reply { status: crate::protocol::Status::OK, body };
            let _ = BackendList::read(&reply, &asked("backend.list"));
        }
    }
}
