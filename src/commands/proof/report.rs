//! What is said of proofs: for people on two streams, for programs as part of a document.

use std::fmt::Write as _;

use serde::Serialize;

use super::super::Exit;
use super::super::output::Untrusted;
use super::plan::Plan;
use super::witness::Attested;
use crate::model::NodeName;
use crate::verdict::Sight;
use crate::verdict::proof::{
    Basis, Before, Maker, Obstacle, Proof, Sameness, Serving, Survival, Uncompared,
};

/// One proof as a program reads it.
#[derive(Debug, Serialize)]
pub(in super::super) struct Item {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    /// `proven`, `replaced`, `survived` or `unprovable`.
    proof: &'static str,
    /// Why, a name of a closed set; `null` for what is proven.
    reason: Option<&'static str>,
    message: String,
    /// What shows that the object is the one from before, or another one: `x-varnish` or `age`.
    basis: Option<&'static str>,
    /// How often was invalidated.
    rounds: u32,
    /// From the invalidation to the proof.
    seconds: f64,
    before: Option<Seen>,
    after: Option<Seen>,
    /// The version that the origin served.
    origin: Option<String>,
    /// Request headers that the answer varies on and that were not sent.
    other_variants: Vec<String>,
}

/// What a node served, as a program reads it.
#[derive(Debug, Serialize)]
struct Seen {
    status: Option<u16>,
    /// The ids of `X-Varnish`: of the request, and of the fetch that made the object.
    request: Option<u64>,
    object: Option<u64>,
    age: Option<u64>,
    version: Option<String>,
}

/// The exit status that this proof alone would give.
pub(in super::super) fn exit(proof: &Proof) -> Exit {
    match proof {
        Proof::Proven
        | Proof::Replaced { why: Uncompared::NoOrigin, .. }
        // There is nothing that could be old.
        | Proof::Unprovable(Obstacle::NotCached { .. }) => Exit::Done,
        Proof::Survived(_) => Exit::Stale,
        Proof::Unprovable(Obstacle::Restarted) => Exit::CacheDown,
        Proof::Replaced { .. } | Proof::Unprovable(_) => Exit::Unreachable,
    }
}

/// What people read on stdout: whatever counts as done.
pub(in super::super) fn line(plan: &Plan, node: &NodeName, attested: &Attested) -> Option<String> {
    let good = matches!(attested.proof, Proof::Proven | Proof::Replaced { .. });
    let good = good && exit(&attested.proof) == Exit::Done;
    good.then(|| format!("{}\n", text(plan, node, attested)))
}

/// Tells `fail` what people read on stderr and fails the command, and `warn` what does not.
pub(in super::super) fn show(
    plan: &Plan,
    node: &NodeName,
    attested: &[Attested],
    fail: impl Fn(&str),
    warn: impl Fn(&str),
) {
    for attested in attested {
        let text = text(plan, node, attested);
        match (exit(&attested.proof), line(plan, node, attested)) {
            (_, Some(_)) => {}
            (Exit::Done, None) => warn(&text),
            (_, None) => fail(&text),
        }
        for gap in gaps(attested) {
            warn(&format!("{node}: {}: {gap}", title(plan, attested)));
        }
    }
}

/// The proofs as a program reads them.
pub(in super::super) fn items(plan: &Plan, attested: &[Attested]) -> Vec<Item> {
    attested.iter().map(|attested| item(plan, attested)).collect()
}

fn item(plan: &Plan, attested: &Attested) -> Item {
    let watch = plan.watches.get(attested.watch);
    let endpoint = watch.and_then(|watch| watch.endpoint.as_ref());
    let proof = &attested.proof;
    let basis = match proof {
        Proof::Replaced { basis, .. } | Proof::Survived(Survival::SameObject { basis }) => {
            Some(*basis)
        }
        Proof::Proven => basis_of(attested),
        Proof::Survived(_) | Proof::Unprovable(_) => None,
    }
    .map(Basis::label);
    let message = match weaker(attested) {
        Some(weaker) => format!("{proof}{weaker}"),
        None => proof.to_string(),
    };
    Item {
        url: watch.map(|watch| watch.target.url.to_string()).unwrap_or_default(),
        endpoint: endpoint.map(|(endpoint, _)| endpoint.to_string()),
        variant: endpoint.map(|(_, variant)| variant.to_string()),
        proof: proof.label(),
        reason: proof.reason(),
        message,
        basis,
        rounds: attested.rounds,
        seconds: attested.took.as_secs_f64(),
        before: attested.before.as_ref().map(seen),
        after: attested.after.as_ref().map(seen),
        origin: attested.origin.as_ref().and_then(version),
        other_variants: attested.varies_on.clone(),
    }
}

/// What shows that the object is another one than before, if something does.
fn basis_of(attested: &Attested) -> Option<Basis> {
    let (before, after) = (attested.before.clone()?, attested.after.as_ref()?);
    match Before::of(before).sameness(after) {
        Sameness::Other(basis) => Some(basis),
        Sameness::Same(_) | Sameness::NeverCached | Sameness::Unclear => None,
    }
}

/// What is to be said of content that is right where little else is known.
fn weaker(attested: &Attested) -> Option<&'static str> {
    let hidden = attested.after.as_ref().is_some_and(|after| after.maker() == Maker::Hidden);
    if attested.proof != Proof::Proven || !hidden {
        return None;
    }
    Some(match basis_of(attested) {
        Some(_) => {
            ", and by another object, judged by Age and Date, since the VCL removes X-Varnish"
        }
        None => {
            "; whether by another object than before is not known, since the VCL removes X-Varnish"
        }
    })
}

fn seen(serving: &Serving) -> Seen {
    Seen {
        status: serving.status,
        request: serving.transaction.map(|(request, _)| request),
        object: serving.transaction.and_then(|(_, object)| object),
        age: serving.age,
        version: version(&serving.sight),
    }
}

fn version(sight: &Sight) -> Option<String> {
    match sight {
        Sight::Version(version) => Some(version.to_string()),
        Sight::Unversioned(_) | Sight::Failed(_) => None,
    }
}

fn title(plan: &Plan, attested: &Attested) -> String {
    plan.watches.get(attested.watch).map(super::Watch::title).unwrap_or_default()
}

/// `cache-01: proven: http://...: the node serves what the origin serves (200 7)`
fn text(plan: &Plan, node: &NodeName, attested: &Attested) -> String {
    let (title, proof) = (title(plan, attested), &attested.proof);
    let mut text = format!("{node}: {}: {title}: {proof}", proof.label());
    let short = |sight: &Sight| match sight {
        Sight::Version(version) => Some(version.short()),
        Sight::Unversioned(_) | Sight::Failed(_) => None,
    };
    let after = attested.after.as_ref().and_then(|after| short(&after.sight));
    let origin = attested.origin.as_ref().and_then(short);
    // Writing to a string cannot fail.
    let _ = match (proof, after, origin) {
        (Proof::Proven, Some(after), _) => {
            let weaker = weaker(attested).unwrap_or_default();
            write!(text, "{weaker} ({})", Untrusted(&after))
        }
        (Proof::Survived(_), Some(after), Some(origin)) if after == origin => {
            write!(text, " (its content is what the origin serves all the same)")
        }
        (Proof::Survived(_), Some(after), Some(origin)) => {
            let (after, origin) = (Untrusted(&after), Untrusted(&origin));
            write!(text, " (the node serves {after}, the origin {origin})")
        }
        (Proof::Survived(Survival::SameObject { basis: Basis::Ids }), _, _) => {
            match attested.after.as_ref().and_then(|after| after.transaction) {
                Some((_, Some(object))) => write!(text, " (X-Varnish names {object} as before)"),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    };
    if attested.rounds > 1 {
        let _ = write!(text, " (invalidated {} times)", attested.rounds);
    }
    text
}

/// What was not looked at.
fn gaps(attested: &Attested) -> Vec<String> {
    let mut gaps = Vec::new();
    if !attested.varies_on.is_empty() {
        let names = attested.varies_on.join(", ");
        gaps.push(format!(
            "one variant was looked at: the answer varies on {} (--fetch-header asks for another)",
            Untrusted(&names)
        ));
    }
    if attested.has_includes {
        gaps.push(
            "the page is made with ESI: what it includes are objects of their own, which were \
             not looked at"
                .to_owned(),
        );
    }
    gaps
}
