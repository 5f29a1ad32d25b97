//! How many paths an automaton can have for one value: a few, a power of its length, or a number
//! that doubles every few bytes.
//!
//! Exponential: a state can come back to itself in two ways over the same text. Polynomial: one
//! loop can hand over to the next at every place of a text that both of them take; each such pair
//! of loops in a row adds one to the degree (Weber and Seidl, "On the degree of ambiguity of
//! finite automata", 1991).

use std::collections::VecDeque;

use super::automaton::{Automaton, Edge, byte_set};
use super::bytes::ByteSet;
use super::syntax::Node;

/// Steps that the analysis of one pattern may take before it assumes the worst.
const BUDGET: usize = 400_000;
/// Ways through a bounded repetition that are few enough.
const FEW_CHOICES: f64 = 100_000.0;
/// A repetition that is bounded below this counts for a constant.
const SHORT_LOOP: u32 = 16;
/// Repetitions that a value of a thousand bytes has room for in each of several loops.
const TYPICAL_TURNS: f64 = 250.0;

/// The loops of an automaton: its strongly connected components that have an edge at all.
pub(super) struct Loops<'a> {
    automaton: &'a Automaton,
    /// Each with its states; an earlier one is never reached from a later one.
    loops: Vec<Vec<usize>>,
    /// For each state the loop that it is in.
    loop_of: Vec<Option<usize>>,
}

/// How many steps a polynomial pattern takes: `length^degree`, thinned by `thinning`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Power {
    pub(super) degree: u32,
    /// Natural logarithm of what the steps are divided by: the lengths of the texts at which one
    /// loop hands over to the next.
    pub(super) thinning: f64,
}

impl<'a> Loops<'a> {
    pub(super) fn new(automaton: &'a Automaton) -> Self {
        let mut loops = components(automaton);
        loops.retain(|states| match states.as_slice() {
            [only] => automaton.edges(*only).iter().any(|edge| edge.to == *only),
            _ => true,
        });
        // Components come out last first.
        loops.reverse();
        let mut loop_of = vec![None; automaton.states.len()];
        for (at, states) in loops.iter().enumerate() {
            for &state in states {
                if let Some(slot) = loop_of.get_mut(state) {
                    *slot = Some(at);
                }
            }
        }
        Self { automaton, loops, loop_of }
    }

    /// The length of a text over which some state has two ways back to itself, if there is one;
    /// 0 where the search was given up.
    pub(super) fn doubling(&self) -> Option<usize> {
        self.loops.iter().filter_map(|states| self.doubling_of(states)).min()
    }

    fn doubling_of(&self, states: &[usize]) -> Option<usize> {
        let few = states.iter().all(|&s| {
            self.automaton.states.get(s).is_some_and(|state| state.choices <= FEW_CHOICES)
        });
        if few {
            return None;
        }
        let inside = |edge: &&Edge| states.contains(&edge.to);
        let edges = |state: usize| self.automaton.edges(state).iter().filter(inside);
        if states.iter().any(|&s| edges(s).any(|edge| edge.twice)) {
            return Some(states.len());
        }
        let size = states.len();
        if size == 1 {
            return None;
        }
        if size * size > BUDGET {
            return Some(0);
        }
        // Pairs of states that one text leads to from one state, and back to one state.
        let index = |state: usize| states.iter().position(|&s| s == state).unwrap_or(0);
        let mut successors = vec![Vec::new(); size];
        for (at, &state) in states.iter().enumerate() {
            if let Some(slot) = successors.get_mut(at) {
                slot.extend(edges(state).map(|edge| (index(edge.to), edge.bytes)));
            }
        }
        // Only pairs that can be reached are looked at; their edges are kept for the way back.
        let mut there: Vec<Option<usize>> = vec![None; size * size];
        let mut reversed = vec![Vec::new(); size * size];
        let diagonal = || (0..size).map(|s| s * size + s);
        let mut queue: VecDeque<(usize, usize)> = VecDeque::new();
        for pair in diagonal() {
            set(&mut there, pair, Some(0));
            queue.push_back((pair, 0));
        }
        let mut steps = 0;
        while let Some((pair, length)) = queue.pop_front() {
            let edges_of = |place: usize| successors.get(place).map_or(&[][..], |e| e);
            for (left, left_bytes) in edges_of(pair / size) {
                for (right, right_bytes) in edges_of(pair % size) {
                    steps += 1;
                    if !left_bytes.meets(right_bytes) {
                        continue;
                    }
                    let to = left * size + right;
                    if let Some(slot) = reversed.get_mut(to) {
                        slot.push(pair);
                    }
                    if there.get(to) == Some(&None) {
                        set(&mut there, to, Some(length + 1));
                        queue.push_back((to, length + 1));
                    }
                }
            }
            if steps > BUDGET {
                return Some(0);
            }
        }
        let back = distances(&reversed, diagonal());
        there
            .iter()
            .zip(&back)
            .enumerate()
            .filter(|(pair, _)| pair / size != pair % size)
            .filter_map(|(_, (there, back))| Some((*there)? + (*back)?))
            .min()
    }

    /// For each degree from 2 on, the least thinned chain of loops that reaches it.
    pub(super) fn powers(&self) -> Vec<Power> {
        let count = self.loops.len();
        // best[loop][links]: the least thinning of a chain that ends in it.
        let mut best: Vec<Vec<f64>> = Vec::with_capacity(count);
        let mut budget = BUDGET;
        for (at, states) in self.loops.iter().enumerate() {
            let own = self.bound_of(states);
            let Some(own) = own else {
                best.push(Vec::new());
                continue;
            };
            let mut chains = vec![own];
            for (before, before_states) in self.loops.iter().enumerate().take(at) {
                let ended = best.get(before).cloned().unwrap_or_default();
                if ended.is_empty() || !self.reaches(before, at) {
                    continue;
                }
                for (links, &thinning) in ended.iter().enumerate() {
                    lower(&mut chains, links, thinning);
                }
                if let Some(length) = self.link(before_states, states, &mut budget) {
                    #[expect(clippy::cast_precision_loss, reason = "lengths of a few hundred")]
                    let thinner = libm::log(length.max(1) as f64);
                    for (links, &thinning) in ended.iter().enumerate() {
                        lower(&mut chains, links + 1, thinning + thinner + own);
                    }
                }
            }
            best.push(chains);
        }
        let deepest = best.iter().map(Vec::len).max().unwrap_or(0);
        (1..deepest)
            .filter_map(|links| {
                let thinning =
                    best.iter().filter_map(|b| b.get(links)).copied().fold(f64::INFINITY, f64::min);
                let degree = u32::try_from(links + 1).ok()?;
                thinning.is_finite().then_some(Power { degree, thinning })
            })
            .collect()
    }

    /// What a bound takes from a loop's turns, as a logarithm; `None` when hardly any are left.
    fn bound_of(&self, states: &[usize]) -> Option<f64> {
        let [only] = states else { return Some(0.0) };
        match self.automaton.states.get(*only)?.bound {
            None => Some(0.0),
            Some(bound) if bound < SHORT_LOOP => None,
            Some(bound) => Some(libm::log((TYPICAL_TURNS / f64::from(bound)).max(1.0))),
        }
    }

    fn reaches(&self, from: usize, to: usize) -> bool {
        let mut seen = vec![false; self.automaton.states.len()];
        let mut queue: Vec<usize> = self.loops.get(from).cloned().unwrap_or_default();
        while let Some(state) = queue.pop() {
            for edge in self.automaton.edges(state) {
                if self.loop_of.get(edge.to) == Some(&Some(to)) {
                    return true;
                }
                if let Some(seen @ false) = seen.get_mut(edge.to) {
                    *seen = true;
                    queue.push(edge.to);
                }
            }
        }
        false
    }

    /// The length of a text that goes round in a state of `from`, round in a state of `to`, and
    /// leads from the one to the other as well; as far as entering `to` needs it.
    fn link(&self, from: &[usize], to: &[usize], budget: &mut usize) -> Option<usize> {
        let count = self.automaton.states.len();
        let place = |states: &[usize], state: usize| states.iter().position(|&s| s == state);
        let mut shortest: Option<usize> = None;
        for (start, &p) in from.iter().enumerate() {
            for (end, &q) in to.iter().enumerate() {
                // (a place in `from`, any state, a place in `to`), all over the same text.
                let index = |x: usize, y: usize, z: usize| (x * count + y) * to.len() + z;
                let mut seen = vec![false; from.len() * count * to.len()];
                let mut queue = VecDeque::from([(start, p, end, 0_usize)]);
                'search: while let Some((x, y, z, length)) = queue.pop_front() {
                    let round_x = self.automaton.edges(*from.get(x)?);
                    let round_z = self.automaton.edges(*to.get(z)?);
                    for along in self.automaton.edges(y) {
                        for one in round_x {
                            let bytes = along.bytes.and(one.bytes);
                            if bytes == ByteSet::EMPTY {
                                continue;
                            }
                            let Some(x) = place(from, one.to) else { continue };
                            for other in round_z {
                                *budget = budget.saturating_sub(1);
                                if *budget == 0 {
                                    return Some(1);
                                }
                                let Some(z) = place(to, other.to) else { continue };
                                if !bytes.meets(&other.bytes) {
                                    continue;
                                }
                                if x == start && along.to == q && z == end {
                                    let length = length.max(1);
                                    shortest = Some(shortest.map_or(length, |s| s.min(length)));
                                    break 'search;
                                }
                                if let Some(seen @ false) = seen.get_mut(index(x, along.to, z)) {
                                    *seen = true;
                                    queue.push_back((x, along.to, z, length + 1));
                                }
                            }
                        }
                    }
                }
            }
        }
        shortest
    }

    /// The most paths over a text of one byte repeated 48 times, for patterns with many optional
    /// pieces, which no loop shows.
    pub(super) fn paths_over_one_byte(&self) -> f64 {
        let mut letters: Vec<u8> = Vec::new();
        for edge in
            self.automaton.entries.iter().chain(self.automaton.states.iter().flat_map(|s| &s.edges))
        {
            if let Some(byte) = edge.bytes.any()
                && !letters.contains(&byte)
                && letters.len() < 16
            {
                letters.push(byte);
            }
        }
        letters.iter().map(|&byte| self.paths_over(byte)).fold(0.0, f64::max)
    }

    fn paths_over(&self, byte: u8) -> f64 {
        let count = self.automaton.states.len();
        let weight = |edge: &Edge| match (edge.bytes.contains(byte), edge.twice) {
            (false, _) => 0.0,
            (true, false) => 1.0,
            (true, true) => 2.0,
        };
        // Begin at every state that such a text can lead into: what comes before is skipped.
        let mut most: f64 = 0.0;
        let mut paths = vec![0.0; count];
        for entry in &self.automaton.entries {
            add(&mut paths, entry.to, weight(entry));
        }
        if paths.iter().all(|&p| p == 0.0) {
            for state in &self.automaton.states {
                for edge in &state.edges {
                    if let Some(slot) = paths.get_mut(edge.to) {
                        *slot = weight(edge).min(1.0);
                    }
                }
            }
        }
        let mut total = 0.0;
        for _ in 0..48 {
            let mut next = vec![0.0; count];
            for (state, &here) in paths.iter().enumerate() {
                if here > 0.0 {
                    for edge in self.automaton.edges(state) {
                        add(&mut next, edge.to, here * weight(edge));
                    }
                }
            }
            total += next.iter().sum::<f64>();
            most = most.max(total);
            paths = next;
        }
        most
    }
}

/// An upper bound of the ways through a piece of a pattern.
pub(super) fn choices(node: &Node) -> f64 {
    if byte_set(node).is_some() {
        return 1.0;
    }
    match node {
        Node::Empty
        | Node::Start
        | Node::End
        | Node::Assertion
        | Node::Set(_)
        | Node::Literal(_) => 1.0,
        Node::Concat(nodes) => nodes.iter().map(choices).product(),
        Node::Alternate(nodes) => nodes.iter().map(choices).sum(),
        Node::Repeat(repeat) => match repeat.maximum {
            None => f64::INFINITY,
            Some(maximum) => {
                let ways = choices(&repeat.node);
                let counts = f64::from(maximum.saturating_sub(repeat.minimum)) + 1.0;
                counts * ways.powi(i32::try_from(maximum).unwrap_or(i32::MAX))
            }
        },
        Node::Atomic(inner) | Node::Look(inner) => choices(inner),
        Node::BackReference | Node::Opaque => f64::INFINITY,
    }
}

fn lower(chains: &mut Vec<f64>, links: usize, thinning: f64) {
    if chains.len() <= links {
        chains.resize(links + 1, f64::INFINITY);
    }
    if let Some(slot) = chains.get_mut(links) {
        *slot = slot.min(thinning);
    }
}

fn add(paths: &mut [f64], at: usize, more: f64) {
    if let Some(slot) = paths.get_mut(at) {
        *slot += more;
    }
}

/// The least number of steps to each node of a graph from any of `starts`.
fn distances(graph: &[Vec<usize>], starts: impl Iterator<Item = usize>) -> Vec<Option<usize>> {
    let mut distances = vec![None; graph.len()];
    let mut queue = VecDeque::new();
    for start in starts {
        if let Some(slot) = distances.get_mut(start) {
            *slot = Some(0);
            queue.push_back((start, 0));
        }
    }
    while let Some((node, distance)) = queue.pop_front() {
        for &next in graph.get(node).map_or(&[][..], |n| n) {
            if let Some(slot @ None) = distances.get_mut(next) {
                *slot = Some(distance + 1);
                queue.push_back((next, distance + 1));
            }
        }
    }
    distances
}

/// Strongly connected components, each behind those that it reaches (Tarjan's algorithm, with a
/// stack of its own).
fn components(automaton: &Automaton) -> Vec<Vec<usize>> {
    let count = automaton.states.len();
    let mut order = vec![usize::MAX; count];
    let mut low = vec![usize::MAX; count];
    let mut open = vec![false; count];
    let (mut stack, mut found, mut clock) = (Vec::new(), Vec::new(), 0);
    for root in 0..count {
        if order.get(root) != Some(&usize::MAX) {
            continue;
        }
        let mut work = vec![(root, 0_usize)];
        while let Some((state, next)) = work.pop() {
            if next == 0 {
                set(&mut order, state, clock);
                set(&mut low, state, clock);
                set(&mut open, state, true);
                clock += 1;
                stack.push(state);
            }
            if let Some(edge) = automaton.edges(state).get(next) {
                work.push((state, next + 1));
                let to = edge.to;
                if order.get(to) == Some(&usize::MAX) {
                    work.push((to, 0));
                } else if open.get(to) == Some(&true) {
                    let reached = order.get(to).copied().unwrap_or(usize::MAX);
                    if let Some(slot) = low.get_mut(state) {
                        *slot = (*slot).min(reached);
                    }
                }
                continue;
            }
            let mine = low.get(state).copied().unwrap_or(usize::MAX);
            if let Some(&(parent, _)) = work.last()
                && let Some(slot) = low.get_mut(parent)
            {
                *slot = (*slot).min(mine);
            }
            if order.get(state) == Some(&mine) {
                let mut component = Vec::new();
                while let Some(member) = stack.pop() {
                    set(&mut open, member, false);
                    component.push(member);
                    if member == state {
                        break;
                    }
                }
                found.push(component);
            }
        }
    }
    found
}

fn set<T>(slots: &mut [T], at: usize, value: T) {
    if let Some(slot) = slots.get_mut(at) {
        *slot = value;
    }
}
