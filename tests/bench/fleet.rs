//! One ban on 200 nodes, one of which is dead and one answers after 2 s: how long it takes until
//! the other 198 are done, from the start of the process.
//!
//! The nodes are listeners that pass connections on to one varnishd. What the 198 may take is 1.5
//! times what one node alone takes, as a whole process too, and besides that what 198 connections
//! cost here: a bare loop that opens them one after the other, authenticates and bans.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::support::cli::Cli;
use super::support::daemon::PURGEWATCH;
use super::support::fleet::{Fleet, Manner};
use super::support::ratio::{Pairs, Target};
use super::support::varnish::{self, Varnishd};

const NODES: usize = 200;
const DEAD: usize = 0;
const SLOW: usize = 100;
const PROMPT: usize = NODES - 2;
const ROUNDS: usize = 21;
const BAN: &str = "ban obj.http.x-url == /products/1";

pub(super) fn run() {
    let varnishd = Varnishd::start(varnish::Options::default());
    let mut manners = vec![Manner::Prompt; NODES];
    manners[DEAD] = Manner::Silent;
    manners[SLOW] = Manner::Late(Duration::from_secs(2));
    let fleet = Fleet::start(varnishd.admin, manners);
    let config = varnishd.dir().join("purgewatch.toml");
    std::fs::write(&config, fleet.configuration(varnishd.secret_file())).unwrap();
    let program = varnishd.dir().join("purgewatch");
    std::fs::copy(PURGEWATCH, &program).unwrap();
    let ban = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(["ban", "obj.http.x-url == /products/1", "-c"]).arg(&config).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };

    let all = || {
        fleet.forget();
        let begin = Instant::now();
        let mut process = ban(&[]).spawn().unwrap();
        fleet.wait_until_ended(PROMPT);
        // Nobody waits for the other two here.
        process.kill().unwrap();
        process.wait().unwrap();
        let ended = fleet.ended();
        assert_eq!(ended.len(), PROMPT, "each is done with one connection");
        millis(ended[PROMPT - 1] - begin)
    };
    let alone = || {
        let begin = Instant::now();
        assert!(ban(&["--node", "cache-001"]).status().unwrap().success());
        millis(begin.elapsed())
    };
    let prompt: Vec<_> =
        (0..NODES).filter(|at| ![DEAD, SLOW].contains(at)).map(|at| fleet.addresses[at]).collect();
    let secret = varnishd.secret_file();
    let bare = || {
        let begin = Instant::now();
        for &address in &prompt {
            Cli::open(address, secret).run(BAN);
        }
        millis(begin.elapsed())
    };
    let overlapping = || {
        let begin = Instant::now();
        let mut open: Vec<_> = prompt.iter().map(|&address| Cli::connect(address)).collect();
        open.iter_mut().for_each(|cli| cli.answer(secret));
        for cli in &mut open {
            cli.wait_for_success();
            cli.send(BAN);
        }
        open.iter_mut().for_each(Cli::wait_for_success);
        millis(begin.elapsed())
    };

    let _ = (all(), alone(), bare(), overlapping());
    let [mut one, mut loops, mut overlaps, mut whole] = <[Pairs; 4]>::default();
    for _ in 0..ROUNDS {
        let (ours, alone, bare) = (all(), alone(), bare());
        one.push(ours, alone);
        loops.push(ours, bare);
        overlaps.push(ours, overlapping());
        whole.push(ours, 1.5 * alone + bare);
    }
    one.line("198 nodes of 200 beside one alone", " ms", Target::None).print();
    loops.line("198 nodes of 200 beside a bare loop over them", " ms", Target::None).print();
    let name = "198 nodes of 200 beside a bare loop with all of them open at a time";
    overlaps.line(name, " ms", Target::None).print();
    let name = "198 nodes of 200 beside 1.5 times one alone and the bare loop";
    whole.line(name, " ms", Target::RatioAtMost(1.0)).print();
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
