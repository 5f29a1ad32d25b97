//! `ping`, `status` and `pid`: whether somebody is there.

use std::fmt;
use std::time::Duration;

use super::envelope::Envelope;
use super::{Answer, AnswerError, success, text};
use crate::protocol::{Command, Excerpt, Reply};

/// The answer to `ping`: the manager is there. It says nothing of the cache process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pong {
    /// The server's time since 1970: in seconds, or with `-j` in steps of a millisecond.
    pub time: Duration,
}

impl Answer for Pong {
    fn read(reply: &Reply, asked: &Command) -> Result<Self, AnswerError> {
        if Envelope::is_one(reply) {
            return Ok(Self { time: Envelope::read(reply, asked)?.time });
        }
        let body = success(reply)?;
        let seconds = body.strip_prefix(b"PONG ").and_then(|rest| {
            let digits = rest.split(|b| b.is_ascii_whitespace()).next()?;
            std::str::from_utf8(digits).ok()?.parse().ok()
        });
        let seconds =
            seconds.ok_or_else(|| AnswerError::malformed("PONG and the time", body, 0))?;
        Ok(Self { time: Duration::from_secs(seconds) })
    }
}

/// The state of the cache process, from `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChildState {
    /// It is not running, and will not by itself.
    Stopped,
    /// It is being started.
    Starting,
    /// It is running. Right after it died, the manager may not have noticed yet.
    Running,
    /// It is being stopped.
    Stopping,
    /// It died and is about to be started again.
    Died,
    /// A state that this program does not know, in varnishd's words.
    Other(String),
}

impl ChildState {
    fn named(name: &[u8]) -> Self {
        match name.trim_ascii() {
            b"stopped" => Self::Stopped,
            b"starting" => Self::Starting,
            b"running" => Self::Running,
            b"stopping" => Self::Stopping,
            name if name.starts_with(b"died") => Self::Died,
            name => Self::Other(Excerpt::new(name, 80).lines().to_string()),
        }
    }
}

impl fmt::Display for ChildState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Died => "died, restarting",
            Self::Other(words) => words,
        })
    }
}

impl Answer for ChildState {
    fn read(reply: &Reply, asked: &Command) -> Result<Self, AnswerError> {
        if Envelope::is_one(reply) {
            let envelope = Envelope::read(reply, asked)?;
            let name = envelope.only()?.as_text();
            return name
                .map(Self::named)
                .ok_or_else(|| AnswerError::malformed("a state", &reply.body, 0));
        }
        let body = success(reply)?;
        let name = body.strip_prefix(b"Child in state ");
        name.map(Self::named).ok_or_else(|| AnswerError::malformed("a state", body, 0))
    }
}

/// Process ids, from `pid`. A cache process that was restarted has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pids {
    /// The manager's.
    pub master: u32,
    /// The cache process's; `None` while there is none.
    pub worker: Option<u32>,
}

impl Answer for Pids {
    fn read(reply: &Reply, asked: &Command) -> Result<Self, AnswerError> {
        let body = success(reply)?;
        let malformed = || AnswerError::malformed("process ids", body, 0);
        let (mut master, mut worker) = (None, None);
        if Envelope::is_one(reply) {
            let envelope = Envelope::read(reply, asked)?;
            let pid = |name| match envelope.only()?.get(name) {
                Some(id) => {
                    let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
                    id.ok_or_else(malformed).map(Some)
                }
                None => Ok(None),
            };
            (master, worker) = (pid("master")?, pid("worker")?);
        } else {
            for line in text(body).lines().filter(|line| !line.trim().is_empty()) {
                let (name, id) = line.split_once(':').ok_or_else(malformed)?;
                let id = id.trim().parse().map_err(|_| malformed())?;
                match name {
                    "Master" => master = Some(id),
                    "Worker" => worker = Some(id),
                    _ => {}
                }
            }
        }
        Ok(Self { master: master.ok_or_else(malformed)?, worker })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{asked, reply, transcript};
    use super::*;

    #[test]
    fn reads_what_varnishd_sent() {
        let time = |name, line| Pong::read(&transcript(name), &asked(line)).unwrap().time;
        assert_eq!(time("ping", "ping").as_secs() / 10_000_000, 179);
        assert_eq!(time("ping-json", "ping -j").as_millis(), 1_795_477_037_683);
        let state = |name, line| ChildState::read(&transcript(name), &asked(line)).unwrap();
        assert_eq!(state("status-running", "status"), ChildState::Running);
        assert_eq!(state("status-stopped", "status"), ChildState::Stopped);
        assert_eq!(state("status-json", "status -j"), ChildState::Running);
        assert_eq!(state("status-stopped-json", "status -j"), ChildState::Stopped);
        let pids = |name, line| Pids::read(&transcript(name), &asked(line)).unwrap();
        assert!(pids("pid", "pid").worker.is_some());
        assert_eq!(pids("pid-stopped", "pid"), Pids { master: 7_948, worker: None });
        assert_eq!(pids("pid-stopped-json", "pid -j"), Pids { master: 7_948, worker: None });
        assert_eq!(pids("pid-json", "pid -j"), Pids { master: 7_948, worker: Some(7_974) });
    }

    #[test]
    fn an_unknown_state_is_kept_in_its_words() {
        let state = |body| ChildState::read(&reply(200, body), &asked("status")).unwrap();
        assert_eq!(state("Child in state died, (restarting)"), ChildState::Died);
        assert_eq!(state("Child in state dreaming"), ChildState::Other("dreaming".to_owned()));
        assert!(!state("Child in state \u{1b}[2J").to_string().contains('\u{1b}'));
    }

    #[test]
    fn anything_else_is_no_answer() {
        let failed = reply(106, "Child in state running");
        let error = ChildState::read(&failed, &asked("status")).unwrap_err();
        assert_eq!(error.to_string(), "status 106 instead of an answer");
        ChildState::read(&reply(200, "PONG 1 1.0"), &asked("status")).unwrap_err();
        Pong::read(&reply(200, "PONG"), &asked("ping")).unwrap_err();
        Pids::read(&reply(200, "Worker: 1\n"), &asked("pid")).unwrap_err();
        Pids::read(&reply(200, "Master: 99999999999\n"), &asked("pid")).unwrap_err();
    }

    proptest! {
        #[test]
        fn no_input_panics(body: Vec<u8>) {
            let reply = Reply { status: crate::protocol::Status::OK, body: body.into() };
            let _ = Pong::read(&reply, &asked("ping"));
            let _ = ChildState::read(&reply, &asked("status"));
            let _ = Pids::read(&reply, &asked("pid"));
        }
    }
}
