//! What the story is played on: varnishd, the origin, the daemon, and the network between them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::super::Exit;
use super::relay::Relay;
use super::server::{Origin, get};

/// The host and path that are watched.
pub(super) const HOST: &str = "rec.example.com";
pub(super) const PATH: &str = "/api/v1/recommendations/";

/// How long anything may take to come up or to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the story cannot be played.
#[derive(Debug, thiserror::Error)]
pub(super) enum StageError {
    #[error(
        "varnishd is not on the PATH; install it with: apt-get update && apt-get install -y varnish"
    )]
    NoVarnishd,
    #[error("cannot {what}: {source}")]
    Io { what: &'static str, source: io::Error },
    #[error("{what} did not come up within 10 seconds; its log:\n{log}")]
    NotUp { what: &'static str, log: String },
    #[error("the story took another turn: {0}")]
    Story(String),
}

impl StageError {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::NoVarnishd | Self::Io { .. } => Exit::Usage,
            Self::NotUp { .. } => Exit::Unreachable,
            Self::Story(_) => Exit::Stale,
        }
    }
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> StageError {
    move |source| StageError::Io { what, source }
}

/// Everything that was started. Dropping it kills the processes and removes the directory.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) origin: Origin,
    pub(super) network: Relay,
    pub(super) cache: SocketAddr,
    pub(super) metrics: SocketAddr,
    pub(super) config: PathBuf,
    daemon: Process,
    varnishd: Process,
    directory: TempDir,
}

impl Stage {
    /// Starts everything and waits until it is up.
    pub(super) async fn set(keep: bool) -> Result<Self, StageError> {
        let mut builder = tempfile::Builder::new();
        let mut directory = builder
            .prefix("purgewatch-demo-")
            .tempdir()
            .map_err(failed("make a temporary directory"))?;
        directory.disable_cleanup(keep);
        let origin = Origin::open().await.map_err(failed("open a port for the origin"))?;
        let [cache, admin, metrics] = free_ports().map_err(failed("find free ports"))?;
        let varnishd = start_varnishd(directory.path(), &origin, cache, admin).await?;
        let network = Relay::open(admin).await.map_err(failed("open a port for the network"))?;
        let config = directory.path().join("purgewatch.toml");
        let text = configuration(directory.path(), &origin, &network, cache, metrics);
        std::fs::write(&config, text).map_err(failed("write the configuration"))?;
        let daemon = start_daemon(directory.path(), &config, metrics).await?;
        Ok(Self { origin, network, cache, metrics, config, daemon, varnishd, directory })
    }

    /// Runs this program with these arguments, and returns its exit code and what it said.
    pub(super) async fn purgewatch(&self, arguments: &[&str]) -> Result<(i32, String), StageError> {
        let what = "run purgewatch";
        let program = std::env::current_exe().map_err(failed(what))?;
        let output = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(failed(what))?;
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok((output.status.code().unwrap_or(-1), said))
    }

    /// Where the configuration and the logs are.
    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Ends everything in good order.
    pub(super) async fn clear(mut self) {
        self.daemon.end().await;
        self.varnishd.end().await;
    }
}

/// A process that is killed when it is dropped.
#[derive(Debug)]
struct Process {
    child: Child,
}

impl Process {
    fn start(mut command: Command, log: &Path) -> io::Result<Self> {
        let log = std::fs::File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is for the demo, which then ends these in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { child })
    }

    /// SIGTERM, and SIGKILL when that is not heard.
    async fn end(&mut self) {
        self.terminate();
        if timeout(PATIENCE, self.child.wait()).await.is_err() {
            // It has ended meanwhile, if it cannot be killed.
            let _ = self.child.kill().await;
        }
    }

    fn terminate(&self) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = id.and_then(Pid::from_raw) {
            // It has ended already, if there is nothing to signal.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // varnishd ends its cache process when it is asked to, not when it is killed.
        self.terminate();
    }
}

async fn start_varnishd(
    directory: &Path,
    origin: &Origin,
    cache: SocketAddr,
    admin: SocketAddr,
) -> Result<Process, StageError> {
    let at = |name: &str| directory.join(name);
    let (host, port) = (origin.address().ip(), origin.address().port());
    let vcl = format!(
        "vcl 4.1;\n\
         backend default {{ .host = \"{host}\"; .port = \"{port}\"; }}\n\
         sub vcl_backend_response {{\n\
         \x20   # Bans on these headers can be worked off by the ban lurker.\n\
         \x20   set beresp.http.x-url = bereq.url;\n\
         \x20   set beresp.http.x-host = bereq.http.host;\n\
         }}\n"
    );
    std::fs::write(at("demo.vcl"), vcl).map_err(failed("write the VCL"))?;
    let secret = format!("{:016x}{:016x}\n", crate::clock::random_seed(), std::process::id());
    std::fs::write(at("secret"), secret).map_err(failed("write the secret"))?;
    let mut command = Command::new("varnishd");
    command.arg("-F").arg("-n").arg(at("varnish"));
    command.arg("-a").arg(cache.to_string()).arg("-T").arg(admin.to_string());
    command.arg("-S").arg(at("secret")).arg("-f").arg(at("demo.vcl"));
    command.args(["-s", "malloc,32m", "-j", "none"]);
    let log = at("varnishd.log");
    let mut varnishd = Process::start(command, &log).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => StageError::NoVarnishd,
        _ => StageError::Io { what: "start varnishd", source },
    })?;
    wait_for("varnishd", &mut varnishd, &log, cache, PATH).await?;
    Ok(varnishd)
}

async fn start_daemon(
    directory: &Path,
    config: &Path,
    metrics: SocketAddr,
) -> Result<Process, StageError> {
    let what = "start the daemon";
    let mut command = Command::new(std::env::current_exe().map_err(failed(what))?);
    command.arg("run").arg("-c").arg(config);
    let log = directory.join("purgewatch.log");
    let mut daemon = Process::start(command, &log).map_err(failed(what))?;
    wait_for("the daemon", &mut daemon, &log, metrics, "/-/ready").await?;
    Ok(daemon)
}

async fn wait_for(
    what: &'static str,
    process: &mut Process,
    log: &Path,
    address: SocketAddr,
    path: &str,
) -> Result<(), StageError> {
    let up = timeout(PATIENCE, async {
        loop {
            if matches!(process.child.try_wait(), Ok(Some(_))) {
                return false;
            }
            if get(address, HOST, path).await.is_some() {
                return true;
            }
            sleep(Duration::from_millis(50)).await;
        }
    });
    if up.await == Ok(true) {
        return Ok(());
    }
    let log = std::fs::read_to_string(log).unwrap_or_default();
    Err(StageError::NotUp { what, log })
}

fn configuration(
    directory: &Path,
    origin: &Origin,
    network: &Relay,
    cache: SocketAddr,
    metrics: SocketAddr,
) -> String {
    let (directory, network) = (directory.display(), network.address());
    let origin = origin.address();
    format!(
        "[daemon]\n\
         listen = \"{metrics}\"\n\
         state_dir = \"{directory}/state\"\n\
         socket = \"{directory}/purgewatch.sock\"\n\
         \n\
         [defaults]\n\
         interval = \"1s\"\n\
         timeout = \"1s\"\n\
         max_stale = \"5s\"\n\
         ban_headers = {{ url = \"x-url\", host = \"x-host\" }}\n\
         \n\
         [[node]]\n\
         name = \"cache-01\"\n\
         http = \"http://{cache}\"\n\
         admin = \"{network}\"\n\
         secret_file = \"{directory}/secret\"\n\
         admin_interval = \"1s\"\n\
         admin_timeout = \"1s\"\n\
         \n\
         [[origin]]\n\
         name = \"rec-api\"\n\
         address = \"http://{origin}\"\n\
         \n\
         [[endpoint]]\n\
         name = \"recommendations\"\n\
         url = \"http://{HOST}{PATH}\"\n\
         origin = \"rec-api\"\n"
    )
}

/// Free loopback ports. Another program may take one before it is used; then what was to listen
/// there says so.
fn free_ports<const N: usize>() -> io::Result<[SocketAddr; N]> {
    let mut open = Vec::with_capacity(N);
    let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); N];
    for address in &mut addresses {
        let listener = TcpListener::bind(*address)?;
        *address = listener.local_addr()?;
        open.push(listener);
    }
    Ok(addresses)
}
