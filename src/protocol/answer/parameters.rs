//! `param.show`: the parameters of varnishd.

use super::envelope::Envelope;
use super::json::Json;
use super::{Answer, AnswerError, success, text, whole_lines};
use crate::protocol::{Command, Reply};

/// A parameter. Sizes and durations are in the words of varnishd, such as `48k` with the unit
/// `bytes`: which form a number has differs between parameters and versions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parameter {
    /// The name.
    pub name: String,
    /// The value now; `None` for a parameter that this build of varnishd does not have. In JSON
    /// sizes are numbers of bytes, in text they are short (`48k`); switches are `on` and `off`.
    pub value: Option<String>,
    /// The unit, where there is one.
    pub unit: Option<String>,
    /// The value without any setting, where varnishd tells.
    pub default: Option<String>,
    /// The least value, where there is one.
    pub minimum: Option<String>,
    /// The largest value, where there is one.
    pub maximum: Option<String>,
    /// What it is for.
    pub description: String,
    /// What to know before it is set, such as `experimental` or `must_restart`. In JSON only.
    pub flags: Vec<String>,
}

/// Parameters, from `param.show -j`, or from `param.show` with `-l` or a name. The short form
/// without arguments has no place for most of it, and is read too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    /// The parameters, in varnishd's order, which is alphabetical.
    pub parameters: Vec<Parameter>,
    /// Whether these are all that were asked for. If not, the reply was cut at the server's
    /// `cli_limit`: all of them in JSON nearly fill its default of 48 KiB.
    pub complete: bool,
}

impl Parameters {
    /// The parameter `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|parameter| parameter.name == name)
    }
}

impl Answer for Parameters {
    fn read(reply: &Reply, asked: &Command) -> Result<Self, AnswerError> {
        if Envelope::is_one(reply) {
            let envelope = Envelope::read(reply, asked)?;
            let parameter = |json| {
                from_json(json).ok_or_else(|| AnswerError::malformed("a parameter", &reply.body, 0))
            };
            let parameters = envelope.data.iter().map(parameter).collect::<Result<_, _>>()?;
            return Ok(Self { parameters, complete: envelope.complete });
        }
        let body = success(reply)?;
        let (lines, complete) = whole_lines(reply);
        let mut parameters = from_text(&text(lines))
            .ok_or_else(|| AnswerError::malformed("a parameter", body, 0))?;
        if !complete {
            // What is told of the last one may go on behind the cut.
            parameters.pop();
        }
        Ok(Self { parameters, complete })
    }
}

fn from_json(json: &Json) -> Option<Parameter> {
    let words = |name| match json.get(name) {
        Some(Json::Text(words)) => Some(text(words)),
        Some(Json::Number(number)) => Some(number.clone()),
        Some(Json::Bool(switch)) => Some(if *switch { "on" } else { "off" }.to_owned()),
        _ => None,
    };
    let flags = json.get("flags").map(Json::elements).unwrap_or_default();
    Some(Parameter {
        name: json.get("name")?.as_text().map(text)?,
        value: words("value"),
        unit: words("units"),
        default: words("default"),
        minimum: words("minimum"),
        maximum: words("maximum"),
        description: words("description").unwrap_or_default(),
        flags: flags.iter().filter_map(Json::as_text).map(text).collect(),
    })
}

/// Names stand at the beginning of a line, everything about them is indented.
fn from_text(lines: &str) -> Option<Vec<Parameter>> {
    let mut parameters: Vec<Parameter> = Vec::new();
    for line in lines.lines() {
        let about = line.trim();
        if !line.starts_with([' ', '\t']) && !about.is_empty() {
            let (name, value) = about.split_once(char::is_whitespace).unwrap_or((about, ""));
            let mut parameter = Parameter { name: name.to_owned(), ..Parameter::default() };
            if !matches!(value.trim(), "" | "-") {
                read_value(&mut parameter, value.trim());
            }
            parameters.push(parameter);
            continue;
        }
        let Some(parameter) = parameters.last_mut() else {
            if about.is_empty() {
                continue;
            }
            return None;
        };
        let told = !parameter.description.is_empty();
        if told {
            parameter.description.push('\n');
            parameter.description.push_str(about);
        } else if let Some(value) = about.strip_prefix("Value is: ") {
            read_value(parameter, value);
        } else if let Some(value) = about.strip_prefix("Default is: ") {
            parameter.default = Some(value.to_owned());
        } else if let Some(value) = about.strip_prefix("Minimum is: ") {
            parameter.minimum = Some(value.to_owned());
        } else if let Some(value) = about.strip_prefix("Maximum is: ") {
            parameter.maximum = Some(value.to_owned());
        } else if about != "Not available" {
            about.clone_into(&mut parameter.description);
        }
    }
    for parameter in &mut parameters {
        parameter.description.truncate(parameter.description.trim_end().len());
    }
    Some(parameters)
}

/// `48k [bytes] (default)`.
fn read_value(parameter: &mut Parameter, words: &str) {
    let (words, is_default) = match words.strip_suffix("(default)") {
        Some(words) => (words.trim_end(), true),
        None => (words, false),
    };
    let unit = words.strip_suffix(']').and_then(|words| words.rsplit_once(" ["));
    let (value, unit) = match unit {
        Some((value, unit)) => (value, Some(unit.to_owned())),
        None => (words, None),
    };
    parameter.unit = unit;
    parameter.value = Some(value.to_owned());
    if is_default {
        parameter.default = Some(value.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{asked, reply, transcript};
    use super::*;

    fn read(name: &str, line: &str) -> Parameters {
        Parameters::read(&transcript(name), &asked(line)).unwrap()
    }

    #[test]
    fn reads_what_varnishd_sent() {
        let list = read("param-show-one-json", "param.show -j cli_limit");
        let limit = list.get("cli_limit").unwrap();
        assert_eq!((list.parameters.len(), list.complete), (1, true));
        assert_eq!((limit.value.as_deref(), limit.unit.as_deref()), (Some("49152"), Some("bytes")));
        assert_eq!(
            (limit.default.as_deref(), limit.minimum.as_deref()),
            (Some("48k"), Some("128b"))
        );
        let list = read("param-show-one", "param.show cli_limit");
        let same = list.get("cli_limit").unwrap();
        assert_eq!((same.value.as_deref(), same.unit.as_deref()), (Some("48k"), Some("bytes")));
        assert_eq!((&same.default, &same.minimum), (&limit.default, &limit.minimum));
        assert_eq!(same.maximum, limit.maximum);
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words(&same.description), words(&limit.description));
        let set = read("param-set-json", "param.set -j default_grace 12");
        assert_eq!(set.parameters[0].flags, ["obj_sticky"]);
        let none = read("param-show-none-json", "param.show -j changed");
        assert_eq!(none, Parameters { parameters: Vec::new(), complete: true });
        let changed = read("param-show-changed", "param.show changed");
        assert_eq!(
            changed.get("feature").unwrap().value.as_deref(),
            Some("+http2,+validate_headers")
        );
    }

    #[test]
    fn reads_the_short_form() {
        let list = read("param-show", "param.show");
        assert!(list.parameters.len() > 100);
        assert_eq!(list.get("accept_filter").unwrap().value, None);
        let switch = list.get("auto_restart").unwrap();
        assert_eq!((switch.value.as_deref(), switch.unit.as_deref()), (Some("on"), Some("bool")));
        assert_eq!(switch.default.as_deref(), Some("on"));
    }

    #[test]
    fn a_list_that_was_cut_is_never_whole() {
        let cut = read("truncated", "param.show");
        assert_eq!((cut.parameters.len(), cut.complete), (1, false));
        assert!(Parameters::read(&reply(200, "  x\n"), &asked("param.show")).is_err());
    }

    proptest! {
        #[test]
        fn no_input_panics(body in "([a-z_]{0,9} *(Value is: )?[a-z0-9\\[\\]() ]{0,20}\n?){0,9}") {
            let reply = Reply { status: crate::protocol::Status::OK, body: body.into() };
            let _ = Parameters::read(&reply, &asked("param.show"));
        }
    }
}
