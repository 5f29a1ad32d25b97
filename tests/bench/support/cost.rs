//! What a process costs, from /proc (proc(5)).

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a process takes, from before it is started until it has ended well.
pub fn millis(mut command: Command) -> f64 {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let begin = Instant::now();
    let status = command.status().unwrap();
    let time = begin.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    time.as_secs_f64() * 1_000.0
}

/// CPU time that a process has used, in user and kernel mode: to about a clock tick, 10 ms.
pub fn cpu_of(pid: u32) -> Duration {
    cpu(&pid.to_string(), OWN)
}

/// That of this process.
pub fn own_cpu() -> Duration {
    cpu("self", OWN)
}

/// That of those children of this process that were waited for.
pub fn childrens_cpu() -> Duration {
    cpu("self", CHILDREN)
}

/// What a process holds in memory now, in MiB.
pub fn resident(pid: u32) -> f64 {
    mebibytes(pid, "VmRSS:")
}

/// The most it has held so far, in MiB.
pub fn peak_resident(pid: u32) -> f64 {
    mebibytes(pid, "VmHWM:")
}

/// Fields of /proc/PID/stat, counted from the one after the process's name.
const OWN: usize = 11;
const CHILDREN: usize = 13;

fn cpu(pid: &str, fields: usize) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    let ticks = after_name.split(' ').skip(fields).take(2);
    let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
    // USER_HZ is 100 on every Linux that Debian has.
    Duration::from_millis(ticks * 10)
}

fn mebibytes(pid: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    let kib: u32 = line.split_whitespace().next().unwrap().parse().unwrap();
    f64::from(kib) / 1_024.0
}
