//! What a line can go on with.

mod bans;

use super::known::{Known, Subject};
use crate::protocol::answer::HelpEntry;

/// Commands for debugging are offered when so much of them is typed.
const DEBUG: &str = "debug";

/// Ends the prompt, and is no command of varnishd.
pub(super) const EXIT: &str = "exit";

/// How a line can go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Completion {
    /// Where the word begins that is being typed.
    pub(super) start: usize,
    /// What can stand in its place.
    pub(super) candidates: Vec<Candidate>,
}

/// One way to go on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    /// What is shown in a list of them.
    pub(super) shown: String,
    /// What the line then has, with the blank behind a word that is whole.
    pub(super) text: String,
}

impl Candidate {
    fn word(word: &str) -> Self {
        Self { shown: word.to_owned(), text: format!("{word} ") }
    }

    /// The beginning of a word.
    fn part(part: &str) -> Self {
        Self { shown: part.to_owned(), text: part.to_owned() }
    }
}

/// What has to be known of the server to complete `line` at the byte `position`.
pub(super) fn needs(line: &str, position: usize) -> Option<Subject> {
    let (words, _, word) = split(line, position)?;
    match slot(&words, word) {
        Slot::Command | Slot::Option(_) => Some(Subject::Commands),
        Slot::Vcl | Slot::Label => Some(Subject::Vcls),
        Slot::Parameter | Slot::Value(_) => Some(Subject::Parameters),
        Slot::Backend => Some(Subject::Backends),
        Slot::OneOf(_) | Slot::BanField | Slot::BanOperator(_) | Slot::Anything => None,
    }
}

/// How `line` can go on at the byte `position`.
pub(super) fn complete(line: &str, position: usize, known: &Known) -> Completion {
    let Some((words, start, word)) = split(line, position) else {
        return Completion { start: position, candidates: Vec::new() };
    };
    let mut candidates = match slot(&words, word) {
        Slot::Command => commands(words.is_empty(), word, known),
        Slot::Option(command) => options(command, known),
        Slot::Vcl => known
            .vcls
            .iter()
            .filter(|vcl| vcl.status != "discarded")
            .map(|vcl| Candidate::word(&vcl.name))
            .collect(),
        Slot::Label => known
            .vcls
            .iter()
            .filter(|vcl| vcl.is_label())
            .map(|vcl| Candidate::word(&vcl.name))
            .collect(),
        Slot::Parameter => {
            let names = known.parameters.iter().map(|parameter| Candidate::word(&parameter.name));
            let groups = ["changed"].iter().filter(|_| words.first() == Some(&"param.show"));
            names.chain(groups.map(|name| Candidate::word(name))).collect()
        }
        Slot::Value(name) => values(name, known),
        Slot::Backend => known.backends.iter().map(|name| Candidate::word(name)).collect(),
        Slot::OneOf(words) => words.iter().map(|word| Candidate::word(word)).collect(),
        Slot::BanField => bans::fields(known.version),
        Slot::BanOperator(field) => bans::operators(field, known.version),
        Slot::Anything => Vec::new(),
    };
    candidates.retain(|candidate| candidate.text.starts_with(word) && is_typed(&candidate.text));
    candidates.sort();
    candidates.dedup();
    Completion { start, candidates }
}

/// Whether a name can be typed as it is. What came from the server may be anything.
fn is_typed(text: &str) -> bool {
    let word = text.strip_suffix(' ').unwrap_or(text);
    word.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'))
}

/// The words before the one that is being typed, where that begins, and it. `None` where a
/// position is none in the line.
pub(super) fn split(line: &str, position: usize) -> Option<(Vec<&str>, usize, &str)> {
    let typed = line.get(..position)?;
    let line_start = typed.rfind('\n').map_or(0, |end| end + 1);
    let start = typed.rfind(|c: char| c.is_ascii_whitespace()).map_or(0, |blank| blank + 1);
    let words = typed.get(line_start..start)?.split_ascii_whitespace().collect();
    Some((words, start, typed.get(start..)?))
}

/// What can stand in a place.
#[derive(Debug, PartialEq, Eq)]
enum Slot<'a> {
    Command,
    /// An option of this command.
    Option(&'a str),
    Vcl,
    Label,
    Parameter,
    /// A value of this parameter.
    Value(&'a str),
    Backend,
    OneOf(&'static [&'static str]),
    BanField,
    /// An operator behind this field.
    BanOperator(&'a str),
    /// Nothing that is known.
    Anything,
}

const TEMPERATURES: &[&str] = &["auto", "cold", "warm"];
const HEALTHS: &[&str] = &["auto", "healthy", "sick"];

fn slot<'a>(words: &[&'a str], word: &str) -> Slot<'a> {
    let Some((&command, arguments)) = words.split_first() else { return Slot::Command };
    if command == "ban" {
        return match (arguments.len() % 4, arguments.last()) {
            (0, _) => Slot::BanField,
            (1, Some(field)) => Slot::BanOperator(field),
            (3, _) => Slot::OneOf(&["&&"]),
            _ => Slot::Anything,
        };
    }
    if word.starts_with('-') {
        return Slot::Option(command);
    }
    let mut arguments = arguments.iter().filter(|word| !word.starts_with('-'));
    let (first, count) = (arguments.next(), arguments.count());
    match (command, first.map(|first| (*first, count))) {
        ("help", None) => Slot::Command,
        ("vcl.use" | "vcl.show" | "vcl.state", None) | ("vcl.discard", _) => Slot::Vcl,
        ("vcl.label", None) => Slot::Label,
        ("vcl.label", Some((_, 0))) => Slot::Vcl,
        ("vcl.state", Some((_, 0))) | ("vcl.load" | "vcl.inline", Some((_, 1))) => {
            Slot::OneOf(TEMPERATURES)
        }
        ("param.show" | "param.set" | "param.reset", None) => Slot::Parameter,
        ("param.set", Some((name, 0))) => Slot::Value(name),
        ("backend.list" | "backend.set_health", None) => Slot::Backend,
        ("backend.set_health", Some((_, 0))) => Slot::OneOf(HEALTHS),
        _ => Slot::Anything,
    }
}

fn commands(is_first: bool, word: &str, known: &Known) -> Vec<Candidate> {
    let shown = |entry: &&HelpEntry| word.starts_with(DEBUG) || !is_for_debugging(entry);
    let names = known.commands.iter().filter(shown).map(|entry| Candidate::word(&entry.name));
    names.chain(is_first.then(|| Candidate::word(EXIT))).collect()
}

/// Whether it is left out of the plain `help`.
pub(super) fn is_for_debugging(entry: &HelpEntry) -> bool {
    entry.flags.iter().any(|flag| flag == "d" || flag == DEBUG) || entry.name.starts_with("debug.")
}

/// The options that the command's syntax names.
fn options(command: &str, known: &Known) -> Vec<Candidate> {
    let syntax = known.command(command).map(|entry| entry.syntax.as_str()).unwrap_or_default();
    let words = syntax.split(|c: char| c.is_ascii_whitespace() || matches!(c, '[' | ']' | '|'));
    let is_option =
        |word: &&str| word.strip_prefix('-').is_some_and(|rest| rest.len() == 1 && rest != "-");
    words.filter(is_option).map(Candidate::word).collect()
}

/// What a switch can be set to; of another parameter the value that it has, to be changed.
fn values(name: &str, known: &Known) -> Vec<Candidate> {
    let parameter = known.parameters.iter().find(|parameter| parameter.name == name);
    let Some(parameter) = parameter else { return Vec::new() };
    if parameter.unit.as_deref() == Some("bool") {
        return ["on", "off"].map(Candidate::word).to_vec();
    }
    let values = [&parameter.value, &parameter.default];
    values.into_iter().flatten().map(|value| Candidate::part(value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ban::ServerVersion;
    use crate::protocol::answer::{Parameter, Vcl};

    fn entry(name: &str, arguments: &str) -> HelpEntry {
        HelpEntry {
            name: name.to_owned(),
            syntax: format!("{name} {arguments}"),
            help: String::new(),
            least: None,
            most: None,
            flags: Vec::new(),
            json: false,
        }
    }

    fn vcl(name: &str, status: &str, state: &str) -> Vcl {
        Vcl {
            name: name.to_owned(),
            status: status.to_owned(),
            state: state.to_owned(),
            temperature: "warm".to_owned(),
            busy: None,
            target: None,
            labels: 0,
        }
    }

    fn parameter(name: &str, value: &str, unit: &str) -> Parameter {
        let (value, unit) = (Some(value.to_owned()), Some(unit.to_owned()));
        Parameter { name: name.to_owned(), value, unit, ..Parameter::default() }
    }

    fn known() -> Known {
        let commands = vec![
            entry("ban", "<field> <operator> <arg> [&& <field> <oper> <arg> ...]"),
            entry("ban.list", "[-j]"),
            entry("help", "[-j|<command>]"),
            entry("debug.xid", ""),
            entry("backend.list", "[-j] [-p] [<backend_pattern>]"),
            entry("vcl.use", "<configname|label>"),
        ];
        Known {
            commands,
            vcls: vec![
                vcl("boot", "active", "auto"),
                vcl("before", "available", "cold"),
                vcl("beta", "available", "label"),
                vcl("bad", "discarded", "auto"),
                vcl("b\x1b[2J", "available", "auto"),
            ],
            parameters: vec![
                parameter("ban_dups", "on", "bool"),
                parameter("cli_limit", "48k", "bytes"),
            ],
            backends: vec!["boot.default".to_owned(), "boot.api".to_owned()],
            version: None,
        }
    }

    /// What is offered at the end of `line`.
    #[track_caller]
    fn offers(line: &str, expected: &[&str]) {
        let completion = complete(line, line.len(), &known());
        let texts: Vec<_> = completion.candidates.iter().map(|c| c.text.as_str()).collect();
        assert_eq!(texts, expected, "{line:?}");
    }

    #[test]
    fn command_names() {
        offers("b", &["backend.list ", "ban ", "ban.list "]);
        offers("  ban", &["ban ", "ban.list "]);
        offers("", &["backend.list ", "ban ", "ban.list ", "exit ", "help ", "vcl.use "]);
        offers("debug", &["debug.xid "]);
        offers("help v", &["vcl.use "]);
        offers("help ban b", &[]);
        offers("ping\nv", &["vcl.use "]);
    }

    #[test]
    fn options_come_from_the_syntax() {
        offers("backend.list -", &["-j ", "-p "]);
        offers("help -", &["-j "]);
        offers("vcl.use -", &[]);
    }

    #[test]
    fn names_of_vcls() {
        offers("vcl.use b", &["before ", "beta ", "boot "]);
        offers("vcl.use boot b", &[]);
        offers("vcl.discard boot be", &["before ", "beta "]);
        offers("vcl.show -v bo", &["boot "]);
        offers("vcl.label ", &["beta "]);
        offers("vcl.label new bo", &["boot "]);
        offers("vcl.state boot ", &["auto ", "cold ", "warm "]);
        offers("vcl.load new /etc/varnish/new.vcl c", &["cold "]);
        offers("vcl.load ", &[]);
    }

    #[test]
    fn parameters_and_their_values() {
        offers("param.show ", &["ban_dups ", "changed ", "cli_limit "]);
        offers("param.reset c", &["cli_limit "]);
        offers("param.set ban_dups o", &["off ", "on "]);
        offers("param.set -j cli_limit ", &["48k"]);
        offers("param.set cli_limit 48k ", &[]);
    }

    #[test]
    fn backends_and_their_health() {
        offers("backend.list boot.", &["boot.api ", "boot.default "]);
        offers("backend.set_health boot.api ", &["auto ", "healthy ", "sick "]);
    }

    #[test]
    fn bans() {
        offers("ban req.", &["req.http.", "req.url "]);
        offers("ban obj.ttl ", &["!= ", "< ", "<= ", "== ", "> ", ">= "]);
        offers("ban req.url ", &["!= ", "!~ ", "== ", "~ "]);
        offers("ban req.url ~ ", &[]);
        offers("ban req.url ~ -x ", &["&& "]);
        offers("ban req.url ~ x && obj.s", &["obj.status "]);
        offers("ban obj.hf", &["obj.hfm ", "obj.hfp "]);
        let old = Known { version: Some(ServerVersion::new(6, 0)), ..known() };
        let fields = complete("ban obj.", 8, &old).candidates;
        let fields: Vec<_> = fields.iter().map(|field| field.shown.as_str()).collect();
        assert_eq!(fields, ["obj.http.", "obj.status"]);
    }

    #[test]
    fn what_has_to_be_known() {
        let needs = |line: &str| needs(line, line.len());
        assert_eq!(needs("vc"), Some(Subject::Commands));
        assert_eq!(needs("vcl.use "), Some(Subject::Vcls));
        assert_eq!(needs("param.set ban_dups "), Some(Subject::Parameters));
        assert_eq!(needs("backend.list -"), Some(Subject::Commands));
        assert_eq!(needs("ban "), None);
    }

    #[test]
    fn any_position_will_do() {
        for position in 0..=12 {
            let _ = complete("vcl.use bü", position, &known());
            let _ = needs("vcl.use bü", position);
        }
        assert_eq!(complete("vcl.use bo and more", 10, &known()).start, 8);
    }
}
