//! A session against a hostile server: whatever it says, a reply goes to the oldest command.

#![no_main]

use std::collections::VecDeque;

use libfuzzer_sys::fuzz_target;
use purgewatch::model::Secret;
use purgewatch::protocol::{Command, Event, Reply, Session, parse};

fuzz_target!(|bytes: &[u8]| {
    let (mut session, mut rest) = (Session::new(), bytes);
    let (mut sent, mut next) = (VecDeque::new(), 0_u32);
    while let Ok(Some(frame)) = parse(rest, 1_000) {
        let reply = Reply { status: frame.status, body: frame.body.to_vec().into() };
        rest = &rest[frame.length()..];
        match session.handle(reply) {
            Ok(Event::Challenged) => {
                let _ = session.authenticate(&Secret::new(b"foo\n".to_vec()));
            }
            Ok(Event::Reply { token, .. }) => assert_eq!(sent.pop_front(), Some(token)),
            Ok(Event::Ready(_)) => {}
            Err(_) => return,
        }
        for command in [Command::ping(), Command::ban_list()] {
            if session.send(&command, next).is_ok() {
                sent.push_back(next);
                next += 1;
            }
        }
    }
});
