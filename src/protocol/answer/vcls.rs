//! `vcl.list`: the VCLs that were loaded, and their labels.

use super::envelope::Envelope;
use super::json::Json;
use super::{Answer, AnswerError, success, text, whole_lines};
use crate::protocol::{Command, Reply};

/// A VCL, or a label of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vcl {
    /// The name.
    pub name: String,
    /// `active`, `available`, or `discarded` while it is still in use.
    pub status: String,
    /// What was asked for: `auto`, `warm` or `cold`; `label` for a label.
    pub state: String,
    /// What it is now: `warm` or `cold`, and on the way `init`, `busy` or `cooling`.
    pub temperature: String,
    /// How many threads use it; `None` while there is no cache process.
    pub busy: Option<u64>,
    /// For a label, the VCL that it stands for.
    pub target: Option<String>,
    /// How many labels stand for it.
    pub labels: u64,
}

impl Vcl {
    /// Whether it is the one that new requests begin in.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.status == "active"
    }

    /// Whether it is a label.
    #[must_use]
    pub fn is_label(&self) -> bool {
        self.state == "label" || self.target.is_some()
    }
}

/// The VCLs and labels, from `vcl.list` or `vcl.list -j`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VclList {
    /// The VCLs and labels, in the order in which they were made.
    pub vcls: Vec<Vcl>,
    /// Whether these are all. If not, the reply was cut at the server's `cli_limit`.
    pub complete: bool,
}

impl VclList {
    /// The active VCL. There is none before the first was loaded.
    #[must_use]
    pub fn active(&self) -> Option<&Vcl> {
        self.vcls.iter().find(|vcl| vcl.is_active())
    }

    /// The VCL or label `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Vcl> {
        self.vcls.iter().find(|vcl| vcl.name == name)
    }
}

impl Answer for VclList {
    fn read(reply: &Reply, asked: &Command) -> Result<Self, AnswerError> {
        let malformed = || AnswerError::malformed("a VCL", &reply.body, 0);
        if Envelope::is_one(reply) {
            let envelope = Envelope::read(reply, asked)?;
            let vcl = |json| from_json(json).ok_or_else(malformed);
            let vcls = envelope.data.iter().map(vcl).collect::<Result<_, _>>()?;
            return Ok(Self { vcls, complete: envelope.complete });
        }
        success(reply)?;
        let (lines, complete) = whole_lines(reply);
        let lines = text(lines);
        let lines = lines.lines().filter(|line| !line.trim().is_empty());
        let vcls = lines.map(|line| from_line(line).ok_or_else(malformed));
        Ok(Self { vcls: vcls.collect::<Result<_, _>>()?, complete })
    }
}

fn from_json(json: &Json) -> Option<Vcl> {
    let words = |name| json.get(name).and_then(Json::as_text).map(text);
    let target = json.get("label").and_then(|label| label.get("name")).and_then(Json::as_text);
    Some(Vcl {
        name: words("name")?,
        status: words("status")?,
        state: words("state")?,
        temperature: words("temperature")?,
        busy: json.get("busy").and_then(Json::as_u64),
        target: target.map(text),
        labels: json.get("labels").and_then(Json::as_u64).unwrap_or(0),
    })
}

/// `available   label    warm         0    lab          ->    two (1 return(vcl))`; up to 6.x
/// state and temperature are one word, `label/warm`.
fn from_line(line: &str) -> Option<Vcl> {
    let mut words = line.split_whitespace();
    let status = words.next()?.to_owned();
    let state = words.next()?;
    let (state, temperature) = match state.split_once('/') {
        Some(both) => both,
        None => (state, words.next()?),
    };
    let busy = match words.next()? {
        "-" => None,
        number => Some(number.parse().ok()?),
    };
    let name = words.next()?.to_owned();
    let (mut target, mut labels) = (None, 0);
    match words.next() {
        Some("->") => target = Some(words.next()?.to_owned()),
        Some("<-") => labels = words.next()?.strip_prefix('(')?.parse().ok()?,
        _ => {}
    }
    let (state, temperature) = (state.to_owned(), temperature.to_owned());
    Some(Vcl { name, status, state, temperature, busy, target, labels })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{asked, reply, transcript};
    use super::*;

    fn read(name: &str) -> VclList {
        let line = if name.ends_with("json") { "vcl.list -j" } else { "vcl.list" };
        VclList::read(&transcript(name), &asked(line)).unwrap()
    }

    #[test]
    fn text_and_json_say_the_same() {
        let list = read("vcl-list-json");
        assert_eq!(list, read("vcl-list"));
        assert_eq!(list.active().unwrap().name, "two");
        let two = list.get("two").unwrap();
        assert_eq!((two.busy, two.labels, two.is_label()), (Some(0), 1, false));
        let label = list.get("lab").unwrap();
        assert_eq!((label.target.as_deref(), label.is_label()), (Some("two"), true));
        assert_eq!(list.get("three").unwrap().temperature, "cold");
        let stopped = read("vcl-list-stopped");
        assert_eq!(stopped, read("vcl-list-stopped-json"));
        assert_eq!(stopped.active().unwrap().busy, None);
    }

    #[test]
    fn reads_the_layout_of_6() {
        let body =
            "active     auto/warm          3 boot\navailable  label/warm         0 lab -> boot\n";
        let list = VclList::read(&reply(200, body), &asked("vcl.list")).unwrap();
        let [boot, label] = &list.vcls[..] else { panic!("{list:?}") };
        assert_eq!((boot.state.as_str(), boot.temperature.as_str()), ("auto", "warm"));
        assert_eq!((boot.busy, label.target.as_deref()), (Some(3), Some("boot")));
    }

    #[test]
    fn a_list_that_was_cut_is_never_whole() {
        let mut cut = transcript("vcl-list");
        cut.status = crate::protocol::Status::TRUNCATED;
        cut.body.truncate(100);
        let list = VclList::read(&cut, &asked("vcl.list")).unwrap();
        assert_eq!((list.vcls.len(), list.complete), (1, false));
        assert!(VclList::read(&reply(200, "PONG 1 1.0"), &asked("vcl.list")).is_err());
    }

    proptest! {
        #[test]
        fn no_input_panics(body in "([a-z0-9/<>()\\-]{0,9} ?){0,30}") {
            let reply = Reply { status: crate::protocol::Status::OK, body: body.into() };
            let _ = VclList::read(&reply, &asked("vcl.list"));
        }
    }
}
