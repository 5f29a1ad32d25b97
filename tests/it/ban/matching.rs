//! The matcher and a real varnishd agree on which bans hit which objects.
//!
//! Some objects are kept in the cache. A ban is made up, varnishd is given it, and each object is
//! asked for again with a request made up anew: `X-Varnish` tells whether it was still there. The
//! matcher is asked the same twice: with what varnishd holds, where it has to know the answer, and
//! with what a client sees, where it may say that it cannot know, but never the wrong thing.

mod generate;
mod wire;

use std::time::{Duration, Instant};

use fastrand::Rng;
use http::HeaderMap;
use purgewatch::admin::{Client, Options as Limits, SecretSource, Target};
use purgewatch::ban::matching::{Judgement, Matcher, Object, Request, Seconds, Times, Vantage};
use purgewatch::ban::{Expression, ServerVersion, parse};
use purgewatch::model::NodeName;
use purgewatch::protocol::Command;

use self::generate::{Made, expression, object, request};
use self::wire::{Answer, Http};
use crate::support::origin::{Origin, Response, Step};
use crate::support::varnish::{Options, Varnishd};

const OBJECTS: usize = 24;
const BANS: usize = 1_500;

/// No change of the request before the lookup but varnishd's own; headers that are there for bans
/// are removed on delivery, as they should be.
const VCL: &str = r#"
    import std;
    sub vcl_recv { return (hash); }
    sub vcl_hash { hash_data(req.url); return (lookup); }
    sub vcl_backend_fetch {
        set bereq.url = "/" + bereq.http.x-object;
        # The origin of the tests reads text, and what a client sends is any bytes.
        unset bereq.http.x-a; unset bereq.http.x-b; unset bereq.http.cookie;
        unset bereq.http.cache-control; unset bereq.http.accept-language;
        unset bereq.http.x-forwarded-for; unset bereq.http.host; set bereq.http.host = "origin";
        unset bereq.http.connection;
    }
    sub vcl_backend_response {
        set beresp.grace = std.duration(beresp.http.x-grace, 10s);
        set beresp.keep = std.duration(beresp.http.x-keep, 0s);
    }
    sub vcl_deliver { unset resp.http.x-strip; }
"#;

/// One run of the comparison.
struct Run {
    rng: Rng,
    seed: u64,
    varnishd: Varnishd,
    client: Client,
    http: Http,
    made: Vec<Made>,
    /// What the client got last of each object, and when.
    seen: Vec<(Answer, Instant)>,
    tally: Tally,
    _origin: Origin,
}

#[derive(Debug, Default)]
struct Tally {
    hit_by_ban: usize,
    spared: usize,
    too_close: usize,
    known_to_client: usize,
    unknown_to_client: usize,
}

impl Run {
    fn start(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let made: Vec<Made> = (0..OBJECTS).map(|number| object(&mut rng, number)).collect();
        let origin = Origin::start();
        for (number, made) in made.iter().enumerate() {
            let response = Response::script([Step::Send(made.response.clone())]);
            origin.serve(&format!("/{number}"), response);
        }
        let backend = format!(
            "backend default {{ .host = \"127.0.0.1\"; .port = \"{}\"; }}",
            origin.address.port()
        );
        let varnishd = Varnishd::start(Options {
            vcl: Some(format!("{backend}\n{VCL}")),
            ..Options::default()
        });
        let secret = SecretSource::File(varnishd.secret_file().to_owned());
        let target = Target::at(
            NodeName::new("cache-01").unwrap(),
            varnishd.admin.to_string().parse().unwrap(),
            secret,
        );
        let client = Client::new(target, Limits::default());
        let http = Http::connect(varnishd.http);
        let seen = Vec::new();
        let tally = Tally::default();
        let mut run =
            Self { rng, seed, varnishd, client, http, made, seen, tally, _origin: origin };
        run.seen = run.fetch_all(&run.requests_like_any());
        run
    }

    fn requests_like_any(&self) -> Vec<HeaderMap> {
        let mut rng = self.rng.clone();
        (0..OBJECTS).map(|_| request(&mut rng)).collect()
    }

    /// Asks for every object, on one connection.
    fn fetch_all(&self, headers: &[HeaderMap]) -> Vec<(Answer, Instant)> {
        let urls = self.made.iter().map(|made| made.url.as_slice());
        let answers = self.http.fetch_all(urls.zip(headers));
        answers.into_iter().map(|answer| (answer, Instant::now())).collect()
    }

    async fn one_ban(&mut self, number: usize) {
        let (text, expression) = self.made_up_ban();
        let requests: Vec<HeaderMap> = (0..OBJECTS).map(|_| request(&mut self.rng)).collect();
        let made = Instant::now();
        let command = Command::ban(expression.arguments()).unwrap();
        self.client.ban(command).await.unwrap_or_else(|error| panic!("{text}: {error}"));
        let matcher = Matcher::new(&expression, Some(ServerVersion::new(7, 1)));
        let now = self.fetch_all(&requests);
        for at in 0..OBJECTS {
            let was_hit = !now[at].0.is_hit();
            let case = || {
                format!(
                    "seed {}, ban {number}, object {at}\n{text}\nrequest {:?} {:?}\nobject {:?}",
                    self.seed,
                    String::from_utf8_lossy(&self.made[at].url),
                    requests[at],
                    self.made[at].stored
                )
            };
            let inside = self.judge_inside(&matcher, at, &requests[at]);
            let outside = self.judge_outside(&matcher, at, &requests[at], made);
            match (&inside, was_hit) {
                (Judgement::Matches, true) | (Judgement::Misses { .. }, false) => {}
                (Judgement::Unknown { why }, _) if why.reason.label() == "too_close" => {
                    self.tally.too_close += 1;
                }
                _ => panic!("{}\nvarnishd: hit by the ban: {was_hit}\n{inside:?}", case()),
            }
            match (&outside, was_hit) {
                (Judgement::Matches, true) | (Judgement::Misses { .. }, false) => {
                    self.tally.known_to_client += 1;
                }
                (Judgement::Unknown { .. }, _) => self.tally.unknown_to_client += 1,
                _ => panic!(
                    "{}\nseen {:?}\nvarnishd: hit by the ban: {was_hit}\nfrom outside: {outside:?}",
                    case(),
                    self.seen[at].0
                ),
            }
            if was_hit {
                self.tally.hit_by_ban += 1;
            } else {
                self.tally.spared += 1;
            }
        }
        self.seen = now;
    }

    /// A ban that the library reads; one that it refuses is never sent.
    fn made_up_ban(&mut self) -> (String, Expression) {
        loop {
            let text = expression(&mut self.rng, &self.made);
            if let Ok(expression) = parse(&text) {
                return (expression.to_string(), expression);
            }
        }
    }

    /// With all that varnishd has.
    fn judge_inside(&self, matcher: &Matcher, at: usize, sent: &HeaderMap) -> Judgement {
        let made = &self.made[at];
        let mut headers = sent.clone();
        headers.append("x-forwarded-for", "127.0.0.1".parse().unwrap());
        let gzip = sent.get("accept-encoding").is_some_and(|value| value == "gzip");
        if !gzip {
            headers.remove("accept-encoding");
        }
        let vantage = Vantage::Varnish;
        let request = Request { url: &made.url, headers: &headers, vantage };
        // Objects are at most as old as the run.
        let age = Seconds::between(made.age, made.age + 60.0);
        let ttl = Seconds::between(made.ttl - 60.0, made.ttl);
        let times = Times {
            age: Some(age),
            ttl: Some(ttl),
            grace: Some(Seconds::exactly(made.grace)),
            keep: Some(Seconds::exactly(made.keep)),
            last_hit: None,
        };
        let object = Object { status: made.status, headers: &made.stored, vantage, times };
        matcher.judge(&request, &object)
    }

    /// With what the client sent and got.
    fn judge_outside(
        &self,
        matcher: &Matcher,
        at: usize,
        sent: &HeaderMap,
        ban_made: Instant,
    ) -> Judgement {
        let (answer, when) = &self.seen[at];
        let vantage = Vantage::Client;
        let request = Request { url: &self.made[at].url, headers: sent, vantage };
        // The ban was made within two seconds, or the whole run would take minutes.
        let since = ban_made.saturating_duration_since(*when) + Duration::from_secs(2);
        let age = answer.headers.get("age").and_then(|age| age.to_str().ok()?.parse().ok());
        let age = age.map(|age| Seconds::from_age(age, since));
        let times = Times { age, ..Times::default() };
        let object = Object { status: answer.status, headers: &answer.headers, vantage, times };
        matcher.judge(&request, &object)
    }
}

#[tokio::test]
async fn the_matcher_and_varnishd_agree() {
    // `PURGEWATCH_TEST_SEED=N` looks elsewhere.
    let seed = std::env::var("PURGEWATCH_TEST_SEED").ok().and_then(|n| n.parse().ok());
    let mut run = Run::start(seed.unwrap_or(20_260_301));
    let pid = run.varnishd.adm(&["pid"]);
    for number in 0..BANS {
        run.one_ban(number).await;
    }
    assert_eq!(run.varnishd.adm(&["pid"]), pid, "the cache process lived through it");
    // The comparison was worth something: both answers often enough, few cases left out.
    let tally = &run.tally;
    let cases = OBJECTS * BANS;
    assert!(tally.hit_by_ban > cases / 10 && tally.spared > cases / 10, "{tally:?}");
    assert!(tally.too_close < cases / 50, "{tally:?}");
    assert!(tally.known_to_client > cases / 2, "{tally:?}");
    assert!(tally.unknown_to_client > cases / 50, "{tally:?}");
}

#[test]
fn the_built_in_vcl_lowers_the_host() {
    let vcl = "backend none none;
        sub vcl_backend_error { set beresp.status = 200; set beresp.ttl = 1h; return (deliver); }";
    let varnishd = Varnishd::start(Options { vcl: Some(vcl.to_owned()), ..Options::default() });
    let headers = HeaderMap::from_iter([(http::header::HOST, "WWW.Example.com".parse().unwrap())]);
    let vantage = Vantage::Client;
    let request = Request { url: b"/", headers: &headers, vantage };
    let got = HeaderMap::new();
    let object = Object { status: 200, headers: &got, vantage, times: Times::default() };
    for (ban, hits, judged) in [
        ("req.http.host == WWW.Example.com", false, "changed_on_arrival"),
        ("req.http.host == www.example.com", true, "changed_on_arrival"),
        ("req.http.host ~ (?i)EXAMPLE", true, "matches"),
        ("req.http.host == example.com", false, "misses"),
    ] {
        varnishd.get("WWW.Example.com", "/");
        let before = varnishd.get("WWW.Example.com", "/");
        let is_hit = |answer: &str| {
            let line = answer.lines().find_map(|line| line.strip_prefix("X-Varnish: ")).unwrap();
            line.split(' ').count() == 2
        };
        assert!(is_hit(&before), "{before}");
        varnishd.adm(&[&["ban"][..], &ban.split(' ').collect::<Vec<_>>()].concat());
        assert_eq!(!is_hit(&varnishd.get("WWW.Example.com", "/")), hits, "{ban}");
        let matcher = Matcher::new(&parse(ban.as_bytes()).unwrap(), None);
        let said = match matcher.judge(&request, &object) {
            Judgement::Matches => "matches",
            Judgement::Misses { .. } => "misses",
            Judgement::Unknown { why } => why.reason.label(),
        };
        assert_eq!(said, judged, "{ban}");
    }
}
