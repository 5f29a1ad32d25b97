//! `purgewatch ban` against real varnishd processes, and against peers scripted to do what a real
//! one cannot be made to do.

mod crashes;
mod faults;
mod input;
mod matching;
mod template;
mod urls;
mod verify;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::varnish::{Options, Varnishd, free_port};

/// Runs the program with no surroundings but those given.
pub(crate) fn purgewatch(
    arguments: &[&str],
    environment: &[(&str, &str)],
    input: impl AsRef<[u8]>,
) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_purgewatch"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in
        ["PURGEWATCH_ADMIN", "PURGEWATCH_SECRET_FILE", "PURGEWATCH_CONFIG", "GITHUB_ACTIONS"]
    {
        command.env_remove(name);
    }
    command.envs(environment.iter().copied());
    let mut process = command.spawn().unwrap();
    // A program that refuses before it reads closes the pipe: that is no fault of the test.
    let _ = process.stdin.take().unwrap().write_all(input.as_ref());
    process.wait_with_output().unwrap()
}

/// Runs `purgewatch ban` on one node.
fn ban(varnishd: &Varnishd, arguments: &[&str], input: impl AsRef<[u8]>) -> Output {
    let admin = varnishd.admin.to_string();
    let secret = varnishd.secret_file().to_str().unwrap();
    let all = [&["ban", "-T", &admin, "-S", secret], arguments].concat();
    purgewatch(&all, &[], input)
}

#[track_caller]
pub(crate) fn check(output: &Output, code: i32, stdout: &str, stderr: &str) {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "stdout: {out}\nstderr: {err}");
    assert_eq!((out.as_str(), err.as_str()), (stdout, stderr));
}

#[track_caller]
pub(crate) fn check_code(output: &Output, code: i32, in_stderr: &str) {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "stdout: {out}\nstderr: {err}");
    assert!(err.contains(in_stderr), "{in_stderr:?} is not in: {err}");
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|fault| panic!("{fault}: {}{}", text(&output.stdout), text(&output.stderr)))
}

/// One with an object in its cache: in an empty one the list of bans is emptied at once.
fn with_an_object() -> Varnishd {
    let vcl = "backend none none;
        sub vcl_backend_error { set beresp.status = 200; set beresp.ttl = 1h; return (deliver); }";
    let varnishd = Varnishd::start(Options { vcl: Some(vcl.to_owned()), ..Options::default() });
    assert!(varnishd.get("h", "/").starts_with("HTTP/1.1 200"));
    varnishd
}

/// A configuration of these nodes: name, admin address, secret file.
fn configuration(dir: &Path, nodes: &[(&str, &str, &Path)]) -> String {
    use std::fmt::Write as _;
    let mut toml = String::from("[[origin]]\nname = \"app\"\naddress = \"http://127.0.0.1:9\"\n");
    for (port, (name, admin, secret)) in (1_u16..).zip(nodes) {
        write!(
            toml,
            "[[node]]\nname = \"{name}\"\nhttp = \"http://127.0.0.1:{port}\"\nadmin = \"{admin}\"\n\
             secret_file = \"{}\"\n",
            secret.display()
        )
        .unwrap();
    }
    toml.push_str(
        "[[endpoint]]\nname = \"news\"\nurl = \"http://www.example.com/news/\"\norigin = \"app\"\n\
         ban_headers = { url = \"x-url\", host = \"x-host\" }\n",
    );
    let path = dir.join("purgewatch.toml");
    std::fs::write(&path, toml).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_ban_is_on_the_list_when_it_was_taken() {
    let varnishd = with_an_object();
    let node = varnishd.admin;
    check(
        &ban(&varnishd, &[r"obj.http.x-url ~ ^/a\.html$ && obj.status == 200"], ""),
        0,
        &format!("{node}: taken: obj.http.x-url ~ ^/a\\.html$ && obj.status == 200\n"),
        "",
    );
    assert_eq!(varnishd.bans(), [r"obj.http.x-url ~ ^/a\.html$ && obj.status == 200"]);
    // As separate words, and with everything in them that the wire has to escape.
    let output = ban(&varnishd, &["obj.http.x", "==", "a\"b\\c#d;e'f"], "");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(varnishd.bans()[0], "obj.http.x == a\"b\\c#d;e'f");
    // Arguments with blanks are bans of their own.
    let output = ban(&varnishd, &["obj.http.x == 1", "obj.http.x == 2"], "");
    assert_eq!(text(&output.stdout), format!("{node}: 2 of 2 bans taken\n"));
    assert_eq!(varnishd.bans()[..2], ["obj.http.x == 2", "obj.http.x == 1"]);
}

#[test]
fn nodes_are_named_by_the_environment_and_by_a_configuration() {
    let varnishd = Varnishd::start(Options::default());
    let (admin, secret) = (varnishd.admin.to_string(), varnishd.secret_file().to_str().unwrap());
    let named = [("PURGEWATCH_ADMIN", admin.as_str()), ("PURGEWATCH_SECRET_FILE", secret)];
    let one = |arguments: &[&str], environment: &[(&str, &str)]| {
        let all = [&["ban", "obj.http.x == 1"], arguments].concat();
        purgewatch(&all, environment, "")
    };
    check_code(&one(&[], &named), 0, "");
    let value = [("SECRET_OF_CI", "a secret of the tests\n")];
    check_code(&one(&["-T", &admin, "--secret-env", "SECRET_OF_CI"], &value), 0, "");
    let config = configuration(varnishd.dir(), &[("cache-01", &admin, varnishd.secret_file())]);
    check_code(&one(&["-c", &config], &[]), 0, "");
    check_code(&one(&["-c", &config, "--node", "cache-01"], &[]), 0, "");
    check_code(&one(&[], &[("PURGEWATCH_CONFIG", &config)]), 0, "");
    // The command line goes before the environment.
    let elsewhere = [("PURGEWATCH_ADMIN", "127.0.0.1:1")];
    check_code(&one(&["-c", &config], &elsewhere), 0, "");
    let other_config = [("PURGEWATCH_CONFIG", "/nowhere.toml")];
    check_code(&one(&["-T", &admin, "-S", secret], &other_config), 0, "");

    for (arguments, message) in [
        (&["-T", &admin, "-c", &config][..], "-T names one node and -c a configuration"),
        (&["-S", secret], "name that with -T HOST:PORT"),
        (
            &["-c", &config, "--node", "cache-02"],
            "there is no node cache-02 in the configuration: it has cache-01",
        ),
        (&["-c", "/nowhere.toml"], "/nowhere.toml"),
        (&["-T", "nowhere"], "HOST:PORT"),
    ] {
        check_code(&one(arguments, &[]), 2, message);
    }
    check_code(&one(&["-T", &admin, "--secret-env", "UNSET"], &[]), 4, "UNSET is not set");

    let text = std::fs::read_to_string(&config).unwrap();
    let without = varnishd.dir().join("without.toml");
    let lines = text.lines().filter(|l| !l.starts_with("admin =") && !l.starts_with("secret_file"));
    std::fs::write(&without, lines.collect::<Vec<_>>().join("\n")).unwrap();
    let output = one(&["-c", without.to_str().unwrap()], &[]);
    check_code(&output, 2, "node cache-01 has no `admin` in the configuration");
    let credential = varnishd.dir().join("credential.toml");
    let secret_line = format!("secret_file = \"{secret}\"");
    std::fs::write(&credential, text.replace(&secret_line, "secret_credential = \"secret\""))
        .unwrap();
    let credential = ["-c", credential.to_str().unwrap()];
    check_code(&one(&credential, &[]), 4, "the credential \"secret\" is handed over by systemd");
    let directory = varnishd.dir().to_str().unwrap();
    check_code(&one(&credential, &[("CREDENTIALS_DIRECTORY", directory)]), 0, "");
}

/// The nodes whose secret is there are served, whatever the others lack.
#[test]
fn a_node_whose_credential_is_missing_holds_up_no_other() {
    let [one, two] = [Varnishd::start(Options::default()), Varnishd::start(Options::default())];
    let [(a, s), (b, t)] = [&one, &two].map(|v| (v.admin.to_string(), v.secret_file()));
    let config = configuration(one.dir(), &[("cache-01", &a, s), ("cache-02", &b, t)]);
    let text_of = std::fs::read_to_string(&config).unwrap();
    let theirs = format!("secret_file = \"{}\"", t.display());
    assert!(text_of.contains(&theirs));
    std::fs::write(&config, text_of.replace(&theirs, "secret_credential = \"theirs\"")).unwrap();
    let output = purgewatch(&["ban", "-c", &config, "obj.http.x == 1"], &[], "");
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "cache-01: taken: obj.http.x == 1\n");
    let said = text(&output.stderr);
    assert!(said.contains("cache-02: ") && said.contains("the credential \"theirs\""), "{said}");
    assert_eq!((one.bans().len(), two.bans().len()), (1, 0));
}

#[test]
fn a_refused_ban_is_not_sent() {
    let varnishd = Varnishd::start(Options::default());
    for (expression, message) in [
        (
            "obj.http.x-url ~ .",
            "purgewatch: refused (everything): this ban matches everything (obj.http.x-url ~ . \
             always holds): the whole cache would be fetched again; pass --everything if that is \
             meant\n",
        ),
        (
            "obj.http.x-url ~ (",
            "purgewatch: refused (regex): \"(\" is no regex that Varnish can use: missing closing \
             parenthesis at offset 1\n",
        ),
        (
            "obj.http.x-url = /a",
            "purgewatch: refused (unknown-operator): obj.http.x-url cannot be compared with \"=\": \
             expected ==, !=, ~ or !~\n",
        ),
        (
            "obj.url == /a",
            "purgewatch: refused (unknown-field): there is no field \"obj.url\": is req.url meant, \
             or a header that the VCL keeps the URL in, such as obj.http.x-url?\n",
        ),
        (
            "obj.http.x == /a\nban obj.http.y == /b",
            "purgewatch: refused (line-end): a ban must not hold a line end (found in \"obj.http.x \
             == /a\\nban obj.http.y == /b\"): varnishd would take what follows as another command\n",
        ),
        (
            "obj.http.x << EOF",
            "purgewatch: refused (heredoc): \"<<\" as the last but one word starts a here-document \
             in varnishd: it would wait for the word \"EOF\" and take everything until then as the \
             argument\n",
        ),
        (
            "obj.http.x-url ~ ^/(a+)+$",
            "purgewatch: refused (slow-regex): the regex \"^/(a+)+$\" can backtrack without end: \
             its time can double with every few bytes, so a value of about 23 bytes is enough. \
             From 7.0 on varnishd's cache process aborts when PCRE2 gives up (varnish-cache issue \
             4376), which empties the cache and loses the ban. Let no two repetitions match the \
             same text ([^/]* instead of .*, an anchor ^), or pass --allow-slow-regex\n",
        ),
    ] {
        check(&ban(&varnishd, &[expression], ""), 2, "", message);
    }
    let argument = ["obj.http.x", "==", "a b"];
    check_code(&ban(&varnishd, &argument, ""), 2, "refused (blank-in-argument)");
    check_code(&ban(&varnishd, &["obj.http.x", "==", ""], ""), 2, "refused (empty-argument)");
    assert_eq!(varnishd.bans(), Vec::<String>::new());

    // What somebody may mean has a flag.
    check_code(&ban(&varnishd, &["obj.http.x-url ~ .", "--everything"], ""), 0, "");
    let slow = ["obj.http.x-url ~ ^/(a+)+$", "--allow-slow-regex"];
    check_code(&ban(&varnishd, &slow, ""), 0, "");
}

#[test]
fn a_batch_is_taken_whole_or_refused_whole() {
    let varnishd = with_an_object();
    let node = varnishd.admin;
    let good = "\u{feff}# bans of today\r\n\r\nobj.http.x == 1\r\n  # more\nobj.http.x == 2\n  obj.http.x ~ ^#3$";
    check(&ban(&varnishd, &[], good), 0, &format!("{node}: 3 of 3 bans taken\n"), "");
    let bans = ["obj.http.x ~ ^#3$", "obj.http.x == 2", "obj.http.x == 1"];
    assert_eq!(varnishd.bans(), bans);

    let file = varnishd.dir().join("bans.txt");
    std::fs::write(&file, "obj.http.x == 4\nobj.hits > 3\nobj.http.x ~ .*(\nobj.http.x == 5\n")
        .unwrap();
    let name = file.to_str().unwrap();
    check(
        &ban(&varnishd, &["--file", name], ""),
        2,
        "",
        &format!(
            "purgewatch: {name}:2: refused (unknown-field): there is no field \"obj.hits\": bans \
             cannot look at hits\n\
             purgewatch: {name}:3: refused (regex): \".*(\" is no regex that Varnish can use: \
             missing closing parenthesis at offset 3\n\
             purgewatch: 2 of 4 bans refused: nothing was sent\n"
        ),
    );
    assert_eq!(varnishd.bans(), bans, "nothing of a batch with a bad line is sent");
    for (arguments, input, message) in [
        (&["--file", "/nowhere"][..], "", "/nowhere cannot be read: No such file"),
        (&["--file", "-"], "# nothing\n\n", "standard input holds no ban"),
        (&[], "", "standard input holds no ban"),
    ] {
        check_code(&ban(&varnishd, arguments, input), 2, message);
    }
}

#[test]
fn every_ban_of_a_large_batch_is_answered_and_counted() {
    let varnishd = Varnishd::start(Options::default());
    let lines: Vec<String> = (0..5_000).map(|i| format!("obj.http.x-url == /p/{i}")).collect();
    // Objects that refer to no ban let the list be emptied at its end; the counter is not.
    let output = ban(&varnishd, &["--output", "json"], lines.join("\n"));
    let document = json(&output);
    assert_eq!(document["nodes"][0]["taken"], 5_000, "{document:#}");
    let counted = Command::new("varnishstat")
        .args(["-1", "-f", "MAIN.bans_added", "-n", varnishd.workdir().to_str().unwrap()])
        .output()
        .unwrap();
    let added: u32 = text(&counted.stdout).split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(added >= 5_000, "{added}");
}

#[test]
fn a_dry_run_sends_nothing() {
    let varnishd = Varnishd::start(Options::default());
    let node = varnishd.admin;
    check(
        &ban(&varnishd, &["--dry-run", "obj.age > 1d"], ""),
        0,
        &format!("would send to {node}:\n  ban obj.age > 1d\n"),
        "purgewatch: warning (needs-version): obj.age needs version 6.2 or later\n",
    );
    check_code(&ban(&varnishd, &["--dry-run", "obj.age > 1"], ""), 2, "refused (duration)");
    assert_eq!(varnishd.bans(), Vec::<String>::new());
}

#[test]
fn json_says_all_of_it() {
    let varnishd = Varnishd::start(Options::default());
    let output = ban(&varnishd, &["--output", "json"], "req.url == /a\nobj.http.x == 1\n");
    assert_eq!(output.status.code(), Some(0));
    let document = json(&output);
    assert_eq!(document["schema"], 1);
    assert_eq!(document["exit"], 0);
    assert_eq!(document["bans"][0]["line"], 1);
    assert_eq!(document["bans"][0]["expression"], "req.url == /a");
    assert_eq!(document["bans"][0]["warnings"][0]["code"], "request-field");
    assert_eq!(document["nodes"][0]["node"], varnishd.admin.to_string());
    assert_eq!(document["nodes"][0]["taken"], 2);
    assert_eq!(document["nodes"][0]["failures"], serde_json::json!([]));

    let output = ban(&varnishd, &["--output", "json", "req.url ~ ."], "");
    assert_eq!(output.status.code(), Some(2));
    let document = json(&output);
    assert_eq!(document["exit"], 2);
    assert_eq!(document["bans"][0]["refusals"][0]["code"], "everything");
    assert_eq!(document["bans"][0]["refusals"][0]["overridden_by"], "--everything");
    assert_eq!(document["nodes"], serde_json::json!([]));
}

#[test]
fn warnings_say_what_may_not_be_meant() {
    let varnishd = Varnishd::start(Options::default());
    let output = ban(&varnishd, &[], "req.url ~ ^/a.html\nreq.url ~ ^/b.html\nobj.http.x == 1\n");
    assert_eq!(
        text(&output.stderr),
        "purgewatch: standard input:1: warning (request-field): req.url belongs to the request: \
         the ban stays on the list until every older object was asked for; a ban on obj.http.* can \
         be worked off in the background (and 1 ban more like it)\n\
         purgewatch: standard input:1: warning (unescaped-dot): in \"^/a.html\" the dot in \"a.h\" \
         matches any character: write \\. for a dot (and 1 ban more like it)\n"
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn one_node_down_does_not_stop_the_other() {
    let varnishd = Varnishd::start(Options::default());
    let up = varnishd.admin.to_string();
    let down = free_port("127.0.0.1").to_string();
    let secret = varnishd.secret_file();
    let config =
        configuration(varnishd.dir(), &[("cache-01", &down, secret), ("cache-02", &up, secret)]);
    let arguments = ["ban", "-c", &config, "obj.http.x == 1", "--retries", "1"];
    let output = purgewatch(&arguments, &[], "");
    check(
        &output,
        3,
        "cache-02: taken: obj.http.x == 1\n",
        &format!(
            "purgewatch: cache-01: connecting: {down} refused the connection: nothing listens \
             there (tried again once)\n"
        ),
    );
    assert_eq!(varnishd.bans(), ["obj.http.x == 1"]);
    let only = purgewatch(&[&arguments[..], &["--node", "cache-02"]].concat(), &[], "");
    assert_eq!(only.status.code(), Some(0));
    let output = purgewatch(
        &[&arguments[..], &["--output", "json"]].concat(),
        &[("GITHUB_ACTIONS", "true")],
        "",
    );
    let document = json(&output);
    assert_eq!((&document["exit"], &document["nodes"][0]["exit"]), (&3.into(), &3.into()));
    assert_eq!(document["nodes"][0]["retried"], 1);
    assert_eq!(document["nodes"][0]["not_taken"], 1);
    assert_eq!(document["nodes"][0]["failures"][0]["reason"], "refused");
    assert_eq!(document["nodes"][1]["taken"], 1);
    assert!(
        text(&output.stderr).contains("\n::error title=purgewatch ban::cache-01: connecting: "),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn the_worst_node_gives_the_exit_status() {
    let varnishd = Varnishd::start(Options::default());
    let up = varnishd.admin.to_string();
    let down = free_port("127.0.0.1").to_string();
    let wrong = varnishd.dir().join("wrong");
    std::fs::write(&wrong, "another secret\n").unwrap();
    let secret = varnishd.secret_file();
    let run = |nodes: &[(&str, &str, &Path)]| {
        let config = configuration(varnishd.dir(), nodes);
        purgewatch(&["ban", "-c", &config, "obj.http.x ~ (?<=ab?)c", "--retries", "0"], &[], "")
    };
    // Lookbehinds of no fixed length came with PCRE2 10.43: the one of Debian 12 refuses them.
    check_code(&run(&[("a", &up, secret)]), 5, "varnishd answered 106");
    check_code(&run(&[("a", &up, &wrong)]), 4, "every byte of varnishd's secret file counts");
    check_code(&run(&[("a", &up, &wrong), ("b", &down, secret)]), 4, "b: connecting");
    check_code(&run(&[("a", &down, secret), ("b", &up, &wrong), ("c", &up, secret)]), 5, "a: conn");
}

#[test]
fn what_the_server_does_not_know_is_not_sent_to_it() {
    let varnishd = with_an_object();
    let output = ban(&varnishd, &["obj.last_hit > 1s"], "");
    let node = varnishd.admin;
    check(
        &output,
        2,
        "",
        &format!(
            "purgewatch: {node}: not sent: obj.last_hit needs version 8.0, the server has 7.1\n"
        ),
    );
    assert_eq!(varnishd.bans(), [""; 0]);
}

#[test]
fn a_closed_reader_is_no_panic() {
    let varnishd = Varnishd::start(Options::default());
    let program = env!("CARGO_BIN_EXE_purgewatch");
    let script = format!(
        "{program} ban -T {} -S {} 'obj.http.x == 1' --output json | true; echo ${{PIPESTATUS[0]}}",
        varnishd.admin,
        varnishd.secret_file().display()
    );
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert_eq!((text(&output.stdout).as_str(), text(&output.stderr).as_str()), ("0\n", ""));
    assert_eq!(varnishd.bans(), ["obj.http.x == 1"]);
}
