//! Where a daemon's log goes, and how much of it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;

use clap::Args;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use super::output::stderr_takes_colour;

/// The argument `--log-level`, for commands that keep running.
#[derive(Debug, Args)]
pub struct Log {
    /// How much is logged: error, warn, info, debug or trace; or by module, such as
    /// `info,purgewatch::admin=debug`
    #[arg(long = "log-level", value_name = "LEVEL", env = "PURGEWATCH_LOG")]
    #[arg(default_value = "info")]
    level: Filter,
}

impl Log {
    /// Sends what is logged from now on to the journal, when systemd connected stderr to it, and
    /// else to stderr: there with the time, and with colours on a terminal that takes them.
    ///
    /// In the journal each entry has its priority, and the fields of an event are fields of the
    /// entry, as `PURGEWATCH_NODE=cache-01`; `journalctl` shows the message alone, so a message
    /// has to say it all.
    ///
    /// # Errors
    /// When a log was started before in this process.
    pub fn start(&self) -> Result<(), TryInitError> {
        let registry = tracing_subscriber::registry().with(self.level.0.clone());
        let connected = stderr_is_the_journal();
        if let Some(journal) = connected.then(tracing_journald::layer).and_then(Result::ok) {
            let journal = journal
                .with_field_prefix(Some("PURGEWATCH".to_owned()))
                .with_syslog_identifier("purgewatch".to_owned())
                .with_priority_mappings(priorities());
            return registry.with(journal).try_init();
        }
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(stderr_takes_colour())
            .with_target(false);
        if connected {
            // The journal's socket is out of reach and its stream is not: it adds the time.
            registry.with(lines.without_time()).try_init()
        } else {
            registry.with(lines).try_init()
        }
    }
}

/// The levels of syslog(3) as they are meant there: `info` is informational.
fn priorities() -> PriorityMappings {
    PriorityMappings {
        error: Priority::Error,
        warn: Priority::Warning,
        info: Priority::Informational,
        debug: Priority::Debug,
        trace: Priority::Debug,
    }
}

/// What is logged.
#[derive(Debug, Clone)]
struct Filter(Targets);

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A level alone is this program's; of its libraries only warnings are of interest.
        if let Some(level) = level(text) {
            let libraries = level.min(LevelFilter::from_level(Level::WARN));
            let own = env!("CARGO_PKG_NAME");
            return Ok(Self(Targets::new().with_default(libraries).with_target(own, level)));
        }
        let known = |part: &str| level(part.split_once('=').map_or(part, |(_, level)| level));
        let read = text.split(',').all(|part| known(part).is_some()).then(|| text.parse().ok());
        let expected = "expected error, warn, info, debug, trace, off, or MODULE=LEVEL,...";
        read.flatten().map(Self).ok_or_else(|| expected.to_owned())
    }
}

/// A level by its name. The type's own reader takes the empty text for `error`.
fn level(text: &str) -> Option<LevelFilter> {
    if text.is_empty() { None } else { text.parse().ok() }
}

/// Whether stderr is the stream that systemd connected to the journal: `$JOURNAL_STREAM` names
/// its device and inode, which have to be compared since the variable is inherited by processes
/// whose stderr leads elsewhere (systemd.exec(5)).
fn stderr_is_the_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = io::stderr().as_fd().try_clone_to_owned() else { return false };
    File::from(stderr).metadata().is_ok_and(|found| is_stream(&named, found.dev(), found.ino()))
}

fn is_stream(named: &str, device: u64, inode: u64) -> bool {
    let numbers = named.split_once(':');
    numbers.is_some_and(|(d, i)| d.parse() == Ok(device) && i.parse() == Ok(inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(filter: &str, target: &str, level: Level) -> bool {
        filter.parse::<Filter>().unwrap().0.would_enable(target, &level)
    }

    #[test]
    fn a_level_alone_is_the_programs_own() {
        assert!(logs("debug", "purgewatch::admin", Level::DEBUG));
        assert!(!logs("debug", "purgewatch::admin", Level::TRACE));
        assert!(!logs("debug", "hyper::client", Level::INFO));
        assert!(logs("debug", "hyper::client", Level::WARN));
        assert!(!logs("error", "hyper::client", Level::WARN));
        assert!(!logs("off", "purgewatch", Level::ERROR));
    }

    #[test]
    fn modules_have_levels_of_their_own() {
        let filter = "warn,purgewatch::admin=trace";
        assert!(logs(filter, "purgewatch::admin::session", Level::TRACE));
        assert!(!logs(filter, "purgewatch::probe", Level::INFO));
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for wrong in ["", "loud", "purgewatch", "purgewatch=loud", "info,", "a=b=c"] {
            assert!(wrong.parse::<Filter>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_journal_is_known_by_its_device_and_inode() {
        assert!(is_stream("8:123456", 8, 123_456));
        assert!(!is_stream("8:123457", 8, 123_456));
        for wrong in ["", ":", "8", "8:", "a:b", "8:1:2"] {
            assert!(!is_stream(wrong, 8, 1), "{wrong}");
        }
    }
}
