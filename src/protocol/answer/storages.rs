//! `storage.list`: where objects are kept.

use super::envelope::Envelope;
use super::json::Json;
use super::{Answer, AnswerError, success, text, whole_lines};
use crate::protocol::{Command, Reply};

/// A storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// Its name, `s0` and so on unless it was given one; `Transient` for what lives shortly.
    pub name: String,
    /// What it is, such as `malloc` or `file`.
    pub kind: String,
}

/// The storages, from `storage.list` or `storage.list -j`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storages {
    /// The storages, in the order of varnishd's arguments.
    pub storages: Vec<Storage>,
    /// Whether these are all. If not, the reply was cut at the server's `cli_limit`.
    pub complete: bool,
}

impl Answer for Storages {
    fn read(reply: &Reply, asked: &Command) -> Result<Self, AnswerError> {
        let malformed = || AnswerError::malformed("a storage", &reply.body, 0);
        if Envelope::is_one(reply) {
            let envelope = Envelope::read(reply, asked)?;
            let storage = |json: &Json| {
                let words = |name| json.get(name).and_then(Json::as_text).map(text);
                Some(Storage { name: words("name")?, kind: words("storage")? })
            };
            let storages = envelope.data.iter().map(|json| storage(json).ok_or_else(malformed));
            let storages = storages.collect::<Result<_, _>>()?;
            return Ok(Self { storages, complete: envelope.complete });
        }
        success(reply)?;
        let (lines, complete) = whole_lines(reply);
        let mut storages = Vec::new();
        for line in text(lines).lines().filter(|line| *line != "Storage devices:") {
            let storage = line.trim_start().strip_prefix("storage.").unwrap_or_default();
            let (name, kind) = storage.split_once(" = ").ok_or_else(malformed)?;
            storages.push(Storage { name: name.to_owned(), kind: kind.to_owned() });
        }
        Ok(Self { storages, complete })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{asked, reply, transcript};
    use super::*;

    #[test]
    fn text_and_json_say_the_same() {
        let json = transcript("storage-list-json");
        let list = Storages::read(&json, &asked("storage.list -j")).unwrap();
        let names: Vec<_> =
            list.storages.iter().map(|s| (s.name.as_str(), s.kind.as_str())).collect();
        assert_eq!(names, [("file", "malloc"), ("Transient", "malloc")]);
        let text = transcript("storage-list");
        assert_eq!(Storages::read(&text, &asked("storage.list")).unwrap(), list);
        assert!(Storages::read(&reply(200, "PONG 1 1.0"), &asked("storage.list")).is_err());
        let cut = reply(201, "Storage devices:\n\tstorage.a = file\n\tstor");
        let list = Storages::read(&cut, &asked("storage.list")).unwrap();
        assert_eq!((list.storages.len(), list.complete), (1, false));
    }
}
