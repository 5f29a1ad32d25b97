//! How a stream is cut into requests, against what a real varnishd makes of the same bytes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use purgewatch::protocol::{Request, RequestError, Script};

use crate::support::varnish::{Options, Varnishd};

/// A connection that nothing is asked of but replies.
struct Raw(TcpStream);

impl Raw {
    fn connect(varnishd: &Varnishd) -> Self {
        let stream = TcpStream::connect(varnishd.admin).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut raw = Self(stream);
        assert_eq!(raw.reply().0, 200, "a greeting without a challenge");
        raw
    }

    fn reply(&mut self) -> (u16, String) {
        let mut header = [0; 13];
        self.0.read_exact(&mut header).unwrap();
        let header = std::str::from_utf8(&header).unwrap();
        let mut body = vec![0; header[4..12].trim().parse::<usize>().unwrap() + 1];
        self.0.read_exact(&mut body).unwrap();
        body.pop();
        (header[..3].parse().unwrap(), String::from_utf8_lossy(&body).into_owned())
    }

    /// Every reply to `bytes`, up to the one to the `ping` sent after them.
    fn replies(&mut self, bytes: &[u8]) -> Vec<(u16, String)> {
        self.0.write_all(bytes).unwrap();
        self.0.write_all(b"\nping -j the-end-of-it\n").unwrap();
        let mut replies = Vec::new();
        loop {
            let reply = self.reply();
            if reply.1.contains("the-end-of-it") {
                return replies;
            }
            replies.push(reply);
        }
    }
}

/// Parts of scripts: `#` becomes a number that is in no other part, so that a reply of `ping -j`,
/// which repeats its argument, tells which request it answers.
const PARTS: &[&str] = &[
    "ping -j #",
    "  \tping -j #  ",
    "-ping -j #",
    "- ping -j #",
    "--ping -j #",
    "\"ping\" -j #",
    "\\x70ing -j #",
    "ping -j \"a # \\\" b\"",
    "ping -j # <<",
    "ping -j <<#",
    "ping -j << \"\" #",
    "ping -j << \"\"",
    "<< x y",
    "<< #\nping\n#",
    "ping -j << EOF\nping #\n\nEOF",
    "ping -j << EOF\nping # EOF",
    "ping -j \"<<\" EOF\n\"\\z\nping # EOFEOFx\nEOF",
    "ping -j << \"E F\"\nping #\nE F",
    "ping -j << \\x45\\117F\r\nping #\r\nEOF",
    "ping -j <<\\0x EOF\nping #\nEOF",
    "ping -j << aab\naaab #\nx aab",
    "ping -j << ,\nping #,,\n,",
    "ping -j << EOF\\0y\n#\nEOF",
    "\"open << EOF",
    "a \\z << EOF",
    "ping a b c #",
    "PING #",
    "#",
    "-",
    "'",
    "\\",
    "\"",
    "ban req.url ~ #",
    "",
    " ",
    "\u{b}",
    "\u{fc}",
];

fn script(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut script = Vec::new();
    for _ in 0..120 {
        let part = random.choice(PARTS).unwrap();
        script.extend_from_slice(
            part.replace('#', &format!("n{:08}", random.u32(..100_000_000))).as_bytes(),
        );
        script.extend_from_slice(random.choice([&b"\n"[..], b"\r", b"\r\n", b"\n\n"]).unwrap());
    }
    if random.bool() {
        let end = script.iter().rposition(|b| !b"\r\n".contains(b)).map_or(0, |last| last + 1);
        script.truncate(end);
    }
    script
}

fn number(text: &str) -> Option<&str> {
    let at = text.match_indices('n').map(|(at, _)| at).find(|&at| {
        text.get(at + 1..at + 9).is_some_and(|n| n.bytes().all(|b| b.is_ascii_hexdigit()))
    })?;
    text.get(at..at + 9)
}

fn cut(script: &[u8]) -> Result<Vec<Request>, RequestError> {
    let mut requests = Script::new();
    requests.push(script);
    requests.finish();
    requests.collect()
}

/// The number of replies is the number of requests, and their order is the order of the requests.
#[test]
fn varnishd_answers_as_many_requests_as_were_cut() {
    let varnishd = Varnishd::start(Options { secret: None, ..Options::default() });
    let mut raw = Raw::connect(&varnishd);
    let (mut answered, mut recognised) = (0, 0);
    for seed in 0..50 {
        let script = script(&mut fastrand::Rng::with_seed(seed));
        let requests = cut(&script).unwrap();
        let replies = raw.replies(&script);
        let shown = String::from_utf8_lossy(&script);
        assert_eq!(replies.len(), requests.len(), "seed {seed}: {shown:?}\n{requests:#?}");
        for (request, (status, body)) in requests.iter().zip(&replies) {
            let ping = request.verb().is_some_and(|verb| verb.as_str() == "ping");
            assert!(ping || *status != 200 || !body.contains("\"ping\""), "{request:?}: {body}");
            if *status == 200 && body.contains("\"ping\"") {
                let text = String::from_utf8_lossy(request.bytes());
                assert_eq!(number(body), number(&text), "seed {seed}: {request:?}: {body}");
                recognised += usize::from(number(body).is_some());
            }
        }
        // One by one they come to the same.
        let sent: Vec<u8> = requests.iter().flat_map(Request::bytes).copied().collect();
        let statuses = |replies: Vec<(u16, String)>| {
            replies.into_iter().map(|(status, _)| status).collect::<Vec<_>>()
        };
        assert_eq!(statuses(raw.replies(&sent)), statuses(replies), "seed {seed}");
        answered += requests.len();
    }
    assert!(answered > 4_000 && recognised > 2_000, "{answered} answered, {recognised} recognised");
}

/// Where versions differ, this one is one of those that do: it takes the line for an error.
#[test]
fn a_disputed_line_begins_no_here_document_in_this_version() {
    let varnishd = Varnishd::start(Options { secret: None, ..Options::default() });
    let mut raw = Raw::connect(&varnishd);
    for line in ["ping \"<<\" \"E\"", "\"ping\" \"b\" << E", "ping a\"b << E", "ping \\x4  << E"] {
        let script = format!("{line}\nping\nE\n");
        cut(script.as_bytes()).unwrap_err();
        let statuses: Vec<u16> =
            raw.replies(script.as_bytes()).into_iter().map(|(status, _)| status).collect();
        assert_eq!(statuses, [100, 200, 101], "{line}");
    }
}
