//! What was found about pointers, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::super::Exit;
use super::super::output::Untrusted;
use crate::engine::{FindingKind, PointerSnapshot, PointerState};
use crate::model::PointerValue;

/// One pointer in the JSON document.
#[derive(Debug, Serialize)]
pub(super) struct PointerLine<'a> {
    pointer: &'a str,
    state: &'static str,
    value: Option<&'a str>,
    targets: Vec<TargetLine<'a>>,
    findings: Vec<&'a str>,
}

#[derive(Debug, Serialize)]
struct TargetLine<'a> {
    variant: &'a str,
    url: String,
}

impl<'a> PointerLine<'a> {
    pub(super) fn of(pointer: &'a PointerSnapshot) -> Self {
        let targets = pointer.targets.iter();
        Self {
            pointer: pointer.pointer.as_str(),
            state: pointer.state.label(),
            value: pointer.value.as_ref().map(PointerValue::as_str),
            targets: targets
                .map(|(variant, url)| TargetLine {
                    variant: variant.as_str(),
                    url: url.to_string(),
                })
                .collect(),
            findings: pointer.findings.iter().map(|finding| finding.text.as_str()).collect(),
        }
    }
}

/// A few lines on each pointer: where it leads, its state, and why it is not good.
pub(super) fn text(pointers: &[PointerSnapshot]) -> String {
    let mut text = String::new();
    for pointer in pointers {
        let name = &pointer.pointer;
        let state = pointer.state.label();
        // Writing to a string cannot fail.
        let _ = match &pointer.value {
            Some(value) => writeln!(text, "pointer {name} leads to {value}: {state}"),
            None => writeln!(text, "pointer {name}: {state}"),
        };
        for (variant, url) in &pointer.targets {
            let _ = writeln!(text, "  {variant}: {}", Untrusted(&url.to_string()));
        }
        for finding in &pointer.findings {
            let _ = writeln!(text, "  - {}", Untrusted(&finding.text));
        }
    }
    text
}

/// What a pointer comes to; with `wanted`, it has to name that value.
pub(in crate::commands) fn pointer_exit(
    pointer: &PointerSnapshot,
    wanted: Option<&PointerValue>,
) -> Exit {
    let names_it = wanted.is_none() || pointer.value.as_ref() == wanted;
    let value = if names_it { Exit::Done } else { Exit::Stale };
    let findings = pointer.findings.iter().map(|finding| match finding.kind {
        FindingKind::Split | FindingKind::Broken | FindingKind::Unusable => Exit::Stale,
        FindingKind::Open | FindingKind::Silent | FindingKind::Doubt | FindingKind::Unreadable => {
            Exit::Unreachable
        }
    });
    let state = match pointer.state {
        PointerState::Good => Exit::Done,
        // Of these there are findings.
        PointerState::Broken | PointerState::Split | PointerState::Lagging => Exit::Stale,
        PointerState::Unknown | PointerState::Unverifiable => Exit::Unreachable,
        PointerState::Unreadable => Exit::Stale,
    };
    Exit::of_nodes(findings.chain([value, state]))
}
