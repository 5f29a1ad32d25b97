//! Who is to confirm an event, and what each of them said.
//!
//! Confirmations come from whoever can write to the stream of replies: what they say is bounded
//! before it is kept, and taken for no more than what somebody of that name says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::Exit;
use crate::event::{Confirmation, ConfirmedResult};
use crate::ingest::Follower;
use crate::model::{NodeName, Timestamp};

/// So many nodes are taken on that nobody had known of.
const MOST_OTHERS: usize = 1_000;

/// A node as a host sees it. Two hosts may have nodes of one name, and each has to confirm its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// What the host is called at the stream; none as long as no host is known to have the node.
    /// Text from outside.
    pub(super) host: Option<String>,
    /// None: the host as a whole, of which no node is known.
    pub(super) node: Option<NodeName>,
}

/// What a host said of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) result: ConfirmedResult,
    /// Text from outside.
    pub(super) detail: Option<String>,
    /// When, by the host's wall clock.
    pub(super) at: Option<Timestamp>,
    /// How long after the event was published this was read.
    pub(super) after: Duration,
}

/// Those who are to confirm.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    /// The nodes that are waited for; none: all.
    scope: Option<BTreeSet<NodeName>>,
    /// Whether a node is done only when it is proven.
    proof: bool,
    entries: BTreeMap<Key, Option<Answer>>,
    most: usize,
}

impl Awaited {
    /// The nodes of these followers, or those in `scope` alone. A node of `scope` that no follower
    /// has is waited for as well, whoever confirms it.
    pub(super) fn new(
        followers: &[Follower],
        scope: Option<BTreeSet<NodeName>>,
        proof: bool,
    ) -> Self {
        let is_meant = |node: &&NodeName| scope.as_ref().is_none_or(|scope| scope.contains(*node));
        let mut entries = BTreeMap::new();
        let mut known = BTreeSet::new();
        for follower in followers {
            for node in follower.nodes.iter().filter(is_meant) {
                known.insert(node);
                let host = Some(follower.name.clone());
                entries.insert(Key { host, node: Some(node.clone()) }, None);
            }
        }
        for node in scope.iter().flatten().filter(|node| !known.contains(node)) {
            entries.insert(Key { host: None, node: Some(node.clone()) }, None);
        }
        let most = entries.len() + MOST_OTHERS;
        Self { scope, proof, entries, most }
    }

    /// Takes down what a host says. Of several times the last one counts, but something that this
    /// version does not know takes no success back.
    ///
    /// Nodes of which nobody had known join in: a host that answers follows the stream.
    pub(super) fn hear(&mut self, confirmation: Confirmation, after: Duration) {
        let host = confirmation.host.as_str();
        if confirmation.nodes.is_empty() {
            // Without a word of why, it is a host that the event does not concern.
            if let Some(detail) = confirmation.detail {
                let result = ConfirmedResult::Refused;
                self.refused(host, Answer { result, detail: Some(detail), at: None, after });
            }
            return;
        }
        self.entries.remove(&Key { host: Some(host.to_owned()), node: None });
        for (node, said) in confirmation.nodes {
            if self.scope.as_ref().is_some_and(|scope| !scope.contains(&node)) {
                continue;
            }
            self.entries.remove(&Key { host: None, node: Some(node.clone()) });
            let key = Key { host: Some(host.to_owned()), node: Some(node) };
            let detail = said.detail.or_else(|| confirmation.detail.clone());
            self.note(key, Answer { result: said.result, detail, at: Some(said.at), after });
        }
    }

    /// A host did nothing at all.
    fn refused(&mut self, host: &str, answer: Answer) {
        let is_its = |key: &&Key| key.host.as_deref() == Some(host);
        let keys: Vec<Key> = self.entries.keys().filter(is_its).cloned().collect();
        if keys.is_empty() && self.scope.is_none() {
            self.note(Key { host: Some(host.to_owned()), node: None }, answer);
            return;
        }
        for key in keys {
            self.note(key, answer.clone());
        }
    }

    fn note(&mut self, key: Key, answer: Answer) {
        if self.entries.len() >= self.most && !self.entries.contains_key(&key) {
            return;
        }
        let slot = self.entries.entry(key).or_default();
        let is_success = |answer: &Answer| answer.result.is_success();
        if answer.result == ConfirmedResult::Unknown && slot.as_ref().is_some_and(is_success) {
            return;
        }
        *slot = Some(answer);
    }

    /// The nodes that no host is known to have.
    pub(super) fn unknown(&self) -> impl Iterator<Item = &NodeName> {
        let without_host = self.entries.keys().filter(|key| key.host.is_none());
        without_host.filter_map(|key| key.node.as_ref())
    }

    /// Whether there is nobody to wait for.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether everybody has said what came of it in the end.
    pub(super) fn is_settled(&self) -> bool {
        self.entries.values().all(|answer| self.is_final(answer.as_ref()))
    }

    /// Whether nothing more is waited for from there.
    pub(super) fn is_done(&self, key: &Key) -> bool {
        self.entries.get(key).is_none_or(|answer| self.is_final(answer.as_ref()))
    }

    fn is_final(&self, answer: Option<&Answer>) -> bool {
        match answer.map(|answer| answer.result) {
            None | Some(ConfirmedResult::Unknown) => false,
            Some(ConfirmedResult::Taken) => !self.proof,
            Some(_) => true,
        }
    }

    /// Who is waited for and what they said, by host and node.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&Key, Option<&Answer>)> {
        self.entries.iter().map(|(key, answer)| (key, answer.as_ref()))
    }

    /// How it went at one of them.
    pub(super) fn exit(&self, answer: Option<&Answer>) -> Exit {
        use ConfirmedResult as Result;
        match answer.map(|answer| answer.result) {
            Some(Result::Taken) if self.proof => Exit::Unreachable,
            Some(Result::Taken | Result::Proven | Result::Replaced) => Exit::Done,
            Some(Result::Survived) => Exit::Stale,
            Some(Result::Rejected | Result::Refused | Result::SetAside) => Exit::Rejected,
            None | Some(Result::Unprovable | Result::Unknown) => Exit::Unreachable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        NodeName::new(name).unwrap()
    }

    fn follower(name: &str, nodes: &[&str]) -> Follower {
        Follower {
            name: name.to_owned(),
            nodes: nodes.iter().map(|name| node(name)).collect(),
            seen: Timestamp::from_millis(1),
            version: String::new(),
        }
    }

    fn scope(nodes: &[&str]) -> Option<BTreeSet<NodeName>> {
        Some(nodes.iter().map(|name| node(name)).collect())
    }

    fn said(host: &str, nodes: &[(&str, &str)], detail: Option<&str>) -> Confirmation {
        let nodes: serde_json::Map<String, serde_json::Value> = nodes
            .iter()
            .map(|(name, result)| {
                ((*name).to_owned(), serde_json::json!({"result": result, "at": 1.0}))
            })
            .collect();
        let json = serde_json::json!({
            "schema": 1, "event": "1-1", "host": host, "nodes": nodes, "detail": detail
        });
        Confirmation::from_json(json.to_string().as_bytes()).unwrap()
    }

    impl Awaited {
        fn say(&mut self, host: &str, nodes: &[(&str, &str)], detail: Option<&str>) {
            self.hear(said(host, nodes, detail), Duration::from_secs(1));
        }

        fn shown(&self) -> Vec<String> {
            let line = |(key, answer): (&Key, Option<&Answer>)| {
                let host = key.host.as_deref().unwrap_or("-");
                let node = key.node.as_ref().map_or("-", NodeName::as_str);
                let result = answer.map_or("silent", |answer| answer.result.label());
                format!("{host} {node} {result} {}", self.exit(answer).code())
            };
            self.entries().map(line).collect()
        }
    }

    #[test]
    fn each_host_confirms_its_own_node_of_a_name() {
        let hosts = [follower("a", &["local"]), follower("b", &["local"])];
        let mut awaited = Awaited::new(&hosts, None, false);
        awaited.say("a", &[("local", "taken")], None);
        assert!(!awaited.is_settled());
        assert_eq!(awaited.shown(), ["a local taken 0", "b local silent 3"]);
        awaited.say("b", &[("local", "rejected")], None);
        assert!(awaited.is_settled());
        assert_eq!(awaited.shown(), ["a local taken 0", "b local rejected 5"]);
    }

    #[test]
    fn the_last_word_counts_and_an_unknown_one_takes_no_success_back() {
        let mut awaited = Awaited::new(&[follower("a", &["n"])], None, false);
        for (result, expected) in [
            ("later-word", "a n unknown 3"),
            ("taken", "a n taken 0"),
            ("later-word", "a n taken 0"),
            ("survived", "a n survived 1"),
            ("unprovable", "a n unprovable 3"),
            ("later-word", "a n unknown 3"),
            ("set_aside", "a n set_aside 5"),
            ("replaced", "a n replaced 0"),
        ] {
            awaited.say("a", &[("n", result)], None);
            assert_eq!(awaited.shown(), [expected]);
            assert_eq!(awaited.is_settled(), !expected.contains("unknown"));
        }
    }

    #[test]
    fn where_proof_is_asked_for_taken_is_not_the_end() {
        let mut awaited = Awaited::new(&[follower("a", &["n"])], None, true);
        awaited.say("a", &[("n", "taken")], None);
        assert!(!awaited.is_settled());
        assert_eq!(awaited.shown(), ["a n taken 3"]);
        awaited.say("a", &[("n", "proven")], None);
        assert!(awaited.is_settled());
        assert_eq!(awaited.shown(), ["a n proven 0"]);
    }

    #[test]
    fn a_node_that_nobody_is_known_to_have_is_waited_for() {
        let mut awaited = Awaited::new(&[follower("a", &["n", "m"])], scope(&["n", "x"]), false);
        assert_eq!(awaited.shown(), ["- x silent 3", "a n silent 3"]);
        awaited.say("c", &[("x", "taken"), ("m", "rejected")], None);
        awaited.say("a", &[("n", "taken"), ("m", "rejected")], None);
        assert_eq!(awaited.shown(), ["a n taken 0", "c x taken 0"]);
        assert!(awaited.is_settled());
    }

    #[test]
    fn a_host_that_refuses_does_so_for_all_its_nodes() {
        let mut awaited = Awaited::new(&[follower("a", &["n", "m"])], None, false);
        awaited.say("a", &[], None);
        assert_eq!(awaited.shown(), ["a m silent 3", "a n silent 3"]);
        awaited.say("a", &[], Some("no such endpoint"));
        awaited.say("b", &[], Some("no node has an admin port"));
        assert_eq!(awaited.shown(), ["a m refused 5", "a n refused 5", "b - refused 5"]);
        awaited.say("b", &[("o", "taken")], None);
        assert_eq!(awaited.shown(), ["a m refused 5", "a n refused 5", "b o taken 0"]);
        // It is not concerned where others are named.
        let mut awaited = Awaited::new(&[follower("a", &["n"])], scope(&["n"]), false);
        awaited.say("b", &[], Some("no node has an admin port"));
        assert_eq!(awaited.shown(), ["a n silent 3"]);
    }

    #[test]
    fn a_flood_of_names_is_bounded() {
        let mut awaited = Awaited::new(&[follower("a", &["n"])], None, false);
        for number in 0..2_000 {
            awaited.say(&format!("host-{number}"), &[("x", "taken")], None);
        }
        assert_eq!(awaited.entries().count(), 1 + MOST_OTHERS);
        awaited.say("a", &[("n", "taken")], None);
        assert!(awaited.is_settled());
    }
}
