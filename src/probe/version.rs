//! From an answer to its version, by the target's rule.

use std::sync::Arc;

use http::header::{ETAG, HeaderMap, LAST_MODIFIED, LOCATION};
use sha2::{Digest as _, Sha256};

use super::body::{Body, Content, Need, digest_without};
use super::json;
use crate::httpcache::{self, EntityTag};
use crate::model::{Mark, PointerValue, Version};
use crate::verdict::{Compare, Target, Unversioned, Validators};

/// The longest text that a version holds as it is; of a longer one it holds the digest.
const LONGEST_TEXT: usize = 256;

/// The longest validator that is sent back.
const LONGEST_VALIDATOR: usize = 1_024;

/// What has to be known of the body of an answer with this status.
pub(super) fn need(status: u16, target: &Target) -> Need {
    match &target.compare {
        _ if !is_success(status) => Need::End,
        Compare::Etag | Compare::LastModified | Compare::Header(_) => Need::End,
        Compare::Body if target.ignore.is_empty() => Need::Digest,
        Compare::Body | Compare::Json(_) | Compare::Value(_) => Need::Bytes,
    }
}

/// The version of an answer: by the rule for 2xx, by where it leads for a redirect, and by the
/// status alone for 404 and 410. A 304 is not for here: it stands for what it was asked about.
pub(super) fn version(
    status: u16,
    headers: &HeaderMap,
    body: &Body,
    target: &Target,
) -> Result<Version, Unversioned> {
    let mark = match status {
        _ if is_success(status) => by_rule(headers, body, target)?,
        304 => return Err(Unversioned::Status),
        300..=399 => headers
            .get(LOCATION)
            .map_or(Mark::Status, |location| Mark::Location(text_of(location.as_bytes()))),
        404 | 410 => Mark::Status,
        _ => return Err(Unversioned::Status),
    };
    Ok(Version { status, mark })
}

/// The validators of an answer, as received. One that is too long or no text is left out: it
/// could not be kept, or not be sent.
pub(super) fn validators(headers: &HeaderMap) -> Validators {
    let text = |name| -> Option<Arc<str>> {
        let value = headers.get(name)?.as_bytes();
        let text = std::str::from_utf8(value).ok()?;
        (!text.is_empty() && text.len() <= LONGEST_VALIDATOR).then(|| text.into())
    };
    Validators { etag: text(ETAG), last_modified: text(LAST_MODIFIED) }
}

fn is_success(status: u16) -> bool {
    (200..=299).contains(&status)
}

fn by_rule(headers: &HeaderMap, body: &Body, target: &Target) -> Result<Mark, Unversioned> {
    match &target.compare {
        Compare::Body => Ok(Mark::Body(match &body.content {
            Content::Digest(digest) => *digest,
            Content::Bytes(bytes) => digest_without(bytes, &target.ignore),
            Content::Nothing => Sha256::digest(b"").into(),
        })),
        Compare::Etag => {
            let value = headers.get(ETAG).ok_or(Unversioned::NoEtag)?;
            let tag = EntityTag::parse(value.as_bytes()).ok_or(Unversioned::NoEtag)?;
            Ok(Mark::Etag(text_of(tag.version().as_bytes())))
        }
        Compare::LastModified => {
            let date = httpcache::last_modified(headers).ok_or(Unversioned::NoLastModified)?;
            Ok(Mark::LastModified(date))
        }
        Compare::Header(name) => {
            // Several lines are one list (RFC 9110 section 5.3).
            let lines = headers.get_all(name.as_str()).iter();
            let lines: Result<Vec<_>, _> =
                lines.map(|line| std::str::from_utf8(line.as_bytes()).map(str::trim)).collect();
            let lines = lines.map_err(|_| Unversioned::NoHeader)?;
            if lines.is_empty() {
                return Err(Unversioned::NoHeader);
            }
            Ok(Mark::Token(text_of(lines.join(", ").as_bytes())))
        }
        Compare::Json(pointer) => {
            let Content::Bytes(bytes) = &body.content else {
                return Err(Unversioned::NotJson);
            };
            json::value_at(bytes, pointer).map(|value| Mark::Token(text_of(value.as_bytes())))
        }
        Compare::Value(pointer) => {
            let Content::Bytes(bytes) = &body.content else {
                return Err(Unversioned::NotJson);
            };
            let value = match pointer {
                Some(pointer) => {
                    let value = json::value_at(bytes, pointer)?;
                    if value == "null" {
                        return Err(Unversioned::NoJsonValue);
                    }
                    PointerValue::from_bytes(value.as_bytes())
                }
                None => PointerValue::from_bytes(bytes),
            };
            value.map(Mark::Value).map_err(Unversioned::Value)
        }
    }
}

/// The text, if it can be shown and stored as it is; else a digest that stands for it. A peer
/// chooses it, and it ends up in logs and on terminals.
fn text_of(value: &[u8]) -> Arc<str> {
    match std::str::from_utf8(value) {
        Ok(text) if text.len() <= LONGEST_TEXT && !text.chars().any(char::is_control) => {
            text.into()
        }
        _ => format!("sha256:{}", hex::encode(Sha256::digest(value))).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;
    use regex::bytes::Regex;

    use super::*;
    use crate::model::ValueFault;

    fn target(compare: Compare) -> Target {
        Target {
            url: "http://h/".parse().unwrap(),
            headers: Vec::new(),
            compare,
            ignore: Vec::new(),
            body_limit: 1_000,
            timeout: Duration::from_secs(1),
        }
    }

    fn headers(lines: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        map
    }

    fn read(
        status: u16,
        compare: Compare,
        lines: &[(&'static str, &[u8])],
    ) -> Result<String, Unversioned> {
        let body = Body { size: 0, content: Content::Nothing };
        version(status, &headers(lines), &body, &target(compare)).map(|v| v.to_string())
    }

    #[test]
    fn tags_are_compared_weakly() {
        let tag = |value: &[u8]| read(200, Compare::Etag, &[("etag", value)]);
        assert_eq!(tag(b"\"v1\"").as_deref(), Ok("200 etag:v1"));
        assert_eq!(tag(b"W/\"v1\""), tag(b"\"v1\""));
        assert_eq!(tag(b"\"v1-gzip\""), tag(b"\"v1\""));
        assert_eq!(tag(b""), Err(Unversioned::NoEtag));
        assert_eq!(read(200, Compare::Etag, &[]), Err(Unversioned::NoEtag));
    }

    #[test]
    fn a_header_that_comes_in_several_lines_is_a_list() {
        let header = |lines: &[(&'static str, &[u8])]| {
            read(200, Compare::Header("X-Model".to_owned()), lines)
        };
        assert_eq!(header(&[("x-model", b" 7 ")]).as_deref(), Ok("200 token:7"));
        assert_eq!(
            header(&[("x-model", b"7"), ("x-model", b"8")]).as_deref(),
            Ok("200 token:7, 8")
        );
        assert_eq!(header(&[("x-other", b"7")]), Err(Unversioned::NoHeader));
        assert_eq!(header(&[("x-model", b"\xff")]), Err(Unversioned::NoHeader));
    }

    #[test]
    fn a_date_is_read_as_a_time() {
        let date = |value: &[u8]| read(200, Compare::LastModified, &[("last-modified", value)]);
        let version = date(b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(version.as_deref(), Ok("200 last-modified:784111777"));
        assert_eq!(date(b"yesterday"), Err(Unversioned::NoLastModified));
    }

    #[test]
    fn the_status_decides_what_is_compared() {
        for status in [301, 302, 303, 307, 308] {
            let redirect = read(status, Compare::Etag, &[("location", b"/there")]);
            assert_eq!(redirect, Ok(format!("{status} location:/there")));
        }
        assert_eq!(read(302, Compare::Body, &[]).as_deref(), Ok("302 status:"));
        assert_eq!(read(404, Compare::Etag, &[("etag", b"x")]).as_deref(), Ok("404 status:"));
        assert_eq!(read(410, Compare::Body, &[]).as_deref(), Ok("410 status:"));
        for status in [101, 199, 304, 400, 401, 403, 429, 500, 503, 599, 999] {
            let version = read(status, Compare::Etag, &[("etag", b"x"), ("location", b"/")]);
            assert_eq!(version, Err(Unversioned::Status), "{status}");
        }
        assert!(read(204, Compare::Body, &[]).unwrap().starts_with("204 body:e3b0c442"));
    }

    #[test]
    fn what_cannot_be_shown_is_a_digest() {
        let location = |value: &[u8]| read(302, Compare::Body, &[("location", value)]).unwrap();
        assert_eq!(location("/ü".as_bytes()), "302 location:/ü");
        assert!(location(b"/\xff").starts_with("302 location:sha256:"));
        assert!(location(&[b'x'; 257]).starts_with("302 location:sha256:"));
        assert_ne!(location(&[b'x'; 257]), location(&[b'x'; 258]));
        let body = Body { size: 0, content: Content::Bytes(br#"{"v":"\u001b[31m"}"#.to_vec()) };
        let target = target(Compare::Json("/v".to_owned()));
        let shown = version(200, &HeaderMap::new(), &body, &target).unwrap().to_string();
        assert!(shown.starts_with("200 token:sha256:"), "{shown:?}");
    }

    #[test]
    fn a_pointer_names_the_whole_body_or_a_value_within() {
        let named = |text: &str, pointer: Option<&str>| {
            let body = Body { size: 0, content: Content::Bytes(text.as_bytes().to_vec()) };
            let target = target(Compare::Value(pointer.map(str::to_owned)));
            version(200, &HeaderMap::new(), &body, &target).map(|version| version.to_string())
        };
        assert_eq!(named("42\n", None).as_deref(), Ok("200 value:42"));
        assert_eq!(named(r#"{"a":[{"v":"v-7"}]}"#, Some("/a/0/v")).as_deref(), Ok("200 value:v-7"));
        assert_eq!(named(r#"{"v":7}"#, Some("/v")).as_deref(), Ok("200 value:7"));
        assert_eq!(named(r#"{"v":7}"#, Some("/w")), Err(Unversioned::NoJsonValue));
        assert_eq!(named(r#"{"v":null}"#, Some("/v")), Err(Unversioned::NoJsonValue));
        assert_eq!(named("<html>", Some("/v")), Err(Unversioned::NotJson));
        let climbs = Err(Unversioned::Value(ValueFault::Climbs));
        assert_eq!(named(r#"{"v":"../x"}"#, Some("/v")), climbs);
        assert_eq!(named("\n", None), Err(Unversioned::Value(ValueFault::Empty)));
        let long = Err(Unversioned::Value(ValueFault::TooLong { got: 1_000 }));
        assert_eq!(named(&"x".repeat(1_000), None), long);
    }

    #[test]
    fn a_body_is_kept_only_where_it_is_looked_into() {
        assert_eq!(need(200, &target(Compare::Body)), Need::Digest);
        assert_eq!(need(200, &target(Compare::Etag)), Need::End);
        assert_eq!(need(200, &target(Compare::Json(String::new()))), Need::Bytes);
        assert_eq!(need(404, &target(Compare::Json(String::new()))), Need::End);
        assert_eq!(need(302, &target(Compare::Body)), Need::End);
        let mut ignoring = target(Compare::Body);
        ignoring.ignore.push(Regex::new("x").unwrap());
        assert_eq!(need(200, &ignoring), Need::Bytes);
    }

    #[test]
    fn validators_are_kept_as_received() {
        let lines: &[(&'static str, &[u8])] =
            &[("etag", b"W/\"v1-gzip\""), ("last-modified", b"Sun, 06 Nov 1994 08:49:37 GMT")];
        let kept = validators(&headers(lines));
        assert_eq!(kept.etag.as_deref(), Some("W/\"v1-gzip\""));
        assert_eq!(kept.last_modified.as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert!(validators(&headers(&[("etag", b"\xff")])).is_empty());
        assert!(validators(&headers(&[("etag", &[b'x'; 2_000])])).is_empty());
    }
}
