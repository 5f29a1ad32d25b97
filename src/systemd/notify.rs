//! Notifications: ready, reloading, stopping, status, alive.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

/// The longest status that is sent, in bytes.
const LONGEST_STATUS: usize = 512;

/// Tells the service manager how the daemon is doing.
///
/// Each call sends one datagram and never blocks. The error of one that could not be sent is for
/// the log at most: there is nothing else to be done about it.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
}

/// How the service manager watches that the daemon is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watchdog {
    /// How often to call [`Notifier::alive`]: half of what the manager waits for
    /// (`WatchdogSec=`), as sd_watchdog_enabled(3) recommends.
    pub interval: Duration,
}

impl Notifier {
    /// Reads `NOTIFY_SOCKET`. Where it is not set, every call does nothing.
    ///
    /// # Errors
    /// When it is set and there is no socket to be reached under that name.
    pub fn from_environment() -> io::Result<Self> {
        match std::env::var_os("NOTIFY_SOCKET") {
            Some(name) if !name.is_empty() => Self::to(&name),
            _ => Ok(Self::default()),
        }
    }

    /// Notifies the socket `name`: a path, or with a leading `@` an abstract name.
    ///
    /// # Errors
    /// When there is no such socket.
    pub fn to(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect_addr(&address)?;
        Ok(Self { socket: Some(socket) })
    }

    /// The daemon does its work. Also after a reload, however that went.
    ///
    /// # Errors
    /// When the datagram could not be sent.
    pub fn ready(&self, status: &str) -> io::Result<()> {
        self.send(&format!("READY=1\n{}", status_line(status)))
    }

    /// The daemon reads its configuration again; [`ready`](Self::ready) has to follow.
    ///
    /// # Errors
    /// When the datagram could not be sent.
    pub fn reloading(&self) -> io::Result<()> {
        if self.socket.is_none() {
            return Ok(());
        }
        // systemd 253 and later want to know when, by a clock that nobody sets.
        let now = NotifyState::monotonic_usec_now()?;
        self.send(&format!("RELOADING=1\n{now}\n"))
    }

    /// The daemon is about to end.
    ///
    /// # Errors
    /// When the datagram could not be sent.
    pub fn stopping(&self, status: &str) -> io::Result<()> {
        self.send(&format!("STOPPING=1\n{}", status_line(status)))
    }

    /// One line for people, shown by `systemctl status`. Line ends become blanks.
    ///
    /// # Errors
    /// When the datagram could not be sent.
    pub fn status(&self, status: &str) -> io::Result<()> {
        self.send(&status_line(status))
    }

    /// The daemon makes progress. To be called at [`Watchdog::interval`], and only then.
    ///
    /// # Errors
    /// When the datagram could not be sent.
    pub fn alive(&self) -> io::Result<()> {
        self.send("WATCHDOG=1\n")
    }

    fn send(&self, message: &str) -> io::Result<()> {
        match &self.socket {
            Some(socket) => socket.send(message.as_bytes()).map(drop),
            None => Ok(()),
        }
    }
}

impl Watchdog {
    /// Reads `WATCHDOG_USEC` and `WATCHDOG_PID`; `None` when nobody watches this process.
    #[must_use]
    pub fn from_environment() -> Option<Self> {
        let variable = |name| std::env::var_os(name);
        Self::read(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id())
    }

    fn read(microseconds: Option<OsString>, pid: Option<OsString>, own: u32) -> Option<Self> {
        let microseconds: u64 = microseconds?.to_str()?.parse().ok()?;
        if microseconds == 0 {
            return None;
        }
        if let Some(pid) = pid
            && pid.to_str()?.parse::<u32>().ok()? != own
        {
            return None;
        }
        Some(Self { interval: Duration::from_micros(microseconds / 2) })
    }
}

/// A line end would begin another assignment.
fn status_line(status: &str) -> String {
    let mut line = String::from("STATUS=");
    for c in status.chars() {
        if line.len() + c.len_utf8() > LONGEST_STATUS {
            break;
        }
        line.push(if c.is_control() { ' ' } else { c });
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_line_of_a_bounded_length() {
        assert_eq!(status_line("a\nREADY=1\u{1b}[1m"), "STATUS=a READY=1 [1m\n");
        let long = status_line(&"\u{e9}".repeat(1_000));
        assert!(long.len() <= LONGEST_STATUS + 1 && long.ends_with("\u{e9}\n"));
    }

    #[test]
    fn the_watchdog_is_for_this_process_alone() {
        let read = |usec: &str, pid: Option<&str>| {
            Watchdog::read(Some(usec.into()), pid.map(Into::into), 42).map(|w| w.interval)
        };
        assert_eq!(read("30000000", None), Some(Duration::from_secs(15)));
        assert_eq!(read("30000000", Some("42")), Some(Duration::from_secs(15)));
        for (usec, pid) in
            [("30000000", Some("41")), ("30000000", Some("")), ("0", None), ("x", None)]
        {
            assert_eq!(read(usec, pid), None, "{usec} {pid:?}");
        }
        assert_eq!(Watchdog::read(None, None, 42), None);
    }
}
