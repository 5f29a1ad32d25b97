//! The request that is sent for a target.

use http::header::{
    ACCEPT_ENCODING, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, TRANSFER_ENCODING, USER_AGENT,
};
use http::uri::PathAndQuery;
use http::{HeaderName, Method, Uri};
use http_body_util::Empty;

use super::connection::Message;
use crate::verdict::{Condition, FetchRequest, Target};

/// Builds the request: `GET` with the URL's path and authority verbatim, the target's headers,
/// and `User-Agent` and `Accept-Encoding` where they give none.
///
/// `None` when the path cannot be sent as it is written: hyper takes it as a [`Uri`], which holds
/// at most 65,534 bytes. Every shorter path of an [`HttpUrl`](crate::model::HttpUrl) can be.
pub(super) fn build(request: &FetchRequest, user_agent: &HeaderValue) -> Option<Message> {
    let mut message = bare(Method::GET, &request.target, &[], user_agent)?;
    if let Some(condition) = &request.condition {
        add_condition(message.headers_mut(), condition);
    }
    Some(message)
}

/// The same with another method, and with these headers besides.
pub(super) fn command(
    method: &Method,
    target: &Target,
    headers: &[(HeaderName, HeaderValue)],
    user_agent: &HeaderValue,
) -> Option<Message> {
    bare(method.clone(), target, headers, user_agent)
}

fn bare(
    method: Method,
    target: &Target,
    further: &[(HeaderName, HeaderValue)],
    user_agent: &HeaderValue,
) -> Option<Message> {
    let path = PathAndQuery::try_from(target.url.path_and_query()).ok()?;
    if path.as_str() != target.url.path_and_query() {
        return None;
    }
    let mut message = Message::new(Empty::new());
    *message.method_mut() = method;
    *message.uri_mut() = Uri::from(path);

    let headers = message.headers_mut();
    headers.reserve(target.headers.len().saturating_add(5));
    headers.insert(HOST, HeaderValue::from_str(target.url.authority()).ok()?);
    for (name, value) in target.headers.iter().chain(further) {
        // What frames a message is not the target's to say.
        if ![HOST, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    if !headers.contains_key(USER_AGENT) {
        headers.insert(USER_AGENT, user_agent.clone());
    }
    if !headers.contains_key(ACCEPT_ENCODING) {
        // Varnish keeps what the origin packed as it is, and asks the origin for gzip whatever a
        // client wants: this is the form that costs it nothing (varnishd(1), http_gzip_support).
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Some(message)
}

fn add_condition(headers: &mut HeaderMap, condition: &Condition) {
    let sendable = |text: &str| HeaderValue::from_bytes(text.as_bytes()).ok();
    let validators = &condition.validators;
    if let Some(etag) = validators.etag.as_deref().and_then(sendable) {
        headers.insert(IF_NONE_MATCH, etag);
    }
    if let Some(date) = validators.last_modified.as_deref().and_then(sendable) {
        headers.insert(IF_MODIFIED_SINCE, date);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::model::{Mark, Version};
    use crate::verdict::{Compare, Validators};

    fn request(url: &str, headers: &[(&'static str, &str)]) -> FetchRequest {
        let header = |&(name, value): &(&'static str, &str)| {
            (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())
        };
        let target = Target {
            url: url.parse().unwrap(),
            headers: headers.iter().map(header).collect(),
            compare: Compare::Body,
            ignore: Vec::new(),
            body_limit: 1_000,
            timeout: Duration::from_secs(1),
        };
        FetchRequest::new(Arc::new(target))
    }

    fn built(request: &FetchRequest) -> Message {
        build(request, &HeaderValue::from_static("agent")).unwrap()
    }

    fn values(message: &Message, name: &str) -> Vec<String> {
        let lines = message.headers().get_all(name).iter();
        lines.map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn every_path_that_a_url_can_have_is_sent_verbatim() {
        for byte in 0x21..0x7f_u8 {
            let c = char::from(byte);
            for url in [format!("http://h/a{c}b"), format!("http://h//x?a{c}b=c&")] {
                if url.parse::<crate::model::HttpUrl>().is_err() {
                    continue;
                }
                let request = request(&url, &[]);
                let sent = build(&request, &HeaderValue::from_static("agent"));
                let sent = sent.map(|message| message.uri().to_string());
                assert_eq!(sent.as_deref(), Some(request.target.url.path_and_query()), "{url}");
            }
        }
        for path in ["//double//slash/", "/./a/../b", "/%7e%2F?%zz", "/?", "/??x", "/a;b=c?d;e"] {
            let message = built(&request(&format!("http://h{path}"), &[]));
            assert_eq!(message.uri().to_string(), path);
        }
    }

    #[test]
    fn a_path_that_is_too_long_is_not_cut() {
        let long = request(&format!("http://h/{}", "x".repeat(70_000)), &[]);
        assert!(build(&long, &HeaderValue::from_static("agent")).is_none());
    }

    #[test]
    fn host_is_the_authority_as_written() {
        let message = built(&request("http://Rec.Example.COM:80/", &[("host", "other")]));
        assert_eq!(values(&message, "host"), ["Rec.Example.COM:80"]);
    }

    #[test]
    fn headers_of_the_target_win_over_our_own() {
        let message = built(&request("http://h/", &[]));
        assert_eq!(values(&message, "user-agent"), ["agent"]);
        assert_eq!(values(&message, "accept-encoding"), ["gzip"]);
        let given = [("user-agent", "mine"), ("accept-encoding", "br"), ("x-a", "1"), ("x-a", "2")];
        let message = built(&request("http://h/", &given));
        assert_eq!(values(&message, "user-agent"), ["mine"]);
        assert_eq!(values(&message, "accept-encoding"), ["br"]);
        assert_eq!(values(&message, "x-a"), ["1", "2"]);
    }

    #[test]
    fn framing_is_not_the_targets() {
        let message = built(&request(
            "http://h/",
            &[("content-length", "5"), ("transfer-encoding", "chunked")],
        ));
        assert!(values(&message, "content-length").is_empty());
        assert!(values(&message, "transfer-encoding").is_empty());
    }

    #[test]
    fn a_condition_sends_both_validators() {
        let mut request = request("http://h/", &[("if-none-match", "\"theirs\"")]);
        request.condition = Some(Condition {
            validators: Validators {
                etag: Some("W/\"v1\"".into()),
                last_modified: Some("Sun, 06 Nov 1994 08:49:37 GMT".into()),
            },
            version: Version { status: 200, mark: Mark::Status },
        });
        let message = built(&request);
        assert_eq!(values(&message, "if-none-match"), ["W/\"v1\""]);
        assert_eq!(values(&message, "if-modified-since"), ["Sun, 06 Nov 1994 08:49:37 GMT"]);
    }
}
