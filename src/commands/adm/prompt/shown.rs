//! Answers as people read them.

mod json;

use std::fmt::Write as _;

use super::completion::is_for_debugging;
use crate::commands::adm::written::Harmless;
use crate::protocol::answer::HelpEntry;
use crate::protocol::{Reply, Status};

/// A line that goes on in the next row is indented there by so many columns more than it was.
const HANGING: usize = 4;

/// The widest that the column of commands in the help gets.
const SYNTAX: usize = 36;

/// An answer: its status on a line, then its text; nothing in it steers the terminal, and no row
/// is wider than `width` columns where a blank lets it be broken.
pub(super) fn reply(reply: &Reply, width: usize, colour: bool) -> String {
    let mut text = status(reply.status, colour);
    match json::indented(&reply.body) {
        Some(indented) => text.push_str(&folded(&Harmless(indented.as_bytes()).to_string(), width)),
        None => text.push_str(&folded(&Harmless(&reply.body).to_string(), width)),
    }
    text.push('\n');
    if reply.is_truncated() {
        text.push_str("[response was truncated]\n");
    }
    text
}

fn status(status: Status, colour: bool) -> String {
    let failed = !matches!(status, Status::OK | Status::TRUNCATED | Status::CLOSE);
    if colour && failed { format!("\x1b[1;31m{status}\x1b[0m\n") } else { format!("{status}\n") }
}

/// The commands that there are, each with what it does.
pub(super) fn help(entries: &[HelpEntry], width: usize) -> String {
    let mut text = "200\n".to_owned();
    for entry in entries.iter().filter(|entry| !is_for_debugging(entry)) {
        let syntax = on_one_line(&entry.syntax);
        let about = on_one_line(&first_sentence(&entry.help));
        let mut rows = broken(&syntax, width, HANGING).join("\n");
        if !about.is_empty() {
            // On a narrow terminal there is no second column.
            let margin = if width < 2 * SYNTAX { HANGING } else { SYNTAX + 2 };
            match margin.checked_sub(columns(&syntax)) {
                Some(gap @ 2..) => rows.push_str(&" ".repeat(gap)),
                _ => {
                    rows.push('\n');
                    rows.push_str(&" ".repeat(margin));
                }
            }
            let next = format!("\n{}", " ".repeat(margin));
            rows.push_str(&broken(&about, width.saturating_sub(margin), 0).join(&next));
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{rows}");
    }
    for line in FURTHER {
        let _ = writeln!(text, "{}", broken(line, width, 0).join("\n"));
    }
    text
}

const FURTHER: &[&str] = &[
    "",
    "`help COMMAND` says more. TAB completes, `exit` or Ctrl-D ends, Ctrl-C clears the line or stops \
     waiting for an answer. A line that begins with a blank is not kept in the history.",
];

fn on_one_line(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    Harmless(words.as_bytes()).to_string()
}

/// As much as says what a command is for.
fn first_sentence(text: &str) -> String {
    let text = text.split("\n\n").next().unwrap_or_default();
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.split_once(". ") {
        Some((first, _)) => format!("{first}."),
        None => words,
    }
}

/// The text with lines that are too wide broken at blanks.
fn folded(text: &str, width: usize) -> String {
    let rows = text.split('\n').map(|line| {
        let line = line.strip_suffix("\\r").unwrap_or(line);
        if columns(line) <= width {
            return line.to_owned();
        }
        let indent = line.len() - line.trim_start_matches(' ').len();
        broken(line, width, indent + HANGING).join("\n")
    });
    rows.collect::<Vec<_>>().join("\n")
}

/// How many columns a line takes, with tabs to each eighth.
fn columns(line: &str) -> usize {
    line.chars().fold(0, |at, c| if c == '\t' { (at / 8 + 1) * 8 } else { at + 1 })
}

/// A line as rows of at most `width` columns, each but the first indented by `margin`. It is
/// broken before a word, and a word that is wider stays whole: the terminal breaks it.
fn broken(line: &str, width: usize, margin: usize) -> Vec<String> {
    let margin = if margin + 20 > width { 0 } else { margin };
    let mut rows = Vec::new();
    let (mut row, mut has_word) = (String::new(), false);
    let mut rest = line;
    while !rest.is_empty() {
        let blanks = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        let (gap, word) = rest.split_at(blanks);
        let end = word.find([' ', '\t']).unwrap_or(word.len());
        let (word, after) = word.split_at(end);
        if has_word && !word.is_empty() && columns(&format!("{row}{gap}{word}")) > width {
            rows.push(std::mem::replace(&mut row, " ".repeat(margin)));
        } else {
            row.push_str(gap);
        }
        row.push_str(word);
        has_word |= !word.is_empty();
        rest = after;
    }
    rows.push(row);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(status: u16, body: &'static str, width: usize) -> String {
        let status = Status::new(status).unwrap();
        reply(&Reply { status, body: body.into() }, width, false)
    }

    #[test]
    fn the_status_stands_before_the_text() {
        assert_eq!(shown(200, "PONG 1 1.0", 80), "200\nPONG 1 1.0\n");
        assert_eq!(shown(201, "cut", 80), "201\ncut\n[response was truncated]\n");
        let failed = Reply { status: Status::new(101).unwrap(), body: "no".into() };
        assert_eq!(reply(&failed, 80, true), "\x1b[1;31m101\x1b[0m\nno\n");
    }

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(shown(200, "a\x1b[2Jb\r\nc", 80), "200\na\\x1b[2Jb\nc\n");
        assert_eq!(
            shown(200, "[\"\x1b[2J\", \"\\u001b\"]", 80),
            "200\n[\"\\x1b[2J\", \"\\u001b\"]\n"
        );
    }

    #[test]
    fn a_wide_line_breaks_between_words() {
        let line = "boot.default   healthy    0/0      healthy    Mon, 23 Nov 2026 23:37:17 GMT";
        let narrow = folded(line, 50);
        assert_eq!(
            narrow,
            "boot.default   healthy    0/0      healthy    Mon,\n    23 Nov 2026 23:37:17 GMT"
        );
        assert_eq!(folded(line, 80), line);
        let word = "x".repeat(90);
        assert_eq!(folded(&word, 50), word);
        assert_eq!(folded(&format!("  a {word} b"), 50), format!("  a\n      {word}\n      b"));
    }

    #[test]
    fn the_help_has_two_columns() {
        let entry = |syntax: &str, help: &str, flags: &[&str]| HelpEntry {
            name: syntax.split(' ').next().unwrap().to_owned(),
            syntax: syntax.to_owned(),
            help: help.to_owned(),
            least: None,
            most: None,
            flags: flags.iter().map(ToString::to_string).collect(),
            json: false,
        };
        let entries = [
            entry("ping [-j] [<timestamp>]", "Keep connection alive. And more.\n", &[]),
            entry("ban <field> <operator> <arg> [&& <field> <oper> <arg> ...]", "Mark it.", &[]),
            entry("debug.xid", "Examine or set XID.", &["d"]),
        ];
        let text = help(&entries, 100);
        let lines: Vec<_> = text.lines().take(5).collect();
        assert_eq!(lines[1], "ping [-j] [<timestamp>]               Keep connection alive.");
        assert_eq!(lines[2], entries[1].syntax);
        assert_eq!(lines[3], "                                      Mark it.");
        assert!(!text.contains("debug.xid"));
        assert!(help(&entries, 40).lines().all(|line| line.len() <= 40));
    }
}
