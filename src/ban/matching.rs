//! Would this ban hit this object? Answered here, without a server.
//!
//! A [`Matcher`] tests a parsed ban against a [`Request`] and an [`Object`] in the way of
//! varnishd's `ban_evaluate`, and gives one of three answers ([`Judgement`]). "Unknown" is one of
//! them, since not everything that a ban looks at can be seen from outside.
//!
//! # What varnishd does
//!
//! Tried on 7.1.1 with an origin and bans of each kind, unless another release is named. An
//! integration test compares generated bans and objects with a real varnishd.
//!
//! - All conditions have to hold; they are tested in order and the first that fails ends it.
//! - Values are bytes, compared with their case; header names without. A regex is PCRE2 without
//!   options, bytes and not UTF-8, and may match anywhere. A value ends before its trailing blanks
//!   and may be empty: an empty header is there, and `~ ^$` matches it.
//! - Of several header lines of one name only the first is looked at. `Cache-Control` and `Vary`
//!   of a response, and `Cache-Control` and `X-Forwarded-For` of a request, are joined with `, `
//!   into one line beforehand; `Cookie` is not.
//! - 6.x has the first PCRE, which differs in rare syntax only; here all are taken for PCRE2.
//! - Without the header `==` and `~` fail and `!=` holds. `!~` fails from 7.0 on and holds in 6.x.
//! - `obj.status` is compared as text: `obj.status ~ ^5` is a regex on three digits.
//! - `obj.ttl` is what is left of the TTL, less than nothing in grace, and `obj.age` the age, each
//!   at the moment when the ban is made. An `Age` that the origin sent is part of the age.
//! - `obj.grace` and `obj.keep` are the whole of what the object was given, in single precision:
//!   an object with a grace of 0.1 s is not hit by `obj.grace == 0.1s`.
//!
//! # What a client can know of it
//!
//! With [`Vantage::Client`] the headers are what a client sent and got. In between stand
//! Varnish and the VCL:
//!
//! | header of the object | what is known of it from the response |
//! |---|---|
//! | `Accept-Ranges`, `Age`, `Connection`, `Content-Range`, `Proxy-Authenticate`, `TE`, `Trailer`, `Transfer-Encoding`, `Upgrade` | no object has them: varnishd drops them when it stores a response, and makes those of the response itself |
//! | `X-Varnish`, `X-Vinyl`, and `Via` up to 7.1 | varnishd adds a line at the end; the lines before it are the object's |
//! | `Via` from 7.2 on | nothing: it is one list |
//! | `Content-Length` | nothing: it is made on delivery, while the object has the origin's, or none where the origin sent the body in chunks |
//! | `Keep-Alive` | nothing: not all releases drop it |
//! | `ETag` | a weak one may be strong on the object: unpacking and ESI weaken it on delivery |
//! | `Content-Encoding` | when the response has none, the object may be packed: Varnish unpacks for clients that do not ask for gzip |
//! | `obj.status` | behind 206 and 304 stands an object that is usually 200 |
//! | `Cache-Control`, `Expires`, `Pragma`, `Server`, `Surrogate-Control` | that it may be the object's: many a VCL sets them in `vcl_deliver`, so that a condition on them never fails for certain |
//! | any other that the response has | that it is the object's, which is wrong only if the VCL sets it in `vcl_deliver` |
//! | any other that the response does not have | nothing: the object does not have it, or the VCL removes it on delivery, as it should with the headers that are there for bans |
//!
//! | of the request | what is known of it from what was sent |
//! |---|---|
//! | `X-Forwarded-For` | nothing: varnishd adds the address that it sees |
//! | `Accept-Encoding` | with `http_gzip_support`, `gzip` if the first line accepts that, and none if not |
//! | `Host` | as sent, or in lower case: the built-in VCL of 7.x lowers it |
//! | `Expect`, `Via` | nothing: varnishd takes away or adds to them, differently by release |
//! | any other, and `req.url` | as sent |
//!
//! The VCL may change a request in any way before the lookup: lower its host, sort its query,
//! drop its cookies. Then the ban is tested with the changed one. So a condition on the request
//! that fails here fails *for the request as the client sends it*, and whoever reports that should
//! say so. A request ban is also tested with every other request that looks the object up, and up
//! to 7.6 with requests for its other variants.

mod outcome;
mod regex;
mod seconds;
mod subject;
mod values;

pub use outcome::{Doubt, Judgement, Miss, Reason, Seen};
pub use seconds::Seconds;
pub use subject::{Object, Request, Times, Vantage};

pub(super) use regex::as_text;
use regex::{CompiledRegex, RegexFailure};
use values::{
    Values, is_often_set_on_delivery, object_header, object_status, request_header, request_url,
};

use super::expression::{Argument, Condition, Expression};
use super::field::Field;
use super::operator::Operator;
use super::version::ServerVersion;

/// From this release on `!~` fails where the header is missing.
const MISSING_HEADER_FAILS: ServerVersion = ServerVersion::new(7, 0);

/// A ban, ready to be tested against any number of requests and objects.
///
/// ```
/// use http::HeaderMap;
/// use purgewatch::ban::matching::{Judgement, Matcher, Object, Request, Times, Vantage};
///
/// let ban = purgewatch::ban::parse(b"req.http.host == example.com && obj.status == 200")?;
/// let mut headers = HeaderMap::new();
/// headers.insert("host", "www.example.com".parse().unwrap());
/// let request = Request { url: b"/news/", headers: &headers, vantage: Vantage::Client };
/// let headers = HeaderMap::new();
/// let object =
///     Object { status: 200, headers: &headers, vantage: Vantage::Client, times: Times::default() };
///
/// let Judgement::Misses { condition } = Matcher::new(&ban, None).judge(&request, &object) else {
///     panic!("another host");
/// };
/// assert_eq!(condition.to_string(), r#"req.http.host is "www.example.com" and not "example.com""#);
/// # Ok::<(), purgewatch::ban::Refusal>(())
/// ```
#[derive(Debug, Clone)]
pub struct Matcher {
    conditions: Vec<Prepared>,
    version: Option<ServerVersion>,
}

#[derive(Debug, Clone)]
struct Prepared {
    condition: Condition,
    regex: Option<Result<CompiledRegex, RegexFailure>>,
}

/// What one condition comes to.
enum Verdict {
    Holds,
    Fails(Seen),
    Unknown(Reason),
    /// varnishd does not survive the test, or nobody knows: conditions behind it do not count.
    Ends(Reason),
}

impl Matcher {
    /// A matcher for a server of this version. Where the version is not known, an answer that
    /// depends on it is [`Judgement::Unknown`].
    ///
    /// Compiles the regexes; one that cannot be compiled here makes its condition unknown.
    #[must_use]
    pub fn new(expression: &Expression, version: Option<ServerVersion>) -> Self {
        let prepare = |condition: &Condition| Prepared {
            condition: condition.clone(),
            regex: condition
                .operator
                .takes_regex()
                .then(|| CompiledRegex::new(condition.argument.bytes())),
        };
        Self { conditions: expression.conditions().iter().map(prepare).collect(), version }
    }

    /// Tests the ban: [`Judgement::Misses`] if some condition certainly fails, else
    /// [`Judgement::Unknown`] if one cannot be judged, else [`Judgement::Matches`].
    ///
    /// Usually takes microseconds. A regex that backtracks without end takes as long as PCRE2's
    /// limit of ten million steps, which is some tenths of a second.
    #[must_use]
    pub fn judge(&self, request: &Request<'_>, object: &Object<'_>) -> Judgement {
        let mut doubt = None;
        for (index, prepared) in self.conditions.iter().enumerate() {
            let condition = &prepared.condition;
            let because = |reason| Doubt { index, field: condition.field.clone(), reason };
            match self.judge_condition(prepared, request, object) {
                Verdict::Holds => {}
                Verdict::Fails(seen) => {
                    let condition = Miss { index, condition: condition.clone(), seen };
                    return Judgement::Misses { condition };
                }
                Verdict::Unknown(reason) => doubt = doubt.or(Some(because(reason))),
                Verdict::Ends(reason) => return Judgement::Unknown { why: because(reason) },
            }
        }
        doubt.map_or(Judgement::Matches, |why| Judgement::Unknown { why })
    }

    fn judge_condition(
        &self,
        prepared: &Prepared,
        request: &Request<'_>,
        object: &Object<'_>,
    ) -> Verdict {
        let times = &object.times;
        let values = match &prepared.condition.field {
            Field::RequestUrl => request_url(request),
            Field::RequestHeader(name) => request_header(request, name.as_str()),
            Field::ObjectStatus => object_status(object),
            Field::ObjectHeader(name) => {
                let values = object_header(object, name.as_str(), self.version);
                let verdict = self.judge_values(prepared, values);
                let is_doubtful =
                    object.vantage == Vantage::Client && is_often_set_on_delivery(name.as_str());
                return match verdict {
                    Verdict::Fails(_) if is_doubtful => Verdict::Unknown(Reason::ChangedOnDelivery),
                    verdict => verdict,
                };
            }
            Field::ObjectTtl => return running(&prepared.condition, times.ttl),
            Field::ObjectAge => return running(&prepared.condition, times.age),
            Field::ObjectLastHit => return running(&prepared.condition, times.last_hit),
            Field::ObjectGrace => return fixed(&prepared.condition, times.grace),
            Field::ObjectKeep => return fixed(&prepared.condition, times.keep),
            Field::ObjectHitForMiss | Field::ObjectHitForPass | Field::ObjectUncacheable => {
                return Verdict::Unknown(Reason::NotVisible);
            }
        };
        self.judge_values(prepared, values)
    }

    /// Certain if all the values that the field can have lead to the same.
    fn judge_values(&self, prepared: &Prepared, values: Values<'_>) -> Verdict {
        let Values { possible, otherwise } = values;
        let (mut holds, mut fails) = (false, None);
        for value in possible {
            match self.judge_value(prepared, value.as_deref()) {
                Ok(true) => holds = true,
                Ok(false) => fails = fails.or(Some(value)),
                Err(verdict) => return verdict,
            }
        }
        match (holds, fails) {
            (true, None) => Verdict::Holds,
            (false, Some(None)) => Verdict::Fails(Seen::Absent),
            (false, Some(Some(text))) => Verdict::Fails(Seen::Text(text.into_owned())),
            _ => Verdict::Unknown(otherwise),
        }
    }

    fn judge_value(&self, prepared: &Prepared, value: Option<&[u8]>) -> Result<bool, Verdict> {
        let Condition { operator, argument, .. } = &prepared.condition;
        let Some(value) = value else { return self.judge_absent(*operator) };
        let matches = match &prepared.regex {
            None => value == argument.bytes(),
            Some(Ok(regex)) => {
                regex.is_match(value).map_err(|failure| Verdict::Ends(failure.into()))?
            }
            Some(Err(failure)) => return Err(Verdict::Unknown(failure.clone().into())),
        };
        Ok(matches != operator.is_negated())
    }

    fn judge_absent(&self, operator: Operator) -> Result<bool, Verdict> {
        match operator {
            Operator::NotEqual => Ok(true),
            Operator::NotMatch => match self.version {
                Some(version) => Ok(version < MISSING_HEADER_FAILS),
                None => Err(Verdict::Unknown(Reason::DiffersByVersion)),
            },
            _ => Ok(false),
        }
    }
}

/// A time that runs from the object's making or last use to the ban: two readings of a clock that
/// are never apart by exactly what somebody wrote.
fn running(condition: &Condition, time: Option<Seconds>) -> Verdict {
    match condition.operator {
        Operator::Equal => Verdict::Fails(Seen::Running),
        Operator::NotEqual => Verdict::Holds,
        _ => compared(condition, time),
    }
}

/// A duration that the object was given, which varnishd keeps in single precision.
fn fixed(condition: &Condition, time: Option<Seconds>) -> Verdict {
    compared(condition, time.map(Seconds::in_single_precision))
}

fn compared(condition: &Condition, time: Option<Seconds>) -> Verdict {
    let (Some(time), Argument::Duration(argument)) = (time, &condition.argument) else {
        return Verdict::Unknown(Reason::NotVisible);
    };
    match time.compare(condition.operator, argument.seconds()) {
        Some(true) => Verdict::Holds,
        Some(false) => Verdict::Fails(Seen::Time(time)),
        None => Verdict::Unknown(Reason::TooClose { seen: time }),
    }
}

#[cfg(test)]
mod tests;
