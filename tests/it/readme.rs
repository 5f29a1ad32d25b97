//! Holds the README to the program: what it documents exists, and what exists is documented.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use purgewatch::commands::Exit;
use purgewatch::event::{Event, EventError, Placeholder};
use regex::Regex;

use crate::support::daemon::{Daemon, QUICK, endpoint, peers, purgewatch};
use crate::support::origin::{Origin, Response};
use crate::support::redis::{PASSWORD, Redis};
use crate::support::varnish::{Options, Varnishd};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

/// The text from this heading to the next one of the same or a higher level.
fn section(text: &str, heading: &str) -> String {
    let level = heading.chars().take_while(|c| *c == '#').count();
    let (mut fenced, mut inside, mut found) = (false, false, String::new());
    for line in text.lines() {
        fenced ^= line.starts_with("```");
        let depth = line.chars().take_while(|c| *c == '#').count();
        if !fenced && (1..=level).contains(&depth) {
            inside = line == heading;
        }
        if inside {
            found.push_str(line);
            found.push('\n');
        }
    }
    assert!(!found.is_empty(), "the README has no section {heading:?}");
    found
}

/// The code blocks in this language, with the text of each.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let (mut blocks, mut open) = (Vec::new(), None);
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(named), None) => open = Some((named.to_owned(), String::new())),
            (Some(_), Some(_)) => {
                let (named, block) = open.take().unwrap();
                if named == language {
                    blocks.push(block);
                }
            }
            (None, Some((_, block))) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a code block has no end");
    blocks
}

/// The rows of all tables whose first column is called so, without the heading.
fn rows(text: &str, first: &str) -> Vec<Vec<String>> {
    let (mut rows, mut inside) = (Vec::new(), false);
    for line in text.lines() {
        let Some(inner) = line.strip_prefix("| ").and_then(|l| l.strip_suffix('|')) else {
            inside &= line.starts_with("|--");
            continue;
        };
        let cells: Vec<String> = inner.split('|').map(|cell| cell.trim().to_owned()).collect();
        if inside {
            rows.push(cells);
        } else {
            inside = cells[0] == first;
        }
    }
    assert!(!rows.is_empty(), "the README has no table of {first:?}");
    rows
}

/// What stands between single backticks, outside of code blocks.
fn spans(text: &str) -> Vec<String> {
    let mut fenced = false;
    let mut spans = Vec::new();
    for line in text.lines() {
        fenced ^= line.starts_with("```");
        if !fenced && !line.starts_with("```") {
            spans.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    spans
}

fn set<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    items.into_iter().collect()
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(text).unwrap()
}

/// What a scrape of a running daemon shows of one metric.
#[derive(Debug, Default)]
struct Exported {
    kind: String,
    /// The values of each label.
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// The metrics of a daemon that has seen a fresh endpoint, and then an old one: only that one has
/// a cause. It has a ban for a node that is not there as well, and an event from a stream.
fn scraped() -> BTreeMap<String, Exported> {
    let origin = Origin::start();
    origin.serve("/", Response::ok("one").header("Cache-Control", "max-age=3600"));
    let varnishd = Varnishd::in_front_of(origin.address);
    let socket = varnishd.dir().join("socket");
    // Not the endpoint's own object: its bans would keep that one fresh.
    origin.serve("/canary", Response::ok("x").header("Cache-Control", "max-age=3600"));
    let canary = "canary = \"/canary\"\ncanary_interval = \"1s\"\n[[origin]]";
    let away =
        "[[node]]\nname = \"away\"\nhttp = \"http://127.0.0.1:1\"\nadmin = \"127.0.0.1:2\"\n";
    let pointer = "[[pointer]]\nname = \"current\"\nurl = \"http://rec.example.com/current\"\n\
                   endpoints = [\"http://rec.example.com/v/{value}/\"]\norigin = \"origin\"\n\
                   nodes = [\"cache-01\"]\n";
    origin.serve("/current", Response::ok("1"));
    let redis = Redis::start();
    let password = varnishd.dir().join("password");
    fs::write(&password, PASSWORD).unwrap();
    let events = format!(
        "[redis]\nurl = \"redis://127.0.0.1:{}\"\npassword_file = \"{}\"\nname = \"a\"\n\
         [[subscription]]\nstream = \"inv\"\n[invalidations]\nsocket = \"{}\"\n",
        redis.port,
        password.display(),
        varnishd.dir().join("events").display()
    );
    let config = format!(
        "socket = \"{}\"\n{QUICK}{}{away}{}{pointer}{events}",
        socket.display(),
        peers(&varnishd, origin.address).replacen("[[origin]]", canary, 1),
        endpoint("rec", "/", "nodes = [\"cache-01\"]")
    );
    let daemon = Daemon::start(&config);
    daemon.wait_for_state("rec", "fresh");
    let ban = "{\"bans\": [{\"expression\": \"obj.http.x == 1\"}]}";
    let mut stream = UnixStream::connect(&socket).unwrap();
    let head = "POST /api/v1/bans HTTP/1.0\r\nContent-Length";
    write!(stream, "{head}: {}\r\n\r\n{ban}", ban.len()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 202 "), "{answer}");
    daemon.wait("the stream is followed", || {
        daemon.metric("purgewatch_subscription_up", &[]) == Some(1.0)
    });
    redis.cli(&["XADD", "inv", "*", "ban", "obj.http.x == 2"]);
    daemon.wait("an event came", || {
        daemon.metric("purgewatch_subscription_last_event_timestamp_seconds", &[]).is_some()
    });
    daemon.wait("the canary is proven", || {
        daemon.metric("purgewatch_canary_last_proven_timestamp_seconds", &[]).is_some()
    });
    daemon.wait("something is stored", || {
        daemon.metric("purgewatch_store_last_write_timestamp_seconds", &[]).is_some()
    });
    daemon.wait("the bans are counted", || daemon.metric("purgewatch_node_bans", &[]).is_some());
    origin.serve("/", Response::ok("two"));
    daemon.wait("it has a cause", || daemon.metric("purgewatch_endpoint_cause", &[]).is_some());
    exported(&daemon.metrics())
}

fn exported(text: &str) -> BTreeMap<String, Exported> {
    let mut metrics: BTreeMap<String, Exported> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            metrics.entry(name.to_owned()).or_default().kind = kind.to_owned();
        }
    }
    let label = Regex::new(r#"([a-z]+)="([^"]*)""#).unwrap();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let sample = line.split(['{', ' ']).next().unwrap();
        let name = family(&metrics, sample).unwrap_or_else(|| panic!("no TYPE of {sample}"));
        for found in label.captures_iter(line).filter(|found| &found[1] != "le") {
            let labels = &mut metrics.get_mut(&name).unwrap().labels;
            labels.entry(found[1].to_owned()).or_default().insert(found[2].to_owned());
        }
    }
    metrics
}

/// The metric that a sample belongs to.
fn family<T>(metrics: &BTreeMap<String, T>, sample: &str) -> Option<String> {
    let suffixes = ["", "_bucket", "_sum", "_count"];
    let mut names = suffixes.iter().filter_map(|suffix| sample.strip_suffix(suffix));
    names.find(|name| metrics.contains_key(*name)).map(str::to_owned)
}

#[test]
fn every_metric_is_documented_and_no_other() {
    let readme = readme();
    let scraped = scraped();
    let mut documented = BTreeMap::new();
    for row in rows(&section(&readme, "### Metrics"), "metric") {
        let [name, kind, labels, meaning] = &row[..] else { panic!("{row:?}") };
        assert!(!meaning.is_empty(), "{name}");
        let labels = set(labels.split(", ").filter(|l| !l.is_empty()).map(str::to_owned));
        let name = name.trim_matches('`').to_owned();
        assert!(documented.insert(name, (kind.clone(), labels)).is_none(), "twice: {row:?}");
    }
    let real = scraped.iter().map(|(name, metric)| {
        (name.clone(), (metric.kind.clone(), set(metric.labels.keys().cloned())))
    });
    assert_eq!(documented, real.collect());

    // Wherever else the page names one.
    let name = Regex::new(r"(?-u:\b)(purgewatch|process)_[a-z_]+[a-z](?-u:\b)").unwrap();
    let named = set(name.find_iter(&readme).map(|found| found.as_str()));
    for name in &named {
        assert!(family(&scraped, name).is_some(), "the README names {name}, which does not exist");
    }
    assert!(named.len() >= scraped.len());
}

#[test]
fn every_value_of_a_closed_label_is_documented_and_no_other() {
    let text = section(&readme(), "### Metrics");
    let mut documented = BTreeMap::new();
    for row in rows(&text, "label") {
        let values = set(spans(&row[2]));
        documented.insert(
            (row[1].trim_matches('`').to_owned(), row[0].trim_matches('`').to_owned()),
            values,
        );
    }
    let open = [
        "endpoint",
        "variant",
        "node",
        "origin",
        "pointer",
        "subscription",
        "version",
        "os",
        "arch",
    ];
    let mut real = BTreeMap::new();
    for (name, metric) in scraped() {
        for (label, values) in metric.labels {
            if !open.contains(&label.as_str()) {
                real.insert((name.clone(), label), values);
            }
        }
    }
    assert_eq!(set(documented.keys()), set(real.keys()));
    for (place, values) in real {
        let (lacks, invents): (Vec<_>, Vec<_>) =
            documented[&place].symmetric_difference(&values).partition(|v| values.contains(*v));
        assert!(
            lacks.is_empty() && invents.is_empty(),
            "{place:?}: the README lacks {lacks:?} and invents {invents:?}"
        );
    }
}

#[test]
fn every_state_is_documented() {
    use purgewatch::verdict::State;
    let documented = rows(&section(&readme(), "### States"), "state");
    let documented = set(documented.iter().map(|row| row[0].trim_matches('`').to_owned()));
    assert_eq!(documented, set(State::ALL.map(|state| state.label().to_owned())));
}

#[test]
fn every_state_of_a_pointer_is_documented() {
    use purgewatch::engine::PointerState;
    let text = section(&readme(), "### Pointer: the current version of a URL");
    let documented = rows(&text, "pointer is");
    let documented = set(documented.iter().map(|row| row[0].trim_matches('`').to_owned()));
    assert_eq!(documented, set(PointerState::ALL.map(|state| state.label().to_owned())));
}

#[test]
fn every_cause_is_documented() {
    use purgewatch::verdict::Cause;
    let documented = rows(&section(&readme(), "### Causes"), "cause");
    let documented = set(documented.iter().map(|row| row[0].trim_matches('`').to_owned()));
    assert_eq!(documented, set(Cause::ALL.map(|cause| cause.label().to_owned())));
}

#[test]
fn the_exit_statuses_are_those_of_the_program() {
    let text = section(&readme(), "## Exit status");
    let documented = set(rows(&text, "code").iter().map(|row| row[0].parse::<u8>().unwrap()));
    let source = fs::read_to_string(root().join("src/commands/exit.rs")).unwrap();
    let arm = Regex::new(r"Self::[A-Za-z0-9_]+ => ([0-9]+),").unwrap();
    let real = set(arm.captures_iter(&source).map(|found| found[1].parse::<u8>().unwrap()));
    assert!(real.len() >= 8, "{real:?}");
    assert_eq!(documented, real);

    let mut order = [Exit::Stale, Exit::Unreachable, Exit::Secret, Exit::Rejected, Exit::CacheDown];
    order.sort_by(|a, b| b.cmp(a));
    let order = order.map(|exit| exit.code().to_string()).join(", ");
    assert!(text.contains(&format!("the first of {order} that occurred")), "{order}");
}

/// As GitHub makes the anchor of a heading.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(readme: &str) -> Vec<String> {
    let mut fenced = false;
    let mut anchors = Vec::new();
    for line in readme.lines() {
        fenced ^= line.starts_with("```");
        if !fenced && line.starts_with('#') {
            anchors.push(anchor(line));
        }
    }
    anchors
}

/// The alerts that the program prints: name, severity, anchor of the runbook.
fn alerts() -> BTreeSet<(String, String, String)> {
    let config = root().join("fixtures/rules/purgewatch.toml");
    let output = purgewatch(&["rules", "-c", config.to_str().unwrap()]);
    assert!(output.status.success());
    let text = said(&output);
    let rule = Regex::new(
        r"(?s)alert: ([A-Za-z0-9_]+).*?severity: ([A-Za-z0-9_]+).*?runbook_url: '[^#']*#([a-z-]+)'",
    );
    let found = rule.unwrap();
    let found = found.captures_iter(&text);
    set(found.map(|rule| (rule[1].to_owned(), rule[2].to_owned(), rule[3].to_owned())))
}

#[test]
fn every_alert_has_its_runbook() {
    let readme = readme();
    let alerts = alerts();
    assert!(alerts.len() >= 10, "{alerts:?}");
    let link = Regex::new(r"^\[`([A-Za-z0-9_]+)`\]\(#([a-z-]+)\)$").unwrap();
    let documented = rows(&section(&readme, "## Prometheus"), "alert").into_iter().map(|row| {
        let found = link.captures(&row[0]).unwrap_or_else(|| panic!("{row:?}"));
        (found[1].to_owned(), row[1].clone(), found[2].to_owned())
    });
    assert_eq!(set(documented), alerts);

    let headings: Vec<&str> =
        readme.lines().filter(|line| line.starts_with("### Runbook: ")).collect();
    assert_eq!(set(headings.iter().map(|h| anchor(h))), set(alerts.iter().map(|a| a.2.clone())));
    for heading in headings {
        let text = section(&readme, heading);
        for part in [
            "What it means.",
            "What customers see.",
            "Look first.",
            "Likely causes, in order",
            "How to mend.",
            "See that it is mended.",
        ] {
            assert!(text.contains(&format!("**{part}")), "{heading} lacks {part:?}");
        }
        for (name, _, _) in alerts.iter().filter(|(_, _, to)| *to == anchor(heading)) {
            assert!(text.contains(&format!("`{name}`")), "{heading} does not name {name}");
        }
    }
}

#[test]
fn every_link_within_the_page_leads_somewhere() {
    let readme = readme();
    let anchors = anchors(&readme);
    assert_eq!(set(&anchors).len(), anchors.len(), "two headings with one anchor");
    let link = Regex::new(r"\]\(#([^)]*)\)").unwrap();
    let links: Vec<_> = link.captures_iter(&readme).collect();
    assert!(links.len() > 10);
    for found in links {
        assert!(anchors.iter().any(|a| *a == found[1]), "#{} leads nowhere", &found[1]);
    }
}

#[test]
fn every_file_that_is_named_exists() {
    let readme = readme();
    let commands = blocks(&readme, "sh").concat();
    let commands = commands.lines().filter_map(|line| line.split(' ').next());
    for span in spans(&readme).into_iter().chain(commands.map(str::to_owned)) {
        let ours = ["src/", "tests/", "systemd/", "fixtures/"];
        if ours.iter().any(|start| span.starts_with(start)) {
            assert!(root().join(&span).exists(), "{span}");
        }
    }
}

/// The help of a command; `None` when there is no such command.
fn help(command: &[&str]) -> Option<String> {
    let output = purgewatch(&[command, &["--help"]].concat());
    output.status.success().then(|| said(&output))
}

/// Every call of the program on the page, in code and in text.
fn calls(readme: &str) -> Vec<String> {
    let mut lines = String::new();
    for language in ["sh", "console", "yaml"] {
        lines.extend(blocks(readme, language));
    }
    // Lines that go on in the next one are one call.
    let mut texts: Vec<String> = lines.replace("\\\n", " ").lines().map(str::to_owned).collect();
    texts.extend(spans(readme));
    let call = Regex::new(r"(?:^|[$&|;(] ?|-- )purgewatch ([a-z][^|;&>)]*)").unwrap();
    let mut calls: Vec<String> =
        texts.iter().flat_map(|t| call.captures_iter(t)).map(|c| c[1].trim().to_owned()).collect();
    calls.retain(|call| !call.is_empty());
    calls
}

#[test]
fn every_command_and_option_exists() {
    let readme = readme();
    let calls = calls(&readme);
    assert!(calls.len() >= 20, "{calls:?}");
    let mut helps = String::new();
    for call in &calls {
        let words: Vec<&str> = call.split_whitespace().collect();
        let command = match &words[..] {
            ["config", action, ..] => vec!["config", action],
            [command, ..] => vec![*command],
            [] => unreachable!(),
        };
        let text = help(&command).unwrap_or_else(|| panic!("no such command: {call}"));
        for option in words.iter().filter(|word| word.starts_with('-') && word.len() > 1) {
            let option = option.split('=').next().unwrap();
            assert!(knows(&text, option), "purgewatch {command:?} has no {option}: {call}");
        }
        helps.push_str(&text);
    }
    // Options that the text speaks of by themselves.
    let option = Regex::new(r"^--?[a-z][a-z-]*$").unwrap();
    for span in spans(&readme) {
        let span = span.split(' ').next().unwrap();
        let foreign = ["-T", "-S"];
        if option.is_match(span) && !foreign.contains(&span) {
            assert!(knows(&helps, span), "no command has {span}");
        }
    }
}

/// Whether a help text describes this option.
fn knows(help: &str, option: &str) -> bool {
    let option = regex::escape(option);
    Regex::new(&format!(r"(?m)(^|[[ \n\t],]){option}([[ \n\t],=]|$)")).unwrap().is_match(help)
}

/// The other way round: no command that the program has is left out.
#[test]
fn every_command_is_documented() {
    let readme = readme();
    let calls = calls(&readme);
    let text = help(&[]).unwrap();
    let command = Regex::new(r"(?m)^  ([a-z]+) {2,}\S").unwrap();
    let commands = set(command.captures_iter(&text).map(|found| found[1].to_owned()));
    assert!(commands.contains("run") && commands.contains("check"), "{commands:?}");
    for command in commands {
        let documented = calls.iter().any(|call| call.split(' ').next() == Some(&command[..]));
        assert!(documented, "the README does not show {command}");
    }
}

#[test]
fn the_compiler_is_the_one_that_the_crate_needs() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let version = Regex::new("rust-version = \"([0-9.]+)\"").unwrap();
    let version = version.captures(&manifest).unwrap()[1].to_owned();
    assert!(readme().contains(&format!("[Rust](https://rustup.rs) {version} or later")));
}

/// The story of the demo is the one that is printed.
#[test]
fn the_demo_tells_what_the_page_shows() {
    let story = fs::read_to_string(root().join("src/commands/demo/story.rs")).unwrap();
    let story = story.replace("\\\"", "\"");
    let told = Regex::new(r"(?m)^ *[0-9.]+ s [*+!] ([^(\n]+)").unwrap();
    let text = blocks(&readme(), "text").concat();
    let told: Vec<&str> = told.captures_iter(&text).map(|t| t.get(1).unwrap().as_str()).collect();
    assert!(told.len() >= 8, "{told:?}");
    for line in told {
        assert!(story.contains(line.trim()), "the demo does not say: {line}");
    }
}

fn config_check(text: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("purgewatch.toml");
    fs::write(&file, text).unwrap();
    purgewatch(&["config", "check", "-c", file.to_str().unwrap()])
}

#[test]
fn the_configuration_that_is_walked_through_has_no_fault() {
    let text = blocks(&readme(), "toml").concat();
    let output = config_check(&text);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
    // What the page says that it prints.
    let summary = String::from_utf8(output.stdout).unwrap();
    let (_, summary) = summary.split_once(": ").unwrap();
    assert!(blocks(&readme(), "console").iter().any(|b| b.contains(summary.trim())), "{summary}");
}

#[test]
fn the_keys_are_those_of_the_program() {
    let documented = rows(&readme(), "table");
    let listing = Regex::new(r"the keys here are (.*)").unwrap();
    let mut tables = BTreeSet::new();
    for row in documented {
        let table = row[0].trim_matches('`').to_owned();
        let keys = set(spans(&row[1]));
        // The program lists the keys of a table when it does not know one.
        let output = config_check(&format!("{table}\nno_such_key_at_all = 1\n"));
        let text = said(&output);
        let listed = listing.captures(&text).unwrap_or_else(|| panic!("{table}: {text}"));
        assert_eq!(keys, set(listed[1].split(", ").map(str::to_owned)), "{table}");
        tables.insert(table);
    }
    let expected = [
        "[daemon]",
        "[defaults]",
        "[[node]]",
        "[[origin]]",
        "[[endpoint]]",
        "[[pointer]]",
        "[redis]",
        "[[subscription]]",
        "[invalidations]",
    ];
    assert_eq!(tables, set(expected.map(str::to_owned)));
}

/// The keys of an event are read, as JSON and as fields, and no others.
#[test]
fn the_keys_of_an_event_are_those_of_the_program() {
    let value = |key: &str| match key {
        "url" | "urls" => "http://a/",
        "prove" => "1m",
        "issued" => "1795490000",
        "schema" => "1",
        "everything" | "allow_slow_regex" => "true",
        _ => "a",
    };
    let (mut keys, mut fields) = (BTreeSet::new(), BTreeSet::from(["event".to_owned()]));
    for row in rows(&readme(), "key of the JSON") {
        for key in spans(&row[0]) {
            let text = match key.as_str() {
                "schema" | "issued" | "everything" | "allow_slow_regex" => value(&key).to_owned(),
                list if list.ends_with('s') || list == "verify" => format!("[\"{}\"]", value(list)),
                one => format!("\"{}\"", value(one)),
            };
            let mut json = format!("{{\"{key}\": {text}");
            if key != "bans" {
                json.push_str(", \"bans\": [\"a\"]");
            }
            let event = Event::from_json((json + "}").as_bytes());
            assert!(event.is_ok(), "{key}: {event:?}");
            keys.insert(key);
        }
        for field in spans(&row[1]) {
            let more = (field != "ban").then_some((&b"ban"[..], &b"a"[..]));
            let given = more.into_iter().chain([(field.as_bytes(), value(&field).as_bytes())]);
            let event = Event::from_fields(given);
            assert!(event.is_ok(), "{field}: {event:?}");
            fields.insert(field);
        }
    }
    // Each says which there are when it does not know one.
    let listed = |error: EventError, splits: &[char]| {
        let text = error.to_string();
        let (_, known) = text.split_once("expected ").unwrap();
        let known = known.split(" at line").next().unwrap().replace("one of ", "");
        set(known.replace("(JSON)", "").replace(" or ", " ").split(splits).filter_map(|word| {
            let word = word.trim().trim_matches('`');
            (!word.is_empty()).then(|| word.to_owned())
        }))
    };
    let unknown = Event::from_json(b"{\"none\": 1}").unwrap_err();
    assert_eq!(listed(unknown, &[',']), keys);
    let unknown = Event::from_fields([(&b"none"[..], &b"1"[..])]).unwrap_err();
    assert_eq!(listed(unknown, &[',', ' ']), fields);
    // And what the page shows can be read.
    for block in blocks(&readme(), "json").iter().filter(|block| block.contains("bans")) {
        assert!(Event::from_json(block.as_bytes()).is_ok(), "{block}");
    }
}

#[test]
fn the_placeholders_are_accepted() {
    let shown = rows(&readme(), "placeholder");
    let placeholders: Vec<String> = shown.iter().flat_map(|row| spans(&row[0])).collect();
    assert!(placeholders.len() >= 5, "{placeholders:?}");
    for placeholder in placeholders {
        let name = placeholder.trim_matches(['{', '}']);
        assert!(name.parse::<Placeholder>().is_ok(), "{placeholder}");
    }
}

#[test]
fn the_rules_of_comparison_are_accepted() {
    let rules = rows(&readme(), "`compare`");
    assert_eq!(rules.len(), 5);
    for row in rules {
        let rule = &spans(&row[0])[0];
        let config = format!(
            "[[node]]\nname = \"n\"\nhttp = \"http://127.0.0.1:1\"\n\
             [[origin]]\nname = \"o\"\naddress = \"http://127.0.0.1:2\"\n\
             [[endpoint]]\nname = \"e\"\nurl = \"http://a/\"\norigin = \"o\"\ncompare = {rule}\n"
        );
        let output = config_check(&config);
        assert!(output.status.success(), "{rule}: {}", said(&output));
    }
}

/// The VCL compiles, its headers are there for bans, and customers do not see them.
#[test]
fn the_vcl_does_what_the_page_says() {
    let snippet = blocks(&readme(), "vcl").concat();
    let origin = Origin::start();
    origin.serve("/a", Response::ok("one").header("Cache-Control", "max-age=3600"));
    let backend = format!(
        "backend default {{ .host = \"{}\"; .port = \"{}\"; }}\n",
        origin.address.ip(),
        origin.address.port()
    );
    let vcl = Some(backend + &snippet);
    let varnishd = Varnishd::start(Options { vcl, ..Options::default() });
    assert!(varnishd.get("rec.example.com", "/a").contains("one"));
    origin.serve("/a", Response::ok("two").header("Cache-Control", "max-age=3600"));
    let answer = varnishd.get("rec.example.com", "/a");
    assert!(answer.contains("one") && !answer.to_lowercase().contains("x-url"), "{answer}");
    for ban in [
        ["obj.http.x-url == /b", "obj.http.x-host == rec.example.com"],
        ["obj.http.x-url == /a", "obj.http.x-host == other.example.com"],
    ] {
        varnishd.adm(&["ban", ban[0], "&&", ban[1]]);
        assert!(varnishd.get("rec.example.com", "/a").contains("one"));
    }
    varnishd.adm(&["ban", "obj.http.x-url == /a && obj.http.x-host == rec.example.com"]);
    assert!(varnishd.get("rec.example.com", "/a").contains("two"));
}

#[test]
fn prometheus_takes_the_scrape_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let readme = readme();
    let [prometheus] = &blocks(&section(&readme, "## Prometheus"), "yaml")[..] else {
        panic!("one block of YAML")
    };
    let installed = "/etc/prometheus/rules/purgewatch.yml";
    assert!(prometheus.contains(installed));
    let config = root().join("fixtures/rules/purgewatch.toml");
    let rules = purgewatch(&["rules", "-c", config.to_str().unwrap()]);
    fs::write(dir.path().join("rules.yml"), &rules.stdout).unwrap();
    let local = dir.path().join("rules.yml");
    fs::write(
        dir.path().join("prometheus.yml"),
        prometheus.replace(installed, local.to_str().unwrap()),
    )
    .unwrap();
    let output = Command::new("promtool")
        .args(["check", "config", "prometheus.yml"])
        .current_dir(dir.path())
        .output()
        .expect("promtool runs: apt-get install prometheus");
    assert!(output.status.success(), "{}", said(&output));
    // The job is the one that the rules ask for.
    assert!(prometheus.contains("job_name: purgewatch\n"));
    assert!(said(&rules).contains("up{job=\"purgewatch\"}"));
}

#[test]
fn every_path_that_is_named_is_answered() {
    let origin = Origin::start();
    origin.serve("/", Response::ok("one"));
    let varnishd = Varnishd::in_front_of(origin.address);
    let config = QUICK.to_owned() + &peers(&varnishd, origin.address) + &endpoint("rec", "/", "");
    let daemon = Daemon::start(&config);
    let paths = rows(&section(&readme(), "## Prometheus"), "path");
    assert!(paths.len() >= 5);
    for row in paths {
        let path = row[0].trim_matches('`');
        assert_eq!(daemon.get(path).map(|(status, _)| status), Some(200), "{path}");
    }
    assert_eq!(daemon.get("/none").map(|(status, _)| status), Some(404));
}

/// The rating of the unit that the page states.
#[test]
fn the_unit_is_rated_as_stated() {
    let unit: PathBuf = root().join("systemd/purgewatch.service");
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", unit.to_str().unwrap()])
        .output()
        .expect("systemd-analyze runs: apt-get install systemd");
    let text = said(&output);
    let line = text.lines().find(|line| line.contains("Overall exposure level")).unwrap();
    let rating = line.split(": ").nth(1).unwrap().split(' ').next().unwrap();
    assert!(readme().contains(&format!("rates it {rating},")), "{line}");
}
