//! What the answers of the stream commands say. Pure.

use redis::Value;

use super::StreamId;

/// The names and values of an entry, in order, each as often as it was given.
pub(super) type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// What is known of a stream (XINFO STREAM).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamInfo {
    /// How many entries it holds.
    pub(super) length: u64,
    /// How many were ever added; known since Redis 7.0.
    pub(super) added: Option<u64>,
    /// The oldest that it holds.
    pub(super) first: Option<StreamId>,
    /// The newest id that it ever had.
    pub(super) last: StreamId,
}

/// What is known of a consumer group (XINFO GROUPS).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupInfo {
    /// The newest entry that was delivered.
    pub(super) delivered: StreamId,
    /// How many entries had been added up to that one; known since Redis 7.0, and not always.
    pub(super) read: Option<u64>,
}

/// One line of XPENDING.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pending {
    /// The entry.
    pub(super) id: StreamId,
    /// How often it was delivered.
    pub(super) deliveries: u64,
}

/// A text, whichever way it came.
pub(super) fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.as_bytes()),
        _ => None,
    }
}

/// The value of `key` in a map, or in a list that alternates keys and values.
pub(super) fn value_of<'a>(map: &'a Value, key: &str) -> Option<&'a Value> {
    let named = |name: &Value| bytes(name) == Some(key.as_bytes());
    match map {
        Value::Map(pairs) => pairs.iter().find(|(name, _)| named(name)).map(|(_, value)| value),
        Value::Array(items) => items.chunks_exact(2).find_map(|pair| match pair {
            [name, value] if named(name) => Some(value),
            _ => None,
        }),
        _ => None,
    }
}

/// The text of `key` in a map.
pub(super) fn text_of<'a>(map: &'a Value, key: &str) -> Option<&'a str> {
    value_of(map, key).and_then(bytes).and_then(|bytes| std::str::from_utf8(bytes).ok())
}

/// An id.
pub(super) fn id(value: &Value) -> Option<StreamId> {
    std::str::from_utf8(bytes(value)?).ok()?.parse().ok()
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

/// What XINFO STREAM says.
pub(super) fn stream_info(value: &Value) -> Option<StreamInfo> {
    let first = match value_of(value, "first-entry")? {
        Value::Array(entry) => Some(id(entry.first()?)?),
        _ => None,
    };
    Some(StreamInfo {
        length: number(value_of(value, "length")?)?,
        added: value_of(value, "entries-added").and_then(number),
        first,
        last: id(value_of(value, "last-generated-id")?)?,
    })
}

/// What XINFO GROUPS says of one group.
pub(super) fn group_info(value: &Value, group: &str) -> Option<GroupInfo> {
    let Value::Array(groups) = value else { return None };
    let ours = groups.iter().find(|info| text_of(info, "name") == Some(group))?;
    Some(GroupInfo {
        delivered: id(value_of(ours, "last-delivered-id")?)?,
        read: value_of(ours, "entries-read").and_then(number),
    })
}

/// Before every id that is given from the time on that TIME says.
pub(super) fn time(value: &Value) -> Option<StreamId> {
    let Value::Array(parts) = value else { return None };
    let part = |at: usize| std::str::from_utf8(bytes(parts.get(at)?)?).ok()?.parse::<u64>().ok();
    let milliseconds = part(0)?.checked_mul(1_000)?.checked_add(part(1)? / 1_000)?;
    Some(StreamId { milliseconds, sequence: 0 }.predecessor())
}

/// The oldest entry of XPENDING without a range, if there is one.
pub(super) fn oldest_pending(value: &Value) -> Option<StreamId> {
    let Value::Array(summary) = value else { return None };
    id(summary.get(1)?)
}

/// The lines of XPENDING with a range.
pub(super) fn pending(value: &Value) -> Option<Vec<Pending>> {
    let Value::Array(lines) = value else { return None };
    let line = |line: &Value| match line {
        Value::Array(parts) => match parts.as_slice() {
            [entry, _consumer, _idle, deliveries] => {
                Some(Pending { id: id(entry)?, deliveries: number(deliveries)? })
            }
            _ => None,
        },
        _ => None,
    };
    lines.iter().map(line).collect()
}

/// The entries of one stream in the answer of XREAD and XREADGROUP; none where that is nil.
pub(super) fn read(value: Value) -> Option<Vec<(StreamId, Option<Fields>)>> {
    match value {
        Value::Nil => Some(Vec::new()),
        Value::Map(streams) => match streams.into_iter().next() {
            Some((_, list)) => entries(list),
            None => Some(Vec::new()),
        },
        Value::Array(streams) => match streams.into_iter().next() {
            Some(Value::Array(mut parts)) if parts.len() == 2 => entries(parts.pop()?),
            Some(_) => None,
            None => Some(Vec::new()),
        },
        _ => None,
    }
}

/// A list of entries, as XRANGE and XCLAIM answer. Servers before 7.0 put nil in the place of an
/// entry that is gone.
pub(super) fn entries(value: Value) -> Option<Vec<(StreamId, Option<Fields>)>> {
    let Value::Array(list) = value else { return None };
    let gone = |entry: &Value| matches!(entry, Value::Nil);
    list.into_iter().filter(|entry| !gone(entry)).map(entry).collect()
}

fn entry(value: Value) -> Option<(StreamId, Option<Fields>)> {
    let Value::Array(parts) = value else { return None };
    let mut parts = parts.into_iter();
    let entry_id = id(&parts.next()?)?;
    let fields = match parts.next()? {
        Value::Array(items) => {
            let mut fields = Vec::with_capacity(items.len() / 2);
            let mut items = items.into_iter();
            while let Some(name) = items.next() {
                match (name, items.next()?) {
                    (Value::BulkString(name), Value::BulkString(value)) => {
                        fields.push((name, value));
                    }
                    _ => return None,
                }
            }
            Some(fields)
        }
        Value::Nil => None,
        _ => return None,
    };
    Some((entry_id, fields))
}

/// How many bytes of names and values there are.
pub(super) fn size(fields: &Fields) -> usize {
    fields.iter().map(|(name, value)| name.len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn list(items: Vec<Value>) -> Value {
        Value::Array(items)
    }

    fn at(ms: u64, sequence: u64) -> StreamId {
        StreamId { milliseconds: ms, sequence }
    }

    #[test]
    fn repeated_fields_are_kept_in_order() {
        let fields = list(["ban", "a", "url", "b", "ban", "c"].map(text).to_vec());
        let answer = Value::Map(vec![(text("s"), list(vec![list(vec![text("1-2"), fields])]))]);
        let read = read(answer).unwrap();
        let names: Vec<_> = read[0].1.as_ref().unwrap().iter().map(|(n, _)| n.clone()).collect();
        assert_eq!(
            (read[0].0, names),
            (at(1, 2), vec![b"ban".to_vec(), b"url".to_vec(), b"ban".to_vec()])
        );
    }

    #[test]
    fn both_protocols_are_read() {
        let entries = || list(vec![list(vec![text("1-2"), list(vec![text("a"), text("b")])])]);
        let resp2 = list(vec![list(vec![text("s"), entries()])]);
        let resp3 = Value::Map(vec![(text("s"), entries())]);
        assert_eq!(read(resp2), read(resp3));
        assert_eq!(read(Value::Nil), Some(vec![]));
        assert_eq!(read(Value::Int(1)), None);
        assert_eq!(read(list(vec![Value::Int(1)])), None);
    }

    #[test]
    fn deleted_entries_have_no_fields() {
        let answer = list(vec![Value::Nil, list(vec![text("1-2"), Value::Nil])]);
        assert_eq!(entries(answer), Some(vec![(at(1, 2), None)]));
        let odd = list(vec![list(vec![text("1-2"), list(vec![text("a")])])]);
        assert_eq!(entries(odd), None);
    }

    #[test]
    fn what_comes_is_behind_the_time() {
        let time = time(&list(vec![text("1795490000"), text("123999")])).unwrap();
        assert_eq!(time.successor(), at(1_795_490_000_123, 0));
        assert_eq!(super::time(&list(vec![text("1795490000")])), None);
    }

    #[test]
    fn reads_what_the_server_says_of_stream_and_group() {
        let entry = list(vec![text("5-0"), list(vec![text("a"), text("b")])]);
        let info = Value::Map(vec![
            (text("length"), Value::Int(2)),
            (text("last-generated-id"), text("9-0")),
            (text("entries-added"), Value::Int(7)),
            (text("first-entry"), entry),
        ]);
        let read = StreamInfo { length: 2, added: Some(7), first: Some(at(5, 0)), last: at(9, 0) };
        assert_eq!(stream_info(&info), Some(read));
        let group = list(
            [text("name"), text("g"), text("last-delivered-id"), text("4-0")]
                .into_iter()
                .chain([text("entries-read"), Value::Nil])
                .collect(),
        );
        let expected = GroupInfo { delivered: at(4, 0), read: None };
        assert_eq!(group_info(&list(vec![group.clone()]), "g"), Some(expected));
        assert_eq!(group_info(&list(vec![group]), "other"), None);
    }
}
