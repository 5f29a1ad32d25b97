//! What can be said about a pointer.

use std::time::Duration;

use crate::model::{
    EndpointName, HttpUrl, NodeName, PointerValue, Timestamp, VariantName, Version,
};

/// The state of a pointer and of all that it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PointerState {
    /// Nothing learned yet.
    Unknown,
    /// It names the same value through every node, and each URL that it leads to answers, and
    /// equals the origin, through every node.
    Good,
    /// Not so, for less than `max_stale`: a change is on its way.
    Lagging,
    /// A URL that it leads to does not answer with a 2xx status at the origin or at a node, for
    /// `max_stale` or longer.
    Broken,
    /// The pointer, or a URL that it leads to, is not the same at all nodes, for `max_stale` or
    /// longer.
    Split,
    /// What the origin serves cannot be told, of the pointer or of a URL that it leads to, or
    /// nobody answers.
    Unverifiable,
    /// The pointer itself cannot be read, or its value cannot be used, for `max_stale` or longer.
    Unreadable,
}

impl PointerState {
    /// Every state, in the order of the enumeration.
    pub const ALL: [Self; 7] = [
        Self::Unknown,
        Self::Good,
        Self::Lagging,
        Self::Broken,
        Self::Split,
        Self::Unverifiable,
        Self::Unreadable,
    ];

    /// The `state` label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Good => "good",
            Self::Lagging => "lagging",
            Self::Broken => "broken",
            Self::Split => "split",
            Self::Unverifiable => "unverifiable",
            Self::Unreadable => "unreadable",
        }
    }

    /// Whether this is an alarm.
    #[must_use]
    pub const fn is_alarm(self) -> bool {
        matches!(self, Self::Broken | Self::Split | Self::Unreadable)
    }
}

/// What a [`PointerFinding`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FindingKind {
    /// Nothing learned yet.
    Open,
    /// A server does not answer at all: nothing is known of what it serves.
    Silent,
    /// What the origin serves cannot be told.
    Doubt,
    /// A node differs.
    Split,
    /// A URL does not answer acceptably.
    Broken,
    /// The pointer's value cannot be used.
    Unusable,
    /// The pointer does not answer, or not acceptably.
    Unreadable,
}

/// One thing that keeps a pointer from being good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointerFinding {
    /// What it is about.
    pub kind: FindingKind,
    /// One line for people. It holds text from outside.
    pub text: String,
}

/// What is known of a pointer.
#[derive(Debug, Clone)]
pub struct PointerSnapshot {
    /// Its name.
    pub pointer: EndpointName,
    /// The state.
    pub state: PointerState,
    /// Since when.
    pub since: Timestamp,
    /// What it names: the last value that could be read from its origin.
    pub value: Option<PointerValue>,
    /// When it was seen to move to another value, or first seen.
    pub last_change: Option<Timestamp>,
    /// The value before this one, while its URLs are still watched.
    pub previous: Option<PointerValue>,
    /// How long all may be out of step.
    pub max_stale: Duration,
    /// What the nodes that serve the pointer itself answered last.
    pub nodes: Vec<(NodeName, Option<Version>)>,
    /// What it leads to, with the variant that each appears as.
    pub targets: Vec<(VariantName, HttpUrl)>,
    /// What keeps it from being good, the worst first.
    pub findings: Vec<PointerFinding>,
}

/// Something about a pointer to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PointerNews {
    /// It names another value now.
    Moved {
        /// The pointer.
        pointer: EndpointName,
        /// The value before.
        from: PointerValue,
        /// The value now.
        to: PointerValue,
    },
    /// Its state changed.
    Changed {
        /// The pointer.
        pointer: EndpointName,
        /// The state before.
        from: PointerState,
        /// The state now.
        to: PointerState,
        /// How long the state before had lasted.
        after: Duration,
        /// Why, where there is something to say.
        reason: Option<String>,
    },
}
