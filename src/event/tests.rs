//! Events, as JSON and as fields.

use proptest::prelude::*;

use super::*;

fn json(text: &str) -> Result<Event, EventError> {
    Event::from_json(text.as_bytes())
}

fn fields(fields: &[(&str, &str)]) -> Result<Event, EventError> {
    Event::from_fields(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
}

fn said(result: Result<Event, EventError>) -> String {
    let error = result.unwrap_err();
    let source = std::error::Error::source(&error);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

const WHOLE: &str = r#"{"schema": 1, "id": "deploy-42", "bans": ["obj.http.x-url == /a"],
    "urls": ["http://rec.example.com/a"], "endpoints": ["home"], "verify": ["news", "home"],
    "nodes": ["cache-01"], "prove": "90s", "everything": true, "allow_slow_regex": true,
    "reason": "deploy", "issued": 1795490000.5}"#;

#[test]
fn every_key_is_read() {
    let event = json(WHOLE).unwrap();
    let name = |text: &str| EndpointName::new(text).unwrap();
    let expected = Event {
        id: Some("deploy-42".to_owned()),
        bans: vec!["obj.http.x-url == /a".to_owned()],
        urls: vec!["http://rec.example.com/a".parse().unwrap()],
        endpoints: vec![name("home")],
        verify: vec![name("news"), name("home")],
        nodes: Some(vec![NodeName::new("cache-01").unwrap()]),
        prove: Some(Duration::from_secs(90)),
        everything: true,
        allow_slow_regex: true,
        reason: Some("deploy".to_owned()),
        issued: Some(Timestamp::from_millis(1_795_490_000_500)),
    };
    assert_eq!(event, expected);
    assert_eq!(event.concerned(), [name("home"), name("news")]);
    assert_eq!(json(&event.to_json()), Ok(event));
}

#[test]
fn fields_say_the_same() {
    let plain = fields(&[
        ("id", "deploy-42"),
        ("ban", "obj.http.x-url == /a"),
        ("url", "http://rec.example.com/a"),
        ("endpoint", "home"),
        ("verify", "news"),
        ("node", "cache-01"),
        ("verify", "home"),
        ("prove", "90s"),
        ("everything", "true"),
        ("allow_slow_regex", "true"),
        ("reason", "deploy"),
        ("issued", "1795490000.5"),
    ]);
    assert_eq!(plain, json(WHOLE));
    assert_eq!(fields(&[("event", WHOLE)]), json(WHOLE));
    assert_eq!(fields(&[("ban", "a == b"), ("ban", "c == d")]).unwrap().bans, ["a == b", "c == d"]);
}

#[test]
fn what_is_no_event_is_said() {
    for (text, expected) in [
        ("", "an event is a JSON object: EOF while parsing a value at line 1 column 0"),
        ("{\"bans\": [", "an event is a JSON object: EOF while parsing a list at line 1 column 10"),
        ("{} {}", "an event is a JSON object: trailing characters at line 1 column 4"),
        (
            "7",
            "this is no event: invalid type: integer `7`, expected a JSON object at line 1 column 1",
        ),
        (
            r#"[1, "x", ["obj.http.x == arr"]]"#,
            "this is no event: invalid type: sequence, expected a JSON object at line 1 column 0",
        ),
        (
            r#"{"bans": "a == b"}"#,
            "this is no event: invalid type: string \"a == b\", expected a sequence at line 1 column 17",
        ),
        (r#"{"schema": 2, "bans": ["a"]}"#, "expected an event of schema 1, got 2"),
        ("{}", "the event names nothing: expected a ban, a url, an endpoint or one to verify"),
        (r#"{"bans": [""]}"#, "the ban of an event is empty"),
        (
            r#"{"bans": ["a"], "nodes": []}"#,
            "the event is meant for no node: leave out nodes for all of them",
        ),
        (
            r#"{"urls": ["rec.example.com"]}"#,
            "\"rec.example.com\" is no URL to ban: expected a URL that starts with http:// or \
             https://, got \"rec.example.com\"",
        ),
        (
            r#"{"endpoints": ["a b"]}"#,
            "\"a b\" is no name of an endpoint: a name consists of letters, digits, '.', '_', ':' \
             and '-', not ' '",
        ),
        (
            r#"{"bans": ["a"], "prove": "5"}"#,
            "prove is how long it may take to be fresh: expected a duration such as 500ms, 30s, \
             5m or 1h, got \"5\"",
        ),
        (r#"{"bans": ["a"], "prove": "0s"}"#, "prove is 1s to 3600s, this one is 0ms"),
        (r#"{"bans": ["a"], "prove": "3600500ms"}"#, "prove is 1s to 3600s, this one is 3600500ms"),
        (
            r#"{"bans": ["a"], "issued": -1}"#,
            "issued is in seconds since 1970, up to the year 9999, got \"-1\"",
        ),
        (
            r#"{"bans": ["a"], "id": "a\nb"}"#,
            "the id of an event holds no control characters, found '\\n'",
        ),
    ] {
        assert_eq!(said(json(text)), expected, "{text}");
    }
    let unknown = said(json(r#"{"ban": ["a"]}"#));
    assert!(unknown.contains("unknown field `ban`, expected one of `schema`"), "{unknown}");
    let twice = said(json(r#"{"bans": ["a"], "bans": ["b"]}"#));
    assert!(twice.contains("duplicate field `bans`"), "{twice}");
}

#[test]
fn fields_that_do_not_go_together_are_said() {
    for (given, expected) in [
        (&[][..], "the event names nothing: expected a ban, a url, an endpoint or one to verify"),
        (
            &[("bans", "a == b")],
            "there is no field \"bans\" in an event: expected event (JSON), or ban, url, \
             endpoint, verify, node, prove, everything, allow_slow_regex, reason, id or issued",
        ),
        (
            &[("event", WHOLE), ("ban", "a == b")],
            "the field event holds the whole event: leave out the field ban",
        ),
        (&[("event", WHOLE), ("event", WHOLE)], "the field event stands in the event twice"),
        (
            &[("ban", "a"), ("reason", "x"), ("reason", "y")],
            "the field reason stands in the event twice",
        ),
        (
            &[("ban", "a"), ("issued", "now")],
            "issued is in seconds since 1970, up to the year 9999, got \"now\"",
        ),
    ] {
        assert_eq!(said(fields(given)), expected, "{given:?}");
    }
    let binary = Event::from_fields([(&b"ban"[..], &b"a == \xff"[..])]);
    assert_eq!(binary, Err(EventError::NotText { field: "ban" }));
}

#[test]
fn sizes_are_bounded() {
    let list = |count: usize| format!("{{\"bans\": [{}]}}", vec!["\"a\""; count].join(","));
    assert!(json(&list(1_000)).is_ok());
    let what = "bans, urls and endpoints";
    let many = EventError::TooMany { what, limit: 1_000, got: 1_001 };
    assert_eq!(json(&list(1_001)), Err(many));
    let together = list(999).replace('}', ", \"urls\": [\"http://a/\", \"http://b/\"]}");
    assert!(matches!(json(&together), Err(EventError::TooMany { got: 1_001, .. })));
    let ban = |length: usize| format!("{{\"bans\": [\"{}\"]}}", "a".repeat(length));
    assert!(json(&ban(65_536)).is_ok());
    let long = EventError::TooLong { what: "ban", limit: 65_536, got: 65_537 };
    assert_eq!(json(&ban(65_537)), Err(long));
    let large = " ".repeat(1_000_000);
    assert_eq!(json(&large), Err(EventError::TooLarge { got: 1_000_000 }));
    assert_eq!(fields(&[("event", &large)]), Err(EventError::TooLarge { got: 1_000_005 }));
    let value = "a".repeat(60_000);
    let five: Vec<(&str, &str)> = vec![("ban", &value); 5];
    assert!(matches!(fields(&five), Err(EventError::TooLarge { .. })));
}

/// A message holds no more of an event than fits a line, and nothing that moves a cursor.
#[test]
fn errors_are_short_and_safe() {
    let long = "\u{1b}[2J".repeat(10_000).replace('\u{1b}', "\\u001b");
    for text in [
        format!("{{\"{long}\": 1}}"),
        format!("{{\"bans\": \"{long}\"}}"),
        format!("{{\"urls\": [\"{long}\"]}}"),
        format!("{{\"urls\": [\"http://{long}:x/\"]}}"),
        format!("{{\"endpoints\": [\"{long}\"]}}"),
        format!("{{\"bans\": [\"a\"], \"prove\": \"{long}\"}}"),
    ] {
        let error = said(json(&text));
        assert!(error.len() < 2_000 && !error.contains('\u{1b}'), "{} bytes", error.len());
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(text in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = Event::from_json(&text);
        let _ = Event::from_fields([(&b"event"[..], &text[..])]);
        let _ = Event::from_fields([(&text[..], &text[..])]);
    }

    #[test]
    fn is_read_as_it_is_written(
        id in prop::option::of("[a-z0-9-]{1,12}"),
        bans in prop::collection::vec("\\PC{1,20}", 1..4),
        urls in prop::collection::vec("http://[a-z]{1,5}/[a-z?=&]{0,8}", 0..3),
        names in prop::collection::vec("[a-z]{1,5}", 0..3),
        nodes in prop::option::of(prop::collection::vec("[a-z]{1,5}", 1..3)),
        prove in prop::option::of(1_000_u64..=3_600_000),
        everything: bool,
        allow_slow_regex: bool,
        reason in prop::option::of("(?s).{1,20}"),
        issued in prop::option::of(0_u64..=4_000_000_000_000),
    ) {
        let endpoint = |text: &String| EndpointName::new(text).unwrap();
        let event = Event {
            id,
            bans,
            urls: urls.iter().map(|url| url.parse().unwrap()).collect(),
            endpoints: names.iter().map(endpoint).collect(),
            verify: names.iter().rev().map(endpoint).collect(),
            nodes: nodes.map(|nodes| nodes.iter().map(|n| NodeName::new(n).unwrap()).collect()),
            prove: prove.map(Duration::from_millis),
            everything,
            allow_slow_regex,
            reason,
            issued: issued.map(Timestamp::from_millis),
        };
        let written = event.to_json();
        prop_assert!(!written.contains('\n'));
        prop_assert_eq!(json(&written), Ok(event));
    }
}
