//! Greeting, authentication, then replies in the order of their commands.

use std::collections::VecDeque;

use super::reply::Excerpt;
use super::{Banner, Challenge, Command, Reply, Status, Verb};
use crate::model::Secret;

/// As much of an unexpected body is shown.
const SHOWN: usize = 120;

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Connected; the server speaks first.
    Greeting,
    /// The server wants to see that the secret is known.
    Challenged,
    /// The challenge was answered; the server has to say yes.
    Authenticating,
    /// Commands may be sent.
    Ready,
    /// Nothing more will come of it.
    Closed,
}

/// What a reply meant.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<T> {
    /// The server wants a secret: [`Session::authenticate`] is next.
    Challenged,
    /// Commands may be sent from now on.
    Ready(Banner),
    /// The answer to the oldest command in flight.
    Reply {
        /// What [`Session::send`] was given with the command.
        token: T,
        /// The answer.
        reply: Reply,
    },
}

/// A well-formed reply that cannot be what was asked for. The session is closed by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The first reply is neither a challenge nor a banner.
    #[error("expected a greeting of varnishd, got status {} with {}", .0.status, .0.excerpt(SHOWN))]
    Greeting(Reply),
    /// The server refused the answer to its challenge.
    #[error("the secret was refused with status {}", .0.status)]
    Refused(Reply),
    /// A reply that nobody waits for.
    #[error("a reply with status {} came that nothing had asked for: {}", .0.status, .0.excerpt(SHOWN))]
    Unasked(Reply),
    /// The reply to another command: replies are shifted. This happens on the server's side, when
    /// a cache process outlives an exchange that its manager gave up (varnish-cache issues 2010,
    /// 2013 and 2103), and lasts until the cache process is restarted.
    #[error("{verb} was answered with {}, which belongs to another command", Excerpt::new(&reply.body, SHOWN))]
    Foreign {
        /// The command that waited for its reply.
        verb: Verb,
        /// The reply that came.
        reply: Reply,
    },
}

/// What a successful reply to a command looks like, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expect {
    /// Any body.
    Anything,
    /// No body: `ban` says nothing when it succeeds.
    NoBody,
    /// A body that begins with `PONG`, or JSON.
    Pong,
    /// A list of bans: `Present bans:`, or JSON. It is never empty.
    Bans,
}

impl Expect {
    /// What to expect in answer to `verb`.
    #[must_use]
    pub fn of(verb: &Verb) -> Self {
        match verb.as_str() {
            "ban" => Self::NoBody,
            "ping" => Self::Pong,
            "ban.list" => Self::Bans,
            _ => Self::Anything,
        }
    }

    /// Whether `reply` may be the answer. Failures always may.
    #[must_use]
    pub fn fits(self, reply: &Reply) -> bool {
        let starts = |text: &[u8]| reply.body.starts_with(text) || reply.body.starts_with(b"[");
        !reply.is_success()
            || match self {
                Self::Anything => true,
                Self::NoBody => reply.body.is_empty(),
                Self::Pong => starts(b"PONG"),
                Self::Bans => starts(b"Present bans:"),
            }
    }
}

/// One connection's conversation, without the connection.
///
/// Replies bear no number: the oldest command in flight owns the next reply, always. Each command
/// comes with a token of type `T` that its reply is handed out with, so that whoever asked can be
/// found, or is gone, without any reply being shifted.
///
/// - Replies go in with [`handle`](Session::handle), the end of the stream with
///   [`close`](Session::close).
/// - Commands go out through [`authenticate`](Session::authenticate) and [`send`](Session::send),
///   which keep the account; writing them is the caller's part, in the same order.
#[derive(Debug)]
pub struct Session<T> {
    phase: Phase,
    challenge: Option<Challenge>,
    in_flight: VecDeque<(Verb, T)>,
}

impl<T> Default for Session<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Session<T> {
    /// A session at its beginning: the server's greeting is next.
    #[must_use]
    pub const fn new() -> Self {
        Self { phase: Phase::Greeting, challenge: None, in_flight: VecDeque::new() }
    }

    /// Takes the next reply of the stream.
    ///
    /// # Errors
    /// A [`Violation`] closes the session; [`close`](Self::close) then hands out who still waits,
    /// for [`Violation::Foreign`] beginning with the command that it concerns.
    pub fn handle(&mut self, reply: Reply) -> Result<Event<T>, Violation> {
        let phase = std::mem::replace(&mut self.phase, Phase::Closed);
        match phase {
            Phase::Greeting if reply.status == Status::AUTH => {
                let challenge = Challenge::from_greeting(&reply.body);
                self.challenge = Some(challenge.ok_or(Violation::Greeting(reply))?);
                self.phase = Phase::Challenged;
                Ok(Event::Challenged)
            }
            // 201 is a banner that was cut: with a `cli_limit` of a few hundred bytes.
            Phase::Greeting | Phase::Authenticating if reply.is_success() => {
                self.phase = Phase::Ready;
                Ok(Event::Ready(Banner::read(&reply)))
            }
            Phase::Greeting => Err(Violation::Greeting(reply)),
            Phase::Authenticating => Err(Violation::Refused(reply)),
            Phase::Ready => self.answer(reply),
            Phase::Challenged | Phase::Closed => Err(Violation::Unasked(reply)),
        }
    }

    fn answer(&mut self, reply: Reply) -> Result<Event<T>, Violation> {
        match self.in_flight.front() {
            None => return Err(Violation::Unasked(reply)),
            Some((verb, _)) if !Expect::of(verb).fits(&reply) => {
                return Err(Violation::Foreign { verb: verb.clone(), reply });
            }
            Some(_) => {}
        }
        match self.in_flight.pop_front() {
            Some((_, token)) => {
                if reply.status != Status::CLOSE {
                    self.phase = Phase::Ready;
                }
                Ok(Event::Reply { token, reply })
            }
            None => Err(Violation::Unasked(reply)),
        }
    }

    /// Answers the challenge: the command returned has to be written now. `None` when the server
    /// did not ask, or was answered already.
    #[must_use]
    pub fn authenticate(&mut self, secret: &Secret) -> Option<Command> {
        let challenge = self.challenge.take()?;
        self.phase = Phase::Authenticating;
        Some(Command::auth(&challenge.answer(secret)))
    }

    /// Notes that `command` is written next.
    ///
    /// # Errors
    /// Gives the token back when the session is not [`Phase::Ready`]: nothing may be written then.
    pub fn send(&mut self, command: &Command, token: T) -> Result<(), T> {
        if self.phase != Phase::Ready {
            return Err(token);
        }
        self.in_flight.push_back((command.verb().clone(), token));
        Ok(())
    }

    /// Ends the session, and hands out who waits for a reply that will not come, oldest first.
    /// Whether those commands were carried out is unknown.
    pub fn close(&mut self) -> impl Iterator<Item = (Verb, T)> + use<'_, T> {
        self.phase = Phase::Closed;
        self.in_flight.drain(..)
    }

    /// How far the session has come.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// How many commands wait for their reply.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The token of the command whose reply is next.
    #[must_use]
    pub fn oldest(&self) -> Option<&T> {
        self.in_flight.front().map(|(_, token)| token)
    }

    /// The commands that wait for their replies, with their tokens, oldest first.
    pub fn waiting_mut(&mut self) -> impl Iterator<Item = (&Verb, &mut T)> {
        self.in_flight.iter_mut().map(|(verb, token)| (&*verb, token))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reply(status: u16, body: &'static str) -> Reply {
        Reply { status: Status::new(status).unwrap(), body: body.into() }
    }

    const CHALLENGE: &str = "ixslvvxrgkjptxmcgnnsdxsvdmvfympg\n\nAuthentication required.\n";

    fn ready() -> Session<u32> {
        let mut session = Session::new();
        assert!(matches!(session.handle(reply(200, "varnish-7.1.1\n")), Ok(Event::Ready(_))));
        session
    }

    #[test]
    fn a_secret_opens_it() {
        let mut session = Session::<u32>::new();
        assert_eq!(session.handle(reply(107, CHALLENGE)), Ok(Event::Challenged));
        assert_eq!(session.send(&Command::ping(), 1), Err(1), "not before it is ready");
        let secret = Secret::new(b"foo\n".to_vec());
        let auth = session.authenticate(&secret).unwrap();
        assert!(auth.as_line().starts_with(b"auth 455ce847"));
        assert_eq!(session.authenticate(&secret), None, "a second answer is refused with 500");
        assert!(matches!(session.handle(reply(200, "varnish-7.1.1\n")), Ok(Event::Ready(_))));
        assert_eq!(session.phase(), Phase::Ready);
    }

    #[test]
    fn only_success_means_that_the_secret_was_taken() {
        for status in (100..=999).filter(|s| ![200, 201].contains(s)) {
            let mut session = Session::<u32>::new();
            session.handle(reply(107, CHALLENGE)).unwrap();
            session.authenticate(&Secret::new(Vec::new())).unwrap();
            let refused = session.handle(reply(status, "")).unwrap_err();
            assert!(matches!(refused, Violation::Refused(_)), "{status}: {refused:?}");
            assert_eq!(session.phase(), Phase::Closed);
        }
    }

    #[test]
    fn a_greeting_is_a_challenge_or_a_banner() {
        for (status, body) in [(107, "short"), (500, ""), (101, "Unknown"), (999, "")] {
            let violation = Session::<u32>::new().handle(reply(status, body)).unwrap_err();
            assert!(matches!(violation, Violation::Greeting(_)), "{status}");
        }
        let mut session = Session::<u32>::new();
        session.handle(reply(107, CHALLENGE)).unwrap();
        let early = session.handle(reply(200, "varnish-7.1.1\n")).unwrap_err();
        assert!(matches!(early, Violation::Unasked(_)), "nobody answered the challenge yet");
    }

    #[test]
    fn replies_belong_to_the_oldest_command() {
        let mut session = ready();
        session.send(&Command::status(), 1).unwrap();
        session.send(&Command::ban(["req.url", "~", "x"]).unwrap(), 2).unwrap();
        session.send(&Command::ping(), 3).unwrap();
        for (token, answer) in [(1, reply(200, "x")), (2, reply(200, "")), (3, reply(200, "PONG"))]
        {
            let event = session.handle(answer.clone());
            assert_eq!(event, Ok(Event::Reply { token, reply: answer }));
        }
        assert!(matches!(session.handle(reply(200, "")), Err(Violation::Unasked(_))));
    }

    #[test]
    fn a_ban_with_a_body_is_somebody_elses() {
        let mut session = ready();
        session.send(&Command::ban(["req.url", "~", "x"]).unwrap(), 1).unwrap();
        session.send(&Command::ban_list(), 2).unwrap();
        let pong = reply(200, "PONG 1795466153 1.0");
        let violation = session.handle(pong.clone()).unwrap_err();
        assert_eq!(violation, Violation::Foreign { verb: Verb::BAN, reply: pong });
        assert_eq!(
            violation.to_string(),
            "ban was answered with \"PONG 1795466153 1.0\", which belongs to another command"
        );
        assert_eq!(session.send(&Command::ping(), 3), Err(3));
        assert_eq!(session.close().map(|(_, token)| token).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_refused_ban_may_have_any_body_and_a_list_is_never_empty() {
        assert!(Expect::of(&Verb::BAN).fits(&reply(106, "Unknown field")));
        assert!(!Expect::of(&Verb::BAN).fits(&reply(201, "x")));
        assert!(!Expect::of(&Verb::BAN_LIST).fits(&reply(200, "")));
        assert!(Expect::of(&Verb::BAN_LIST).fits(&reply(200, "[ 2, [\"ban.list\"")));
        assert!(!Expect::of(&Verb::PING).fits(&reply(200, "")));
    }

    #[test]
    fn a_banner_that_was_cut_is_a_yes_all_the_same() {
        let mut session = Session::<u32>::new();
        session.handle(reply(107, CHALLENGE)).unwrap();
        session.authenticate(&Secret::new(b"x".to_vec())).unwrap();
        let cut = reply(201, "-----\nVarnish Cache CLI 1.0\n-----\nLinux\nvarnish-7.1.1 rev");
        let Ok(Event::Ready(banner)) = session.handle(cut) else { panic!("refused") };
        assert_eq!(banner.version, None, "the line that was cut says nothing for certain");
        assert_eq!(session.phase(), Phase::Ready);
    }

    #[test]
    fn quit_closes_it() {
        let mut session = ready();
        session.send(&Command::quit(), 1).unwrap();
        session.handle(reply(500, "Closing CLI connection")).unwrap();
        assert_eq!(session.phase(), Phase::Closed);
    }

    proptest! {
        #[test]
        fn no_reply_is_ever_shifted(steps in proptest::collection::vec(any::<bool>(), 0..200)) {
            let mut session = ready();
            let (mut sent, mut answered) = (0, 0);
            for send in steps {
                if send {
                    session.send(&Command::status(), sent).unwrap();
                    sent += 1;
                } else if answered < sent {
                    let Ok(Event::Reply { token, .. }) = session.handle(reply(200, "x")) else {
                        panic!("no reply");
                    };
                    prop_assert_eq!(token, answered);
                    answered += 1;
                }
                prop_assert_eq!(session.in_flight(), usize::try_from(sent - answered).unwrap());
            }
        }

        #[test]
        fn any_replies_are_judged_without_a_panic(
            statuses in proptest::collection::vec(100_u16..=999, 0..20),
        ) {
            let mut session = Session::new();
            for status in statuses {
                let _ = session.handle(reply(status, CHALLENGE));
                let _ = session.authenticate(&Secret::new(Vec::new()));
                let _ = session.send(&Command::ping(), ());
            }
        }
    }
}
