//! One log line for each change, with the priority that it deserves.

use std::error::Error;
use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use tracing::{debug, error, info, warn};

use crate::config::{LoadError, Report, Severity};
use crate::engine::{PointerNews, PointerState, TargetSnapshot};
use crate::model::{EndpointName, NodeName, VariantName, format_duration};
use crate::verdict::{Cause, Explanation, State, Transition};

/// What a line is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    endpoint: &'a EndpointName,
    variant: &'a VariantName,
    node: &'a NodeName,
}

impl<'a> Subject<'a> {
    pub(super) const fn new(
        endpoint: &'a EndpointName,
        variant: &'a VariantName,
        node: &'a NodeName,
    ) -> Self {
        Self { endpoint, variant, node }
    }
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.endpoint)?;
        if *self.variant != VariantName::default() {
            write!(f, " ({})", self.variant)?;
        }
        write!(f, " at {}", self.node)
    }
}

/// A state changed.
pub(super) fn changed(
    subject: &Subject<'_>,
    transition: &Transition,
    reason: Option<&str>,
    cause: Option<Cause>,
) {
    let (from, to) = (transition.from.label(), transition.to.label());
    let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    let cause = cause.map(Cause::label);
    let because = cause.map(|cause| format!(" (cause found so far: {cause})")).unwrap_or_default();
    let (staleness, after) = (seconds(transition.staleness), format_duration(transition.after));
    let text = match transition.to {
        State::Stale => format!(
            "{subject} is stale, for {} at least{because}{why}",
            format_duration(transition.staleness.unwrap_or_default())
        ),
        State::Fresh if transition.from == State::Stale => format!(
            "{subject} is fresh again; it had been stale for {} at least",
            format_duration(transition.staleness.unwrap_or_default())
        ),
        State::Fresh if transition.from != State::Unknown => {
            format!("{subject} is fresh again, having been {from} for {after}")
        }
        _ => format!("{subject} is {to}{why}"),
    };
    let Subject { endpoint, variant, node } = subject;
    let (endpoint, variant, node) = (endpoint.as_str(), variant.as_str(), node.as_str());
    match transition.to {
        State::Stale => error!(endpoint, variant, node, from, to, staleness, cause, "{text}"),
        State::CacheDown | State::OriginDown | State::Unverifiable => {
            warn!(endpoint, variant, node, from, to, "{text}");
        }
        State::Fresh if transition.from == State::Unknown => {
            debug!(endpoint, variant, node, from, to, "{text}");
        }
        State::Fresh | State::Lagging | State::Unknown => {
            info!(endpoint, variant, node, from, to, staleness, "{text}");
        }
    }
}

/// The cause of a state was found. No alarm of its own: that was raised with the state.
pub(super) fn explained(subject: &Subject<'_>, state: State, explanation: &Explanation) {
    let (cause, state) = (explanation.cause.label(), state.label());
    let findings = explanation.findings.join("; ");
    let Subject { endpoint, variant, node } = subject;
    let (endpoint, variant, node) = (endpoint.as_str(), variant.as_str(), node.as_str());
    warn!(endpoint, variant, node, cause, "{subject} is {state}, cause: {cause}: {findings}");
}

/// A state that was carried over from before a restart, where it is one to know of.
pub(super) fn carried_over(target: &TargetSnapshot) {
    if matches!(target.state, State::Stale | State::Lagging | State::CacheDown) {
        let (endpoint, node, state) = (&target.endpoint, &target.node, target.state.label());
        let staleness = target.staleness.map(format_duration);
        let staleness = staleness.map(|s| format!(", for {s} at least")).unwrap_or_default();
        warn!("{endpoint} at {node} was {state} before the restart{staleness}");
    }
}

/// An admin port was lost or is back.
pub(super) fn admin_changed(node: &NodeName, up: bool, problem: Option<&str>) {
    if up {
        info!(node = node.as_str(), "the admin port of {node} answers");
    } else {
        let (node, problem) = (node.as_str(), problem.unwrap_or("no answer"));
        let problem = without_name(node, problem);
        error!(node, "bans cannot reach {node}: {problem}");
    }
}

/// What the admin client says begins with the node's name.
fn without_name<'p>(node: &str, problem: &'p str) -> &'p str {
    problem.strip_prefix(node).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(problem)
}

/// A canary shows that bans work, or do not work any more.
pub(super) fn canary_changed(node: &NodeName, up: Option<bool>, problem: Option<&str>) {
    let name = node.as_str();
    let problem = problem.unwrap_or("not proven");
    match up {
        Some(true) => {
            info!(node = name, "the canary of {node} was banned and is gone: bans work there");
        }
        Some(false) => {
            let problem = without_name(name, problem);
            error!(node = name, "bans do not work at {node}, its canary shows: {problem}");
        }
        None => warn!(node = name, "whether bans work at {node} cannot be told: {problem}"),
    }
}

/// A pointer moved, or something about it changed.
pub(super) fn pointer(news: &PointerNews) {
    match news {
        PointerNews::Moved { pointer, from, to } => {
            let name = pointer.as_str();
            info!(pointer = name, "{pointer} moved from {from} to {to}");
        }
        PointerNews::Changed { pointer, from, to, after, reason } => {
            let after = format_duration(*after);
            let why = reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
            let (name, was, is) = (pointer.as_str(), from.label(), to.label());
            match to {
                to if to.is_alarm() => {
                    error!(
                        pointer = name,
                        from = was,
                        to = is,
                        "the pointer {pointer} is {is}{why}"
                    );
                }
                PointerState::Unverifiable => {
                    warn!(
                        pointer = name,
                        from = was,
                        to = is,
                        "the pointer {pointer} is {is}{why}"
                    );
                }
                PointerState::Good if *from != PointerState::Unknown => info!(
                    pointer = name,
                    from = was,
                    to = is,
                    "the pointer {pointer} is good again, having been {was} for {after}"
                ),
                _ => {
                    info!(
                        pointer = name,
                        from = was,
                        to = is,
                        "the pointer {pointer} is {is}{why}"
                    );
                }
            }
        }
    }
}

/// What was stale was banned once more.
pub(super) fn remedied(endpoint: &EndpointName, node: &NodeName, cured: bool, result: &str) {
    let text = format!("{endpoint} at {node} was stale and was banned once more: {result}");
    let (endpoint, node) = (endpoint.as_str(), node.as_str());
    if cured {
        info!(endpoint, node, "{text}");
    } else {
        warn!(endpoint, node, "{text}");
    }
}

fn seconds(duration: Option<Duration>) -> Option<f64> {
    duration.map(|duration| duration.as_secs_f64())
}

/// A configuration that was not taken over, each fault on a line of its own.
pub(super) fn not_loaded(fault: &LoadError) {
    match fault {
        LoadError::Faulty(report) => self::report(report),
        other => error!("{}", chain(other)),
    }
}

/// What was found in a configuration, a line for each.
pub(super) fn report(report: &Report) {
    for (severity, line) in report.one_line_each() {
        match severity {
            Severity::Error => error!("{line}"),
            Severity::Warning => warn!("{line}"),
        }
    }
}

/// An error with everything that it came from.
pub(super) fn chain(fault: &dyn Error) -> String {
    let mut text = fault.to_string();
    let mut source = fault.source();
    while let Some(cause) = source {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
