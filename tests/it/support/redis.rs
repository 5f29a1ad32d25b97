//! A real redis-server of its own for a test.

use std::fs;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use purgewatch::ingest::RedisOptions;
use purgewatch::model::{HostPort, Secret};

pub const PASSWORD: &str = "a password of the tests";

/// A running redis-server; killed when dropped.
pub struct Redis {
    process: Child,
    dir: tempfile::TempDir,
    pub port: u16,
    arguments: Vec<String>,
    password: bool,
}

impl Redis {
    /// With a password, and an append-only file that is written at once, so that a kill loses
    /// nothing.
    pub fn start() -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// With a password and nothing kept over a restart.
    pub fn start_forgetful() -> Self {
        Self::start_with(&[])
    }

    /// With a password and further arguments.
    pub fn start_with(arguments: &[&str]) -> Self {
        Self::launch(arguments, true)
    }

    /// Without a password.
    pub fn start_open(arguments: &[&str]) -> Self {
        Self::launch(arguments, false)
    }

    fn launch(arguments: &[&str], password: bool) -> Self {
        let dir = tempfile::Builder::new().prefix("pw-redis-").tempdir().unwrap();
        let port = super::varnish::free_port("127.0.0.1").port();
        // A file to begin with, which Sentinel needs and writes to.
        let file = dir.path().join("redis.conf");
        fs::write(&file, "").unwrap();
        let place = |argument: &&str| argument.replace("{dir}", dir.path().to_str().unwrap());
        let mut all = vec![file.to_str().unwrap().to_owned()];
        all.extend(["--dir".to_owned(), dir.path().to_str().unwrap().to_owned()]);
        all.extend(["--bind".to_owned(), "127.0.0.1".to_owned()]);
        if !arguments.contains(&"--tls-port") {
            all.extend(["--port".to_owned(), port.to_string()]);
        }
        if !arguments.contains(&"--sentinel") {
            all.extend(["--save", ""].map(str::to_owned));
        }
        if password {
            all.extend(["--requirepass", PASSWORD].map(str::to_owned));
        }
        all.extend(arguments.iter().map(place).map(|a| a.replace("{port}", &port.to_string())));
        let process = spawn(&all, dir.path());
        let mut redis = Self { process, dir, port, arguments: all, password };
        redis.wait_until_up();
        redis
    }

    pub fn address(&self) -> HostPort {
        HostPort::new("127.0.0.1", self.port).unwrap()
    }

    /// How to connect, with limits of two seconds.
    pub fn options(&self) -> RedisOptions {
        RedisOptions {
            password: self.password.then(|| Secret::new(format!("{PASSWORD}\n").into_bytes())),
            connect_timeout: Duration::from_secs(2),
            reply_timeout: Duration::from_secs(2),
            ..RedisOptions::new(self.address())
        }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs a command of Debian's redis-cli, and returns what it printed.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port.to_string(), "--no-auth-warning"]);
        if self.password {
            command.args(["-a", PASSWORD]);
        }
        let output = command.args(arguments).output().expect("redis-cli runs: apt install redis");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Commands, one a line, by one redis-cli.
    pub fn cli_lines(&self, lines: &str) -> String {
        let file = self.dir.path().join("commands");
        fs::write(&file, lines).unwrap();
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port.to_string(), "--no-auth-warning"]);
        if self.password {
            command.args(["-a", PASSWORD]);
        }
        let output = command.stdin(fs::File::open(file).unwrap()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Kills it (SIGKILL).
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it on the same port with what it kept.
    pub fn start_again(&mut self) {
        self.process = spawn(&self.arguments, self.dir.path());
        self.wait_until_up();
    }

    /// Stops it from doing anything, with its connections open (SIGSTOP).
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.process.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    fn wait_until_up(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let tls = self.arguments.iter().any(|argument| argument == "--tls-port");
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                panic!("redis-server ended at once ({status}):\n{log}");
            }
            let up = match tls {
                true => std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok(),
                false => self.cli(&["ping"]) == "PONG",
            };
            if up {
                return;
            }
            assert!(Instant::now() < deadline, "redis-server is not up after 30 s");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(arguments: &[String], dir: &Path) -> Child {
    let log = fs::File::create(dir.join("log")).unwrap();
    Command::new("redis-server")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("redis-server runs: apt-get install redis-server")
}
