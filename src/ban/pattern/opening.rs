//! How a match can begin.

use super::bytes::ByteSet;
use super::syntax::{Node, Pattern};

/// Whether the pattern cannot match any value that begins with `first`: it is anchored, and wants
/// another byte there, or none. A value without a byte counts as beginning with nothing.
pub(in crate::ban) fn cannot_match_behind(pattern: &Pattern, first: u8) -> bool {
    let opening = opening(&pattern.root);
    opening.anchored && !opening.passable && !opening.bytes.contains(first)
}

struct Opening {
    /// Every way begins with `^`.
    anchored: bool,
    /// The bytes that can be taken first; more than there are, where it is hard to tell.
    bytes: ByteSet,
    /// It can be passed without a byte, with more to follow.
    passable: bool,
}

fn opening(node: &Node) -> Opening {
    let taking = |bytes| Opening { anchored: false, bytes, passable: false };
    let passing = |anchored| Opening { anchored, bytes: ByteSet::EMPTY, passable: true };
    match node {
        Node::Start => passing(true),
        Node::Empty => passing(false),
        Node::End => taking(ByteSet::EMPTY),
        Node::Set(bytes) => taking(*bytes),
        Node::Literal(text) => taking(text.first().map_or(ByteSet::ALL, |&b| ByteSet::one(b))),
        Node::Assertion | Node::Look(_) => passing(false),
        Node::BackReference | Node::Opaque => {
            Opening { anchored: false, bytes: ByteSet::ALL, passable: true }
        }
        Node::Atomic(inner) => opening(inner),
        Node::Repeat(repeat) => {
            let inner = opening(&repeat.node);
            let skipped = repeat.minimum == 0;
            Opening {
                anchored: inner.anchored && !skipped,
                bytes: inner.bytes,
                passable: inner.passable || skipped,
            }
        }
        Node::Concat(nodes) => {
            let mut whole = passing(false);
            for node in nodes {
                if !whole.passable {
                    break;
                }
                let next = opening(node);
                whole.anchored |= next.anchored && whole.bytes == ByteSet::EMPTY;
                whole.bytes = whole.bytes.union(next.bytes);
                whole.passable = next.passable;
            }
            whole
        }
        Node::Alternate(nodes) => nodes.iter().map(opening).fold(
            Opening { anchored: true, bytes: ByteSet::EMPTY, passable: false },
            |all, branch| Opening {
                anchored: all.anchored && branch.anchored,
                bytes: all.bytes.union(branch.bytes),
                passable: all.passable || branch.passable,
            },
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_no_url_matches() {
        for never in
            ["^$", "^foo", "^[^/]", "^https?://", "^(a|b)", "(^a|^b)", "^a*$", "^a?b", "^(?i)a"]
        {
            assert!(cannot_match_behind(&Pattern::read(never.as_bytes()), b'/'), "{never}");
        }
        for possible in [
            "^/", "foo", "^.", "^[a/]", "(^a|b)", "^", "$", "^a*", "^(?=x)", "^/?a", "a?^/",
            "^(|a)",
        ] {
            assert!(!cannot_match_behind(&Pattern::read(possible.as_bytes()), b'/'), "{possible}");
        }
    }
}
