//! Bans for a URL as it stands in a browser.

use http::{HeaderMap, HeaderName as FieldName, HeaderValue};

use crate::model::HttpUrl;

use super::expression::{Argument, Condition, Expression};
use super::field::{Field, HeaderName};
use super::operator::Operator;
use super::refusal::Refusal;

/// The response headers that the VCL copies a request's URL and host to. A ban on them needs no
/// request to be tested, so the lurker can work it off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanHeaders {
    /// Holds `req.url`, path and query.
    pub url: HeaderName,
    /// Holds the `Host` header, if the VCL copies that too.
    pub host: Option<HeaderName>,
}

impl BanHeaders {
    /// What the object has that was sent with the header fields `seen` for `url`: these, and the
    /// ones for bans, which the VCL takes away on delivery.
    ///
    /// A host with capitals is left out: whether the VCL lowers it is not known.
    #[must_use]
    pub fn stored_with(&self, seen: &HeaderMap, url: &HttpUrl) -> HeaderMap {
        let mut all = seen.clone();
        let host = url.authority();
        let host = (host == host.to_ascii_lowercase()).then_some(host);
        let values = [(Some(&self.url), Some(url.path_and_query())), (self.host.as_ref(), host)];
        for (name, value) in values {
            let (Some(name), Some(value)) = (name, value) else { continue };
            let name = FieldName::from_bytes(name.as_str().as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
                all.entry(name).or_insert(value);
            }
        }
        all
    }
}

/// How much a URL stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// This URL, with this query, byte for byte.
    Exact,
    /// Every URL of the host whose path and query begin with these bytes.
    Prefix,
}

/// A ban for one URL, or for all that begin with it, on its host alone.
///
/// The path is compared as it is written, since that is what the cache does; with another
/// percent-encoding it would be another object. The host is compared without regard to case
/// (RFC 9110 section 4.2.3: clients may write it either way, and not every VCL lowers it), with
/// or without the scheme's own port, which clients may or may not write.
///
/// Where only the URL is copied to a response header, the host is looked for in the request:
/// a ban that hits another host's page is worse than one that takes longer.
///
/// # Errors
/// [`Refusal`] where the path cannot be put into a ban.
pub fn for_url(
    url: &HttpUrl,
    reach: Reach,
    headers: Option<&BanHeaders>,
) -> Result<Expression, Refusal> {
    let on_object = |name: &HeaderName| Field::ObjectHeader(name.clone());
    let url_field = headers.map_or(Field::RequestUrl, |headers| on_object(&headers.url));
    let host_field = match headers.and_then(|headers| headers.host.as_ref()) {
        Some(name) => on_object(name),
        None => Field::RequestHeader(HeaderName::new("host").ok_or(Refusal::Empty)?),
    };
    let path = url.path_and_query().as_bytes();
    // `&&` cannot stand in an argument as it is, see `Refusal::AndInArgument`.
    let literal = reach == Reach::Exact && !path.windows(2).any(|pair| pair == b"&&");
    let (operator, argument) = if literal {
        (Operator::Equal, path.to_vec())
    } else {
        let end = if reach == Reach::Exact { "\\z" } else { "" };
        (Operator::Match, [b"^", escaped(path).as_slice(), end.as_bytes()].concat())
    };
    let conditions = vec![
        Condition {
            field: host_field,
            operator: Operator::Match,
            argument: Argument::Text(host_regex(url)),
        },
        Condition { field: url_field, operator, argument: Argument::Text(argument) },
    ];
    Ok(Expression::new(conditions))
}

fn host_regex(url: &HttpUrl) -> Vec<u8> {
    let address = url.address();
    let host = if address.host().contains(':') {
        format!("[{}]", address.host())
    } else {
        address.host().to_owned()
    };
    let port = if address.port() == url.scheme().default_port() {
        format!("(:{})?", address.port())
    } else {
        format!(":{}", address.port())
    };
    [b"(?i)^", escaped(host.as_bytes()).as_slice(), port.as_bytes(), b"\\z"].concat()
}

/// A regex that matches exactly these bytes.
fn escaped(text: &[u8]) -> Vec<u8> {
    let mut regex = Vec::with_capacity(text.len() + 8);
    let mut last = 0;
    for &byte in text {
        match byte {
            b'&' if last == b'&' => regex.extend(b"[&]"),
            b'\\' | b'^' | b'$' | b'.' | b'[' | b']' | b'|' | b'(' | b')' | b'?' | b'*' | b'+'
            | b'{' | b'}' => regex.extend([b'\\', byte]),
            _ => regex.push(byte),
        }
        // `[&]&` holds no `&&`, so the next one may stand as it is.
        last = if byte == b'&' && last == b'&' { 0 } else { byte };
    }
    regex
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{lint, parse};
    use super::*;

    fn url(text: &str) -> HttpUrl {
        text.parse().unwrap()
    }

    fn headers() -> BanHeaders {
        let name = |text| HeaderName::new(text).unwrap();
        BanHeaders { url: name("x-url"), host: Some(name("x-host")) }
    }

    #[test]
    fn names_host_and_path() {
        let ban = for_url(&url("http://rec.example.com/api/?v=1"), Reach::Exact, None).unwrap();
        assert_eq!(
            ban.to_string(),
            r"req.http.host ~ (?i)^rec\.example\.com(:80)?\z && req.url == /api/?v=1"
        );
        let ban = for_url(&url("https://h:8443/a.b"), Reach::Prefix, Some(&headers())).unwrap();
        assert_eq!(ban.to_string(), r"obj.http.x-host ~ (?i)^h:8443\z && obj.http.x-url ~ ^/a\.b");
        let ban = for_url(&url("http://[::1]/?a=1&&&b"), Reach::Exact, None).unwrap();
        assert_eq!(
            ban.to_string(),
            r"req.http.host ~ (?i)^\[::1\](:80)?\z && req.url ~ ^/\?a=1&[&]&b\z"
        );
    }

    #[test]
    fn looks_for_the_host_in_the_request_when_no_header_has_it() {
        let headers = BanHeaders { host: None, ..headers() };
        let ban = for_url(&url("http://h/x"), Reach::Exact, Some(&headers)).unwrap();
        assert_eq!(ban.to_string(), r"req.http.host ~ (?i)^h(:80)?\z && obj.http.x-url == /x");
    }

    /// Whether a ban's condition holds for a value, asked of PCRE2 itself.
    fn holds(condition: &Condition, value: &str) -> bool {
        let text = condition.argument.bytes();
        match condition.operator {
            Operator::Equal => text == value.as_bytes(),
            _ => {
                let regex = std::str::from_utf8(text).unwrap();
                pcre2::bytes::Regex::new(regex).unwrap().is_match(value.as_bytes()).unwrap()
            }
        }
    }

    const PATH: &str = "/[!$-;=?-Z_a-z~|{}\\[\\]&]{0,12}";

    proptest! {
        #[test]
        fn matches_that_url_alone(path in PATH, other in PATH, host in "[a-z][a-z0-9-]{0,5}(\\.[a-z]{2,3}){1,2}") {
            let target = url(&format!("http://{host}{path}"));
            for reach in [Reach::Exact, Reach::Prefix] {
                let ban = for_url(&target, reach, None).unwrap();
                // It survives printing and reading, and the lint has nothing against it.
                prop_assert_eq!(parse(&ban.to_bytes()).unwrap(), ban.clone());
                let options = super::super::LintOptions::default();
                prop_assert_eq!(lint(&ban, &options).refusals, vec![]);
                let [host_part, url_part] = ban.conditions() else { panic!() };
                let same = [host.clone(), host.to_uppercase(), format!("{host}:80")];
                let others = [format!("{host}:81"), format!("a{host}"), host.replace('.', "x")];
                prop_assert!(same.iter().all(|host| holds(host_part, host)));
                prop_assert!(!others.iter().any(|host| holds(host_part, host)));
                prop_assert!(holds(url_part, &path));
                let longer = format!("{path}x");
                prop_assert_eq!(holds(url_part, &longer), reach == Reach::Prefix);
                let expected = match reach {
                    Reach::Exact => other == path,
                    Reach::Prefix => other.starts_with(&path),
                };
                prop_assert_eq!(holds(url_part, &other), expected);
            }
        }
    }
}
