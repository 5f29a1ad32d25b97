//! A real Prometheus that scrapes one daemon and evaluates rules.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::varnish::free_port;

/// A running Prometheus; killed when dropped.
pub struct Prometheus {
    process: Child,
    dir: tempfile::TempDir,
    http: SocketAddr,
}

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

/// An alert that is active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    pub name: String,
    /// `pending` or `firing`.
    pub state: String,
    pub labels: Labels,
    pub annotations: Labels,
}

/// One element of an instant vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub labels: Labels,
    pub value: f64,
}

impl Prometheus {
    /// Starts one that scrapes `target` as the job `purgewatch`, every second, and evaluates
    /// `rules` as often; waits until it answers.
    pub fn start(target: SocketAddr, rules: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("pw-prometheus-").tempdir().unwrap();
        let http = free_port("127.0.0.1");
        let config = format!(
            "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  evaluation_interval: 1s\n\
             rule_files: [rules.yml]\n\
             scrape_configs:\n  - job_name: purgewatch\n    static_configs:\n      \
             - targets: ['{target}']\n"
        );
        fs::write(dir.path().join("rules.yml"), rules).unwrap();
        fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let process = Command::new("prometheus")
            .current_dir(dir.path())
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address={http}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("prometheus runs: apt-get install prometheus");
        let mut prometheus = Self { process, dir, http };
        prometheus.wait_until_ready();
        prometheus
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.get("/-/ready").is_none_or(|(status, _)| status != 200) {
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("prometheus ended at once ({status}):\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "prometheus is not ready:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What is pending or firing now, by `/api/v1/alerts`.
    pub fn alerts(&self) -> Vec<Alert> {
        let data = self.data("/api/v1/alerts");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let alerts = data["alerts"].as_array().unwrap().iter();
        alerts
            .map(|alert| {
                let mut labels = labels(&alert["labels"]);
                let name = labels.remove("alertname").unwrap();
                let annotations = self::labels(&alert["annotations"]);
                Alert { name, state: text(&alert["state"]), labels, annotations }
            })
            .collect()
    }

    /// The alert of that name, when it fires.
    pub fn firing(&self, name: &str) -> Option<Alert> {
        self.alerts().into_iter().find(|alert| alert.name == name && alert.state == "firing")
    }

    /// What an expression yields now, by `/api/v1/query`: an instant vector.
    pub fn query(&self, expression: &str) -> Vec<Sample> {
        let mut path = "/api/v1/query?query=".to_owned();
        for byte in expression.bytes() {
            path.push_str(&format!("%{byte:02X}"));
        }
        let data = self.data(&path);
        assert_eq!(data["resultType"], "vector", "{expression}");
        let result = data["result"].as_array().unwrap().iter();
        result
            .map(|sample| Sample {
                labels: labels(&sample["metric"]),
                value: sample["value"][1].as_str().unwrap().parse().unwrap(),
            })
            .collect()
    }

    /// Waits, for a minute at most, until something holds.
    pub fn wait(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(
                Instant::now() < deadline,
                "not within a minute: {what}\nalerts: {:#?}\n{}",
                self.alerts(),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn data(&self, path: &str) -> Value {
        let (status, body) = self.get(path).expect("prometheus answers");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str::<Value>(&body).unwrap()["data"].take()
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.http, Duration::from_secs(5)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.get(9..12)?.parse().ok()?, body.to_owned()))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn labels(value: &Value) -> Labels {
    let pairs = value.as_object().unwrap().iter();
    pairs.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
}
