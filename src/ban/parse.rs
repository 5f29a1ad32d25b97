//! From what a person writes to an [`Expression`].

use super::duration::BanDuration;
use super::expression::{Argument, Condition, Expression};
use super::field::{Comparison, Field, HeaderName, MAXIMUM_HEADER_NAME, is_name_character};
use super::operator::Operator;
use super::refusal::Refusal;

/// The most conditions of a ban: varnishd hands at most 999 arguments on to its cache process,
/// and answers 105 from 251 conditions on.
pub const MAXIMUM_CONDITIONS: usize = 250;

const TEXT_OPERATORS: &str = "==, !=, ~ or !~";
const DURATION_OPERATORS: &str = "==, !=, >, >=, < or <=";
const FLAG_OPERATORS: &str = "== or !=";

/// Reads a ban written as one text, its tokens between blanks.
///
/// # Errors
/// The [`Refusal`] says what is wrong with it.
pub fn parse(text: &[u8]) -> Result<Expression, Refusal> {
    // Line ends first: they must not pass for blanks between tokens.
    if text.iter().any(|b| is_line_end(*b)) {
        return Err(Refusal::LineEnd { token: Refusal::token(text) });
    }
    let tokens = text.split(|b| is_blank(*b)).filter(|token| !token.is_empty());
    parse_tokens(&tokens.collect::<Vec<_>>())
}

/// Reads a ban whose words are separate already, as on a command line.
///
/// # Errors
/// The [`Refusal`] says what is wrong with it.
pub fn parse_words<W: AsRef<[u8]>>(words: &[W]) -> Result<Expression, Refusal> {
    parse_tokens(&words.iter().map(AsRef::as_ref).collect::<Vec<_>>())
}

fn parse_tokens(tokens: &[&[u8]]) -> Result<Expression, Refusal> {
    if tokens.is_empty() {
        return Err(Refusal::Empty);
    }
    for token in tokens {
        if token.iter().any(|b| is_line_end(*b)) {
            return Err(Refusal::LineEnd { token: Refusal::token(token) });
        }
        if token.contains(&0) {
            return Err(Refusal::Nul { token: Refusal::token(token) });
        }
        if token.iter().any(|b| is_blank(*b)) {
            return Err(Refusal::Blank { token: Refusal::token(token) });
        }
    }
    if let [.., b"<<", terminator] = tokens {
        return Err(Refusal::Heredoc { terminator: Refusal::token(terminator) });
    }
    let count = tokens.len().div_ceil(4);
    if count > MAXIMUM_CONDITIONS {
        return Err(Refusal::TooManyConditions { count });
    }
    let mut conditions = Vec::with_capacity(count);
    let mut rest = tokens;
    loop {
        let (condition, after) = match rest {
            [field, operator, argument, after @ ..] => {
                (parse_condition(field, operator, argument)?, after)
            }
            [field, operator] => {
                // The field and the operator are judged first: they may be what is wrong.
                let field = parse_field(field)?;
                parse_operator(&field, operator)?;
                return Err(incomplete("an argument", operator));
            }
            [field] => {
                parse_field(field)?;
                return Err(incomplete("an operator", field));
            }
            [] => return Err(incomplete("a condition", b"&&")),
        };
        conditions.push(condition);
        match after {
            [] => return Ok(Expression::new(conditions)),
            [b"&&", after @ ..] => rest = after,
            [other, ..] => return Err(Refusal::Joint { got: Refusal::token(other) }),
        }
    }
}

fn incomplete(expected: &'static str, after: &[u8]) -> Refusal {
    Refusal::Incomplete { expected, after: Refusal::token(after) }
}

fn parse_condition(field: &[u8], operator: &[u8], argument: &[u8]) -> Result<Condition, Refusal> {
    let field = parse_field(field)?;
    let operator = parse_operator(&field, operator)?;
    if argument.is_empty() {
        let (field, operator) = (field.to_string(), operator.to_string());
        return Err(Refusal::EmptyArgument { field, operator });
    }
    let got = || Refusal::token(argument);
    let argument = match field.comparison() {
        Comparison::Text => parse_text(&field, operator, argument)?,
        Comparison::Duration => Argument::Duration(
            BanDuration::parse(argument)
                .ok_or_else(|| Refusal::Duration { field: field.to_string(), got: got() })?,
        ),
        // No version of varnishd at hand knows these fields: the server judges the argument.
        Comparison::Flag => Argument::Text(argument.to_vec()),
    };
    Ok(Condition { field, operator, argument })
}

fn parse_text(field: &Field, operator: Operator, argument: &[u8]) -> Result<Argument, Refusal> {
    if argument.windows(2).any(|pair| pair == b"&&") {
        return Err(Refusal::AndInArgument { token: Refusal::token(argument) });
    }
    // Entity tags are written in quotes (RFC 9110 section 8.8.3), so a header may well be
    // compared with a text in quotes; a URL or a status never is.
    let quotable = field.header().is_some() && !operator.takes_regex();
    if !quotable && matches!(argument, [b'"', .., b'"'] | [b'\'', .., b'\'']) {
        return Err(Refusal::Quoted { token: Refusal::token(argument) });
    }
    Ok(Argument::Text(argument.to_vec()))
}

fn parse_field(token: &[u8]) -> Result<Field, Refusal> {
    if let Some(name) = token.strip_prefix(b"req.http.") {
        return parse_header_name(token, name).map(Field::RequestHeader);
    }
    if let Some(name) = token.strip_prefix(b"obj.http.") {
        return parse_header_name(token, name).map(Field::ObjectHeader);
    }
    field_without_name(token).ok_or_else(|| {
        let got = Refusal::token(token);
        let hint = field_hint(&got);
        Refusal::UnknownField { got, hint }
    })
}

fn field_without_name(token: &[u8]) -> Option<Field> {
    Some(match token {
        b"req.url" => Field::RequestUrl,
        b"obj.status" => Field::ObjectStatus,
        b"obj.ttl" => Field::ObjectTtl,
        b"obj.age" => Field::ObjectAge,
        b"obj.grace" => Field::ObjectGrace,
        b"obj.keep" => Field::ObjectKeep,
        b"obj.last_hit" => Field::ObjectLastHit,
        b"obj.hfm" => Field::ObjectHitForMiss,
        b"obj.hfp" => Field::ObjectHitForPass,
        b"obj.uncacheable" => Field::ObjectUncacheable,
        _ => return None,
    })
}

fn parse_header_name(field: &[u8], name: &[u8]) -> Result<HeaderName, Refusal> {
    if name.is_empty() {
        return Err(Refusal::EmptyHeaderName { field: Refusal::token(field) });
    }
    if name.len() > MAXIMUM_HEADER_NAME {
        return Err(Refusal::LongHeaderName { length: name.len() });
    }
    let text = String::from_utf8_lossy(name);
    let fits = |c: char| u8::try_from(c).is_ok_and(is_name_character);
    if let Some(found) = text.chars().find(|&c| !fits(c)) {
        return Err(Refusal::HeaderNameCharacter { name: Refusal::token(name), found });
    }
    HeaderName::new(&text).ok_or_else(|| Refusal::EmptyHeaderName { field: Refusal::token(field) })
}

fn parse_operator(field: &Field, token: &[u8]) -> Result<Operator, Refusal> {
    let equality = |o: Operator| matches!(o, Operator::Equal | Operator::NotEqual);
    let comparison = field.comparison();
    let fits = |o: Operator| match comparison {
        Comparison::Text => equality(o) || o.takes_regex(),
        Comparison::Duration => !o.takes_regex(),
        Comparison::Flag => equality(o),
    };
    let expected = match comparison {
        Comparison::Text => TEXT_OPERATORS,
        Comparison::Duration => DURATION_OPERATORS,
        Comparison::Flag => FLAG_OPERATORS,
    };
    Operator::from_bytes(token).filter(|&o| fits(o)).ok_or_else(|| Refusal::UnknownOperator {
        field: field.to_string(),
        got: Refusal::token(token),
        expected,
    })
}

/// What may be meant by a field that there is not.
fn field_hint(got: &str) -> String {
    let lower = got.to_ascii_lowercase();
    let meant = |text: &str| format!(": is {text} meant?");
    if lower == "ban" {
        return ": leave out the word \"ban\"".to_owned();
    }
    let is_field = |text: &str| {
        let named = ["req.http.", "obj.http."].iter().any(|p| text.starts_with(p));
        named || field_without_name(text.as_bytes()).is_some()
    };
    if is_field(&lower) {
        return meant(&lower);
    }
    for operator in ["!=", "==", "!~", "~", "="] {
        if got.split_once(operator).is_some_and(|(field, _)| is_field(field)) {
            return format!(": write blanks around {operator:?}");
        }
    }
    match lower.as_str() {
        "req.host" | "host" => return meant("req.http.host"),
        "url" | "bereq.url" | "obj.url" | "resp.url" => {
            return ": is req.url meant, or a header that the VCL keeps the URL in, such as \
                    obj.http.x-url?"
                .to_owned();
        }
        "status" | "resp.status" | "beresp.status" => return meant("obj.status"),
        "obj.hits" => return ": bans cannot look at hits".to_owned(),
        "req.method" | "client.ip" | "req.proto" => {
            return ": bans cannot look at it; copy it to a header in the VCL".to_owned();
        }
        _ => {}
    }
    if lower.starts_with("resp.http.")
        || lower.starts_with("beresp.http.")
        || lower.starts_with("object.http.")
    {
        return ": stored headers are obj.http.NAME".to_owned();
    }
    if lower.starts_with("bereq.http.") || lower.starts_with("request.http.") {
        return ": request headers are req.http.NAME".to_owned();
    }
    for known in ["req.url", "obj.status", "obj.ttl", "obj.age", "obj.grace", "obj.keep"] {
        // varnishd before 7.4 takes these as the field whose name they start with.
        if lower.starts_with(known) {
            return meant(known);
        }
    }
    ": expected req.url, req.http.NAME, obj.http.NAME, obj.status, obj.ttl, obj.age, obj.grace, \
     obj.keep or obj.last_hit"
        .to_owned()
}

fn is_line_end(byte: u8) -> bool {
    // Vertical tab and form feed are blanks to varnishd, but not to any person's editor.
    matches!(byte, b'\n' | b'\r' | 0x0b | 0x0c)
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(text: &str) -> &'static str {
        match parse(text.as_bytes()) {
            Ok(_) => "ok",
            Err(refusal) => refusal.code(),
        }
    }

    fn message(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn reads_every_field_and_operator() {
        for good in [
            "req.url == /a",
            "req.url != /a",
            r"req.url ~ ^/a\.html$",
            "req.url !~ ^/a",
            "req.http.Host == example.com",
            "obj.status == 404",
            "obj.status ~ ^5",
            "obj.http.x-url ~ ^/a && obj.http.x-host == h",
            "obj.ttl < 10s",
            "obj.age >= 1.5h",
            "obj.grace == 10s",
            "obj.keep != 0s",
            "obj.last_hit > 7d",
            "obj.hfm == true",
            "obj.hfp != 1",
            "obj.uncacheable == true",
            "  req.url\t==   /a  ",
            "obj.http.etag == \"abc\"",
            "req.url == <<",
            "obj.http.x == && && req.url == /",
        ] {
            // The last one is refused: an argument `&&` is more likely a slip.
            let expected = if good.contains("== &&") { "and-in-argument" } else { "ok" };
            assert_eq!(code(good), expected, "{good}");
        }
    }

    #[test]
    fn refuses_what_varnishd_cannot_carry() {
        for (text, expected) in [
            ("", "empty-ban"),
            ("   ", "empty-ban"),
            ("req.url == /a\nquit", "line-end"),
            ("req.url == /a\r", "line-end"),
            ("req.url == /a\x0bb", "line-end"),
            ("req.url == /a\0b", "nul"),
            ("req.url ~ a&&req.http.host ~ b", "and-in-argument"),
            ("req.url == a b", "expected-and"),
            ("req.url == a || req.url == b", "expected-and"),
            ("req.url == a and req.url == b", "expected-and"),
            ("req.url == a &&", "incomplete"),
            ("req.url ==", "incomplete"),
            ("req.url", "incomplete"),
            ("&& req.url == a", "unknown-field"),
            ("req.urlx == a", "unknown-field"),
            ("REQ.URL == a", "unknown-field"),
            ("obj.hits > 1", "unknown-field"),
            ("req.http == x", "unknown-field"),
            ("req.url=x", "unknown-field"),
            ("req.url = x", "unknown-operator"),
            ("req.url > x", "unknown-operator"),
            ("obj.status > 400", "unknown-operator"),
            ("obj.ttl ~ 5s", "unknown-operator"),
            ("obj.hfm ~ true", "unknown-operator"),
            ("obj.ttl > 5", "duration"),
            ("obj.ttl > 5S", "duration"),
            ("req.url << EOF", "heredoc"),
            ("req.url == a && req.url << EOF", "heredoc"),
            ("obj.http. ~ x", "empty-header-name"),
            ("req.http.a:b ~ x", "header-name-character"),
            ("req.http.é ~ x", "header-name-character"),
            ("req.url ~ \"^/a\"", "quoted-argument"),
            ("req.url == '/a'", "quoted-argument"),
            ("obj.http.x ~ \"a\"", "quoted-argument"),
        ] {
            assert_eq!(code(text), expected, "{text:?}");
        }
        for (length, expected) in [(126, "ok"), (127, "long-header-name")] {
            assert_eq!(code(&format!("obj.http.{} == x", "a".repeat(length))), expected);
        }
        for (count, expected) in [(250, "ok"), (251, "too-many-conditions")] {
            assert_eq!(code(&vec!["obj.http.x == y"; count].join(" && ")), expected);
        }
    }

    #[test]
    fn words_may_hold_what_a_text_cannot() {
        let words = |words: &[&str]| parse_words(words).map_err(|r| r.code());
        assert!(words(&["req.url", "~", "^/a"]).is_ok());
        assert_eq!(words(&["req.url", "~", "a b"]), Err("blank-in-argument"));
        assert_eq!(words(&["req.url", "==", ""]), Err("empty-argument"));
        assert_eq!(words(&["req.url", "==", "a\nquit"]), Err("line-end"));
        assert_eq!(words(&[]), Err("empty-ban"));
    }

    #[test]
    fn says_what_may_be_meant() {
        for (text, hint) in [
            ("ban req.url ~ /", "there is no field \"ban\": leave out the word \"ban\""),
            ("Req.Url ~ /", "there is no field \"Req.Url\": is req.url meant?"),
            ("req.url~/ x y", "there is no field \"req.url~/\": write blanks around \"~\""),
            ("req.host == x", "there is no field \"req.host\": is req.http.host meant?"),
            (
                "resp.http.x == y",
                "there is no field \"resp.http.x\": stored headers are obj.http.NAME",
            ),
            (
                "req.url == a or req.url == b",
                "expected && between two conditions, got \"or\": there is no \"or\" in a ban; send \
                 two bans, or write a|b within one regex",
            ),
        ] {
            assert_eq!(message(text), hint);
        }
    }

    fn expressions() -> impl Strategy<Value = Vec<u8>> {
        let field =
            prop::sample::select(vec!["req.url", "req.http.Host", "obj.http.x-url", "obj.status"]);
        let operator = prop::sample::select(vec!["==", "!=", "~", "!~"]);
        let argument = prop::collection::vec(0x21_u8..=0xff, 1..12);
        let text = (field, operator, argument).prop_map(|(field, operator, argument)| {
            [field.as_bytes(), operator.as_bytes(), &argument].join(&b' ')
        });
        let aged =
            ("obj\\.(ttl|age|grace|keep)", "(==|!=|<|<=|>|>=)", "-?[0-9]{1,5}(ms|s|m|h|d|w|y)")
                .prop_map(|(field, operator, argument)| {
                    format!("{field} {operator} {argument}").into_bytes()
                });
        prop::collection::vec(prop_oneof![text, aged], 1..5)
            .prop_map(|conditions| conditions.join(&b" && "[..]))
    }

    proptest! {
        #[test]
        fn prints_what_it_reads(text in expressions()) {
            if let Ok(expression) = parse(&text) {
                prop_assert_eq!(&expression.to_bytes(), &text);
                let again = [parse_words(&expression.arguments()), parse(&expression.to_bytes())];
                prop_assert!(again.iter().all(|read| read.as_ref() == Ok(&expression)));
            }
        }

        #[test]
        fn no_input_panics(text in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(expression) = parse(&text) {
                let _ = super::super::lint(&expression, &super::super::LintOptions::default());
            }
        }

        #[test]
        fn nothing_that_passes_splits_on_the_wire(text in "[a-z.=~ &<\\n\\r\\t\"\\\\|-]{0,40}") {
            if let Ok(expression) = parse(text.as_bytes()) {
                let arguments = expression.arguments();
                prop_assert_eq!(arguments.len() % 4, 3);
                let whole = |a: &Vec<u8>| !a.is_empty() && !a.iter().any(|b| b" \t\r\n\0\x0b\x0c".contains(b));
                prop_assert!(arguments.iter().all(whole));
                let last_but_one = &arguments[arguments.len() - 2];
                prop_assert_ne!(last_but_one, &b"<<".to_vec());
            }
        }
    }
}
