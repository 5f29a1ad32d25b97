//! What a fetch costs: CPU time beside wrk's and the blackbox exporter's, against the same
//! varnishd in the same run.
//!
//! `cargo bench --bench probe`. Rounds alternate between the three, so that what else the machine
//! does hits all of them, and the median of the rounds' ratios counts. Exits with 1 when a target
//! is missed.
//!
//! purgewatch runs on one thread. With `-- --multi-thread` it runs on two workers beside the
//! thread that waits for them, which shows what waking another thread for each answer costs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    dead_code,
    unreachable_pub,
    reason = "a benchmark that panics has failed, and some of what it shares with the tests is for them"
)]

#[path = "../it/support/varnish.rs"]
mod varnish;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use purgewatch::clock::Clock;
use purgewatch::model::{HostPort, Scheme};
use purgewatch::probe::{Destination, Options};
use purgewatch::verdict::{Compare, FetchRequest, Outcome, Target};
use tokio::task::JoinSet;
use varnish::{Varnishd, free_port};

const BODY_SIZE: usize = 11 * 1_024;
const CONCURRENCY: usize = 8;
const ROUND: Duration = Duration::from_secs(3);
const ROUNDS: usize = 5;

fn main() -> ExitCode {
    let dir = tempfile::Builder::new().prefix("pw-bench-").tempdir().unwrap();
    let origin = Nginx::start(dir.path());
    let varnishd = Varnishd::start(varnish::Options {
        backend: Some(origin.address),
        arguments: vec!["-p".into(), "default_ttl=3600".into()],
        ..varnish::Options::default()
    });
    let blackbox = Blackbox::start(dir.path());
    let url = format!("http://{}/body", varnishd.http);
    let sides = [varnishd.http, origin.address];

    // Fills the cache, and everybody's own.
    run(sides, Duration::from_millis(200));

    let mut ratios: [Vec<f64>; 2] = Default::default();
    for _ in 0..ROUNDS {
        let ours = report("purgewatch", &run(sides, ROUND));
        ratios[0].push(ours / report("wrk", &wrk(&url)));
        ratios[1].push(ours / report("blackbox exporter", &blackbox.run(&url)));
    }
    let [wrk, blackbox] = ratios.map(median);
    let met = [("wrk", wrk, 0.5), ("blackbox exporter", blackbox, 10.0)];
    for (peer, ratio, target) in met {
        println!("purgewatch / {peer}: {ratio:.2} (at least {target})");
    }
    if met.iter().all(|(_, ratio, target)| ratio >= target) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// So many fetches took so much CPU time.
struct Cost {
    fetches: usize,
    cpu: Duration,
    wall: Duration,
}

fn report(who: &str, cost: &Cost) -> f64 {
    let rate = cost.fetches as f64 / cost.cpu.as_secs_f64();
    println!(
        "{who:>18}: {:7} fetches in {:.2} s, {:.2} s of CPU: {rate:7.0} a second of CPU, {:.1} µs each",
        cost.fetches,
        cost.wall.as_secs_f64(),
        cost.cpu.as_secs_f64(),
        1e6 / rate,
    );
    rate
}

/// Fetches from both sides in turn and compares what they serve; each fetch is a task of its own,
/// as in the daemon.
fn run(sides: [SocketAddr; 2], time: Duration) -> Cost {
    let multi_thread = std::env::args().any(|argument| argument == "--multi-thread");
    let mut builder = if multi_thread {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime = builder.worker_threads(2).enable_all().build().unwrap();
    let sides = sides.map(|address| Arc::new(destination(address)));
    let request = request("http://bench.example.com/body");
    let begin = Instant::now();
    let cpu_before = cpu_of("self", OWN);
    let fetches = runtime.block_on(async {
        let (mut tasks, mut started, mut fetches) = (JoinSet::new(), 0, 0);
        let mut version = None;
        loop {
            while tasks.len() < CONCURRENCY && begin.elapsed() < time {
                let (side, request) = (Arc::clone(&sides[started % 2]), request.clone());
                tasks.spawn(async move { side.fetch(&request).await });
                started += 1;
            }
            let Some(observation) = tasks.join_next().await else { return fetches };
            let served = observation.unwrap().version().expect("both sides answer").clone();
            assert_eq!(&served, version.get_or_insert_with(|| served.clone()));
            fetches += 1;
        }
    });
    Cost { fetches, cpu: cpu_of("self", OWN).saturating_sub(cpu_before), wall: begin.elapsed() }
}

fn destination(address: SocketAddr) -> Destination {
    let address = HostPort::new(&address.ip().to_string(), address.port()).unwrap();
    Destination::new(Scheme::Http, address, Options::default(), Clock::start())
}

fn request(url: &str) -> FetchRequest {
    let target = Target {
        url: url.parse().unwrap(),
        headers: Vec::new(),
        compare: Compare::Body,
        ignore: Vec::new(),
        body_limit: 10 << 20,
        timeout: Duration::from_secs(10),
    };
    FetchRequest { target: Arc::new(target), condition: None, new_connection: false }
}

fn wrk(url: &str) -> Cost {
    let cpu_before = cpu_of("self", CHILDREN);
    let begin = Instant::now();
    let seconds = format!("-d{}s", ROUND.as_secs());
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{CONCURRENCY}"), &seconds])
        .args(["-H", "Host: bench.example.com", url])
        .output()
        .expect("wrk runs: apt-get install wrk");
    let wall = begin.elapsed();
    let cpu = cpu_of("self", CHILDREN).saturating_sub(cpu_before);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "{text}");
    let line = text.lines().find(|line| line.contains("requests in")).expect("its summary");
    Cost { fetches: line.split_whitespace().next().unwrap().parse().unwrap(), cpu, wall }
}

/// An origin with one body, which is not packed.
struct Nginx {
    process: Child,
    address: SocketAddr,
}

impl Nginx {
    fn start(dir: &Path) -> Self {
        let address = free_port("127.0.0.1");
        // Random, as hashing does not care and compression would not help.
        let mut random = fastrand::Rng::with_seed(1);
        let body: Vec<u8> = (0..BODY_SIZE).map(|_| random.alphanumeric() as u8).collect();
        fs::write(dir.join("body"), body).unwrap();
        let root = dir.display();
        let config = format!(
            "daemon off; pid {root}/nginx.pid; error_log {root}/nginx.log; user root;\n\
             events {{ worker_connections 64; }}\n\
             http {{ access_log off; keepalive_requests 100000000;\n\
             client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;\n\
             uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;\n\
             server {{ listen {address}; root {root}; }} }}\n"
        );
        let file = dir.join("nginx.conf");
        fs::write(&file, config).unwrap();
        let process = Command::new("nginx")
            .arg("-c")
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx runs: apt-get install nginx-light");
        wait_for(address);
        Self { process, address }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

struct Blackbox {
    process: Child,
    address: SocketAddr,
}

impl Blackbox {
    fn start(dir: &Path) -> Self {
        let address = free_port("127.0.0.1");
        let file = dir.join("blackbox.yml");
        let module = "modules:\n  http_2xx:\n    prober: http\n    http:\n      preferred_ip_protocol: ip4\n";
        fs::write(&file, module).unwrap();
        let process = Command::new("prometheus-blackbox-exporter")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs: apt-get install prometheus-blackbox-exporter");
        wait_for(address);
        Self { process, address }
    }

    /// Asks for one probe after the other, on connections that are kept.
    fn run(&self, url: &str) -> Cost {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let exporter = destination(self.address);
        let mut request =
            request(&format!("http://{}/probe?module=http_2xx&target={url}", self.address));
        // The durations in its answer differ each time: only success is compared.
        let target = Arc::get_mut(&mut request.target).unwrap();
        target.ignore = vec![regex::bytes::Regex::new("(?s)^.*\nprobe_success 1\n.*$").unwrap()];
        let pid = self.process.id().to_string();
        let success = format!(
            "200 body:{}",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        let begin = Instant::now();
        let cpu_before = cpu_of(&pid, OWN);
        let fetches = runtime.block_on(async {
            let workers = (0..CONCURRENCY).map(|_| async {
                let mut fetches = 0;
                while begin.elapsed() < ROUND {
                    let observation = exporter.fetch(&request).await;
                    let Outcome::Answer(answer) = observation.outcome else {
                        panic!("{:?}", observation.outcome)
                    };
                    assert_eq!(answer.version.unwrap().to_string(), success, "the probe failed");
                    fetches += 1;
                }
                fetches
            });
            join_all(workers).await.into_iter().sum()
        });
        Cost { fetches, cpu: cpu_of(&pid, OWN).saturating_sub(cpu_before), wall: begin.elapsed() }
    }
}

impl Drop for Blackbox {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The fields of /proc/PID/stat (proc(5)), counted from the one after the process's name: its own
/// time in user and kernel mode, and that of its children that were waited for.
const OWN: usize = 11;
const CHILDREN: usize = 13;

fn cpu_of(pid: &str, fields: usize) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    let ticks = after_name.split(' ').skip(fields).take(2);
    let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
    // USER_HZ is 100 on every Linux that Debian has.
    Duration::from_millis(ticks * 10)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn wait_for(address: SocketAddr) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "nothing listens on {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
