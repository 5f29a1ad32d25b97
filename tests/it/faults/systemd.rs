//! What the daemon tells its service manager, from its start to its end.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{PATH, cacheable, config, run, stage};
use crate::support::daemon::Daemon;
use crate::support::origin::{Origin, Response, Step};
use crate::support::varnish::Varnishd;

/// The manager's end of the notification socket. Reads all the time, so that nothing is lost.
struct Manager {
    dir: tempfile::TempDir,
    said: Arc<Mutex<Vec<String>>>,
    _reader: JoinHandle<()>,
}

impl Manager {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let reader = std::thread::spawn({
            let said = Arc::downgrade(&said);
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            move || {
                let mut buffer = [0; 4_096];
                while let Some(said) = said.upgrade() {
                    if let Ok(length) = socket.recv(&mut buffer) {
                        let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
                        said.lock().unwrap().push(text);
                    }
                }
            }
        });
        Self { dir, said, _reader: reader }
    }

    /// A daemon under this manager, which wants to hear from it every two seconds.
    fn start_daemon(&self, config: &str) -> Daemon {
        let socket = self.dir.path().join("notify");
        let environment =
            [("NOTIFY_SOCKET", socket.to_str().unwrap()), ("WATCHDOG_USEC", "2000000")];
        Daemon::start_within(&environment, config)
    }

    /// How often a message began like this so far.
    fn heard(&self, beginning: &str) -> usize {
        self.said.lock().unwrap().iter().filter(|text| text.starts_with(beginning)).count()
    }

    /// Waits until a message that begins like this came, once more than `before`.
    fn wait(&self, beginning: &str, before: usize, daemon: &Daemon) {
        let what = format!("{beginning} in {:?}", self.said.lock().unwrap());
        daemon.wait(&what, || self.heard(beginning) > before);
    }

    /// Everything but the signs of life.
    fn steps(&self) -> Vec<String> {
        let said = self.said.lock().unwrap();
        said.iter().filter(|text| !text.starts_with("WATCHDOG=1")).cloned().collect()
    }
}

const ALIVE: &str = "WATCHDOG=1";

fn set() -> (Origin, Varnishd, Manager, Daemon) {
    let (origin, varnishd) = stage();
    let manager = Manager::start();
    let daemon = manager.start_daemon(&config(&origin, &varnishd));
    (origin, varnishd, manager, daemon)
}

#[test]
fn the_service_manager_hears_of_start_reload_and_end() {
    let (_origin, _varnishd, manager, mut daemon) = set();
    manager.wait("READY=1", 0, &daemon);
    assert_eq!(manager.steps(), ["READY=1\nSTATUS=1 endpoint at 1 node\n"]);

    let good = fs::read_to_string(daemon.config()).unwrap();
    daemon.signal("HUP");
    manager.wait("READY=1", 1, &daemon);
    // A configuration that is refused leaves the daemon as ready as it was.
    fs::write(daemon.config(), "[[node]]\n").unwrap();
    daemon.signal("HUP");
    manager.wait("READY=1", 2, &daemon);
    fs::write(daemon.config(), good).unwrap();
    let steps = manager.steps();
    assert_eq!(steps.len(), 5, "{steps:?}");
    for at in [1, 3] {
        assert!(steps[at].starts_with("RELOADING=1\nMONOTONIC_USEC="), "{steps:?}");
        assert_eq!(steps[at + 1], steps[0]);
    }
    manager.wait(ALIVE, manager.heard(ALIVE) + 1, &daemon);

    assert!(daemon.stop().success());
    manager.wait("STOPPING=1", 0, &daemon);
    assert_eq!(manager.steps()[5..], ["STOPPING=1\nSTATUS=ending\n"]);
}

/// Fetches that all hang end by their timeouts, again and again: that is the peers' fault, and no
/// reason to restart the daemon.
#[test]
fn it_is_alive_while_every_fetch_hangs() {
    let (origin, varnishd, manager, daemon) = set();
    daemon.wait_for_state("rec", "fresh");
    // Longer than the daemon waits, and not for ever: Varnish has other probes wait for the one
    // fetch that is under way.
    let hang = [Step::Pause(Duration::from_secs(4)), Step::Close];
    origin.serve(PATH, Response::script(hang));
    varnishd.adm(&["ban", "req.url", "~", "."]);
    daemon.wait("neither answers", || daemon.state("rec") == "cache_down");
    let heard = manager.heard(ALIVE);
    std::thread::sleep(Duration::from_secs(8));
    assert!(manager.heard(ALIVE) >= heard + 5, "one was due every second");
    assert_eq!(daemon.state("rec"), "cache_down");
    origin.serve(PATH, cacheable("one"));
    daemon.wait_for_state("rec", "fresh");
}

/// A daemon whose loop hangs must not be called alive by a timer that goes on. Here it hangs in
/// reading its configuration, which comes out of a pipe that nobody writes to, as from a file
/// server that is gone.
#[test]
fn the_signs_of_life_end_when_nothing_goes_on() {
    let (_origin, _varnishd, manager, daemon) = set();
    daemon.wait_for_state("rec", "fresh");
    manager.wait(ALIVE, 1, &daemon);
    let good = fs::read_to_string(daemon.config()).unwrap();
    fs::remove_file(daemon.config()).unwrap();
    run("mkfifo", &[daemon.config().to_str().unwrap()]);
    daemon.signal("HUP");
    manager.wait("RELOADING=1", 0, &daemon);

    std::thread::sleep(Duration::from_millis(500));
    let heard = manager.heard(ALIVE);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(manager.heard(ALIVE), heard, "one was due every second");
    let healthy = daemon.get("/-/healthy").map(|(status, _)| status);
    assert_ne!(healthy, Some(200), "nor does it say so to others");

    // The pipe is written to: it goes on, and says so.
    fs::write(daemon.config(), good).unwrap();
    manager.wait("READY=1", 1, &daemon);
    manager.wait(ALIVE, heard, &daemon);
    assert_eq!(daemon.get("/-/healthy").map(|(status, _)| status), Some(200));
    daemon.wait_for_state("rec", "fresh");
}
