//! Whether there is a connection, and what is said when that changes.

use crate::admin::{AdminError, Greeting, Kind, Retry, Stage};

/// The connection, as far as was said.
#[derive(Debug)]
pub(super) enum Link {
    /// There is this one.
    Up(Box<Greeting>),
    /// There is none.
    Down {
        /// Whether it can come back by itself.
        is_hopeful: bool,
    },
}

impl Link {
    /// Hears of the connection that there is now, or why there is none; what is to be said of it.
    pub(super) fn hear(&mut self, heard: Result<Greeting, AdminError>) -> Option<String> {
        match heard {
            Ok(now) => {
                let notice = match self {
                    Self::Up(known) if **known == now => None,
                    Self::Up(_) => Some(format!("the connection was lost and {}", made(&now))),
                    Self::Down { .. } => Some(format!("the connection {}", made(&now))),
                };
                *self = Self::Up(Box::new(now));
                notice
            }
            Err(error) => {
                let is_hopeful = error.retry() != Retry::Never;
                let was_up = matches!(self, Self::Up(_));
                *self = Self::Down { is_hopeful };
                let next = if is_hopeful { "" } else { "; the next command tries again" };
                was_up.then(|| format!("the connection was lost; {error}{next}"))
            }
        }
    }

    /// Hears why a command has no answer. That is said with the command.
    pub(super) fn failed(&mut self, error: &AdminError) {
        let is_up = matches!(error.stage, Stage::Command(_))
            && matches!(
                error.kind,
                Kind::ReplyTimedOut { .. } | Kind::Waiting { .. } | Kind::Deadline { .. }
            );
        if !is_up {
            *self = Self::Down { is_hopeful: error.retry() != Retry::Never };
        }
    }

    /// Whether it is worth to look, without a command, whether there is a connection.
    pub(super) fn is_hopeful(&self) -> bool {
        matches!(self, Self::Up(_) | Self::Down { is_hopeful: true })
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self, Self::Up(_))
    }
}

fn made(now: &Greeting) -> String {
    let version = now.version.as_ref().map(|version| format!(" to {version}")).unwrap_or_default();
    let stopped = if now.child_stopped { "; its cache process is stopped" } else { "" };
    format!("is back{version}{stopped}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::NodeName;
    use crate::protocol::Verb;

    fn greeting(n: u64) -> Greeting {
        Greeting {
            peer: None,
            version: None,
            child_stopped: n > 5,
            notes: Vec::new(),
            lookup: Duration::ZERO,
            connect: Duration::from_nanos(n),
            authenticate: Duration::ZERO,
        }
    }

    fn error(stage: Stage, kind: Kind) -> AdminError {
        AdminError { node: NodeName::new("n").unwrap(), stage, kind }
    }

    #[test]
    fn each_change_is_said_once() {
        let mut link = Link::Up(Box::new(greeting(1)));
        assert_eq!(link.hear(Ok(greeting(1))), None);
        let lost = || Err(error(Stage::Greeting, Kind::Closed));
        assert!(link.hear(lost()).unwrap().starts_with("the connection was lost; n: "));
        assert!(link.is_hopeful() && !link.is_up());
        assert_eq!(link.hear(lost()), None);
        assert_eq!(link.hear(Ok(greeting(2))).as_deref(), Some("the connection is back"));
        assert_eq!(
            link.hear(Ok(greeting(6))).as_deref(),
            Some("the connection was lost and is back; its cache process is stopped")
        );
    }

    #[test]
    fn what_cannot_come_back_is_left_to_the_next_command() {
        let mut link = Link::Up(Box::new(greeting(1)));
        let notice = link.hear(Err(error(Stage::Secret, Kind::SecretRequired))).unwrap();
        assert!(notice.ends_with("the next command tries again"), "{notice}");
        assert!(!link.is_hopeful());
    }

    #[test]
    fn an_answer_that_is_late_is_no_lost_connection() {
        let mut link = Link::Up(Box::new(greeting(1)));
        let ping = || Stage::Command(Verb::PING);
        link.failed(&error(ping(), Kind::ReplyTimedOut { limit: Duration::from_secs(5) }));
        assert!(link.is_up());
        link.failed(&error(ping(), Kind::Closed));
        assert!(!link.is_up() && link.is_hopeful());
    }
}
