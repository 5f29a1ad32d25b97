//! One round of one watch: the origin, all nodes, and the origin again where a node differs.

use crate::model::Version;
use crate::verdict::{Comparison, Doubt, Sandwich, Sight, compare};

/// How many sandwiches one round opens before the origin counts as disagreeing with itself.
const ATTEMPTS: u8 = 2;

/// A round that is under way.
#[derive(Debug)]
pub(super) struct Round {
    stage: Stage,
    before: Sight,
    /// The places that are compared in this sandwich, with what their nodes showed, and whether
    /// that is known to be old.
    compared: Vec<(usize, Option<(Sight, bool)>)>,
    done: Vec<(usize, Comparison)>,
    attempt: u8,
    /// The version that every answer of the origin in this round had, so far.
    agreed: Agreement,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Before,
    Nodes,
    After,
}

#[derive(Debug)]
enum Agreement {
    Nothing,
    On(Version),
    Broken,
}

/// What the round needs next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Answers that are under way.
    Wait,
    /// The first answer of the origin.
    AskOrigin,
    /// An answer of the origin that is sure to be of now.
    ConfirmOrigin,
    /// The answers of the nodes at these places.
    AskNodes(Vec<usize>),
    /// Nothing: it is over.
    Finished(Finding),
}

/// What a round found out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// For each place.
    pub(super) comparisons: Vec<(usize, Comparison)>,
    /// Whether the origin answered, and always the same.
    pub(super) origin_agreed: bool,
}

impl Round {
    /// A round over `places` nodes, and its first step.
    pub(super) fn begin(places: usize) -> (Self, Step) {
        let round = Self {
            stage: Stage::Before,
            before: Sight::Failed(crate::verdict::Fault::Paused),
            compared: (0..places).map(|place| (place, None)).collect(),
            done: Vec::with_capacity(places),
            attempt: 1,
            agreed: Agreement::Nothing,
        };
        (round, Step::AskOrigin)
    }

    /// Whether the round waits for the origin to confirm.
    pub(super) fn is_confirming(&self) -> bool {
        self.stage == Stage::After
    }

    /// The origin showed this.
    pub(super) fn origin(&mut self, sight: Sight) -> Step {
        self.agreed = match (std::mem::replace(&mut self.agreed, Agreement::Broken), &sight) {
            (Agreement::Nothing, Sight::Version(version)) => Agreement::On(version.clone()),
            (Agreement::On(so_far), Sight::Version(version)) if so_far == *version => {
                Agreement::On(so_far)
            }
            _ => Agreement::Broken,
        };
        match self.stage {
            Stage::Before => {
                self.before = sight;
                self.stage = Stage::Nodes;
                if self.compared.is_empty() {
                    return self.finish();
                }
                Step::AskNodes(self.compared.iter().map(|(place, _)| *place).collect())
            }
            Stage::After => self.close(&sight),
            Stage::Nodes => Step::Wait,
        }
    }

    /// The node at `place` showed this; `is_old` as in [`compare`].
    pub(super) fn node(&mut self, place: usize, sight: Sight, is_old: bool) -> Step {
        for (at, seen) in &mut self.compared {
            if *at == place {
                *seen = Some((sight, is_old));
                break;
            }
        }
        if self.stage != Stage::Nodes || self.compared.iter().any(|(_, seen)| seen.is_none()) {
            return Step::Wait;
        }
        let compared = std::mem::take(&mut self.compared);
        for (place, seen) in compared {
            let Some((seen, is_old)) = seen else { continue };
            match compare(&self.before, &seen, None, is_old) {
                Sandwich::Done(comparison) => self.done.push((place, comparison)),
                Sandwich::Confirm | Sandwich::Unsettled => {
                    self.compared.push((place, Some((seen, is_old))));
                }
            }
        }
        if self.compared.is_empty() {
            return self.finish();
        }
        self.stage = Stage::After;
        Step::ConfirmOrigin
    }

    /// The origin answered once more: the sandwich is complete.
    fn close(&mut self, after: &Sight) -> Step {
        let compared = std::mem::take(&mut self.compared);
        let mut again = Vec::new();
        for (place, seen) in compared {
            let Some((seen, is_old)) = seen else { continue };
            let comparison = match compare(&self.before, &seen, Some(after), is_old) {
                Sandwich::Done(comparison) => comparison,
                Sandwich::Confirm | Sandwich::Unsettled if self.attempt < ATTEMPTS => {
                    again.push(place);
                    continue;
                }
                Sandwich::Confirm | Sandwich::Unsettled => {
                    Comparison::Unverifiable(Doubt::OriginDisagrees)
                }
            };
            self.done.push((place, comparison));
        }
        if again.is_empty() {
            return self.finish();
        }
        self.attempt += 1;
        self.before = after.clone();
        self.compared = again.iter().map(|place| (*place, None)).collect();
        self.stage = Stage::Nodes;
        Step::AskNodes(again)
    }

    fn finish(&mut self) -> Step {
        Step::Finished(Finding {
            comparisons: std::mem::take(&mut self.done),
            origin_agreed: matches!(self.agreed, Agreement::On(_)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mark;
    use crate::verdict::Fault;

    fn tag(tag: &str) -> Sight {
        Sight::Version(version(tag))
    }

    fn version(tag: &str) -> Version {
        Version { status: 200, mark: Mark::Etag(tag.into()) }
    }

    fn finished(comparisons: Vec<(usize, Comparison)>, origin_agreed: bool) -> Step {
        Step::Finished(Finding { comparisons, origin_agreed })
    }

    #[test]
    fn nodes_that_agree_cost_one_question_to_the_origin() {
        let (mut round, step) = Round::begin(2);
        assert_eq!(step, Step::AskOrigin);
        assert_eq!(round.origin(tag("a")), Step::AskNodes(vec![0, 1]));
        assert_eq!(round.node(1, tag("a"), false), Step::Wait);
        let same = vec![(0, Comparison::Same), (1, Comparison::Same)];
        assert_eq!(round.node(0, tag("a"), false), finished(same, true));
    }

    #[test]
    fn only_the_node_that_differs_waits_for_the_confirmation() {
        let (mut round, _) = Round::begin(2);
        round.origin(tag("b"));
        round.node(0, tag("b"), false);
        assert_eq!(round.node(1, tag("a"), false), Step::ConfirmOrigin);
        assert!(round.is_confirming());
        let differs = Comparison::Differs { node: version("a") };
        let found = vec![(0, Comparison::Same), (1, differs)];
        assert_eq!(round.origin(tag("b")), finished(found, true));
    }

    #[test]
    fn an_origin_that_changed_in_between_gets_another_sandwich() {
        let (mut round, _) = Round::begin(1);
        round.origin(tag("a"));
        assert_eq!(round.node(0, tag("old"), false), Step::ConfirmOrigin);
        assert_eq!(round.origin(tag("b")), Step::AskNodes(vec![0]));
        assert_eq!(round.node(0, tag("b"), false), finished(vec![(0, Comparison::Same)], false));
    }

    #[test]
    fn an_origin_that_never_agrees_with_itself_is_unverifiable() {
        let (mut round, _) = Round::begin(1);
        round.origin(tag("1"));
        round.node(0, tag("old"), false);
        round.origin(tag("2"));
        assert_eq!(round.node(0, tag("old"), false), Step::ConfirmOrigin);
        let doubt = Comparison::Unverifiable(Doubt::OriginDisagrees);
        assert_eq!(round.origin(tag("3")), finished(vec![(0, doubt)], false));
    }

    #[test]
    fn nodes_are_asked_while_the_origin_is_down() {
        let fault = Fault::Status(500);
        let (mut round, _) = Round::begin(1);
        assert_eq!(round.origin(Sight::Failed(fault)), Step::AskNodes(vec![0]));
        let failed = Comparison::OriginFailed { fault, node: Some(version("a")) };
        assert_eq!(round.node(0, tag("a"), false), finished(vec![(0, failed)], false));
    }
}
