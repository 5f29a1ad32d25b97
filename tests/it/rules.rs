//! The alerting rules, held by promtool.
//!
//! `fixtures/rules/*.yml` are unit tests of `promtool test rules`, run against what the built
//! program prints for `fixtures/rules/purgewatch.toml`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[test]
fn promtool_accepts_the_rules() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("rules.yml"), rules(&fixtures().join("purgewatch.toml"), &[]))
        .unwrap();
    let output = promtool(dir.path(), &["check", "rules", "rules.yml"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains(" rules found"), "{}", text(&output));
}

/// Each alert fires when it should, not before its time, not in healthy cases, and resolves.
#[test]
fn each_alert_fires_and_resolves() {
    let dir = folder_with_tests(&rules(&fixtures().join("purgewatch.toml"), &[]));
    for test in tests() {
        let output = promtool(dir.path(), &["test", "rules", &test]);
        assert!(output.status.success(), "{test}: {}", text(&output));
    }
}

/// The tests above can fail: of each alert they notice when it never fires, and when it fires
/// at once.
#[test]
fn each_alert_is_really_tested() {
    let rules = rules(&fixtures().join("purgewatch.toml"), &[]);
    let names: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() >= 10, "{names:?}");
    for (key, broken) in [("expr: ", "expr: vector(0) > 1"), ("for: ", "for: 0s")] {
        let changed = rules.lines().map(|line| match line.trim_start().starts_with(key) {
            true => format!("        {broken}"),
            false => line.to_owned(),
        });
        let dir = folder_with_tests(&changed.collect::<Vec<_>>().join("\n"));
        let tests = tests();
        let arguments = ["test", "rules"].into_iter().chain(tests.iter().map(String::as_str));
        let output = promtool(dir.path(), &arguments.collect::<Vec<_>>());
        assert!(!output.status.success());
        for name in &names {
            let noticed = text(&output).contains(&format!("alertname: {name}, time"));
            assert!(noticed, "no test notices {broken:?} in {name}");
        }
    }
}

/// Names with every character that a name may have pass through PromQL and YAML.
#[test]
fn names_are_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("purgewatch.toml");
    fs::write(
        &config,
        r#"
[[node]]
name = "köln:1_a-b.c"
http = "http://127.0.0.1:1"
admin = "127.0.0.1:2"
[[origin]]
name = "o"
address = "http://127.0.0.1:3"
[[endpoint]]
name = "späte.liste:1"
url = "http://a/"
origin = "o"
interval = "10m"
[[endpoint]]
name = "yes"
url = "http://a/2"
origin = "o"
[[endpoint]]
name = "1e5"
url = "http://a/3"
origin = "o"
"#,
    )
    .unwrap();
    let arguments = ["--job", "edge \"one\" it's", "--runbook-base", "https://wiki/a?b='c'&d"];
    let printed = rules(&config, &arguments);
    assert!(printed.contains(r"späte\\.liste:1"), "{printed}");
    assert!(printed.contains("runbook_url: 'https://wiki/a?b=''c''&d#runbook-"), "{printed}");
    fs::write(dir.path().join("rules.yml"), &printed).unwrap();
    let output = promtool(dir.path(), &["check", "rules", "rules.yml"]);
    assert!(output.status.success(), "{}\n{printed}", text(&output));
}

#[test]
fn ten_thousand_endpoints_make_rules_of_a_readable_size() {
    let mut config = String::from(
        "[[node]]\nname = \"n\"\nhttp = \"http://127.0.0.1:1\"\n\
         [[origin]]\nname = \"o\"\naddress = \"http://127.0.0.1:2\"\nmax_rate = 1000\n",
    );
    for number in 0..10_000 {
        let interval = if number % 1_000 == 0 { "5m" } else { "30s" };
        config.push_str(&format!(
            "[[endpoint]]\nname = \"e{number}\"\nurl = \"http://a/{number}\"\norigin = \"o\"\n\
             interval = \"{interval}\"\n"
        ));
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("purgewatch.toml"), config).unwrap();
    let printed = rules(&dir.path().join("purgewatch.toml"), &[]);
    assert!(printed.len() < 20_000, "{} bytes", printed.len());
}

#[test]
fn a_faulty_configuration_has_no_rules() {
    let faulty = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/config/bad/zero-nodes.toml");
    let output = purgewatch(&faulty, &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/rules")
}

/// The names of the test files.
fn tests() -> Vec<String> {
    let names = fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names
        .map(|name| name.into_string().unwrap())
        .filter(|name| name.ends_with(".yml"))
        .collect();
    names.sort();
    assert!(names.len() >= 5, "{names:?}");
    names
}

/// A folder with these rules and all tests.
fn folder_with_tests(rules: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for test in tests() {
        fs::copy(fixtures().join(&test), dir.path().join(&test)).unwrap();
    }
    fs::write(dir.path().join("rules.yml"), rules).unwrap();
    dir
}

fn rules(config: &Path, more: &[&str]) -> String {
    let output = purgewatch(config, more);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    String::from_utf8(output.stdout).unwrap()
}

fn purgewatch(config: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_purgewatch"));
    command.arg("rules").arg("-c").arg(config).args(more).output().unwrap()
}

fn promtool(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("promtool");
    let output = command.current_dir(dir).args(arguments).output();
    output.expect("promtool runs: apt-get install prometheus")
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}
