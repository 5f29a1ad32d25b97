//! Templates, filled in with whatever somebody may send.

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::super::matching::{Judgement, Matcher, Object, Request, Times, Vantage};
use super::super::parse;
use super::super::version::ServerVersion;
use super::*;

fn template(text: &str) -> Template {
    Template::parse(text).unwrap()
}

fn filled(text: &str, value: &str) -> Result<String, FillError<()>> {
    template(text).fill(&mut |_| Ok(value.to_owned())).map(|ban| ban.to_string())
}

fn said(text: &str) -> String {
    Template::parse(text).unwrap_err().to_string()
}

#[test]
fn values_are_escaped_for_their_place() {
    let cases = [
        ("obj.http.x-model == {1}", "a7", "obj.http.x-model == a7"),
        ("obj.http.x-model == m-{1}.x", "a.*7", "obj.http.x-model == m-a.*7.x"),
        (r"obj.http.x-url ~ ^/m/{1}\z", "a.*7", r"obj.http.x-url ~ ^/m/a\.\*7\z"),
        ("obj.http.x-url !~ {1}", "a b", r"obj.http.x-url !~ a\x20b"),
        ("obj.http.x-url ~ (?:{1})+/", "ab", "obj.http.x-url ~ (?:ab)+/"),
        ("req.url ~ ^/[a-z]{{2}}/{1}", "x", "req.url ~ ^/[a-z]{2}/x"),
        ("obj.age > {1}", "1.5h", "obj.age > 1.5h"),
        ("obj.age > {1}s && obj.ttl < {2}", "5", "error"),
        ("obj.status == {1} && req.url == /", "404", "obj.status == 404 && req.url == /"),
        ("obj.http.etag == \"{1}\"", "abc", "obj.http.etag == \"abc\""),
        ("req.url ~ {1}", "\"x\"", r"req.url ~ \x22x\x22"),
    ];
    for (text, value, expected) in cases {
        let ban = filled(text, value).unwrap_or_else(|_| "error".to_owned());
        assert_eq!(ban, expected, "{text} with {value}");
    }
}

#[test]
fn a_value_never_becomes_a_condition() {
    let injection = " && obj.status == 200";
    assert_eq!(
        filled("req.url ~ ^/{1}", injection).as_deref(),
        Ok(r"req.url ~ ^/\x20\x26\x26\x20obj\.status\x20==\x20200")
    );
    let refused = filled("req.url == /{1}", injection).unwrap_err();
    let FillError::Unsayable { placeholder, field, operator, source } = refused else {
        panic!("{refused}")
    };
    assert_eq!((placeholder.as_str(), field.as_str(), operator), ("1", "req.url", "=="));
    assert_eq!(source.code(), "blank-in-argument");
    for (value, code) in [
        ("a&&b", "and-in-argument"),
        ("a\nquit", "line-end"),
        ("a\r", "line-end"),
        ("a\u{b}", "line-end"),
        ("a\tb", "blank-in-argument"),
        ("a\0b", "nul"),
    ] {
        let fault = filled("obj.http.x == {1}", value).unwrap_err();
        let FillError::Unsayable { source, .. } = fault else { panic!("{fault}") };
        assert_eq!(source.code(), code, "{value:?}");
    }
    // Half of `&&` in the template, half in the value.
    assert!(matches!(filled("req.url == /a&{1}", "&b"), Err(FillError::Unsayable { .. })));
    assert!(matches!(filled("req.url == {1}", "\"/a\""), Err(FillError::Unsayable { .. })));
    assert!(matches!(filled("obj.age > {1}", "x"), Err(FillError::Unsayable { .. })));
    let empty = FillError::Empty { placeholder: "1".to_owned() };
    assert_eq!(filled("req.url ~ ^/models/{1}", ""), Err(empty.clone()));
    assert_eq!(filled("req.url == /models/{1}", ""), Err(empty));
}

#[test]
fn what_is_no_template_is_said() {
    assert_eq!(said("req.url == {1"), said_of("{1"));
    assert!(said("req.url = {1}").starts_with("req.url cannot be compared with \"=\""));
    assert!(said("{1}").starts_with("{1} stands outside of the arguments"));
    assert!(said("req.url {op} x").starts_with("{op} stands outside"));
    assert!(said("req.url == a {and} req.url == b").starts_with("{and} stands outside"));
    assert!(said("req.http.{1} == a").starts_with("{1} stands outside"));
    assert!(said("req.url == {1} || req.url == b").starts_with("expected && between"));
    assert!(said("req.url == a b{1}").starts_with("{1} stands outside"));
    assert!(said("").starts_with("the ban is empty"));
    assert!(said("req.url == {1}\nquit").contains("line end"));
    assert!(said("obj.age > {1}x").starts_with("expected a duration"));
    for (text, place) in [
        ("req.url ~ [{1}]", "within [...]"),
        (r"req.url ~ a\{1}", "right behind an escape"),
        ("req.url ~ a{1}*", "before a quantifier"),
        ("req.url ~ a{1}{{2}}", "before a quantifier"),
        ("req.url ~ a{{{1}}}", "within a quantifier"),
        ("req.url ~ (?<{1}>a)", "within the head of a group"),
        (r"req.url ~ \Qa{1}\E", r"behind \Q"),
    ] {
        let prefix = format!("{{1}} cannot stand {place}");
        assert!(said(text).starts_with(&prefix), "{text}: {}", said(text));
    }
    // Where there is no regex, none of that matters.
    assert!(Template::parse("req.url == [{1}]*").is_ok());
}

fn said_of(open: &str) -> String {
    format!("\"{open}\" opens a placeholder that does not end: write {{{{ for a brace")
}

#[test]
fn the_scope_is_whatever_can_be_banned() {
    let scope = |text: &str| template(text).scope().map(|ban| ban.to_string());
    for (text, expected) in [
        ("obj.http.x-model == {1}", Some("obj.http.x-model ~ .")),
        ("obj.http.x-model == m.{1}-{2}x", Some(r"obj.http.x-model ~ ^m\..+-.+x\z")),
        ("obj.http.x-model == {1}{2}", Some("obj.http.x-model ~ .")),
        ("req.url ~ ^/models/{1}/", Some("req.url ~ ^/models/.+/")),
        ("req.url ~ ^/(?:{1}|x)", Some("req.url ~ ^/(?:.+|x)")),
        ("req.url == /a", Some("req.url == /a")),
        ("obj.http.a == x && obj.http.b != {1}", Some("obj.http.a == x")),
        ("obj.http.b != {1}", None),
        ("req.url !~ {1}", None),
        ("obj.age > {1}", None),
        ("req.url ~ ^/(?!{1})", None),
        ("req.url ~ ^/(?:a{1})++", None),
    ] {
        assert_eq!(scope(text).as_deref(), expected, "{text}");
    }
}

const TEMPLATES: &[&str] = &[
    "req.url == {1}",
    "req.url == /a/{1}/b",
    "req.url != {1}",
    r"req.url ~ ^{1}\z",
    r"req.url ~ ^/a/{1}/b\z",
    r"req.url ~ ^(?:{1}|{1})\z",
    r"req.url ~ (?i)^\x2f{1}\z",
    r"req.url !~ ^{1}\z",
    r"obj.http.x ~ ^[a-z]{{2}}{1}\z && req.url == {1}",
    "obj.http.x == {1}{1} && obj.status == {1}",
    "obj.http.x ~ ({1})",
    "obj.age > {1} && obj.ttl < {1}s",
];

/// Values that somebody may hope to break out with, and any text.
fn values() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "a",
        "/",
        "&",
        "&&",
        " && obj.status == 200",
        " ",
        "\t",
        "\r\n",
        "\"",
        "'",
        "\\",
        "\\E",
        "\\Q",
        ".",
        ".*",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "{2}",
        "{1}",
        "|",
        "^",
        "$",
        "?",
        "+",
        "#",
        "(?i)",
        "(*UTF)",
        "\\z",
        "\0",
        "\u{b}",
        "\u{1b}",
        "\u{7f}",
        "ü",
        "日",
        "1",
        "0",
        "x41",
        ":",
        "=",
        "!",
        "<<",
        "~",
        "-",
        ",",
        "%",
    ]);
    prop_oneof![
        prop::collection::vec(pieces, 0..6).prop_map(|pieces| pieces.concat()),
        "(?s).{0,12}",
    ]
}

/// Whether a ban of `req.url` alone hits a URL.
fn hits(ban: &Expression, url: &[u8]) -> bool {
    let headers = HeaderMap::new();
    let request = Request { url, headers: &headers, vantage: Vantage::Varnish };
    let (vantage, times) = (Vantage::Varnish, Times::default());
    let object = Object { status: 200, headers: &headers, vantage, times };
    match Matcher::new(ban, Some(ServerVersion::new(7, 1))).judge(&request, &object) {
        Judgement::Matches => true,
        Judgement::Misses { .. } => false,
        Judgement::Unknown { why } => panic!("{why:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    /// Whatever the value: the same number of conditions, with the same fields and operators, and
    /// one text that is read back as just that.
    #[test]
    fn no_value_makes_another_ban(text in prop::sample::select(TEMPLATES), value in values()) {
        let template = template(text);
        let Ok(ban) = template.fill(&mut |_| Ok::<_, ()>(value.clone())) else { return Ok(()) };
        let shape = |ban: &Expression| -> Vec<_> {
            ban.conditions().iter().map(|c| (c.field.clone(), c.operator)).collect()
        };
        prop_assert_eq!(shape(&ban), shape(&template.sample()));
        prop_assert_eq!(parse(&ban.to_bytes()), Ok(ban.clone()));
        prop_assert_eq!(parse_words(&ban.arguments()), Ok(ban));
    }

    /// A regex can say every value but the empty one, and means it: nothing more, nothing less.
    #[test]
    fn a_value_matches_itself_and_nothing_else(value in values(), other in values()) {
        prop_assume!(!value.is_empty());
        for (text, before, behind) in
            [(r"req.url ~ ^{1}\z", "", ""), (r"req.url ~ ^/a/(?:{1})/b\z", "/a/", "/b"), ("req.url == x{1}y", "x", "y")]
        {
            let filled = template(text).fill(&mut |_| Ok::<_, ()>(value.clone()));
            let ban = match filled {
                Ok(ban) => ban,
                Err(fault) => {
                    prop_assert!(text.contains("=="), "{}: {:?}", text, fault);
                    continue;
                }
            };
            let around = |text: &str| format!("{before}{text}{behind}").into_bytes();
            prop_assert!(hits(&ban, &around(&value)), "{}", ban);
            prop_assert_eq!(hits(&ban, &around(&other)), value == other, "{}", ban);
            for more in [format!("{value}x"), format!("x{value}"), String::new()] {
                let hit = hits(&ban, &around(&more));
                prop_assert!(!hit, "{} hits {:?}", ban, more);
            }
        }
    }

    /// The scope bans whatever some value would have banned.
    #[test]
    fn the_scope_covers_every_value(value in "[!-~]{1,8}", at in 0_usize..4) {
        let text = [
            "req.url == /{1}",
            r"req.url ~ ^/{1}\z",
            "req.url ~ /(?:{1}|x)",
            "req.url == /{1} && obj.http.x !~ {1}",
        ][at];
        let template = template(text);
        let Ok(ban) = template.fill(&mut |_| Ok::<_, ()>(value.clone())) else { return Ok(()) };
        let url = format!("/{value}");
        if hits(&ban, url.as_bytes()) {
            prop_assert!(hits(&template.scope().unwrap(), url.as_bytes()));
        }
    }
}

/// A header's value, too, as far as one can hold it.
#[test]
fn a_header_is_matched_by_its_value() {
    let ban = template("obj.http.x-model == {1}").fill(&mut |_| Ok::<_, ()>("a7".to_owned()));
    let matcher = Matcher::new(&ban.unwrap(), None);
    let none = HeaderMap::new();
    let request = Request { url: b"/", headers: &none, vantage: Vantage::Varnish };
    let judged = |model: &'static str| {
        let headers =
            HeaderMap::from_iter([("x-model".parse().unwrap(), HeaderValue::from_static(model))]);
        let (vantage, times) = (Vantage::Varnish, Times::default());
        matcher.judge(&request, &Object { status: 200, headers: &headers, vantage, times })
    };
    assert_eq!(judged("a7"), Judgement::Matches);
    assert!(matches!(judged("a77"), Judgement::Misses { .. }));
}

/// Any text is a template or is refused, and a template can be filled in or says why not.
#[test]
fn no_text_panics() {
    proptest!(|(text in "((req\\.url|obj\\.age) (~|==|>) )?[a-z{}1 \\[\\]()?\\\\:*+&]{0,16}", value in values())| {
        if let Ok(template) = Template::parse(&text) {
            let _ = template.scope();
            let _ = template.fill(&mut |_| Ok::<_, ()>(value.clone()));
            prop_assert_eq!(Template::parse(&template.to_string()), Ok(template));
        }
    });
}
