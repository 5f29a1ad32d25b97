//! The built program, run as the daemon.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use super::varnish::{Varnishd, free_port};

/// The built program.
pub const PURGEWATCH: &str = env!("CARGO_BIN_EXE_purgewatch");

/// Runs the program to its end.
pub fn purgewatch(arguments: &[&str]) -> Output {
    Command::new(PURGEWATCH)
        .args(arguments)
        .stdin(Stdio::null())
        .env_remove("NOTIFY_SOCKET")
        .output()
        .unwrap()
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    process: Child,
    dir: tempfile::TempDir,
    pub http: SocketAddr,
    /// Further variables of its environment, from its next start on.
    pub environment: Vec<(String, String)>,
}

/// Settings that make a daemon as quick as a test wants it.
pub const QUICK: &str = "[defaults]\ninterval = \"1s\"\ntimeout = \"1s\"\nmax_stale = \"3s\"\n";

/// The `[[node]]` of a varnishd, and the `[[origin]]` at an address.
pub fn peers(varnishd: &Varnishd, origin: SocketAddr) -> String {
    format!(
        "[[node]]\nname = \"cache-01\"\nhttp = \"http://{}\"\nadmin = \"{}\"\n\
         secret_file = \"{}\"\nadmin_interval = \"1s\"\nadmin_timeout = \"1s\"\n\
         [[origin]]\nname = \"origin\"\naddress = \"http://{origin}\"\nmax_rate = 1000\n",
        varnishd.http,
        varnishd.admin,
        varnishd.secret_file().display(),
    )
}

/// An `[[endpoint]]` of that name and path, with further keys.
pub fn endpoint(name: &str, path: &str, further: &str) -> String {
    format!(
        "[[endpoint]]\nname = \"{name}\"\nurl = \"http://rec.example.com{path}\"\n\
         origin = \"origin\"\n{further}\n"
    )
}

impl Daemon {
    /// Starts one with this configuration (all but `[daemon]`), and waits until it is ready.
    pub fn start(config: &str) -> Self {
        Self::start_within(&[], config)
    }

    /// The same with further variables in its environment.
    pub fn start_within(environment: &[(&str, &str)], config: &str) -> Self {
        let mut daemon = Self::launch(environment, config);
        daemon.wait_until_ready();
        daemon
    }

    /// The same, without waiting for anything.
    pub fn launch(environment: &[(&str, &str)], config: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("pw-daemon-").tempdir().unwrap();
        let http = free_port("127.0.0.1");
        write(dir.path(), http, config);
        let environment: Vec<_> =
            environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let process = spawn(dir.path(), &environment);
        Self { process, dir, http, environment }
    }

    /// Starts it again with what is there.
    pub fn start_again(&mut self) {
        self.launch_again();
        self.wait_until_ready();
    }

    /// The same, without waiting for anything.
    pub fn launch_again(&mut self) {
        self.process = spawn(self.dir.path(), &self.environment);
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.get("/-/ready").is_none_or(|(status, _)| status != 200) {
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("the daemon ended at once ({status}):\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "not ready after 20 s:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Replaces the configuration and sends SIGHUP.
    pub fn reload(&self, config: &str) {
        write(self.dir.path(), self.http, config);
        self.signal("HUP");
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        let status = Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap();
        assert!(status.success());
    }

    /// SIGTERM, and how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "still there 15 s after SIGTERM:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("purgewatch.toml")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// One GET: status and body.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.http, Duration::from_secs(2)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n").ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.get(9..12)?.parse().ok()?, body.to_owned()))
    }

    pub fn metrics(&self) -> String {
        let (status, text) = self.get("/metrics").expect("metrics");
        assert_eq!(status, 200);
        text
    }

    /// The value of the first sample of this metric whose labels hold all of `labels`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Option<f64> {
        sample(&self.metrics(), name, labels)
    }

    /// The state of an endpoint at `cache-01`.
    pub fn state(&self, endpoint: &str) -> String {
        let metrics = self.metrics();
        let states =
            ["unknown", "fresh", "lagging", "stale", "unverifiable", "cache_down", "origin_down"];
        let name = format!("endpoint=\"{endpoint}\"");
        for state in states {
            let label = format!("state=\"{state}\"");
            if sample(&metrics, "purgewatch_endpoint_state", &[&name, &label]) == Some(1.0) {
                return state.to_owned();
            }
        }
        "none".to_owned()
    }

    /// Waits until an endpoint is in that state.
    pub fn wait_for_state(&self, endpoint: &str, state: &str) {
        self.wait(&format!("{endpoint} is {state}"), || self.state(endpoint) == state);
    }

    /// Waits, for 20 s at most, until something holds.
    pub fn wait(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(
                Instant::now() < deadline,
                "not within 20 s: {what}\n{}\n{}",
                self.log(),
                self.metrics()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn write(dir: &Path, listen: SocketAddr, config: &str) {
    let state_dir = dir.join("state");
    let daemon =
        format!("[daemon]\nlisten = \"{listen}\"\nstate_dir = \"{}\"\n", state_dir.display());
    fs::write(dir.join("purgewatch.toml"), daemon + config).unwrap();
}

fn spawn(dir: &Path, environment: &[(String, String)]) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    Command::new(PURGEWATCH)
        .arg("run")
        .arg("-c")
        .arg(dir.join("purgewatch.toml"))
        .env_remove("NOTIFY_SOCKET")
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// The value of the first sample of a metric whose labels hold all of `labels`.
pub fn sample(metrics: &str, name: &str, labels: &[&str]) -> Option<f64> {
    metrics
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .find(|line| labels.iter().all(|label| line.contains(label)))
        .and_then(|line| line.rsplit(' ').next()?.parse().ok())
}
