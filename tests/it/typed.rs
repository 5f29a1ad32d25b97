//! The typed methods of the admin client, each against a real varnishd.

use std::time::{Duration, Instant};

use purgewatch::admin::{AdminError, Client, Fault, Kind, Options, Outcome, SecretSource, Target};
use purgewatch::model::NodeName;
use purgewatch::protocol::answer::{AdminHealth, BanList, ChildState, Pong, VclList};
use purgewatch::protocol::{Command, SetHealth, Status, VclState};

use crate::support::varnish::{Options as Start, Varnishd};

fn start(arguments: &[&str]) -> Varnishd {
    let vcl = r#"
        backend default none;
        sub vcl_backend_error { set beresp.status = 200; set beresp.ttl = 1h; return (deliver); }
    "#;
    let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    Varnishd::start(Start { vcl: Some(vcl.to_owned()), arguments, ..Start::default() })
}

fn client_with(varnishd: &Varnishd, options: Options) -> Client {
    let target = Target::at(
        NodeName::new("cache-01").unwrap(),
        varnishd.admin.to_string().parse().unwrap(),
        SecretSource::File(varnishd.secret_file().to_owned()),
    );
    Client::new(target, options)
}

fn client(varnishd: &Varnishd) -> Client {
    client_with(varnishd, Options { reply: Duration::from_secs(60), ..Options::default() })
}

/// The status and the words of a refusal.
#[track_caller]
fn refusal<T: std::fmt::Debug>(result: Result<T, AdminError>) -> (Status, String) {
    let error = result.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotDone, "{error}");
    let Kind::Rejected { status, .. } = error.kind else { panic!("{error}") };
    (status, String::from_utf8(error.words().unwrap().to_vec()).unwrap())
}

#[tokio::test]
async fn the_cache_process_is_stopped_and_started() {
    let varnishd = start(&[]);
    let client = client(&varnishd);
    let now = client.time().await.unwrap().time;
    assert!(now.as_secs() > 1_700_000_000);
    let exact: Pong = client.ask(Command::new("ping", ["-j"]).unwrap()).await.unwrap();
    assert!(exact.time.abs_diff(now) < Duration::from_secs(5));
    assert_eq!(client.child_state().await, Ok(ChildState::Running));
    let first = client.pids().await.unwrap();
    assert!(first.worker.is_some_and(|worker| worker != first.master));
    assert_eq!(client.start_child().await, Ok(false));

    assert_eq!(client.stop_child().await, Ok(true));
    assert_eq!(client.stop_child().await, Ok(false));
    assert_eq!(client.child_state().await, Ok(ChildState::Stopped));
    assert_eq!(client.pids().await.unwrap().worker, None);
    assert_eq!(client.vcls().await.unwrap().vcls[0].busy, None);
    assert!(client.help().await.unwrap().get("ban").is_none());
    for error in [
        client.ban_list().await.unwrap_err(),
        client.backends(None).await.unwrap_err(),
        client.set_health("*", SetHealth::Sick).await.unwrap_err(),
    ] {
        assert_eq!(error.fault(), Fault::ChildNotRunning, "{error}");
        assert!(error.to_string().contains("(its state: stopped)"), "{error}");
    }

    assert_eq!(client.start_child().await, Ok(true));
    let second = client.pids().await.unwrap();
    assert_eq!(second.master, first.master);
    assert_ne!(second.worker, first.worker);
}

#[tokio::test]
async fn bans_are_listed_with_what_they_say() {
    let varnishd = start(&[]);
    let client = client(&varnishd);
    varnishd.get("example.com", "/");
    let words: [&[&[u8]]; 4] = [
        &[b"obj.http.x", b"==", b"a\nb"],
        &[b"obj.http.x", b"==", b"\xc3\xbc\xff\x01"],
        &[b"req.url", b"~", br#"^/\"x\"\.php$"#],
        &[b"obj.ttl", b">", b"7d"],
    ];
    for words in words {
        client.ban(Command::ban(words).unwrap()).await.unwrap();
    }
    let list = client.ban_list().await.unwrap();
    assert!(list.complete);
    let specs: Vec<&[u8]> = list.bans.iter().map(|ban| ban.spec.as_slice()).collect();
    assert_eq!(specs[0], b"obj.ttl > 1w");
    assert_eq!(specs[1], br#"req.url ~ ^/\"x\"\.php$"#);
    assert_eq!(specs[2], b"obj.http.x == \xc3\xbc\xff\x01");
    assert_eq!(specs[3], b"obj.http.x == a\nb");
    let text: BanList = client.ask(Command::ban_list()).await.unwrap();
    assert_eq!(text, list);
    // The one object there is was not tested against any of them, until it is asked for.
    assert_eq!(list.untested_since(list.bans[0].time), Some(1));
    varnishd.get("example.com", "/");
    let tested = client.ban_list().await.unwrap();
    assert_eq!(tested.untested_since(list.bans[0].time), Some(0), "{tested:?}");

    // A quotation mark in a header's name makes invalid JSON.
    client.ban(Command::ban(["obj.http.a\"b", "==", "c"]).unwrap()).await.unwrap();
    let odd = client.ban_list().await.unwrap();
    assert_eq!(odd.bans[0].spec, b"obj.http.a\"b == c");
    assert!(odd.complete);
    client.set_param("debug", "+lurker").await.unwrap();
    let lurker: BanList = client.ask(Command::ban_list()).await.unwrap();
    assert_eq!(lurker.bans, odd.bans);
}

#[tokio::test]
async fn a_list_of_many_bans_is_whole_or_says_that_it_is_not() {
    let varnishd = start(&[]);
    let client = client(&varnishd);
    varnishd.get("example.com", "/");
    for number in 0..1_500 {
        let path = format!("/products/{number:05}/details");
        client.ban(Command::ban(["obj.http.x-url", "==", path.as_str()]).unwrap()).await.unwrap();
    }
    for command in [Command::ban_list_json(), Command::ban_list()] {
        let list: BanList = client.ask(command).await.unwrap();
        assert!(!list.complete && list.bans.len() > 300 && list.bans.len() < 1_400);
        assert_eq!(list.untested_since(Duration::MAX), None);
        for (ban, number) in list.bans.iter().zip((0..1_500).rev()) {
            let spec = format!("obj.http.x-url == /products/{number:05}/details");
            assert_eq!(ban.spec, spec.as_bytes());
        }
    }
    client.set_param("cli_limit", "4m").await.unwrap();
    let list = client.ban_list().await.unwrap();
    assert!(list.complete && list.bans.len() >= 1_501, "{}", list.bans.len());
    assert_eq!(list.untested_since(list.bans[0].time), Some(1));
}

#[tokio::test]
async fn backends_are_listed_and_set() {
    let varnishd = start(&[]);
    let client = client(&varnishd);
    let vcl = "vcl 4.1; backend a { .host = \"127.0.0.1\"; .port = \"1\"; }\n\
        backend b { .host = \"127.0.0.1\"; .port = \"1\"; .probe = { .interval = 1h; } }\n\
        sub vcl_recv { if (req.url == \"/b\") { set req.backend_hint = b; } }";
    assert_eq!(client.inline_vcl("two", vcl.as_bytes(), VclState::Warm).await.as_deref(), Ok(""));
    client.use_vcl("two").await.unwrap();
    let list = client.backends(None).await.unwrap();
    let names: Vec<_> = list.backends.iter().map(|backend| backend.name.as_str()).collect();
    assert_eq!((names, list.complete), (vec!["two.a", "two.b"], true));
    assert_eq!(list.backends[1].admin, AdminHealth::Probe);
    assert_eq!(list.backends[1].probes.map(|(_, window)| window), Some(8));

    client.set_health("two.a", SetHealth::Sick).await.unwrap();
    let set = client.backends(Some("two.a")).await.unwrap();
    assert_eq!((set.backends.len(), &set.backends[0].admin), (1, &AdminHealth::Sick));
    client.set_health("two.*", SetHealth::Auto).await.unwrap();
    assert_ne!(client.backends(None).await.unwrap().backends[0].admin, AdminHealth::Sick);
    let refused = refusal(client.set_health("nobody", SetHealth::Healthy).await);
    assert_eq!(refused, (Status::PARAMETER, "No Backends matches".to_owned()));
    assert_eq!(client.backends(Some("nobody")).await.unwrap().backends, []);
    assert_eq!(client.backends(Some("a b")).await.unwrap_err().label(), "unsendable");
}

#[tokio::test]
async fn parameters_are_shown_set_and_reset() {
    let varnishd = start(&[]);
    let client = client(&varnishd);
    let grace = client.param("default_grace").await.unwrap();
    assert_eq!((grace.value.as_deref(), grace.unit.as_deref()), (Some("10.000"), Some("seconds")));
    assert_eq!(client.set_param("default_grace", "7").await.as_deref(), Ok(""));
    let grace = client.param("default_grace").await.unwrap();
    assert_eq!((grace.value.as_deref(), grace.default.as_deref()), (Some("7.000"), Some("10.000")));
    client.reset_param("default_grace").await.unwrap();
    assert_eq!(client.param("default_grace").await.unwrap().value.as_deref(), Some("10.000"));
    // Blanks arrive, as the manager carries these out itself.
    client.set_param("cc_command", "exec cc  -x \"%s\"").await.unwrap();
    let shown = client.param("cc_command").await.unwrap();
    assert_eq!(shown.value.as_deref(), Some("exec cc  -x \"%s\""));

    let all = client.params().await.unwrap();
    assert!(all.complete && all.parameters.len() > 100);
    client.set_param("cli_limit", "16k").await.unwrap();
    let cut = client.params().await.unwrap();
    assert!(!cut.complete && cut.parameters.len() > 20);
    assert!(all.parameters.iter().zip(&cut.parameters).all(|(all, cut)| all.name == cut.name));

    let (status, words) = refusal(client.set_param("default_grace", "soon").await);
    assert_eq!(status, Status::PARAMETER);
    assert!(words.starts_with("Invalid number (soon)"), "{words}");
    for result in
        [client.param("nothing").await.map(drop), client.reset_param("nothing").await.map(drop)]
    {
        let (status, words) = refusal(result);
        assert_eq!(status, Status::PARAMETER);
        assert!(words.contains("nknown parameter"), "{words}");
    }
}

#[tokio::test]
async fn vcls_are_loaded_used_labelled_and_discarded() {
    let varnishd = start(&[]);
    let client = client(&varnishd);
    let file = varnishd.dir().join("of test.vcl");
    std::fs::write(&file, "vcl 4.1; backend default none;").unwrap();
    let path = file.to_str().unwrap().as_bytes();
    assert_eq!(client.load_vcl("loaded", path, VclState::Cold).await.as_deref(), Ok(""));
    // Long enough for a here document, with everything in it that is special elsewhere.
    let comment = "# \"quoted\" \\ << EOF\r\n\t# ü 'x'\n".repeat(100);
    let long = format!("vcl 4.1;\n{comment}\nbackend default none;\n");
    client.inline_vcl("long", long.as_bytes(), VclState::Auto).await.unwrap();
    client.set_param("cli_limit", "1m").await.unwrap();
    let shown = client.run(Command::vcl_show("long").unwrap()).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&shown.body), long);
    client.inline_vcl("short", b"vcl 4.1;\nbackend default none;", VclState::Auto).await.unwrap();

    client.label_vcl("label", "long").await.unwrap();
    client.use_vcl("label").await.unwrap_or_else(|error| panic!("{error}"));
    let list = client.vcls().await.unwrap();
    assert_eq!(list.get("loaded").unwrap().temperature, "cold");
    assert_eq!(list.get("label").unwrap().target.as_deref(), Some("long"));
    assert_eq!(list.get("long").unwrap().labels, 1);
    let text: VclList = client.ask(Command::new("vcl.list", [""; 0]).unwrap()).await.unwrap();
    assert_eq!(text.vcls.len(), list.vcls.len());
    client.use_vcl("short").await.unwrap();
    assert_eq!(client.vcls().await.unwrap().active().unwrap().name, "short");
    client.set_vcl_state("loaded", VclState::Warm).await.unwrap();
    assert_eq!(client.vcls().await.unwrap().get("loaded").unwrap().state, "warm");
    client.discard_vcl("loaded").await.unwrap();
    assert!(client.vcls().await.unwrap().get("loaded").is_none());

    assert_eq!(refusal(client.discard_vcl("short").await).0, Status::CANNOT);
    assert_eq!(refusal(client.use_vcl("nothing").await).1, "No VCL named nothing known\n");
    refusal(client.label_vcl("label", "nothing").await);
    refusal(client.set_vcl_state("nothing", VclState::Cold).await);
    refusal(client.inline_vcl("long", b"vcl 4.1; backend default none;", VclState::Auto).await);
    let (status, words) =
        refusal(client.load_vcl("none", b"/nonexistent.vcl", VclState::Auto).await);
    assert_eq!(status, Status::PARAMETER);
    assert!(words.contains("Cannot read file '/nonexistent.vcl'"), "{words}");
}

/// What the compiler found is what the user needs, all of it.
#[tokio::test]
async fn a_vcl_that_does_not_compile_says_why() {
    let varnishd = start(&[]);
    let client = client(&varnishd);
    let vcl = "vcl 4.1;\nbackend default none;\nsub vcl_recv { set req.foo = 1; }\n";
    let (status, words) = refusal(client.inline_vcl("bad", vcl.as_bytes(), VclState::Auto).await);
    assert_eq!(status, Status::PARAMETER);
    assert!(words.contains("Symbol not found: 'req.foo'"), "{words}");
    assert!(words.contains("Line 3 Pos 20"), "{words}");
    assert!(words.trim_end().ends_with("VCL compilation failed"), "{words}");
}

/// varnishd serves one command after the other: whoever pings meanwhile waits, and loses nothing.
#[tokio::test]
async fn a_slow_compilation_holds_others_up_and_nothing_is_lost() {
    let varnishd = start(&[]);
    let slow =
        client_with(&varnishd, Options { reply: Duration::from_secs(1), ..Options::default() });
    let other = client(&varnishd);
    let compiler = other.param("cc_command").await.unwrap().value.unwrap();
    other.set_param("cc_command", &format!("sleep 3; {compiler}")).await.unwrap();
    slow.connect().await.unwrap();
    let vcl = b"vcl 4.1; backend default none;";
    let begun = Instant::now();
    let (loaded, pinged) = tokio::join!(
        async {
            let patient = slow.patient(Duration::from_secs(60));
            patient.inline_vcl("slow", vcl, VclState::Auto).await.map(|_| begun.elapsed())
        },
        async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            other.ping().await.map(|()| begun.elapsed())
        }
    );
    let (loaded, pinged) = (loaded.unwrap(), pinged.unwrap());
    assert!(loaded >= Duration::from_secs(3), "{loaded:?}");
    assert!(pinged >= Duration::from_secs(2), "pinged after {pinged:?}, while it compiled");
    assert!(slow.vcls().await.unwrap().get("slow").is_some());
    // Without patience it is given up, and loaded all the same.
    let error = slow.inline_vcl("impatient", vcl, VclState::Auto).await.unwrap_err();
    assert_eq!((error.label(), error.outcome()), ("reply_timeout", Outcome::Unknown));
    assert!(other.vcls().await.unwrap().get("impatient").is_some());
    assert_eq!(slow.child_state().await, Ok(ChildState::Running), "its replies are not shifted");
}

#[tokio::test]
async fn a_panic_is_shown_once_it_happened() {
    let varnishd = start(&[]);
    let client = client(&varnishd);
    assert_eq!(client.panic().await, Ok(None));
    assert_eq!(client.clear_panic().await, Ok(false));
    let before = client.pids().await.unwrap();
    let death = Command::new("debug.panic.worker", [""; 0]).unwrap();
    assert_eq!(client.run(death).await.unwrap_err().label(), "child_lost");
    let deadline = Instant::now() + Duration::from_secs(20);
    while client.pids().await.unwrap().worker.is_none_or(|worker| Some(worker) == before.worker) {
        assert!(Instant::now() < deadline, "the cache process does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let panic = client.panic().await.unwrap().unwrap();
    assert!(panic.complete && panic.text.contains("Assert error in"), "{}", panic.text);
    assert!(
        panic.time.unwrap().abs_diff(client.time().await.unwrap().time) < Duration::from_secs(60)
    );
    assert_eq!(client.clear_panic().await, Ok(true));
    assert_eq!(client.panic().await, Ok(None));
}

#[tokio::test]
async fn long_replies_come_whole() {
    let varnishd = start(&["-p", "cli_limit=4m"]);
    let client = client(&varnishd);
    let help = client.help().await.unwrap();
    assert!(help.complete && help.commands.len() > 30);
    assert_eq!(help.get("ban").unwrap().least, Some(3));
    assert!(help.commands.iter().any(|entry| entry.flags == ["d"]));
    let params = client.params().await.unwrap();
    assert!(params.complete && params.get("workspace_thread").is_some());
    let storages = client.storages().await.unwrap();
    assert!(storages.complete);
    assert_eq!(storages.storages.last().unwrap().name, "Transient");

    let lines: String =
        (0..6_000).map(|line| format!("# line {line:05} of a long one, \"x\" \\y\n")).collect();
    let vcl = format!("vcl 4.1;\n{lines}backend default none;\n");
    assert!(vcl.len() > 150_000);
    client.inline_vcl("long", vcl.as_bytes(), VclState::Auto).await.unwrap();
    let shown = client.run(Command::vcl_show("long").unwrap()).await.unwrap();
    assert!(shown.body == vcl.as_bytes(), "{} bytes of {}", shown.body.len(), vcl.len());
    // The same escaped, which is how one that is to be warm at once goes.
    client.inline_vcl("escaped", vcl.as_bytes(), VclState::Warm).await.unwrap();
    let shown = client.run(Command::vcl_show("escaped").unwrap()).await.unwrap();
    assert!(shown.body == vcl.as_bytes());
    client.set_param("cli_limit", "48k").await.unwrap();
    let cut = client.run(Command::vcl_show("long").unwrap()).await.unwrap();
    assert!(cut.is_truncated());
}
