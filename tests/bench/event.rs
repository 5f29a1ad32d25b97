//! An event in a Redis stream, from XADD to the ban that varnishd took, beside what its parts cost
//! by themselves; and 10,000 events at once beside a bare loop of bans.
//!
//! A relay in front of the admin port writes down when varnishd answered; the bare loop and the
//! single bans go through the same relay, so that both pay for it.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::support::cli::Cli;
use super::support::daemon::{Daemon, peers};
use super::support::ratio::{Line, Pairs, Target, median};
use super::support::redis::{PASSWORD, Redis};
use super::support::varnish::{self, Varnishd};
use super::support::witness::{BanWitness, RedisLine, now};
use purgewatch::admin;

/// Single events, in pairs with their parts.
const PAIRS: usize = 300;
/// Events at once.
const BURST: usize = 10_000;
/// Bursts, in pairs with the bare loop.
const BURSTS: usize = 5;
/// How long something may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn run() {
    let varnishd = Varnishd::start(varnish::Options::default());
    let bans = BanWitness::open(varnishd.admin);
    let redis = Redis::start_forgetful();
    let password = varnishd.dir().join("password");
    fs::write(&password, PASSWORD).unwrap();
    let nobody = "127.0.0.1:1".parse().unwrap();
    let nodes = peers(&varnishd, nobody)
        .replace(&varnishd.admin.to_string(), &bans.address.to_string())
        .replace("admin_interval = \"1s\"", "admin_interval = \"60s\"");
    let daemon = Daemon::start(&format!(
        "[defaults]\ninterval = \"1h\"\n{nodes}[[endpoint]]\nname = \"e\"\n\
         url = \"http://rec.example.com/\"\norigin = \"origin\"\n\
         [redis]\nurl = \"redis://127.0.0.1:{}\"\npassword_file = \"{}\"\n\
         [[subscription]]\nstream = \"inv\"\n",
        redis.port,
        password.display(),
    ));
    daemon.wait("the stream is followed", || {
        daemon.metric("purgewatch_subscription_up", &[]) == Some(1.0)
    });
    let bench = Bench { varnishd, bans, redis };
    bench.single();
    bench.bursts();
}

struct Bench {
    varnishd: Varnishd,
    bans: BanWitness,
    redis: Redis,
}

impl Bench {
    fn single(&self) {
        let mut sender = RedisLine::open(self.redis.port, PASSWORD);
        let mut reader = RedisLine::open(self.redis.port, PASSWORD);
        let mut cli = self.cli();
        let (mut pairs, mut more) = (Pairs::default(), Vec::new());
        for n in 0..PAIRS {
            let ban = format!("obj.http.x-event == single-{n}");
            let begin = now();
            sender.add("inv", &ban);
            let whole = self.taken(&ban).saturating_sub(begin);
            let parts = parts(&mut sender, &mut reader, &mut cli, n);
            let millis = |time: Duration| time.as_secs_f64() * 1_000.0;
            pairs.push(millis(whole), millis(parts));
            more.push(millis(whole) - millis(parts));
        }
        let name = "an event from XADD to the ban, beside XADD, XREAD and a ban by themselves";
        pairs.line(name, " ms", Target::None).print();
        let name = "what the daemon adds to these parts";
        let peer = median(pairs.peer.clone());
        Line::new(name, " ms", median(more), peer, Target::AtMost(1.5)).print();
    }

    fn bursts(&self) {
        let window = admin::Options::default().window;
        let mut pairs = Pairs::default();
        for burst in 0..BURSTS {
            let ban = |kind: &str, n| format!("obj.http.x-event == {kind}-{burst}-{n}");
            let mut commands = String::new();
            for n in 0..BURST {
                write!(commands, "XADD inv * ban \"{}\"\r\n", ban("event", n)).unwrap();
            }
            let begin = now();
            self.add_all(&commands);
            let last = ban("event", BURST - 1);
            let time = self.taken(&last).saturating_sub(begin);
            let all = (0..BURST).filter(|n| self.bans.first(&ban("event", *n)).is_some()).count();
            assert_eq!(all, BURST, "in order: when the last is taken all are");
            let bare: Vec<String> = (0..BURST).map(|n| ban("bare", n)).collect();
            let mut cli = self.cli();
            let begin = Instant::now();
            cli.ban_all(&bare, window);
            let rate = |time: Duration| BURST as f64 / time.as_secs_f64();
            pairs.push(rate(time), rate(begin.elapsed()));
        }
        let name = format!("{BURST} events at once beside a bare loop of bans");
        pairs.line(&name, " a second", Target::RatioAtLeast(0.5)).print();
    }

    fn cli(&self) -> Cli {
        Cli::open(self.bans.address, self.varnishd.secret_file())
    }

    /// When varnishd took this ban.
    fn taken(&self, ban: &str) -> Duration {
        let begin = Instant::now();
        loop {
            if let Some(at) = self.bans.first(ban) {
                return at;
            }
            assert!(begin.elapsed() < PATIENCE, "not taken: {ban}");
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// Sends all of these lines at once, and reads all answers.
    fn add_all(&self, commands: &str) {
        let socket = TcpStream::connect(("127.0.0.1", self.redis.port)).unwrap();
        let mut answers = BufReader::new(socket.try_clone().unwrap()).lines();
        let mut sink = &socket;
        sink.write_all(format!("AUTH \"{PASSWORD}\"\r\n").as_bytes()).unwrap();
        assert_eq!(answers.next().unwrap().unwrap(), "+OK");
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || {
                // The length and the id of each.
                assert_eq!(answers.take(BURST * 2).filter(Result::is_ok).count(), BURST * 2);
            });
            sink.write_all(commands.as_bytes()).unwrap();
            reader.join().unwrap();
        });
    }
}

/// XADD to a stream that nobody follows, XREAD of it on another connection, and a ban on a
/// connection that is open: one after the other.
fn parts(sender: &mut RedisLine, reader: &mut RedisLine, cli: &mut Cli, n: usize) -> Duration {
    let begin = Instant::now();
    let id = sender.add("other", &format!("obj.http.x-event == part-{n}"));
    let (time, count) = id.split_once('-').unwrap();
    let before = match count.parse::<u64>().unwrap() {
        0 => format!("{}-18446744073709551615", time.parse::<u64>().unwrap() - 1),
        count => format!("{time}-{}", count - 1),
    };
    reader.send(&format!("XREAD COUNT 1 STREAMS other {before}"));
    // One stream of one entry of two fields.
    while !reader.line().ends_with(&format!("part-{n}")) {}
    cli.run(&format!("ban obj.http.x-event == part-{n}"));
    begin.elapsed()
}
