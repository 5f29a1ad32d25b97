//! The unit and the notification socket.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use purgewatch::systemd::{Credentials, Notifier, Watchdog};

fn unit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/purgewatch.service")
}

fn analyze(arguments: &[&str]) -> (Output, String) {
    let output = Command::new("systemd-analyze")
        .args(arguments)
        .output()
        .expect("systemd-analyze runs: apt-get install systemd");
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output, String::from_utf8(text).unwrap())
}

#[test]
fn the_unit_has_no_fault() {
    // systemd looks whether the program is there; on a machine where it is not installed, the
    // unit is looked at with the path of the one that was built, and nothing else changed.
    let installed = "ExecStart=/usr/bin/purgewatch ";
    let text = fs::read_to_string(unit()).unwrap();
    assert_eq!(text.matches(installed).count(), 1);
    let built = format!("ExecStart={} ", env!("CARGO_BIN_EXE_purgewatch"));
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("purgewatch.service");
    fs::write(&copy, text.replace(installed, &built)).unwrap();
    let (output, said) = analyze(&["verify", copy.to_str().unwrap()]);
    assert!(output.status.success() && said.is_empty(), "{said}");

    // The check finds faults: a directive that does not exist is one.
    fs::write(&copy, text.replace(installed, &built).replace("MemoryMax=", "MemoryMost=")).unwrap();
    let (_, said) = analyze(&["verify", copy.to_str().unwrap()]);
    assert!(said.contains("MemoryMost"), "{said}");
}

#[test]
fn the_unit_is_exposed_to_little() {
    let unit = unit();
    let (_, said) = analyze(&["security", "--offline=true", "--no-pager", unit.to_str().unwrap()]);
    let line = said.lines().find(|line| line.contains("Overall exposure level")).unwrap();
    let score = line.split_once(": ").unwrap().1.split_whitespace().next().unwrap();
    assert!(score.parse::<f64>().unwrap() <= 2.0, "{said}");
}

#[test]
fn varnish_being_down_keeps_nothing_from_starting() {
    let text = fs::read_to_string(unit()).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for bond in ["Requires=", "Requisite=", "BindsTo=", "PartOf=", "Upholds="] {
        assert!(!lines.iter().any(|line| line.starts_with(bond)), "{bond}");
    }
    for needed in [
        "After=network-online.target varnish.service",
        "Wants=network-online.target",
        "Type=notify",
        "DynamicUser=yes",
        "StateDirectory=purgewatch",
        "LoadCredential=varnish-secret:/etc/varnish/secret",
    ] {
        assert!(lines.contains(&needed), "{needed}");
    }
}

fn received(socket: &UnixDatagram) -> Vec<String> {
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut buffer = [0; 4_096];
    let length = socket.recv(&mut buffer).unwrap();
    std::str::from_utf8(&buffer[..length]).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn notifications_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let notifier = Notifier::to(path.as_os_str()).unwrap();
    notifier.ready("watching 3 endpoints").unwrap();
    assert_eq!(received(&manager), ["READY=1", "STATUS=watching 3 endpoints"]);

    // The monotonic clock stands still while a machine sleeps: it shows no more than the uptime.
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split_whitespace().next().unwrap().parse().unwrap();
    let reload = || {
        notifier.reloading().unwrap();
        let [state, time] = &received(&manager)[..] else { panic!() };
        assert_eq!(state, "RELOADING=1");
        time.strip_prefix("MONOTONIC_USEC=").unwrap().parse::<f64>().unwrap() / 1e6
    };
    let first = reload();
    std::thread::sleep(Duration::from_millis(50));
    let passed = reload() - first;
    assert!((0.05..5.0).contains(&passed) && first > 0.0 && first < uptime + 5.0, "{first}");

    notifier.alive().unwrap();
    assert_eq!(received(&manager), ["WATCHDOG=1"]);
    notifier.status("1 stale\nREADY=1").unwrap();
    assert_eq!(received(&manager), ["STATUS=1 stale READY=1"], "nothing can be slipped in");
    notifier.stopping("ending").unwrap();
    assert_eq!(received(&manager), ["STOPPING=1", "STATUS=ending"]);
}

#[test]
fn a_manager_that_does_not_read_blocks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let notifier = Notifier::to(path.as_os_str()).unwrap();
    let refused = (0..100_000).find_map(|_| notifier.alive().err()).unwrap();
    assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock);
    drop(manager);
    assert!(notifier.alive().is_err(), "gone, and said so");
    assert!(Notifier::to(dir.path().join("none").as_os_str()).is_err());
}

#[test]
fn the_environment_is_what_systemd_makes_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("varnish-secret"), "a secret\n").unwrap();
    let name = format!("purgewatch-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = UnixDatagram::bind_addr(&address).unwrap();
    let run = |environment: &[(&str, &str)]| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "systemd::in_another_process", "--ignored", "--nocapture"])
            .env_remove("NOTIFY_SOCKET")
            .env("PURGEWATCH_TEST_ROLE", "systemd")
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        text.lines().find_map(|line| line.strip_prefix("seen: ")).unwrap().to_owned()
    };
    let directory = dir.path().to_str().unwrap();
    let abstract_name = format!("@{name}");
    let within = run(&[
        ("NOTIFY_SOCKET", &abstract_name),
        ("WATCHDOG_USEC", "60000000"),
        ("CREDENTIALS_DIRECTORY", directory),
    ]);
    assert_eq!(within, "watchdog 30s, secret \"a secret\\n\"");
    assert_eq!(received(&manager), ["WATCHDOG=1"]);
    // Outside of systemd there is nobody to notify, and that is no error.
    assert_eq!(run(&[]), "no watchdog, no secret");
}

/// Not a test of its own: what the test above starts as another process.
#[test]
#[ignore = "runs as another process of the test above"]
fn in_another_process() {
    if std::env::var("PURGEWATCH_TEST_ROLE").as_deref() != Ok("systemd") {
        return;
    }
    Notifier::from_environment().unwrap().alive().unwrap();
    let watchdog = Watchdog::from_environment()
        .map_or("no watchdog".to_owned(), |w| format!("watchdog {:?}", w.interval));
    let secret = Credentials::from_environment()
        .path("varnish-secret")
        .map_or("no secret".to_owned(), |path| {
            format!("secret {:?}", fs::read_to_string(path).unwrap())
        });
    use std::io::Write;
    writeln!(std::io::stdout(), "\nseen: {watchdog}, {secret}").unwrap();
}
