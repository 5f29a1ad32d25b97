//! What can be seen of a pattern without an automaton: enough for most patterns.

use super::automaton::byte_set;
use super::syntax::{Node, Repeat};

/// What can be seen of a pattern without an automaton.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Repetitions of more than a byte: they may hold others, or alternatives.
    pub(super) nested: bool,
    /// The most loops on one way through.
    pub(super) loops: usize,
    /// Optional pieces and short repetitions on one way through.
    pub(super) choices: usize,
    /// The fewest bytes between two loops.
    pub(super) gap: usize,
    /// The fewest bytes in front of the first loop, or in all where there is none.
    before: usize,
    /// The fewest bytes behind the last loop, or in all where there is none.
    behind: usize,
}

impl Shape {
    /// Takes `bytes` bytes and nothing else.
    const fn of_bytes(bytes: usize) -> Self {
        let gap = usize::MAX;
        Self { nested: false, loops: 0, choices: 0, gap, before: bytes, behind: bytes }
    }

    pub(super) fn of(node: &Node) -> Self {
        match node {
            Node::Empty | Node::Start | Node::End | Node::Assertion => Self::of_bytes(0),
            Node::Set(_) => Self::of_bytes(1),
            Node::Literal(text) => Self::of_bytes(text.len()),
            Node::Concat(nodes) => nodes.iter().map(Self::of).fold(Self::of_bytes(0), Self::then),
            Node::Alternate(nodes) => {
                let either = nodes.iter().map(Self::of).reduce(Self::or);
                let either = either.unwrap_or(Self::of_bytes(0));
                Self { choices: either.choices + 1, ..either }
            }
            Node::Repeat(repeat) => Self::of_repeat(repeat),
            Node::Atomic(inner) => Self::of(inner),
            // Whatever follows it starts where it started.
            Node::Look(inner) => Self { gap: 0, before: 0, behind: 0, ..Self::of(inner) },
            Node::BackReference => Self { loops: 1, ..Self::of_bytes(0) },
            Node::Opaque => Self { nested: true, loops: 2, gap: 0, ..Self::of_bytes(0) },
        }
    }

    fn of_repeat(repeat: &Repeat) -> Self {
        let inner = Self::of(&repeat.node);
        let simple = byte_set(&repeat.node).is_some();
        let looping = repeat.maximum.is_none_or(|m| m - repeat.minimum.min(m) > 1);
        let spread = repeat.maximum.is_none_or(|m| m > 1);
        // Loops that hold loops are looked at in any case, so their gaps need not be told.
        let skipped = repeat.minimum == 0;
        let (before, behind) =
            if looping || skipped { (0, 0) } else { (inner.before, inner.behind) };
        // An optional piece with a loop in it is entered through its beginning, or not at all.
        let optional_loop = skipped && !looping && inner.loops > 0;
        let (before, behind) =
            if optional_loop { (inner.before, inner.behind) } else { (before, behind) };
        Self {
            nested: inner.nested || (spread && !simple),
            loops: inner.loops + usize::from(looping),
            choices: inner.choices + usize::from(!looping),
            gap: inner.gap,
            before,
            behind,
        }
    }

    fn then(self, next: Self) -> Self {
        let add = usize::saturating_add;
        let (gap, before, behind) = match (self.loops, next.loops) {
            (0, 0) => (usize::MAX, add(self.before, next.before), add(self.before, next.before)),
            (0, _) => (next.gap, add(self.before, next.before), next.behind),
            (_, 0) => (self.gap, self.before, add(self.behind, next.behind)),
            (_, _) => {
                let between = add(self.behind, next.before);
                (self.gap.min(next.gap).min(between), self.before, next.behind)
            }
        };
        Self {
            nested: self.nested || next.nested,
            loops: self.loops + next.loops,
            choices: self.choices + next.choices,
            gap,
            before,
            behind,
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            nested: self.nested || other.nested,
            loops: self.loops.max(other.loops),
            choices: self.choices.max(other.choices),
            gap: self.gap.min(other.gap),
            before: self.before.min(other.before),
            behind: self.behind.min(other.behind),
        }
    }
}
