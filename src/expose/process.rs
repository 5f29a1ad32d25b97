//! What the kernel says about this process, under the names that Prometheus clients agree on
//! (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>).

use std::fs;

use super::text::{Family, Value};

const CPU: Family =
    Family::counter("process_cpu_seconds_total", "Processor time used, by user and system.");
const OPEN_FDS: Family = Family::gauge("process_open_fds", "File descriptors that are open.");
const MAX_FDS: Family = Family::gauge("process_max_fds", "File descriptors that may be open.");
const RESIDENT: Family =
    Family::gauge("process_resident_memory_bytes", "Memory that is resident, in bytes.");
const VIRTUAL: Family =
    Family::gauge("process_virtual_memory_bytes", "Address space that is in use, in bytes.");
const START: Family = Family::gauge(
    "process_start_time_seconds",
    "When the process started, in seconds since the Unix epoch.",
);
const THREADS: Family = Family::gauge("process_threads", "Threads of the process.");

/// What does not change while the process runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Process {
    ticks_a_second: u64,
    started_millis: Option<u64>,
}

impl Process {
    pub(super) fn new() -> Self {
        let ticks_a_second = ticks_a_second().unwrap_or(100).max(1);
        let started_millis = Stat::read().and_then(|stat| {
            let booted = fs::read_to_string("/proc/stat").ok()?;
            let seconds: u64 =
                booted.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()?;
            let after_boot = stat.field(22)?.saturating_mul(1_000) / ticks_a_second;
            Some(seconds.saturating_mul(1_000).saturating_add(after_boot))
        });
        Self { ticks_a_second, started_millis }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let stat = Stat::read();
        let field = |number| stat.as_ref().and_then(|stat| stat.field(number));
        // proc_pid_stat(5): 14 utime, 15 stime, 20 num_threads, 22 starttime, 23 vsize.
        let ticks = field(14).zip(field(15)).map(|(user, system)| user.saturating_add(system));
        let cpu = ticks.map(|t| Value::Millis(t.saturating_mul(1_000) / self.ticks_a_second));
        CPU.single(out, cpu);
        let open = fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
        // One of them is the directory that is being read.
        let open = open.and_then(|count| u64::try_from(count.saturating_sub(1)).ok());
        OPEN_FDS.single(out, open.map(Value::Number));
        MAX_FDS.single(out, max_fds().map(Value::Number));
        RESIDENT.single(out, resident_bytes().map(Value::Number));
        VIRTUAL.single(out, field(23).map(Value::Number));
        START.single(out, self.started_millis.map(Value::Millis));
        THREADS.single(out, field(20).map(Value::Number));
    }
}

/// `/proc/self/stat`, from the third field on: the second may hold anything.
struct Stat(String);

impl Stat {
    fn read() -> Option<Self> {
        let text = fs::read_to_string("/proc/self/stat").ok()?;
        text.rsplit_once(')').map(|(_, rest)| Self(rest.to_owned()))
    }

    fn field(&self, number: usize) -> Option<u64> {
        self.0.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
    }
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kibibytes.saturating_mul(1_024))
}

fn max_fds() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The unit of processor time, from the auxiliary vector (getauxval(3), `AT_CLKTCK`).
fn ticks_a_second() -> Option<u64> {
    const AT_CLKTCK: usize = 17;
    let vector = fs::read("/proc/self/auxv").ok()?;
    let (words, _) = vector.as_chunks::<{ size_of::<usize>() }>();
    let words: Vec<usize> = words.iter().map(|word| usize::from_ne_bytes(*word)).collect();
    let (pairs, _) = words.as_chunks::<2>();
    pairs.iter().find(|[kind, _]| *kind == AT_CLKTCK).and_then(|[_, v]| u64::try_from(*v).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_a_plausible_value() {
        let mut out = Vec::new();
        Process::new().write(&mut out);
        let text = String::from_utf8(out).unwrap();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name} is missing:\n{text}")).parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 500_000.0);
        assert!(value("process_virtual_memory_bytes") > value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") >= 3.0 && value("process_max_fds") >= 64.0);
        assert!(value("process_threads") >= 1.0 && value("process_cpu_seconds_total") >= 0.0);
        assert!(value("process_start_time_seconds") > 1_500_000_000.0);
        assert_eq!(ticks_a_second(), Some(100));
    }
}
