//! Configurations, good and bad, with their exact messages.
//!
//! `fixtures/config/bad` holds one file for each mistake, `good` what is accepted (with its
//! warnings). Beside each `NAME.toml`, `NAME.out` is what `purgewatch config check` says of it.
//! After a change of messages, `PURGEWATCH_UPDATE_FIXTURES=1 cargo test --test it config` writes
//! them anew; the difference is to be read like code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

#[test]
fn every_mistake_has_its_exact_message() {
    check_folder("bad", 2);
}

#[test]
fn what_is_right_is_accepted() {
    check_folder("good", 0);
}

/// Of what is not text, or not a file.
#[test]
fn what_cannot_be_read_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let said = |name: &str, bytes: &[u8]| {
        fs::write(dir.path().join(name), bytes).unwrap();
        let output = check(dir.path(), name, &[]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(output.stdout.is_empty(), "{name}");
        String::from_utf8(output.stderr).unwrap().lines().next().unwrap().to_owned()
    };
    assert_eq!(
        said("nul", b"[daemon]\nlisten = \0\n"),
        "nul:2:10: error: expected text, got a NUL byte: this is no configuration"
    );
    assert_eq!(
        said("latin1", b"# K\xf6ln\n[daemon]\n"),
        "latin1:1:4: error: expected UTF-8, got the byte 0xf6"
    );
    assert_eq!(said("utf16", b"\xff\xfe[\0d\0"), "utf16:1:1: error: expected UTF-8, got UTF-16");
    let mut large = vec![b'#'; 16 * 1024 * 1024];
    large.push(b'\n');
    assert_eq!(
        said("large", &large),
        "purgewatch: large is larger than 16 MiB, which no configuration is"
    );
    assert_eq!(
        said("tab", b"a = \"\x1b[2J\"\n"),
        "tab:1:6: error: invalid basic string, expected non-double-quote visible characters, `\\`"
    );
    let folder = check(dir.path(), ".", &[]);
    assert_eq!(folder.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(folder.stderr).unwrap(),
        "purgewatch: . cannot be read: Is a directory (os error 21)\n"
    );
    let absent = check(dir.path(), "absent.toml", &[]);
    assert_eq!(absent.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(absent.stderr).unwrap(),
        "purgewatch: absent.toml cannot be read: No such file or directory (os error 2)\n"
    );
}

#[test]
fn the_example_is_itself_without_faults_or_warnings() {
    let dir = tempfile::tempdir().unwrap();
    let example = purgewatch().args(["config", "example"]).output().unwrap();
    assert_eq!(example.status.code(), Some(0));
    fs::write(dir.path().join("example.toml"), &example.stdout).unwrap();
    let output = check(dir.path(), "example.toml", &[]);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "example.toml: ok, 1 endpoint in 2 variants on 1 node; 1 origin: rec-api 0.07/s of 20/s\n"
    );
}

/// Each line of the example that is commented out is one that may be used.
#[test]
fn what_the_example_leaves_out_is_accepted_too() {
    let example = purgewatch().args(["config", "example"]).output().unwrap();
    let example = String::from_utf8(example.stdout).unwrap();
    let mut used = 0;
    let complete: Vec<String> = example
        .lines()
        .map(|line| {
            if let Some(table) = line.strip_prefix("# [").filter(|rest| rest.ends_with(']')) {
                return format!("[{table}");
            }
            let Some((key, value)) = line.strip_prefix("# ").and_then(|l| l.split_once(" = "))
            else {
                return line.to_owned();
            };
            let is_key = key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            if !is_key || key == "secret_credential" {
                return line.to_owned();
            }
            used += 1;
            format!("{key} = {value}")
        })
        .collect();
    assert!(used >= 40, "the example shows {used} more keys");
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("all.toml"),
        complete.join("\n").replace("http://127", "https://127"),
    )
    .unwrap();
    let output = check(dir.path(), "all.toml", &[]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn programs_get_one_json_document() {
    let fixtures = folder("bad");
    let output = check(&fixtures, "many-faults.toml", &["--output", "json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stderr.is_empty());
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["schema"], 1);
    assert_eq!(document["valid"], false);
    let diagnostics = document["diagnostics"].as_array().unwrap();
    assert!(diagnostics.len() >= 9, "{document:#}");
    let lines: Vec<_> = diagnostics.iter().map(|d| d["line"].as_u64().unwrap()).collect();
    assert!(lines.is_sorted(), "{lines:?}");

    let output = check(&folder("good"), "warning-rate.toml", &["--output", "json"]);
    assert_eq!(output.status.code(), Some(0));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["valid"], true);
    assert_eq!(document["watched"]["origins"][0]["scheduled_rate"], 1.0);
    assert_eq!(document["diagnostics"][0]["severity"], "warning");

    let output = check(&fixtures, "not-there.toml", &["--output", "json"]);
    assert_eq!(output.status.code(), Some(2));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(document["error"].as_str().unwrap().contains("No such file"), "{document}");
}

/// Ten thousand endpoints are read in well under a second, and their faults are all found.
#[test]
fn a_large_file_is_read_at_once() {
    let mut text = String::from(
        "[[node]]\nname = \"n\"\nhttp = \"http://127.0.0.1:1\"\n\
         [[origin]]\nname = \"o\"\naddress = \"http://127.0.0.1:2\"\nmax_rate = 1000\n",
    );
    for number in 0..10_000 {
        text.push_str(&format!(
            "[[endpoint]]\nname = \"e{number}\"\nurl = \"http://a/{number}\"\norigin = \"o\"\n\
             ignore = ['nonce=\"[0-9a-f]*\"']\n"
        ));
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("large.toml"), &text).unwrap();
    let started = std::time::Instant::now();
    let output = check(dir.path(), "large.toml", &[]);
    let took = started.elapsed();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(String::from_utf8_lossy(&output.stdout).contains("10000 endpoints on 1 node"));
    assert!(took.as_secs() < 5, "took {took:?}");

    fs::write(dir.path().join("faulty.toml"), text.replace("\"o\"", "\"p\"")).unwrap();
    fs::write(dir.path().join("faulty.toml"), text.replace("origin =", "orogin =")).unwrap();
    let output = check(dir.path(), "faulty.toml", &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stderr.len() < 200_000, "nobody reads {} bytes", output.stderr.len());
}

#[test]
fn the_reader_of_a_result_may_go_away() {
    use std::io::Read;
    use std::process::Stdio;
    let mut child = purgewatch()
        .args(["config", "example"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}

#[test]
fn a_result_that_cannot_be_written_is_no_success() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = purgewatch().args(["config", "example"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be written"));
}

/// On a terminal (script(1) makes one) faults are in colour, unless `NO_COLOR` is set.
#[test]
fn colours_are_for_terminals() {
    let on_a_terminal = |no_colour: &str| {
        let program = env!("CARGO_BIN_EXE_purgewatch");
        let mut command = Command::new("script");
        command.current_dir(folder("bad")).env("NO_COLOR", no_colour).env("TERM", "xterm");
        command.args(["-qec", &format!("'{program}' config check -c empty.toml"), "/dev/null"]);
        let output = command.output().expect("script runs: apt-get install bsdutils");
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(on_a_terminal("").contains("\u{1b}[1;31merror"));
    assert!(!on_a_terminal("1").contains('\u{1b}'));
    let piped = check(&folder("bad"), "empty.toml", &[]);
    assert!(!piped.stderr.contains(&0x1b));
}

#[test]
fn usage_errors_exit_with_2_and_help_with_0() {
    for (arguments, code) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&["config", "check", "--help"], 0),
        (&["help"], 0),
        (&["rules", "--help"], 0),
        (&[], 2),
        (&["config"], 2),
        (&["confg"], 2),
        (&["config", "check", "--output", "yaml"], 2),
    ] {
        let output = purgewatch().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let (said, silent) = match code {
            0 => (&output.stdout, &output.stderr),
            _ => (&output.stderr, &output.stdout),
        };
        assert!(!said.is_empty() && silent.is_empty(), "{arguments:?}");
    }
}

fn check_folder(kind: &str, code: i32) {
    let folder = folder(kind);
    let update = std::env::var_os("PURGEWATCH_UPDATE_FIXTURES").is_some();
    let (mut documents, mut expectations) = (BTreeSet::new(), BTreeSet::new());
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let is_document = path.extension().is_some_and(|e| e == "toml");
        if is_document {
            documents.insert(name)
        } else {
            expectations.insert(name)
        };
    }
    assert!(documents.len() > 5, "{} fixtures in {}", documents.len(), folder.display());
    let mut faults = Vec::new();
    for name in &documents {
        let output = check(&folder, &format!("{name}.toml"), &[]);
        let said = format!(
            "{}{}",
            String::from_utf8(output.stderr).unwrap(),
            String::from_utf8(output.stdout).unwrap()
        );
        if output.status.code() != Some(code) {
            faults.push(format!("{name}: exit {:?}, not {code}:\n{said}", output.status.code()));
        }
        let expectation = folder.join(format!("{name}.out"));
        if update {
            fs::write(&expectation, &said).unwrap();
            expectations.insert(name.clone());
        }
        let expected = fs::read_to_string(&expectation).unwrap_or_default();
        if said != expected {
            faults.push(format!("{name}: expected\n{expected}got\n{said}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(documents, expectations, "each document has its message, and no other");
}

fn folder(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/config").join(kind)
}

fn check(folder: &Path, file: &str, more: &[&str]) -> Output {
    let mut command = purgewatch();
    command.current_dir(folder).args(["config", "check", "-c", file]).args(more);
    command.output().unwrap()
}

/// The built program, with nothing of the caller's environment that would change its answers.
fn purgewatch() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_purgewatch"));
    command.env_remove("PURGEWATCH_CONFIG").env_remove("NO_COLOR");
    command
}
