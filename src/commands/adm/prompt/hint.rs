//! The syntax of the command that is being typed.

use super::completion::{is_for_debugging, split};
use super::known::Known;

/// What is shown behind the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hint {
    /// The text.
    pub(super) shown: String,
    /// As much of it as can be taken over.
    pub(super) takes: Option<String>,
}

/// How hints are told from what was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// They are dimmed.
    Dimmed,
    /// They look the same, and stand in parentheses.
    Plain,
}

/// The hint behind `line`, of at most `room` characters, while the cursor is at its end.
pub(super) fn hint(
    line: &str,
    position: usize,
    known: &Known,
    look: Look,
    room: usize,
) -> Option<Hint> {
    if position < line.len() || line.contains('\n') {
        return None;
    }
    let (words, _, word) = split(line, position)?;
    let Some(command) = words.first() else { return of_name(word, known, look, room) };
    let syntax = safe(&known.command(command)?.syntax);
    let arguments = syntax.strip_prefix(command).unwrap_or(&syntax).trim_start();
    if arguments.is_empty() {
        return None;
    }
    let is_first = words.len() == 1 && word.is_empty();
    let shown = match look {
        Look::Dimmed if is_first => arguments.to_owned(),
        _ => format!("   ({syntax})"),
    };
    Some(Hint { shown: cut(shown, room)?, takes: None })
}

/// While the name is being typed: the rest of it, when only one command can be meant.
fn of_name(word: &str, known: &Known, look: Look, room: usize) -> Option<Hint> {
    if word.is_empty() {
        return None;
    }
    let mut fitting = known.commands.iter().filter(|entry| {
        entry.name.starts_with(word) && (entry.name == word || !is_for_debugging(entry))
    });
    let entry = match known.command(word) {
        Some(whole) => whole,
        None => fitting.next().filter(|_| fitting.next().is_none())?,
    };
    let syntax = safe(&entry.syntax);
    if syntax == word {
        return None;
    }
    if look == Look::Plain {
        return Some(Hint { shown: cut(format!("   ({syntax})"), room)?, takes: None });
    }
    let name = safe(&entry.name);
    let takes = name.strip_prefix(word).filter(|rest| !rest.is_empty()).map(str::to_owned);
    let shown = syntax.strip_prefix(word)?.to_owned();
    Some(Hint { shown: cut(shown, room)?, takes })
}

/// The server's words without anything that moves a cursor or has a width of its own.
fn safe(text: &str) -> String {
    let printed = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    text.trim().chars().map(printed).collect()
}

/// No hint makes a line go on in the next row.
fn cut(mut text: String, room: usize) -> Option<String> {
    if text.len() > room {
        text.truncate(room.checked_sub(3).filter(|room| *room > 3)?);
        text.push_str("...");
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::answer::HelpEntry;

    fn known() -> Known {
        let entry = |syntax: &str| HelpEntry {
            name: syntax.split(' ').next().unwrap().to_owned(),
            syntax: syntax.to_owned(),
            help: String::new(),
            least: None,
            most: None,
            flags: Vec::new(),
            json: false,
        };
        let syntaxes = [
            "ban <field> <operator> <arg>",
            "ban.list [-j]",
            "vcl.use <configname|label>",
            "start",
        ];
        Known { commands: syntaxes.map(entry).to_vec(), ..Known::default() }
    }

    fn dimmed(line: &str) -> Option<String> {
        hint(line, line.len(), &known(), Look::Dimmed, 60).map(|hint| hint.shown)
    }

    #[test]
    fn a_name_is_gone_on_with() {
        let got = hint("vcl", 3, &known(), Look::Dimmed, 60).unwrap();
        assert_eq!(got.shown, ".use <configname|label>");
        assert_eq!(got.takes.as_deref(), Some(".use"));
        assert_eq!(dimmed("ban").as_deref(), Some(" <field> <operator> <arg>"));
        assert_eq!(dimmed("b"), None, "either");
        assert_eq!(dimmed(""), None);
        assert_eq!(dimmed("start"), None, "nothing to add");
    }

    #[test]
    fn arguments_have_the_syntax_beside_them() {
        assert_eq!(dimmed("vcl.use ").as_deref(), Some("<configname|label>"));
        assert_eq!(dimmed("vcl.use bo").as_deref(), Some("   (vcl.use <configname|label>)"));
        assert_eq!(dimmed("nonsense a"), None);
        assert_eq!(hint("vcl.use x", 3, &known(), Look::Dimmed, 60), None, "not at the end");
    }

    #[test]
    fn without_colour_it_stands_apart() {
        let got = hint("vcl", 3, &known(), Look::Plain, 60).unwrap();
        assert_eq!(got.shown, "   (vcl.use <configname|label>)");
    }

    #[test]
    fn a_narrow_terminal_gets_less() {
        let got = hint("vcl.use ", 8, &known(), Look::Dimmed, 10).unwrap();
        assert_eq!(got.shown, "<config...");
        assert_eq!(hint("vcl.use ", 8, &known(), Look::Dimmed, 4), None);
    }
}
