//! A program on a pseudo-terminal.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Child;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::adm::command;

/// How long anything that is expected may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program on a terminal of 100 columns, killed when dropped.
pub struct Terminal {
    master: File,
    process: Child,
    seen: Arc<(Mutex<Seen>, Condvar)>,
    /// Up to here, what was seen was expected.
    at: usize,
}

#[derive(Default)]
struct Seen {
    raw: Vec<u8>,
    ended: bool,
}

impl Terminal {
    /// Starts a program, with a few variables set, and its terminal as the controlling one: Ctrl-C
    /// is a signal to it.
    pub fn start(program: &Path, arguments: &[String], environment: &[(&str, &str)]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let size = Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let no_control = rustix::fs::OFlags::NOCTTY.bits().cast_signed();
        let mut open = OpenOptions::new();
        open.read(true).write(true).custom_flags(no_control);
        let side = open.open(name.to_str().unwrap()).unwrap();

        let mut setsid = command(Path::new("setsid"));
        setsid.arg("--ctty").arg(program).args(arguments);
        setsid.env("TERM", "xterm").env_remove("NO_COLOR").env_remove("COLUMNS");
        setsid.envs(environment.iter().copied());
        setsid.stdin(side.try_clone().unwrap()).stdout(side.try_clone().unwrap()).stderr(side);
        let process = setsid.spawn().expect("setsid runs: apt-get install util-linux");
        drop(setsid);

        let master = File::from(master);
        let seen = Arc::new((Mutex::new(Seen::default()), Condvar::new()));
        let (mut reader, shared) = (master.try_clone().unwrap(), seen.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                // A terminal that nobody has open any more is an error to read.
                let read = reader.read(&mut buffer).unwrap_or(0);
                let mut seen = shared.0.lock().unwrap();
                seen.raw.extend_from_slice(&buffer[..read]);
                seen.ended = read == 0;
                shared.1.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        Self { master, process, seen, at: 0 }
    }

    /// Types.
    pub fn send(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Types a line.
    pub fn enter(&mut self, line: &str) {
        self.send(&format!("{line}\r"));
    }

    /// Waits until `text` is there, behind everything that was expected before.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = self.seen.0.lock().unwrap();
        loop {
            let plain = plain(&seen.raw);
            let rest = &plain[self.at..];
            if let Some(found) = rest.find(text) {
                self.at += found + text.len();
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && !seen.ended, "no {text:?} in {rest:?}\nbefore: {plain:?}");
            seen = self.seen.1.wait_timeout(seen, left).unwrap().0;
        }
    }

    /// Everything that came, with all that steers the terminal.
    pub fn raw(&self) -> String {
        String::from_utf8_lossy(&self.seen.0.lock().unwrap().raw).into_owned()
    }

    /// Whether the terminal edits and echoes lines by itself, as it does for a shell.
    pub fn edits_lines(&self) -> bool {
        let modes = tcgetattr(&self.master).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Asks the program to end.
    pub fn terminate(&self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
    }

    /// Waits for the end of the program; its exit status.
    #[track_caller]
    pub fn ends(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not end: {:?}", self.raw());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The text without escape sequences and carriage returns.
fn plain(raw: &[u8]) -> String {
    let text = String::from_utf8_lossy(raw);
    let mut plain = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\x1b' if rest.as_str().starts_with('[') => {
                rest.next();
                rest.find(|c| ('@'..='~').contains(c));
            }
            '\r' | '\x07' => {}
            c => plain.push(c),
        }
    }
    plain
}
