//! Witnesses between the daemon and its servers: when varnishd took a ban, and when Redis was told
//! that an entry is done. Both write down the time of the one clock of this machine.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Since 1970.
pub fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

type Taken = Arc<Mutex<BTreeMap<String, Vec<Duration>>>>;

/// A relay to an admin port that reads along: for each ban, when varnishd answered 200. That is
/// written down before the answer goes on to who sent the ban.
pub struct BanWitness {
    pub address: SocketAddr,
    taken: Taken,
    stopping: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl BanWitness {
    pub fn open(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (taken, stopping) = <(Taken, Arc<AtomicBool>)>::default();
        let acceptor = std::thread::spawn({
            let (taken, stopping) = (Arc::clone(&taken), Arc::clone(&stopping));
            move || {
                for client in listener.incoming() {
                    if stopping.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(client) = client else { continue };
                    let taken = Arc::clone(&taken);
                    std::thread::spawn(move || pass(client, target, &taken));
                }
            }
        });
        Self { address, taken, stopping, acceptor: Some(acceptor) }
    }

    /// When each ban was taken, every time.
    pub fn taken(&self) -> BTreeMap<String, Vec<Duration>> {
        self.taken.lock().unwrap().clone()
    }

    /// When this ban was first taken.
    pub fn first(&self, ban: &str) -> Option<Duration> {
        self.taken.lock().unwrap().get(ban).map(|times| times[0])
    }

    /// How many bans there were, those that came again not counted.
    pub fn len(&self) -> usize {
        self.taken.lock().unwrap().len()
    }
}

impl Drop for BanWitness {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

/// Passes both directions on. The command lines wait in a queue for their replies; the greeting is
/// a reply to none.
fn pass(client: TcpStream, target: SocketAddr, taken: &Taken) {
    let Ok(server) = TcpStream::connect(target) else { return };
    for socket in [&client, &server] {
        socket.set_nodelay(true).unwrap();
    }
    let commands = Arc::new(Mutex::new(VecDeque::from([String::new()])));
    let forwards = {
        let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let commands = Arc::clone(&commands);
        std::thread::spawn(move || {
            let (mut buffer, mut line) = ([0; 16 * 1_024], Vec::new());
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                for byte in &buffer[..length] {
                    if *byte == b'\n' {
                        let text = String::from_utf8_lossy(&line).into_owned();
                        commands.lock().unwrap().push_back(text);
                        line.clear();
                    } else {
                        line.push(*byte);
                    }
                }
                if to.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        })
    };
    let (mut from, mut to) = (server, client);
    let (mut buffer, mut received) = ([0; 16 * 1_024], Vec::new());
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        // varnishd holds a reply back until the one before is acknowledged. Who talks to it directly
        // sees to that; a witness in between must not undo it.
        let _ = rustix::net::sockopt::set_tcp_quickack(&from, true);
        received.extend_from_slice(&buffer[..length]);
        while let Some((status, whole)) = reply(&received) {
            let command = commands.lock().unwrap().pop_front().unwrap_or_default();
            if let Some(ban) = command.strip_prefix("ban ").filter(|_| status == 200) {
                taken.lock().unwrap().entry(ban.replace('"', "")).or_default().push(now());
            }
            received.drain(..whole);
        }
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
    let _ = forwards.join();
}

/// The status of the first reply and its length: `200 19      `, a line feed, so many bytes, and
/// another line feed.
fn reply(bytes: &[u8]) -> Option<(u16, usize)> {
    let head = std::str::from_utf8(bytes.get(..12)?).unwrap();
    let whole = 13 + head[4..].trim_end().parse::<usize>().unwrap() + 1;
    (bytes.len() >= whole).then(|| (head[..3].parse().unwrap(), whole))
}

/// A session with Redis in which commands are lines.
pub struct RedisLine {
    socket: BufReader<TcpStream>,
}

impl RedisLine {
    pub fn open(port: u16, password: &str) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.set_nodelay(true).unwrap();
        let mut line = Self { socket: BufReader::new(socket) };
        assert_eq!(line.ask(&format!("AUTH \"{password}\"")), "+OK");
        line
    }

    /// Sends one command.
    pub fn send(&mut self, command: &str) {
        self.socket.get_mut().write_all(format!("{command}\r\n").as_bytes()).unwrap();
    }

    /// One line of an answer.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.socket.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub fn ask(&mut self, command: &str) -> String {
        self.send(command);
        self.line()
    }

    /// XADD of a ban to the stream; its id.
    pub fn add(&mut self, stream: &str, ban: &str) -> String {
        self.send(&format!("XADD {stream} * ban \"{ban}\""));
        self.id()
    }

    /// The id that an XADD answers.
    pub fn id(&mut self) -> String {
        let length = self.line();
        assert!(length.starts_with('$'), "{length}");
        self.line()
    }
}

type Acknowledged = Arc<Mutex<BTreeMap<String, Duration>>>;

/// Reads what Redis is told (MONITOR): when each id was acknowledged first, as Redis itself dates
/// it.
pub struct AckWitness {
    acknowledged: Acknowledged,
}

impl AckWitness {
    pub fn of(port: u16, password: &str) -> Self {
        let acknowledged = Acknowledged::default();
        let mut monitor = RedisLine::open(port, password);
        assert_eq!(monitor.ask("MONITOR"), "+OK");
        let all = Arc::clone(&acknowledged);
        // Ends with the server.
        std::thread::spawn(move || {
            loop {
                let line = monitor.line();
                let Some(line) = line.strip_prefix('+') else { return };
                let Some((time, command)) = line.split_once(' ') else { continue };
                let words: Vec<&str> = command.split('"').skip(1).step_by(2).collect();
                let [name, _stream, _group, ids @ ..] = &words[..] else { continue };
                if name.eq_ignore_ascii_case("XACK") {
                    let (seconds, micros) = time.split_once('.').unwrap();
                    let at = Duration::from_secs(seconds.parse().unwrap())
                        + Duration::from_micros(micros.parse().unwrap());
                    let mut all = all.lock().unwrap();
                    for id in ids {
                        all.entry((*id).to_owned()).or_insert(at);
                    }
                }
            }
        });
        Self { acknowledged }
    }

    /// When each id was acknowledged first.
    pub fn acknowledged(&self) -> BTreeMap<String, Duration> {
        self.acknowledged.lock().unwrap().clone()
    }
}
