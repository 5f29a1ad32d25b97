//! `purgewatch ban` on many nodes: a listener for each, all of them in front of one real varnishd.
//!
//! What is slow here is held until the others were seen to be done: no test depends on how fast
//! this machine is.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::ban::{check_code, text};
use crate::support::fleet::{Fleet, Manner};
use crate::support::varnish::{Options, Varnishd};

const PROGRAM: &str = env!("CARGO_BIN_EXE_purgewatch");

/// Nodes of these manners, and what they stand in front of.
struct Nodes {
    fleet: Fleet,
    varnishd: Varnishd,
    config: String,
}

impl Nodes {
    /// So many nodes, of which some are not prompt.
    fn start(count: usize, others: &[(usize, Manner)]) -> Self {
        let varnishd = Varnishd::start(Options::default());
        let mut manners = vec![Manner::Prompt; count];
        for &(at, manner) in others {
            manners[at] = manner;
        }
        let fleet = Fleet::start(varnishd.admin, manners);
        let config = varnishd.dir().join("purgewatch.toml");
        std::fs::write(&config, fleet.configuration(varnishd.secret_file())).unwrap();
        let config = config.to_str().unwrap().to_owned();
        Self { fleet, varnishd, config }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        // Whoever runs the tests may have SIGHUP ignored.
        let mut command = Command::new("env");
        command.args(["--default-signal=HUP", PROGRAM]);
        command.args(["ban", "-c", &self.config, "obj.http.x == 1"]).args(arguments);
        command.env_remove("GITHUB_ACTIONS").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn spawn(&self, arguments: &[&str]) -> (Child, BufReader<ChildStdout>) {
        let mut process = self.command(arguments).spawn().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        (process, stdout)
    }

    fn bans_added(&self) -> usize {
        let output = Command::new("varnishstat")
            .args(["-1", "-f", "MAIN.bans_added", "-n"])
            .arg(self.varnishd.workdir())
            .output()
            .unwrap();
        text(&output.stdout).split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

fn name(n: usize) -> String {
    format!("cache-{n:03}")
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    let text = text(bytes);
    assert!(text.is_empty() || text.ends_with('\n'), "{text}");
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn next_line(stdout: &mut BufReader<ChildStdout>) -> Value {
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    serde_json::from_str(&line).expect(&line)
}

/// One of 200 nodes is dead, one slow, and a third drops packets: all others are done before
/// anything happens at these, and their lines are out as far as the order allows.
#[test]
fn one_dead_and_one_slow_node_delay_nobody() {
    let others = [(0, Manner::Silent), (7, Manner::Held), (120, Manner::Dropping)];
    let nodes = Nodes::start(200, &others);
    let before = nodes.bans_added();
    let arguments = ["--output", "jsonl", "--retries", "0", "--timeout", "60s"];
    let (mut process, mut stdout) = nodes.spawn(&arguments);
    nodes.fleet.wait_until_held(1);
    nodes.fleet.wait_until_ended(197);
    assert_eq!(nodes.bans_added() - before, 198, "197, and the one whose answer is held");

    // The dead node's limit comes first; its line and those up to the slow one are out.
    let dead = next_line(&mut stdout);
    assert_eq!((&dead["node"], &dead["result"]), (&name(0).into(), &"failed".into()), "{dead}");
    for n in 1..7 {
        let line = next_line(&mut stdout);
        assert_eq!((&line["node"], &line["result"]), (&name(n).into(), &"done".into()), "{line}");
    }
    assert!(process.try_wait().unwrap().is_none(), "it waits for the slow node");
    nodes.fleet.release();
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    let rest = lines(&rest);
    let names: Vec<_> = rest.iter().map(|line| line["node"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, (7..200).map(name).collect::<Vec<_>>());
    for line in &rest {
        let dropping = line["node"] == name(120);
        let expected = if dropping { "failed" } else { "done" };
        assert_eq!((&line["schema"], &line["result"]), (&1.into(), &expected.into()), "{line}");
        assert_eq!((&line["bans"], &line["taken"]), (&1.into(), &u32::from(!dropping).into()));
        assert_eq!(line["failures"].as_array().unwrap().len(), usize::from(dropping), "{line}");
    }
    assert_eq!(rest[120 - 7]["failures"][0]["reason"], "connect_timeout");
    assert_eq!(rest[120 - 7]["failures"][0]["expression"], "obj.http.x == 1");
    assert_eq!(process.wait().unwrap().code(), Some(3));
    assert_eq!(nodes.bans_added() - before, 198);
}

#[test]
fn people_read_the_nodes_in_their_order_as_they_come() {
    let nodes = Nodes::start(12, &[(5, Manner::Held)]);
    let (mut process, mut stdout) = nodes.spawn(&[]);
    nodes.fleet.wait_until_held(1);
    let mut read = String::new();
    for _ in 0..5 {
        stdout.read_line(&mut read).unwrap();
    }
    nodes.fleet.release();
    stdout.read_to_string(&mut read).unwrap();
    let expected: String = (0..12).map(|n| name(n) + ": taken: obj.http.x == 1\n").collect();
    assert_eq!(read, expected);
    assert_eq!(process.wait().unwrap().code(), Some(0));
}

#[test]
fn more_dead_nodes_than_living_ones_delay_nobody() {
    let silent: Vec<_> = (0..150).map(|n| (n, Manner::Silent)).collect();
    let nodes = Nodes::start(160, &silent);
    let (mut process, _stdout) = nodes.spawn(&["--timeout", "40s", "--retries", "0"]);
    let start = Instant::now();
    nodes.fleet.wait_until_ended(10);
    // A dead node is given up after 5 s: the living ones were not behind any of them.
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    let _ = process.kill();
    process.wait().unwrap();
}

#[test]
fn an_interrupt_says_which_nodes_are_done_and_which_are_unknown() {
    let nodes = Nodes::start(30, &[(3, Manner::Held), (10, Manner::Silent)]);
    for (format, signal) in [("human", "-INT"), ("jsonl", "-TERM"), ("human", "-HUP")] {
        nodes.fleet.forget();
        let arguments = ["--retries", "0", "--output", format, "--timeout", "60s"];
        let (process, mut stdout) = nodes.spawn(&arguments);
        nodes.fleet.wait_until_ended(28);
        nodes.fleet.wait_until_held(if format == "human" { 1 } else { 2 });
        let id = process.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        let mut out = Vec::new();
        stdout.read_to_end(&mut out).unwrap();
        let output = process.wait_with_output().unwrap();
        let err = text(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{err}");
        assert_eq!(
            err,
            "purgewatch: cache-003: interrupted; whether it was carried out is unknown\n\
             purgewatch: cache-010: waiting for the greeting: interrupted; nothing was sent\n"
        );
        if format == "human" {
            let done = (0..30).filter(|n| ![3, 10].contains(n));
            let expected: String = done.map(|n| name(n) + ": taken: obj.http.x == 1\n").collect();
            assert_eq!(text(&out), expected);
        } else {
            let lines = lines(&out);
            assert_eq!(lines.len(), 30);
            for (n, line) in lines.iter().enumerate() {
                let (result, exit) = match n {
                    3 => ("unknown", 130),
                    10 => ("failed", 130),
                    _ => ("done", 0),
                };
                let expected = (&name(n).into(), &result.into(), &exit.into());
                assert_eq!((&line["node"], &line["result"], &line["exit"]), expected, "{line}");
            }
        }
    }
}

/// With 64 open files, of which each node may need two, all of 200 nodes are served.
#[test]
fn few_files_are_enough_for_many_nodes() {
    let nodes = Nodes::start(200, &[]);
    let script = format!(
        "ulimit -n 64; exec {PROGRAM} ban -c {} 'obj.http.x == 1' --retries 0",
        nodes.config
    );
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    check_code(&output, 0, "");
    assert_eq!(text(&output.stdout).lines().count(), 200);
}

#[test]
fn a_reader_that_leaves_or_sleeps_holds_up_no_node() {
    let nodes = Nodes::start(40, &[]);
    for (format, first) in [("human", "cache-000: taken"), ("jsonl", "{\"schema\":1,")] {
        nodes.fleet.forget();
        let before = nodes.bans_added();
        let script = format!(
            "{PROGRAM} ban -c {} 'obj.http.x == 1' --output {format} | head -1; \
             exit ${{PIPESTATUS[0]}}",
            nodes.config
        );
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        check_code(&output, 0, "");
        assert!(text(&output.stdout).starts_with(first), "{}", text(&output.stdout));
        assert_eq!(
            (text(&output.stdout).lines().count(), text(&output.stderr)),
            (1, String::new())
        );
        assert_eq!(nodes.bans_added() - before, 40);
    }

    // More than a pipe holds, and nobody reads: every node is served all the same.
    let before = nodes.bans_added();
    let long = format!("obj.http.x == {}", "y".repeat(10_000));
    let bans = format!("{long}\nobj.http.x ~ (?<=ab?)c{}\n", "d".repeat(10_000));
    let mut process = Command::new(PROGRAM)
        .args(["ban", "-c", &nodes.config, "--output", "jsonl", "--file", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    nodes.fleet.forget();
    process.stdin.take().unwrap().write_all(bans.as_bytes()).unwrap();
    nodes.fleet.wait_until_ended(40);
    assert!(process.try_wait().unwrap().is_none(), "it waits for its reader");
    assert_eq!(nodes.bans_added() - before, 40);
    let output = process.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    let lines = lines(&output.stdout);
    assert_eq!(lines.len(), 40);
    assert_eq!((&lines[39]["taken"], &lines[39]["not_taken"]), (&1.into(), &1.into()));
    assert_eq!(lines[39]["failures"][0]["line"], 2);
}

#[test]
fn lines_are_for_results_only() {
    let nodes = Nodes::start(2, &[]);
    let output = nodes.run(&["--output", "jsonl", "--dry-run"]);
    check_code(&output, 0, "");
    let planned = lines(&output.stdout);
    assert_eq!(planned.len(), 2);
    for (n, line) in planned.iter().enumerate() {
        assert_eq!((&line["node"], &line["dry_run"]), (&name(n).into(), &true.into()));
        assert_eq!((&line["result"], &line["taken"]), (&"not_sent".into(), &0.into()));
    }
    let refused = nodes.run(&["--output", "jsonl", "obj.http.x ~ ("]);
    check_code(&refused, 2, "refused (regex)");
    assert_eq!(text(&refused.stdout), "");
    for command in [["check", "--output", "jsonl"], ["config", "check", "--output=jsonl"]] {
        let output = Command::new(PROGRAM).args(command).output().unwrap();
        check_code(&output, 2, "[possible values: human, json]");
    }
}

#[test]
fn the_keys_of_a_line_are_those_of_the_readme() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let (_, section) = readme.split_once("\n### Many nodes\n").unwrap();
    let (section, _) = section.split_once("\n### ").unwrap();
    let first_cells =
        section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let documented: BTreeSet<&str> =
        first_cells.flat_map(|cell| cell.trim_end_matches('`').split("`, `")).collect();

    let nodes = Nodes::start(2, &[(0, Manner::Dropping)]);
    let before = nodes.bans_added();
    let (process, mut stdout) =
        nodes.spawn(&["--output", "jsonl", "--timeout", "60s", "--repeat-after", "50s"]);
    while nodes.bans_added() == before {
        std::thread::sleep(Duration::from_millis(20));
    }
    // The answer may still be under way.
    std::thread::sleep(Duration::from_secs(1));
    assert!(
        Command::new("kill").args(["-INT", &process.id().to_string()]).status().unwrap().success()
    );
    let mut out = Vec::new();
    stdout.read_to_end(&mut out).unwrap();
    process.wait_with_output().unwrap();
    let lines = lines(&out);
    let keys = |line: usize| -> BTreeSet<&str> {
        lines[line].as_object().unwrap().keys().map(String::as_str).collect()
    };
    // The second node took the ban, and was not given it once more.
    let mut failed = documented.clone();
    assert!(failed.remove("not_repeated"));
    assert_eq!((keys(0), keys(1)), (failed, documented));
}

/// On a terminal, how far it is stands in one line, which is gone in the end.
#[test]
fn a_terminal_shows_who_is_waited_for() {
    let nodes = Nodes::start(20, &[(4, Manner::Held)]);
    let seen = nodes.varnishd.dir().join("terminal");
    let command = format!("{PROGRAM} ban -c {} 'obj.http.x == 1'", nodes.config);
    let mut terminal = Command::new("script")
        .args(["-q", "-e", "-f", "-c", &command])
        .arg(&seen)
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("script runs: apt-get install bsdutils");
    let shown = || String::from_utf8_lossy(&std::fs::read(&seen).unwrap_or_default()).into_owned();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !shown().contains("\r19 of 20 nodes done; waiting for cache-004\x1b[K") {
        assert!(Instant::now() < deadline, "{:?}", shown());
        std::thread::sleep(Duration::from_millis(20));
    }
    nodes.fleet.release();
    assert_eq!(terminal.wait().unwrap().code(), Some(0));
    // What is left on the screen: a line ends where the next one erases it.
    let shown = shown();
    let screen: Vec<&str> = shown.lines().filter_map(|line| line.rsplit('\r').next()).collect();
    let results: Vec<&str> = screen
        .iter()
        .map(|line| line.trim_start_matches("\x1b[K"))
        .filter(|line| line.starts_with("cache-"))
        .collect();
    let expected: Vec<String> = (0..20).map(|n| name(n) + ": taken: obj.http.x == 1").collect();
    assert_eq!(results, expected, "{shown:?}");
    assert!(!screen.iter().any(|line| line.contains("waiting for")), "{shown:?}");
}
