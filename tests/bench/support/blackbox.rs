//! The blackbox exporter, asked for one probe after the other on connections that are kept.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use purgewatch::verdict::Outcome;

use super::cost::cpu_of;
use super::fetch::{destination, request};
use super::varnish::free_port;
use super::wait_for;

/// A running exporter; stopped when dropped.
pub struct Blackbox {
    process: Child,
    address: SocketAddr,
}

impl Blackbox {
    /// Starts one, with its configuration in `dir`.
    pub fn start(dir: &Path) -> Self {
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

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Has `url` probed, so many probes at a time; returns how many there were, and the
    /// exporter's CPU time. That of asking it is not counted.
    pub fn run(&self, url: &str, at_once: usize, time: Duration) -> (usize, Duration) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let exporter = destination(self.address);
        let mut request =
            request(&format!("http://{}/probe?module=http_2xx&target={url}", self.address));
        // The durations in its answer differ each time: only success is compared.
        let target = Arc::get_mut(&mut request.target).unwrap();
        target.ignore = vec![regex::bytes::Regex::new("(?s)^.*\nprobe_success 1\n.*$").unwrap()];
        let success = format!(
            "200 body:{}",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        let begin = Instant::now();
        let cpu_before = cpu_of(self.pid());
        let probes = runtime.block_on(async {
            let workers = (0..at_once).map(|_| async {
                let mut probes = 0;
                while begin.elapsed() < time {
                    let observation = exporter.fetch(&request).await;
                    let Outcome::Answer(answer) = observation.outcome else {
                        panic!("{:?}", observation.outcome)
                    };
                    assert_eq!(answer.version.unwrap().to_string(), success, "the probe failed");
                    probes += 1;
                }
                probes
            });
            join_all(workers).await.into_iter().sum()
        });
        (probes, cpu_of(self.pid()).saturating_sub(cpu_before))
    }
}

impl Drop for Blackbox {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
