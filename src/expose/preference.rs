//! What a request prefers (RFC 7240): how long it waits for its answer.

use std::time::Duration;

use http::HeaderMap;

/// How long is waited for the nodes unless the request says otherwise, and at most.
const WAIT: Duration = Duration::from_secs(30);
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// How long a request waits, and in which words it said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Preference {
    pub(super) wait: Duration,
    stated: Option<Stated>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stated {
    Wait,
    RespondAsync,
}

impl Preference {
    /// What the header says; the text is for whoever sent it.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, &'static str> {
        const EXPECTED: &str = "expected Prefer: wait=SECONDS, 0 to 300, or respond-async\n";
        let mut read = Self { wait: WAIT, stated: None };
        let mut is_async = false;
        for value in headers.get_all("prefer") {
            let text = value.to_str().map_err(|_| EXPECTED)?;
            for part in text.split([',', ';']).map(str::trim) {
                let (name, value) = part.split_once('=').unwrap_or((part, ""));
                let (name, value) =
                    (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"'));
                match name.as_str() {
                    "respond-async" => is_async = true,
                    "wait" => {
                        let seconds = value.parse().map(Duration::from_secs).ok();
                        let seconds = seconds.filter(|seconds| *seconds <= LONGEST_WAIT);
                        read.wait = seconds.ok_or(EXPECTED)?;
                        read.stated = Some(Stated::Wait);
                    }
                    // Others are for somebody else (RFC 7240 section 2).
                    _ => {}
                }
            }
        }
        if is_async {
            read = Self { wait: Duration::ZERO, stated: Some(Stated::RespondAsync) };
        }
        Ok(read)
    }

    /// What of it was done, in its own words (`Preference-Applied`); `None` where it said nothing.
    pub(super) fn applied(&self) -> Option<String> {
        Some(match self.stated? {
            Stated::Wait => format!("wait={}", self.wait.as_secs()),
            Stated::RespondAsync => "respond-async".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preference(values: &[&str]) -> Result<Preference, &'static str> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("prefer", value.parse().unwrap());
        }
        Preference::read(&headers)
    }

    #[test]
    fn a_request_says_how_long_it_waits() {
        let wait = |values: &[&str]| preference(values).map(|p| p.wait.as_secs());
        assert_eq!(wait(&[]), Ok(30));
        assert_eq!(wait(&["wait=5"]), Ok(5));
        assert_eq!(wait(&["handling=lenient; foo, Wait = \"7\""]), Ok(7));
        assert_eq!(wait(&["respond-async"]), Ok(0));
        assert_eq!(wait(&["wait=10", "respond-async"]), Ok(0));
        for wrong in ["wait", "wait=", "wait=-1", "wait=301", "wait=1e3"] {
            assert!(wait(&[wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_was_applied_is_said_in_the_requests_own_words() {
        let applied = |values: &[&str]| preference(values).unwrap().applied();
        assert_eq!(applied(&[]), None);
        assert_eq!(applied(&["handling=lenient"]), None);
        assert_eq!(applied(&["wait=0"]).as_deref(), Some("wait=0"));
        assert_eq!(applied(&["Wait = \"7\""]).as_deref(), Some("wait=7"));
        assert_eq!(applied(&["respond-async"]).as_deref(), Some("respond-async"));
        assert_eq!(applied(&["respond-async, wait=10"]).as_deref(), Some("respond-async"));
    }
}
