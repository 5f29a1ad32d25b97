//! Finding a real varnishd by its work directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Output, Stdio};
use std::time::{Duration, Instant};

use purgewatch::admin::{
    AdminError, Client, Kind, Options, Place, SecretSource, Stage, Target, Workdir, WorkdirError,
    check_path,
};
use purgewatch::model::{NodeName, Secret};
use tempfile::TempDir;

use crate::support::daemon::{Daemon, endpoint};
use crate::support::faulty::Faulty;
use crate::support::varnish::free_port;

/// A varnishd that is started with these arguments; killed when dropped.
struct Instance {
    process: std::process::Child,
    workdir: PathBuf,
}

impl Instance {
    fn start(files: &Path, name: &Path, workdir: &Path, arguments: &[&str]) -> Self {
        let vcl = files.join("instance.vcl");
        fs::write(&vcl, "vcl 4.1;\nbackend default none;\n").unwrap();
        let log = fs::File::create(files.join("log")).unwrap();
        let process = Process::new("varnishd")
            .args(["-F", "-a", "127.0.0.1:0", "-s", "malloc,8m", "-p", "thread_pool_min=5"])
            .args(["-p", "thread_pools=1", "-n"])
            .arg(name)
            .arg("-f")
            .arg(&vcl)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("varnishd runs: apt-get install varnish");
        let mut instance = Self { process, workdir: workdir.to_owned() };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !Process::new("varnishadm")
            .args(["-n", workdir.to_str().unwrap(), "-t", "1", "status"])
            .output()
            .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("running"))
            && !instance.says_started(files)
        {
            assert!(instance.process.try_wait().unwrap().is_none(), "{}", log_of(files));
            assert!(Instant::now() < deadline, "{}", log_of(files));
        }
        instance
    }

    /// For one that varnishadm cannot reach.
    fn says_started(&self, files: &Path) -> bool {
        log_of(files).contains(") Started") && self.workdir.join("_.vsm_child/_.index").exists()
    }

    /// As the kernel ends a process that took too much memory.
    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn stop(&mut self) {
        let pid = self.process.id().to_string();
        Process::new("kill").args(["-TERM", &pid]).status().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let pid = self.process.id().to_string();
        if let Ok(None) = self.process.try_wait() {
            let _ = Process::new("kill").args(["-TERM", &pid]).status();
        }
        let _ = self.process.wait();
    }
}

fn log_of(files: &Path) -> String {
    fs::read_to_string(files.join("log")).unwrap_or_default()
}

fn files() -> TempDir {
    tempfile::Builder::new().prefix("pw-workdir-").tempdir().unwrap()
}

fn start(files: &TempDir, arguments: &[&str]) -> Instance {
    let workdir = files.path().join("work");
    Instance::start(files.path(), &workdir, &workdir, arguments)
}

fn target(workdir: impl AsRef<Path>) -> Target {
    Target::in_workdir(NodeName::new("cache-01").unwrap(), Workdir::new(workdir))
}

fn short() -> Options {
    let short = Duration::from_secs(2);
    Options { connect: short, authenticate: short, reply: short, ..Options::default() }
}

async fn failure(target: &Target) -> AdminError {
    check_path(target, &short()).await.unwrap_err()
}

fn reason(error: &AdminError) -> &WorkdirError {
    assert_eq!(error.stage, Stage::Locate, "{error}");
    match &error.kind {
        Kind::Workdir(reason) => reason,
        other => panic!("{other:?}"),
    }
}

fn purgewatch(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Process {
    let mut command = Process::new(env!("CARGO_BIN_EXE_purgewatch"));
    let own = ["PURGEWATCH_ADMIN", "PURGEWATCH_SECRET_FILE", "PURGEWATCH_CONFIG"];
    for name in own.into_iter().chain(["VARNISH_DEFAULT_N", "VINYL_DEFAULT_N", "VSM_NOPID"]) {
        command.env_remove(name);
    }
    command.args(arguments);
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const BAN: &str = "obj.http.x == y";

#[tokio::test]
async fn port_and_secret_come_from_the_directory() {
    let files = files();
    // varnishd chooses the port and makes the secret.
    let varnishd = start(&files, &["-j", "none"]);
    let check = check_path(&target(&varnishd.workdir), &short()).await.unwrap();
    assert!(check.greeting.notes.is_empty(), "{:?}", check.greeting.notes);
    let output = purgewatch(&["ban", "-n", varnishd.workdir.to_str().unwrap(), BAN]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("work: taken: {BAN}\n"));

    // Another secret than the directory's goes first, and is refused.
    let wrong = SecretSource::Value(Secret::new(b"wrong".to_vec()));
    let error = failure(&Target { secret: wrong, ..target(&varnishd.workdir) }).await;
    assert_eq!(error.label(), "secret_refused");
    let none = purgewatch(&["ban", "-S", "none", "-n", varnishd.workdir.to_str().unwrap(), BAN]);
    assert_eq!(none.status.code(), Some(4), "{}", said(&none));
    assert!(said(&none).contains("asks for a secret and none was given"), "{}", said(&none));
}

#[tokio::test]
async fn a_name_leads_below_the_state_directory() {
    let files = files();
    let name = format!("purgewatch-test-{}", std::process::id());
    let workdir = Path::new("/var/lib/varnish").join(&name);
    {
        let _varnishd = Instance::start(files.path(), Path::new(&name), &workdir, &["-j", "none"]);
        check_path(&target(&name), &short()).await.unwrap();
        for (variable, value) in
            [("VARNISH_DEFAULT_N", name.as_str()), ("VINYL_DEFAULT_N", workdir.to_str().unwrap())]
        {
            let output = command(&["ban", BAN]).env(variable, value).output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{variable}: {}", said(&output));
        }
        let named = purgewatch(&["ban", "-n", &name, BAN]);
        assert_eq!(String::from_utf8_lossy(&named.stdout), format!("{name}: taken: {BAN}\n"));
    }
    fs::remove_dir_all(&workdir).unwrap();
}

#[tokio::test]
async fn an_admin_port_on_all_interfaces_is_reached_on_loopback() {
    let files = files();
    let port = free_port("127.0.0.1").port();
    let varnishd = start(&files, &["-j", "none", "-T", &format!(":{port}")]);
    let found = Workdir::new(&varnishd.workdir).find().unwrap();
    let written: Vec<_> = found.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(written, [format!("0.0.0.0:{port}"), format!("[::]:{port}")]);
    let check = check_path(&target(&varnishd.workdir), &short()).await.unwrap();
    assert!(check.greeting.peer.unwrap().ip().is_loopback());
}

#[tokio::test]
async fn an_ipv6_address_is_reached() {
    let files = files();
    let port = free_port("::1").port();
    let varnishd = start(&files, &["-j", "none", "-T", &format!("[::1]:{port}")]);
    let check = check_path(&target(&varnishd.workdir), &short()).await.unwrap();
    assert_eq!(check.greeting.peer.unwrap().to_string(), format!("[::1]:{port}"));
}

#[tokio::test]
async fn addresses_are_tried_until_one_takes_the_secret() {
    let (ours, others) = (files(), files());
    let varnishd = start(&ours, &["-j", "none"]);
    let other = start(&others, &["-j", "none"]);
    let found = Workdir::new(&varnishd.workdir).find().unwrap();
    let stranger = Workdir::new(&other.workdir).find().unwrap();
    let dead = free_port("127.0.0.1").to_string().parse().unwrap();
    let all = [dead, stranger.addresses[0].clone(), found.addresses[0].clone()];
    let node = || NodeName::new("cache-01").unwrap();
    let at = |addresses: &[_]| Target {
        node: node(),
        place: Place::Addresses(addresses.to_vec()),
        secret: found.secret.clone(),
    };
    let check = check_path(&at(&all), &short()).await.unwrap();
    assert_eq!(check.greeting.peer.unwrap().port(), found.addresses[0].port());
    // Of those that failed, the one that came furthest says why.
    let error = failure(&at(&all[..2])).await;
    assert_eq!((error.label(), &error.stage), ("secret_refused", &Stage::Authenticate));
    assert_eq!(failure(&at(&all[..1])).await.label(), "refused");
    assert_eq!(failure(&at(&[])).await.kind, Kind::NoAddress);
}

#[tokio::test]
async fn a_client_follows_a_varnishd_that_comes_back_on_another_port() {
    let files = files();
    let mut varnishd = start(&files, &["-j", "none"]);
    let options = Options {
        backoff_first: Duration::from_millis(10),
        backoff_most: Duration::from_millis(10),
        ..short()
    };
    let client = Client::new(target(&varnishd.workdir), options);
    let before = client.connect().await.unwrap().peer.unwrap();
    varnishd.stop();
    let error = client.ping().await.unwrap_err();
    assert!(["closed", "workdir_missing"].contains(&error.label()), "{error}");
    let error = client.ping().await.unwrap_err();
    let expected = WorkdirError::NoIndex { dir: varnishd.workdir.clone() };
    assert_eq!(reason(&error), &expected);
    drop(varnishd);
    let varnishd = start(&files, &["-j", "none", "-T", &free_port("127.0.0.1").to_string()]);
    client.ping().await.unwrap();
    assert_ne!(client.connect().await.unwrap().peer.unwrap(), before);
    drop(varnishd);
}

#[tokio::test]
async fn what_a_killed_varnishd_left_behind_is_said_to_be_that() {
    let files = files();
    let mut varnishd = start(&files, &["-j", "none"]);
    let pid = varnishd.process.id();
    varnishd.kill();
    let error = failure(&target(&varnishd.workdir)).await;
    let WorkdirError::Leftover { dir, manager, attempt } = reason(&error) else {
        panic!("{error}");
    };
    assert_eq!((dir, *manager), (&varnishd.workdir, pid));
    assert!(attempt.contains("nothing listens there"), "{attempt}");
    assert_eq!(error.label(), "workdir_leftover");
    let name = varnishd.workdir.to_str().unwrap();
    let output = purgewatch(&["ban", "--retries", "0", "-n", name, BAN]);
    assert_eq!(output.status.code(), Some(3));
    assert!(said(&output).contains("left behind by a varnishd that is gone"), "{}", said(&output));
    let unasked = command(&["ban", "--retries", "0", "-n", name, BAN]);
    let output = { unasked }.env("VSM_NOPID", "1").output().unwrap();
    assert!(!said(&output).contains("left behind"), "{}", said(&output));
}

/// Another service may have been given the port since.
#[tokio::test]
async fn a_stranger_on_the_port_of_one_that_is_gone_is_no_varnishd() {
    let files = files();
    let stranger = Faulty::start(|peer| peer.say(b"SSH-2.0-OpenSSH_9.2\r\n"));
    let inner = files.path().join("_.vsm_mgt");
    fs::create_dir(&inner).unwrap();
    let (ip, port) = (stranger.address.ip(), stranger.address.port());
    fs::write(inner.join("a"), format!("{ip} {port}\n\0\0\0\0\0\0\0\0\0\0\0\0")).unwrap();
    fs::write(inner.join("_.index"), "# 4194305 1\n+ a 0 24 Arg -T\n").unwrap();
    let error = failure(&target(files.path())).await;
    assert_eq!(reason(&error).label(), "workdir_leftover", "{error}");
    let alive = Target {
        place: Workdir::new(files.path()).without_manager_check().into(),
        ..target(files.path())
    };
    assert_eq!(failure(&alive).await.label(), "not_varnish");
}

/// The daemon, and a command beside it, by `workdir` in the configuration.
#[test]
fn the_daemon_follows_a_varnishd_that_comes_back_on_another_port() {
    let files = files();
    let mut varnishd = start(&files, &["-j", "none"]);
    let config = format!(
        "[[node]]\nname = \"cache-01\"\nhttp = \"http://127.0.0.1:9\"\nworkdir = \"{}\"\n\
         admin_interval = \"1s\"\nadmin_timeout = \"1s\"\n\
         [[origin]]\nname = \"origin\"\naddress = \"http://127.0.0.1:10\"\n{}",
        varnishd.workdir.display(),
        endpoint("home", "/", "")
    );
    let daemon = Daemon::start(&config);
    let shows = |expected: &str| {
        let deadline = Instant::now() + Duration::from_secs(15);
        while !daemon.get("/metrics").is_some_and(|(_, text)| text.contains(expected)) {
            assert!(Instant::now() < deadline, "not {expected}:\n{}", daemon.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    shows("purgewatch_node_admin_up{node=\"cache-01\"} 1\n");
    varnishd.stop();
    shows("purgewatch_node_admin_up{node=\"cache-01\"} 0\n");
    drop(varnishd);
    let varnishd = start(&files, &["-j", "none", "-T", &free_port("127.0.0.1").to_string()]);
    shows("purgewatch_node_admin_up{node=\"cache-01\"} 1\n");
    let path = files.path().join("purgewatch.toml");
    fs::write(&path, config).unwrap();
    let output = purgewatch(&["ban", "-c", path.to_str().unwrap(), BAN]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    drop(varnishd);
}

/// A process of that number may live in another namespace: an answer counts, not the number.
#[tokio::test]
async fn a_manager_that_cannot_be_seen_is_no_fault_while_it_answers() {
    let files = files();
    let varnishd = start(&files, &["-j", "none"]);
    let copy = files.path().join("copy");
    let copied = Process::new("cp").arg("-a").arg(&varnishd.workdir).arg(&copy).status().unwrap();
    assert!(copied.success());
    let index = copy.join("_.vsm_mgt/_.index");
    let text = fs::read_to_string(&index).unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    fs::write(&index, format!("# 4194305 1\n{rest}")).unwrap();
    assert!(Workdir::new(&copy).find().unwrap().manager_is_gone);
    check_path(&target(&copy), &short()).await.unwrap();
}

#[tokio::test]
async fn what_is_not_there_has_its_reason() {
    let files = files();
    let varnishd = start(&files, &["-j", "none", "-T", "none"]);
    let error = failure(&target(&varnishd.workdir)).await;
    assert_eq!(reason(&error).label(), "workdir_no_admin_port");
    let error = failure(&target(files.path())).await;
    assert_eq!(reason(&error), &WorkdirError::NoIndex { dir: files.path().to_owned() });
    let absent = files.path().join("absent");
    let error = failure(&target(&absent)).await;
    assert_eq!(reason(&error), &WorkdirError::Missing { tried: vec![absent] });
    let output = purgewatch(&["ban", "--retries", "0", "-n", "no-such-varnishd", BAN]);
    assert_eq!(output.status.code(), Some(3));
    assert!(said(&output).contains("/var/lib/varnish/no-such-varnishd"), "{}", said(&output));
}

#[tokio::test]
async fn without_a_secret_none_is_needed() {
    let files = files();
    let varnishd = start(&files, &["-j", "none", "-S", "none"]);
    let check = check_path(&target(&varnishd.workdir), &short()).await.unwrap();
    assert_eq!(check.greeting.notes.len(), 1);
}

/// As Debian's jail leaves it: the group `varnish` finds the port, and root alone reads a secret
/// that varnishd made.
#[test]
fn who_may_not_read_is_told_who_may() {
    let files = files();
    Process::new("chmod").arg("755").arg(files.path()).status().unwrap();
    let varnishd = start(&files, &[]);
    let name = varnishd.workdir.to_str().unwrap();
    // The program itself may lie where others may not look.
    let program = files.path().join("purgewatch");
    fs::copy(env!("CARGO_BIN_EXE_purgewatch"), &program).unwrap();
    let as_user = |groups: &str| {
        Process::new("setpriv")
            .args(["--reuid", "nobody", "--regid", "nogroup", groups])
            .arg(&program)
            .args(["ban", "--retries", "0", "-n", name, BAN])
            .output()
            .expect("setpriv runs: it belongs to util-linux")
    };
    let output = as_user("--clear-groups");
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    assert!(said(&output).contains("may not read"), "{}", said(&output));
    assert!(said(&output).contains("varnish, as a rule"), "{}", said(&output));
    let output = as_user("--groups=varnish");
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(said(&output).contains("_.secret: Permission denied"), "{}", said(&output));
    assert!(said(&output).contains("start it with -S FILE"), "{}", said(&output));
}

#[test]
fn contradictions_are_refused() {
    let fails = |arguments: &[&str], text: &str| {
        let output = purgewatch(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(said(&output).contains(text), "{}", said(&output));
    };
    fails(&["ban", "-n", "a", "-T", "localhost:1", BAN], "cannot be used with");
    fails(&["ban", "-n", "a", "-c", "x.toml", BAN], "-n names one node and -c a configuration");
    fails(&["ban", "-n", "a", "--node", "b", BAN], "cannot be used with");
}
