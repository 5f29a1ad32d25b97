//! `help`: the commands that this varnishd has.

use super::envelope::Envelope;
use super::json::Json;
use super::{Answer, AnswerError, success, text, whole_lines};
use crate::protocol::{Command, Reply};

/// A command that varnishd has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelpEntry {
    /// Its name, such as `vcl.load`.
    pub name: String,
    /// The name with its arguments, such as `vcl.use <configname>`.
    pub syntax: String,
    /// What it does; empty in text.
    pub help: String,
    /// The least number of arguments, without `-j`; `None` in text.
    pub least: Option<u64>,
    /// The largest number of arguments, without `-j`; `None` in text and for any number.
    pub most: Option<u64>,
    /// What it is marked with: `d` for a command for debugging. A string up to 8.0, an array from
    /// 9.0 on.
    pub flags: Vec<String>,
    /// Whether it takes `-j`. In text as its syntax says.
    pub json: bool,
}

/// The commands, from `help -j` or `help`. While the cache process is not running, its own are
/// missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Help {
    /// The commands, in alphabetical order.
    pub commands: Vec<HelpEntry>,
    /// Whether these are all. If not, the reply was cut at the server's `cli_limit`.
    pub complete: bool,
}

impl Help {
    /// The command `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&HelpEntry> {
        self.commands.iter().find(|entry| entry.name == name)
    }
}

impl Answer for Help {
    fn read(reply: &Reply, asked: &Command) -> Result<Self, AnswerError> {
        let malformed = || AnswerError::malformed("a command", &reply.body, 0);
        if Envelope::is_one(reply) {
            let envelope = Envelope::read(reply, asked)?;
            let entry = |json| from_json(json).ok_or_else(malformed);
            let commands = envelope.data.iter().map(entry).collect::<Result<_, _>>()?;
            return Ok(Self { commands, complete: envelope.complete });
        }
        success(reply)?;
        let (lines, complete) = whole_lines(reply);
        let lines = text(lines);
        let commands = lines.lines().map(|line| from_line(line).ok_or_else(malformed));
        Ok(Self { commands: commands.collect::<Result<_, _>>()?, complete })
    }
}

fn from_json(json: &Json) -> Option<HelpEntry> {
    let words = |name| json.get(name).and_then(Json::as_text).map(text);
    let flags = match json.get("flags") {
        Some(Json::Text(flags)) => text(flags).chars().map(String::from).collect(),
        Some(list) => list.elements().iter().filter_map(Json::as_text).map(text).collect(),
        None => Vec::new(),
    };
    Some(HelpEntry {
        name: words("request")?,
        syntax: words("syntax")?,
        help: words("help").unwrap_or_default(),
        least: json.get("minarg").and_then(Json::as_u64),
        most: json.get("maxarg").and_then(Json::as_u64),
        flags,
        json: json.get("json").and_then(Json::as_bool).unwrap_or(false),
    })
}

fn from_line(line: &str) -> Option<HelpEntry> {
    let name = line.split_whitespace().next()?;
    name.starts_with(|c: char| c.is_ascii_lowercase()).then(|| HelpEntry {
        name: name.to_owned(),
        syntax: line.trim_end().to_owned(),
        help: String::new(),
        least: None,
        most: None,
        flags: Vec::new(),
        json: line.contains("-j]") || line.contains("[-j"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{asked, reply, transcript};
    use super::*;

    #[test]
    fn reads_what_varnishd_sent() {
        let help = Help::read(&transcript("help-json"), &asked("help -j")).unwrap();
        assert!(help.complete && help.commands.len() > 30);
        let list = help.get("ban.list").unwrap();
        assert_eq!((list.syntax.as_str(), list.json), ("ban.list [-j]", true));
        assert_eq!(
            (help.get("ban").unwrap().least, help.get("ban").unwrap().most),
            (Some(3), None)
        );
        assert!(help.commands.iter().any(|entry| entry.flags == ["d"]));
        let text = Help::read(&transcript("help"), &asked("help")).unwrap();
        for entry in &text.commands {
            let same = help.get(&entry.name).unwrap();
            assert_eq!((&entry.syntax, entry.json), (&same.syntax, same.json));
        }
    }

    #[test]
    fn flags_may_be_an_array() {
        let body =
            r#"[ 2, ["help", "-j"], 1.5, {"request": "a", "syntax": "a", "flags": ["d", "i"]} ]"#;
        let help = Help::read(&reply(200, body), &asked("help -j")).unwrap();
        assert_eq!(help.commands[0].flags, ["d", "i"]);
        assert!(Help::read(&reply(200, "PONG 1 1.0"), &asked("help")).is_err());
    }
}
