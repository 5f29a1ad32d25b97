//! Bans that varnishd has forgotten, and the daemon has not, since it sent them itself.

use std::sync::Arc;

use super::bans::PreparedBan;
use super::evidence::Span;

/// A ban that was sent to a node by the daemon itself, and that the node took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentBan {
    /// What it says.
    pub ban: Arc<[u8]>,
    /// From when it was sent to when the node had answered.
    pub sent: Span,
}

/// Finds among the bans of a node's list those that varnishd is through with and that were sent by
/// us: by the time. Returns their places on the list, with what they say.
///
/// Where another one may be the one that was sent, none is found.
#[must_use]
pub fn recall(listed: &[PreparedBan], sent: &[SentBan]) -> Vec<(usize, PreparedBan)> {
    let mut recalled: Vec<(usize, PreparedBan)> = Vec::new();
    for SentBan { ban, sent } in sent {
        let there = listed.iter().enumerate().filter(|(_, listed)| listed.taken().overlaps(*sent));
        let mut forgotten = None;
        let mut is_clear = true;
        for (place, listed) in there {
            if listed.is_forgotten() {
                is_clear &= forgotten.replace(place).is_none();
            } else {
                is_clear &= !listed.says(ban);
            }
        }
        let Some(place) = forgotten.filter(|_| is_clear) else { continue };
        let Some(taken) = listed.get(place).map(PreparedBan::taken) else { continue };
        if recalled.iter().all(|(other, _)| *other != place) {
            recalled.push((place, PreparedBan::new(ban, false, taken, None)));
        }
    }
    recalled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn span(from: u64, to: u64) -> Span {
        Span { earliest: Timestamp::from_millis(from), latest: Timestamp::from_millis(to) }
    }

    fn sent(ban: &[u8], from: u64, to: u64) -> SentBan {
        SentBan { ban: ban.into(), sent: span(from, to) }
    }

    fn forgotten(at: u64) -> PreparedBan {
        PreparedBan::new(b"", true, span(at, at + 5), None)
    }

    fn places(listed: &[PreparedBan], sent: &[SentBan]) -> Vec<usize> {
        recall(listed, sent).into_iter().map(|(place, _)| place).collect()
    }

    #[test]
    fn what_was_sent_is_known_by_its_time() {
        let listed = [forgotten(3_000), forgotten(2_000), PreparedBan::start(span(0, 5))];
        let ours = sent(b"req.url == /c", 1_990, 2_003);
        assert_eq!(places(&listed, std::slice::from_ref(&ours)), [1]);
        let (_, recalled) = recall(&listed, std::slice::from_ref(&ours)).remove(0);
        assert!(recalled.says(b"req.url == /c") && !recalled.is_forgotten());
        let nothing: [usize; 0] = [];
        assert_eq!(places(&listed, &[sent(b"req.url == /c", 2_500, 2_600)]), nothing);
        // The entry that varnishd makes at its start is nobody's.
        assert_eq!(places(&listed, &[sent(b"req.url == /c", 0, 10)]), nothing);
    }

    #[test]
    fn what_may_be_anothers_is_not_recalled() {
        let ours = [sent(b"req.url == /c", 2_000, 2_010)];
        let nothing: [usize; 0] = [];
        assert_eq!(places(&[forgotten(2_006), forgotten(2_001)], &ours), nothing);
        // Ours can still be read, so that the other one is not it.
        let read = |spec| PreparedBan::new(spec, false, span(2_006, 2_007), None);
        assert_eq!(places(&[read(b"req.url == /c"), forgotten(2_001)], &ours), nothing);
        assert_eq!(places(&[read(b"req.url == /d"), forgotten(2_001)], &ours), [1]);
    }
}
