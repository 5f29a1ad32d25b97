//! A pattern as a nondeterministic automaton with one state for each place where it takes a byte
//! (Glushkov's construction), in which every edge knows whether there are two ways to take it.
//!
//! A backtracking matcher that fails has tried every path of this automaton that the value
//! allows, so the number of paths is the number of its steps.

use super::bytes::ByteSet;
use super::syntax::{Node, Repeat};

/// More states than that are not looked at as one automaton.
const MAXIMUM_STATES: usize = 600;
const MAXIMUM_EDGES: usize = 40_000;
/// Copies that a bounded repetition of a group is spelt out to.
const MAXIMUM_COPIES: u32 = 4;
/// Copies that the least number of repetitions of one byte is spelt out to.
const MAXIMUM_BYTE_COPIES: u32 = 32;

/// One place of the pattern that takes a byte.
#[derive(Debug, Clone)]
pub(super) struct State {
    /// Where the next byte can be taken.
    pub(super) edges: Vec<Edge>,
    /// For a state that only a bounded repetition returns to: how often it may at most.
    pub(super) bound: Option<u32>,
    /// For a bounded repetition of a group: how many ways there are through all of it.
    pub(super) choices: f64,
}

/// From one state to another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edge {
    pub(super) to: usize,
    /// The bytes that are taken there.
    pub(super) bytes: ByteSet,
    /// Whether the pattern has two ways or more from the one to the other.
    pub(super) twice: bool,
}

/// The states of a pattern.
#[derive(Debug)]
pub(super) struct Automaton {
    pub(super) states: Vec<State>,
    /// The states that can take the first byte.
    pub(super) entries: Vec<Edge>,
}

/// The pattern has too many states to be looked at.
#[derive(Debug)]
pub(super) struct TooLarge;

impl Automaton {
    pub(super) fn new(root: &Node) -> Result<Self, TooLarge> {
        let mut builder =
            Builder { states: Vec::with_capacity(64), bytes: Vec::with_capacity(64), edges: 0 };
        let fragment = builder.build(root)?;
        let entries = fragment
            .first
            .iter()
            .map(|end| Edge {
                to: end.state,
                bytes: builder.bytes_of(end.state),
                twice: end.ways > 1,
            })
            .collect();
        Ok(Self { states: builder.states, entries })
    }

    pub(super) fn edges(&self, state: usize) -> &[Edge] {
        self.states.get(state).map_or(&[], |s| &s.edges)
    }
}

/// A part of the automaton: where it is entered and left.
#[derive(Debug, Clone, Default)]
struct Fragment {
    first: Vec<End>,
    last: Vec<End>,
    /// The ways to pass it without taking a byte: 0, 1, or 2 for more.
    empty: u8,
}

#[derive(Debug, Clone, Copy)]
struct End {
    state: usize,
    ways: u8,
    /// Bytes that cannot follow, because a possessive repetition would have taken them.
    except: ByteSet,
}

struct Builder {
    states: Vec<State>,
    bytes: Vec<ByteSet>,
    edges: usize,
}

impl Builder {
    fn bytes_of(&self, state: usize) -> ByteSet {
        self.bytes.get(state).copied().unwrap_or(ByteSet::ALL)
    }

    fn build(&mut self, node: &Node) -> Result<Fragment, TooLarge> {
        Ok(match node {
            Node::Empty | Node::Start | Node::End | Node::Assertion => {
                Fragment { empty: 1, ..Fragment::default() }
            }
            Node::Set(bytes) => self.state(*bytes, None)?,
            Node::Literal(text) => self.literal(text)?,
            Node::Concat(nodes) => {
                let mut whole = Fragment { empty: 1, ..Fragment::default() };
                for node in nodes {
                    let next = self.build(node)?;
                    whole = self.join(whole, next)?;
                }
                whole
            }
            Node::Alternate(nodes) => {
                let mut whole = Fragment::default();
                for node in nodes {
                    let branch = self.build(node)?;
                    whole.first.extend(branch.first);
                    whole.last.extend(branch.last);
                    whole.empty = whole.empty.saturating_add(branch.empty).min(2);
                }
                whole
            }
            Node::Repeat(repeat) => self.repeat(repeat)?,
            Node::Atomic(inner) => match &**inner {
                // One byte set, repeated: what a possessive quantifier is short for.
                Node::Repeat(repeat) if byte_set(&repeat.node).is_some() => {
                    self.repeat(&Repeat { possessive: true, ..(**repeat).clone() })?
                }
                inner => self.build(inner)?,
            },
            // It is tried, and what follows starts where it started.
            Node::Look(inner) => Fragment { last: Vec::new(), empty: 1, ..self.build(inner)? },
            // A text that is not known here, taken in one way only.
            Node::BackReference | Node::Opaque => {
                let fragment = self.state(ByteSet::ALL, None)?;
                self.tie(&fragment.last, &fragment.first)?;
                Fragment { empty: 1, ..fragment }
            }
        })
    }

    /// One state behind the other: what `join` would make, without its detours.
    fn literal(&mut self, text: &[u8]) -> Result<Fragment, TooLarge> {
        let first = self.states.len();
        for (at, &byte) in text.iter().enumerate() {
            self.add_state(ByteSet::one(byte), None)?;
            let Some(&next) = text.get(at + 1) else { break };
            let edge = Edge { to: first + at + 1, bytes: ByteSet::one(next), twice: false };
            if let Some(state) = self.states.last_mut() {
                state.edges = vec![edge];
            }
        }
        let end = |state| End { state, ways: 1, except: ByteSet::EMPTY };
        Ok(match self.states.len().checked_sub(1) {
            Some(last) if last >= first => {
                Fragment { first: vec![end(first)], last: vec![end(last)], empty: 0 }
            }
            _ => Fragment { empty: 1, ..Fragment::default() },
        })
    }

    fn state(&mut self, bytes: ByteSet, bound: Option<u32>) -> Result<Fragment, TooLarge> {
        let state = self.states.len();
        self.add_state(bytes, bound)?;
        let end = End { state, ways: 1, except: ByteSet::EMPTY };
        Ok(Fragment { first: vec![end], last: vec![end], empty: 0 })
    }

    fn add_state(&mut self, bytes: ByteSet, bound: Option<u32>) -> Result<(), TooLarge> {
        if self.states.len() >= MAXIMUM_STATES {
            return Err(TooLarge);
        }
        self.states.push(State { edges: Vec::new(), bound, choices: f64::INFINITY });
        self.bytes.push(bytes);
        Ok(())
    }

    fn repeat(&mut self, repeat: &Repeat) -> Result<Fragment, TooLarge> {
        let from = self.states.len();
        if let Some(bytes) = byte_set(&repeat.node) {
            return self.repeat_byte(repeat, bytes);
        }
        match repeat.maximum {
            Some(maximum) if maximum <= MAXIMUM_COPIES => {
                // X{2,4} is X X (X (X)?)?
                let mut tail = Fragment { empty: 1, ..Fragment::default() };
                for copy in (0..maximum).rev() {
                    let one = self.build(&repeat.node)?;
                    tail = self.join(one, tail)?;
                    if copy >= repeat.minimum {
                        tail.empty = tail.empty.saturating_add(1).min(2);
                    }
                }
                Ok(tail)
            }
            maximum => {
                let mut whole = Fragment { empty: 1, ..Fragment::default() };
                for _ in 1..repeat.minimum.min(MAXIMUM_COPIES) {
                    let one = self.build(&repeat.node)?;
                    whole = self.join(whole, one)?;
                }
                let mut body = self.build(&repeat.node)?;
                self.tie(&body.last, &body.first)?;
                if maximum.is_some() && body.empty > 0 {
                    // Each turn of a counted loop may be an empty one, in any order.
                    self.tie(&body.last, &body.first)?;
                }
                if repeat.minimum == 0 {
                    body.empty = body.empty.saturating_add(1).min(2);
                }
                let choices = maximum.map_or(f64::INFINITY, |maximum| {
                    super::ambiguity::choices(&repeat.node)
                        .powi(i32::try_from(maximum).unwrap_or(i32::MAX))
                });
                for state in self.states.iter_mut().skip(from) {
                    state.choices = choices;
                }
                self.join(whole, body)
            }
        }
    }

    /// A repetition of one byte: its least number spelt out, then a loop.
    fn repeat_byte(&mut self, repeat: &Repeat, bytes: ByteSet) -> Result<Fragment, TooLarge> {
        let mut whole = Fragment { empty: 1, ..Fragment::default() };
        let copies = repeat.minimum.min(MAXIMUM_BYTE_COPIES);
        for copy in 1..=copies {
            let one = self.state(bytes, None)?;
            if copy == copies && repeat.maximum.is_none() {
                self.tie(&one.last, &one.first)?;
            }
            whole = self.join(whole, one)?;
        }
        let spare = repeat.maximum.map(|maximum| maximum.saturating_sub(repeat.minimum));
        let looped = match spare {
            None => copies == 0,
            Some(spare) => spare > 0,
        };
        if looped {
            let mut more = self.state(bytes, spare)?;
            if spare != Some(1) {
                self.tie(&more.last, &more.first)?;
            }
            more.empty = 1;
            whole = self.join(whole, more)?;
        }
        // Possessive, and with no upper bound: none of its bytes can follow it.
        if repeat.possessive && repeat.maximum.is_none() {
            for end in &mut whole.last {
                end.except = end.except.union(bytes);
            }
        }
        Ok(whole)
    }

    fn join(&mut self, left: Fragment, right: Fragment) -> Result<Fragment, TooLarge> {
        self.tie(&left.last, &right.first)?;
        let times = |ends: Vec<End>, ways: u8| {
            ends.into_iter()
                .map(move |end| End { ways: end.ways.saturating_mul(ways).min(2), ..end })
        };
        let (mut first, mut last) = (left.first, right.last);
        if left.empty > 0 {
            first.extend(times(right.first, left.empty));
        }
        if right.empty > 0 {
            last.extend(times(left.last, right.empty));
        }
        Ok(Fragment { first, last, empty: left.empty.saturating_mul(right.empty).min(2) })
    }

    /// Edges from each of `last` to each of `first`.
    fn tie(&mut self, last: &[End], first: &[End]) -> Result<(), TooLarge> {
        for from in last {
            for to in first {
                let bytes = self.bytes_of(to.state).minus(from.except);
                if bytes == ByteSet::EMPTY {
                    continue;
                }
                let Some(state) = self.states.get_mut(from.state) else { continue };
                if let Some(edge) = state.edges.iter_mut().find(|edge| edge.to == to.state) {
                    // The same step in a second way, for the bytes that both ways take.
                    edge.twice |= edge.bytes.meets(&bytes);
                    edge.bytes = edge.bytes.union(bytes);
                    continue;
                }
                let twice = from.ways > 1 || to.ways > 1;
                if state.edges.is_empty() {
                    state.edges.reserve_exact(2);
                }
                state.edges.push(Edge { to: to.state, bytes, twice });
                self.edges += 1;
                if self.edges > MAXIMUM_EDGES {
                    return Err(TooLarge);
                }
            }
        }
        Ok(())
    }
}

/// The bytes of a node that takes exactly one.
pub(super) fn byte_set(node: &Node) -> Option<ByteSet> {
    match node {
        Node::Set(bytes) => Some(*bytes),
        Node::Literal(text) => match text.as_slice() {
            [byte] => Some(ByteSet::one(*byte)),
            _ => None,
        },
        // a|b and (?:[ab]) are sets too.
        Node::Alternate(branches) => branches.iter().try_fold(ByteSet::EMPTY, |set, branch| {
            let bytes = byte_set(branch)?;
            (!set.meets(&bytes)).then(|| set.union(bytes))
        }),
        _ => None,
    }
}
