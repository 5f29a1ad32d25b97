//! What a daemon that watches the same endpoints knows of old content: when the origin changed, and
//! what its ledger has. A command that looks once has seen neither.

use std::time::Duration;

use super::super::output::Untrusted;
use super::super::status::{document, reachable};
use super::super::subject::Subject;
use crate::clock::Clock;
use crate::engine::Case;
use crate::expose::status::{Document, Target};
use crate::model::{HttpUrl, Timestamp};
use crate::verdict::cause::OriginChange;
use crate::verdict::{Cause, Explanation};

/// A daemon answers at once, or is no help.
const LIMIT: Duration = Duration::from_secs(1);

/// What the daemon said, if there is one.
#[derive(Debug)]
pub(super) struct Watched {
    document: Option<Document>,
    /// From when it was asked to when it had answered.
    asked: Timestamp,
    answered: Timestamp,
}

impl Watched {
    /// Asks the daemon of the same configuration. Where none answers, nothing is known.
    pub(super) async fn ask(subject: &Subject, clock: Clock) -> Self {
        let asked = clock.now();
        let url = format!("http://{}", reachable(subject.config.daemon.listen)).parse::<HttpUrl>();
        let document = match url {
            Ok(url) if subject.named => document(&url, LIMIT).await.ok(),
            _ => None,
        };
        Self { document, asked, answered: clock.now() }
    }

    /// Adds to what is known of a case when the origin changed.
    pub(super) fn add_to(&self, case: &mut Case) {
        let Some((document, target)) = self.target(case) else { return };
        let ago = |at: f64| Duration::try_from_secs_f64(document.taken - at).unwrap_or_default();
        // The document is from between the question and the answer.
        let change = OriginChange {
            after: target.origin_changed_after.map(|at| self.asked.earlier_by(ago(at))),
            before: target.origin_changed_before.map(|at| self.answered.earlier_by(ago(at))),
        };
        if change.after.is_some() {
            case.change = change;
        }
    }

    /// What is to be said of a case: where its evidence does not tell the cause, what the daemon
    /// found.
    pub(super) fn instead_of(&self, own: Explanation, case: &Case) -> Explanation {
        let found = self.target(case).and_then(|(_, target)| {
            let cause = Cause::from_label(target.cause.as_deref()?)?;
            (cause != Cause::Undetermined).then_some((cause, target))
        });
        match found {
            Some((cause, target)) if own.cause == Cause::Undetermined => {
                let mut findings = vec!["found by the daemon that watches it".to_owned()];
                findings
                    .extend(target.findings.iter().map(|finding| Untrusted(finding).to_string()));
                Explanation { cause, findings }
            }
            _ => own,
        }
    }

    /// What the daemon knows of the same old version.
    fn target(&self, case: &Case) -> Option<(&Document, &Target<'static>)> {
        let document = self.document.as_ref()?;
        let served = case.served.to_string();
        let target = document.targets.iter().find(|target| {
            target.endpoint == case.endpoint.as_str()
                && target.variant == case.variant.as_str()
                && target.node == case.node.as_str()
        })?;
        (target.node_version.as_deref() == Some(&served)).then_some((document, target))
    }
}
