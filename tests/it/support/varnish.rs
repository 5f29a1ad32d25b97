//! A real varnishd of its own for a test.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A running varnishd; stopped, with its cache process, when dropped.
pub struct Varnishd {
    process: Child,
    dir: tempfile::TempDir,
    pub http: SocketAddr,
    pub admin: SocketAddr,
    secret_file: Option<PathBuf>,
    arguments: Vec<String>,
    ignores_quit: bool,
}

/// How to start one.
pub struct Options {
    /// The backend that the default VCL fetches from.
    pub backend: Option<SocketAddr>,
    /// VCL beyond `vcl 4.1;`, in place of one that only names the backend.
    pub vcl: Option<String>,
    /// The secret file's bytes; `None` starts it with `-S none`.
    pub secret: Option<Vec<u8>>,
    /// Where it keeps objects, as its `-s` has it.
    pub storage: &'static str,
    /// Further arguments, such as `-p ban_lurker_age=1`.
    pub arguments: Vec<String>,
    /// The loopback address of the admin port, `127.0.0.1` or `::1`.
    pub admin_host: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            backend: None,
            vcl: None,
            secret: Some(b"a secret of the tests\n".to_vec()),
            storage: "malloc,64m",
            arguments: Vec::new(),
            admin_host: "127.0.0.1",
        }
    }
}

impl Varnishd {
    /// Starts varnishd and waits until both ports answer.
    pub fn start(options: Options) -> Self {
        Self::start_as(options, false)
    }

    /// The same as from the background of a shell script: its cache process ignores SIGQUIT.
    pub fn start_ignoring_quit(options: Options) -> Self {
        Self::start_as(options, true)
    }

    fn start_as(options: Options, ignores_quit: bool) -> Self {
        let dir = tempfile::Builder::new().prefix("pw-varnish-").tempdir().unwrap();
        let http = free_port("127.0.0.1");
        let admin = free_port(options.admin_host);
        let backend = match options.backend {
            Some(address) => {
                format!(
                    "backend default {{ .host = \"{}\"; .port = \"{}\"; }}\n",
                    address.ip(),
                    address.port()
                )
            }
            None => "backend default none;\n".to_owned(),
        };
        let vcl = format!("vcl 4.1;\n{}", options.vcl.unwrap_or(backend));
        let vcl_file = dir.path().join("test.vcl");
        fs::write(&vcl_file, vcl).unwrap();
        let secret_file = options.secret.map(|bytes| {
            let path = dir.path().join("secret");
            fs::write(&path, bytes).unwrap();
            path
        });
        let mut arguments: Vec<String> = [
            "-F",
            "-n",
            dir.path().join("work").to_str().unwrap(),
            "-a",
            &http.to_string(),
            "-T",
            &admin.to_string(),
            "-f",
            vcl_file.to_str().unwrap(),
            "-s",
            options.storage,
            "-p",
            "thread_pool_min=5",
            "-p",
            "thread_pools=1",
            "-j",
            "none",
            "-S",
            secret_file.as_ref().map_or("none", |p| p.to_str().unwrap()),
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.extend(options.arguments);
        let process = spawn(&arguments, dir.path(), ignores_quit);
        let mut varnishd = Self { process, dir, http, admin, secret_file, arguments, ignores_quit };
        varnishd.wait_until_up();
        varnishd
    }

    /// One in front of `backend`, everything else as usual.
    pub fn in_front_of(backend: SocketAddr) -> Self {
        Self::start(Options { backend: Some(backend), ..Options::default() })
    }

    pub fn secret_file(&self) -> &Path {
        self.secret_file.as_deref().expect("this varnishd was started without a secret")
    }

    pub fn workdir(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// The directory that holds its files, for other files of the same test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs Debian's varnishadm against it.
    pub fn varnishadm(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("varnishadm");
        command.arg("-T").arg(format!("{} {}", self.admin.ip(), self.admin.port()));
        if let Some(secret) = &self.secret_file {
            command.arg("-S").arg(secret);
        }
        command.args(arguments).output().expect("varnishadm runs: apt-get install varnish")
    }

    /// Runs a command that has to succeed, and returns what it printed.
    pub fn adm(&self, arguments: &[&str]) -> String {
        let output = self.varnishadm(arguments);
        assert!(
            output.status.success(),
            "varnishadm {arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The ban expressions on its list, newest first, completed ones left out.
    pub fn bans(&self) -> Vec<String> {
        self.adm(&["ban.list"])
            .lines()
            .skip(1)
            .filter_map(|line| {
                let mut fields = line.splitn(4, char::is_whitespace).filter(|f| !f.is_empty());
                let _time = fields.next()?;
                let rest = fields.collect::<Vec<_>>().join(" ");
                let rest = rest.trim_start();
                let (_refs, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                let spec = rest.trim_start().strip_prefix('-').unwrap_or("").trim_start();
                (!spec.is_empty()).then(|| spec.to_owned())
            })
            .collect()
    }

    /// Stops it and starts it again on the same ports, with an empty cache.
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Stops it; its ports are closed.
    pub fn stop(&mut self) {
        terminate(&mut self.process);
    }

    /// Starts it after [`stop`](Self::stop).
    pub fn start_again(&mut self) {
        self.process = spawn(&self.arguments, self.dir.path(), self.ignores_quit);
        self.wait_until_up();
    }

    /// One GET on a connection of its own: status line, headers and body as text.
    pub fn get(&self, host: &str, path: &str) -> String {
        get(self.http, host, path)
    }

    fn wait_until_up(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                panic!("varnishd ended at once ({status}):\n{log}");
            }
            let open =
                |address| TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok();
            if open(self.admin)
                && open(self.http)
                && String::from_utf8_lossy(&self.varnishadm(&["status"]).stdout).contains("running")
            {
                return;
            }
            assert!(Instant::now() < deadline, "varnishd is not up after 30 s");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Varnishd {
    fn drop(&mut self) {
        terminate(&mut self.process);
    }
}

fn spawn(arguments: &[String], dir: &Path, ignores_quit: bool) -> Child {
    let log = fs::File::create(dir.join("log")).unwrap();
    let mut command = Command::new("varnishd");
    if ignores_quit {
        command = Command::new("sh");
        command.args(["-c", "trap '' QUIT; exec varnishd \"$@\"", "varnishd"]);
    }
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("varnishd runs: apt-get install varnish")
}

/// SIGTERM, so that the manager ends its cache process too; SIGKILL when it does not listen.
fn terminate(process: &mut Child) {
    let pid = process.id().to_string();
    let _ = Command::new("kill").args(["-TERM", &pid]).status();
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        if let Ok(Some(_)) = process.try_wait() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = process.kill();
    let _ = process.wait();
}

/// What is answered there: head and body.
pub fn get(address: SocketAddr, host: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// A loopback port that nobody uses right now, and that nobody is given by chance either: it lies
/// below the range that the kernel takes the ports of outgoing connections from (32768 and up),
/// and no two calls of a process return the same one. A port that the kernel had chosen could be
/// some connection's before the server that it is meant for has bound it.
pub fn free_port(host: &str) -> SocketAddr {
    const FIRST: u32 = 10_000;
    const PORTS: u32 = 22_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test runs side by side begin at different ports.
    let start = std::process::id().wrapping_mul(997);
    for _ in 0..PORTS {
        let step = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + step % PORTS).unwrap();
        if let Ok(listener) = TcpListener::bind((host, port)) {
            return listener.local_addr().unwrap();
        }
    }
    panic!("no port of {FIRST} to {} is free on {host}", FIRST + PORTS);
}

#[test]
fn a_real_varnishd_starts_and_bans() {
    let varnishd = Varnishd::start(Options::default());
    varnishd.adm(&["ban", "obj.http.x", "==", "y"]);
    assert_eq!(varnishd.bans(), ["obj.http.x == y"]);
}
