//! wrk: about the least that a request over HTTP can cost, as it looks into no body.

use std::process::Command;
use std::time::Duration;

use super::cost::childrens_cpu;

/// Requests `url` on so many connections with one thread; returns the requests, and the CPU time
/// that they took.
pub fn run(url: &str, host: &str, connections: usize, time: Duration) -> (usize, Duration) {
    let cpu_before = childrens_cpu();
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{connections}"), &format!("-d{}s", time.as_secs())])
        .args(["-H", &format!("Host: {host}"), url])
        .output()
        .expect("wrk runs: apt-get install wrk");
    let cpu = childrens_cpu().saturating_sub(cpu_before);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "{text}");
    let line = text.lines().find(|line| line.contains("requests in")).expect("its summary");
    (line.split_whitespace().next().unwrap().parse().unwrap(), cpu)
}
