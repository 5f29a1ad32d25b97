//! `ban.list`: the bans in force.

use std::time::Duration;

use super::envelope::{Envelope, seconds};
use super::json::Json;
use super::{Answer, AnswerError, success, whole_lines};
use crate::protocol::{Command, Reply};

/// One ban on the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedBan {
    /// When it was made, by the server's clock, since 1970; to the microsecond.
    pub time: Duration,
    /// How many objects were last tested against this ban. Those of older bans together are the
    /// objects that a newer ban was not tested against yet.
    pub references: u64,
    /// Whether it can match nothing any more: a newer one says the same, or the lurker is through
    /// with it.
    pub completed: bool,
    /// The expression as varnishd prints it: durations are normalised (`7d` becomes `1w`), and
    /// nothing is quoted. Empty once it is completed: varnishd forgets it.
    pub spec: Vec<u8>,
}

/// The bans in force, newest first, from `ban.list` or, better, `ban.list -j`: as text, an
/// expression with a line feed in it can pass for two bans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanList {
    /// The bans. There is at least one on a whole list, since varnishd makes one at its start.
    pub bans: Vec<ListedBan>,
    /// Whether these are all. If not, the reply was cut at the server's `cli_limit`, and the
    /// oldest bans are missing.
    pub complete: bool,
}

impl BanList {
    /// The objects that were not tested yet against a ban made at `time`: the sum of the
    /// references of all older ones. `None` when the list is not complete, since what is missing
    /// are the oldest.
    #[must_use]
    pub fn untested_since(&self, time: Duration) -> Option<u64> {
        let older = self.bans.iter().filter(|ban| ban.time < time).map(|ban| ban.references);
        self.complete.then(|| older.fold(0, u64::saturating_add))
    }
}

impl Answer for BanList {
    fn read(reply: &Reply, asked: &Command) -> Result<Self, AnswerError> {
        if Envelope::is_one(reply) {
            let envelope = Envelope::read(reply, asked)?;
            let ban = |json| {
                from_json(json).ok_or_else(|| AnswerError::malformed("a ban", &reply.body, 0))
            };
            let bans = envelope.data.iter().map(ban).collect::<Result<_, _>>()?;
            return Ok(Self { bans, complete: envelope.complete });
        }
        from_text(reply)
    }
}

fn from_json(json: &Json) -> Option<ListedBan> {
    let Json::Number(time) = json.get("time")? else { return None };
    Some(ListedBan {
        time: seconds(time)?,
        references: json.get("refs")?.as_u64()?,
        completed: json.get("completed")?.as_bool()?,
        spec: json.get("spec")?.as_text()?.to_vec(),
    })
}

fn from_text(reply: &Reply) -> Result<BanList, AnswerError> {
    const TITLE: &[u8] = b"Present bans:\n";
    let body = success(reply)?;
    let (text, complete) = whole_lines(reply);
    let Some(list) = text.strip_prefix(TITLE) else {
        let cut = !complete && TITLE.starts_with(body);
        let expected = "Present bans:";
        return Err(if cut {
            AnswerError::Cut { expected }
        } else {
            AnswerError::malformed(expected, body, 0)
        });
    };
    let mut bans: Vec<ListedBan> = Vec::new();
    let mut lurker = false;
    let mut at = TITLE.len();
    for line in list.split_inclusive(|&b| b == b'\n') {
        let content = line.strip_suffix(b"\n").unwrap_or(line);
        match (from_line(content), bans.last_mut()) {
            (Some((ban, with_pointer)), _) => {
                lurker |= with_pointer;
                bans.push(ban);
            }
            (None, _) if lurker && content.starts_with(b"  oc = 0x") => {}
            (None, Some(ban)) => {
                // An expression with a line feed in it.
                ban.spec.push(b'\n');
                ban.spec.extend_from_slice(content);
            }
            (None, None) => return Err(AnswerError::malformed("a ban", body, at)),
        }
        at += line.len();
    }
    if !complete {
        // The expression of the last one may go on behind the cut.
        bans.pop();
    }
    Ok(BanList { bans, complete })
}

/// A line such as `1795466153.544762     0 -  req.url ~ /x`; with the parameter `debug` at
/// `+lurker` the mark has three characters, and a pointer stands before the expression. Whether
/// it does is returned too.
fn from_line(line: &[u8]) -> Option<(ListedBan, bool)> {
    let blank = |&b: &u8| b == b' ';
    let (time, rest) = line.split_at_checked(line.iter().position(blank)?)?;
    let rest = rest.trim_ascii_start();
    let (references, rest) = rest.split_at_checked(rest.iter().position(blank)?)?;
    let (mark, rest) = rest.get(1..)?.split_at_checked(3)?;
    let [completed, request, object] = mark else { return None };
    let completed = match completed {
        b'C' => true,
        b'-' | b'G' => false,
        _ => return None,
    };
    let (spec, with_pointer) = match (request, object) {
        (b' ', b' ') => (rest, false),
        (b'R' | b'-', b'O' | b'-') => {
            let pointer = rest.strip_prefix(b" 0x")?;
            let length = pointer.iter().position(blank)?;
            (pointer.get(length..)?.trim_ascii_start(), true)
        }
        _ => return None,
    };
    let number = |text| std::str::from_utf8(text).ok();
    let ban = ListedBan {
        time: number(time).filter(|time| time.contains('.')).and_then(seconds)?,
        references: number(references)?.parse().ok()?,
        completed,
        spec: spec.to_vec(),
    };
    Some((ban, with_pointer))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{asked, reply, transcript};
    use super::*;

    fn read(name: &str) -> BanList {
        let line = if name.ends_with("json") { "ban.list -j" } else { "ban.list" };
        BanList::read(&transcript(name), &asked(line)).unwrap()
    }

    #[test]
    fn text_and_json_say_the_same() {
        let list = read("ban-list-mixed-json");
        let specs: Vec<_> =
            list.bans.iter().map(|ban| String::from_utf8_lossy(&ban.spec)).collect();
        assert_eq!(
            specs,
            [
                "obj.http.a == b",
                r"obj.http.b == a\b",
                "obj.ttl > 1w",
                "obj.http.q == \"x\"",
                "obj.http.l == a\nb",
                "obj.http.u == ü",
                "req.url ~ ^/x && obj.status != 404",
                "",
                "",
            ]
        );
        assert!(list.complete);
        assert_eq!(list.bans[0].time, Duration::from_micros(1_795_477_040_410_622));
        let completed: Vec<_> = list.bans.iter().map(|ban| ban.completed).collect();
        assert_eq!(completed, [false, false, false, false, false, false, false, true, true]);
        assert_eq!(list.untested_since(list.bans[0].time), Some(2));
        assert_eq!(list.untested_since(list.bans[6].time), Some(1));
        for other in ["ban-list-mixed", "ban-list-lurker", "ban-list-lurker-json"] {
            assert_eq!(read(other), list, "{other}");
        }
        assert_eq!(read("ban-list").bans.len(), 2);
    }

    #[test]
    fn a_list_that_was_cut_is_never_whole() {
        for name in ["ban-list-truncated", "ban-list-truncated-json"] {
            let list = read(name);
            assert!(!list.complete && list.bans.len() > 20, "{name}: {}", list.bans.len());
            assert_eq!(list.untested_since(Duration::MAX), None);
            assert!(list.bans.iter().all(|ban| {
                let spec = ban.spec.strip_prefix(b"obj.http.x-url == /some/longer/path/");
                spec.is_some_and(|number| number.len() == 2)
            }));
        }
        let old = "Present bans:\n1.5     0 -  a == b\n1.4     0 -  a == c\n1.3  !\n[response was truncated]\n";
        let list = BanList::read(&reply(201, old), &asked("ban.list")).unwrap();
        assert_eq!((list.bans.len(), list.complete), (1, false));
        let cut = BanList::read(&reply(201, "Present"), &asked("ban.list")).unwrap_err();
        assert_eq!(cut, AnswerError::Cut { expected: "Present bans:" });
    }

    #[test]
    fn another_commands_reply_is_no_list() {
        for body in ["", "PONG 1 1.0", "Present bans:\nx\n"] {
            BanList::read(&reply(200, body), &asked("ban.list")).unwrap_err();
        }
        let error = BanList::read(&transcript("ban-list-mixed-json"), &asked("ban.list"));
        assert!(matches!(error, Err(AnswerError::Foreign { .. })));
    }

    proptest! {
        #[test]
        fn no_cut_adds_anything(name in prop_oneof!["ban-list-mixed", "ban-list-mixed-json"], end in 0_usize..1_006) {
            let name = name.as_str();
            let whole = read(name);
            let mut cut = transcript(name);
            cut.status = crate::protocol::Status::TRUNCATED;
            cut.body.truncate(end);
            let line = if name.ends_with("json") { "ban.list -j" } else { "ban.list" };
            if let Ok(list) = BanList::read(&cut, &asked(line)) {
                prop_assert!(whole.bans.starts_with(&list.bans));
                prop_assert!(!list.complete || end >= whole.bans.len());
            }
        }

        #[test]
        fn no_input_panics(lines in "([0-9.]{0,12} {1,3}[0-9]{0,3} [C\\-RO ]{0,4}.{0,9}\n?){0,9}") {
            let body = format!("Present bans:\n{lines}");
            let reply = Reply { status: crate::protocol::Status::OK, body: body.into() };
            let _ = BanList::read(&reply, &asked("ban.list"));
        }
    }
}
