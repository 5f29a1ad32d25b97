//! Many nodes that are one varnishd: a listener for each, whose connections are passed on.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;

/// varnishd's listener holds ten connections that it has not accepted yet, and the kernel makes
/// whoever comes beyond that wait for a second. So many are opened to it at a time.
const DOORWAY: usize = 8;

/// What a node does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Passes it on.
    Prompt,
    /// Accepts it and says nothing, as behind many a packet filter.
    Silent,
    /// Never accepts it: its backlog is full, so that packets are dropped.
    Dropping,
    /// Passes it on, but the answer to a ban is held until [`Fleet::release`].
    Held,
    /// Passes it on, and the first words of varnishd so much later.
    Late(Duration),
}

/// Running nodes; gone when dropped.
pub struct Fleet {
    pub addresses: Vec<SocketAddr>,
    manners: Vec<Manner>,
    shared: Arc<Shared>,
    gate: watch::Sender<bool>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    target: SocketAddr,
    doorway: Semaphore,
    /// When each connection of a prompt node ended.
    ended: Mutex<Vec<Instant>>,
    /// How many of theirs are open.
    open: AtomicUsize,
    /// How many bans are being held.
    held: AtomicUsize,
}

impl Fleet {
    /// A node for each of these manners in front of the admin port at `target`.
    pub fn start(target: SocketAddr, manners: Vec<Manner>) -> Self {
        let shared = Arc::new(Shared {
            target,
            doorway: Semaphore::new(DOORWAY),
            ended: Mutex::new(Vec::new()),
            open: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
        });
        let (gate, opened) = watch::channel(false);
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let kept = manners.clone();
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async move {
                    let mut nodes = JoinSet::new();
                    let mut addresses = Vec::new();
                    for manner in manners {
                        let (listener, fillers) = listen(manner).await;
                        addresses.push(listener.local_addr().unwrap());
                        let (shared, opened) = (Arc::clone(&shared), opened.clone());
                        nodes.spawn(async move {
                            let _fillers = fillers;
                            serve(&listener, manner, &shared, &opened).await;
                        });
                    }
                    tell.send(addresses).unwrap();
                    let _ = stopped.await;
                });
            }
        });
        let addresses = told.recv().unwrap();
        Self { addresses, manners: kept, shared, gate, stop: Some(stop), thread: Some(thread) }
    }

    /// The configuration of these nodes, `cache-000` and so on.
    pub fn configuration(&self, secret_file: &Path) -> String {
        use std::fmt::Write as _;
        let mut toml =
            String::from("[[origin]]\nname = \"app\"\naddress = \"http://127.0.0.1:9\"\n");
        for (n, (address, manner)) in self.addresses.iter().zip(&self.manners).enumerate() {
            // Who is held is waited for; who says nothing, is not for long.
            let patience = if matches!(manner, Manner::Held) { 60 } else { 5 };
            write!(
                toml,
                "[[node]]\nname = \"cache-{n:03}\"\nhttp = \"http://127.0.0.1:{}\"\n\
                 admin = \"{address}\"\nadmin_timeout = \"{patience}s\"\n\
                 secret_file = \"{}\"\n",
                n + 1_000,
                secret_file.display()
            )
            .unwrap();
        }
        toml.push_str("[[endpoint]]\nname = \"e\"\nurl = \"http://e/\"\norigin = \"app\"\n");
        toml
    }

    /// When each connection of a prompt node ended, so far.
    pub fn ended(&self) -> Vec<Instant> {
        self.shared.ended.lock().unwrap().clone()
    }

    /// Waits until no connection of a prompt node is open, and forgets when they ended.
    pub fn forget(&self) {
        self.wait("no connection is open", || self.shared.open.load(Ordering::Relaxed) == 0);
        self.shared.ended.lock().unwrap().clear();
    }

    /// Waits until so many connections of prompt nodes have ended.
    pub fn wait_until_ended(&self, count: usize) {
        self.wait(&format!("{count} connections have ended"), || self.ended().len() >= count);
    }

    /// Waits until so many bans are held.
    pub fn wait_until_held(&self, count: usize) {
        self.wait(&format!("{count} bans are held"), || {
            self.shared.held.load(Ordering::Relaxed) >= count
        });
    }

    fn wait(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds() {
            assert!(Instant::now() < deadline, "waited 30 s until {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Lets the answers go that are held.
    pub fn release(&self) {
        self.gate.send(true).unwrap();
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A listener, and the connections that fill its backlog where it is to drop packets.
async fn listen(manner: Manner) -> (TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let backlog = if manner == Manner::Dropping { 1 } else { 128 };
    let listener = socket.listen(backlog).unwrap();
    let mut fillers = Vec::new();
    if manner == Manner::Dropping {
        let address = listener.local_addr().unwrap();
        let patience = Duration::from_millis(100);
        while let Ok(stream) = tokio::time::timeout(patience, TcpStream::connect(address)).await {
            fillers.push(stream.unwrap());
        }
    }
    (listener, fillers)
}

async fn serve(
    listener: &TcpListener,
    manner: Manner,
    shared: &Arc<Shared>,
    opened: &watch::Receiver<bool>,
) {
    let mut open = JoinSet::new();
    loop {
        if manner == Manner::Dropping {
            std::future::pending::<()>().await;
        }
        let (stream, _) = listener.accept().await.unwrap();
        let (shared, opened) = (Arc::clone(shared), opened.clone());
        open.spawn(async move {
            match manner {
                Manner::Silent => drain(stream).await,
                Manner::Prompt => {
                    shared.open.fetch_add(1, Ordering::Relaxed);
                    pass(stream, manner, &shared, opened).await;
                    shared.ended.lock().unwrap().push(Instant::now());
                    shared.open.fetch_sub(1, Ordering::Relaxed);
                }
                _ => pass(stream, manner, &shared, opened).await,
            }
        });
        while open.try_join_next().is_some() {}
    }
}

async fn drain(mut stream: TcpStream) {
    let mut buffer = [0; 1_024];
    while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
}

async fn pass(
    mut client: TcpStream,
    manner: Manner,
    shared: &Shared,
    mut opened: watch::Receiver<bool>,
) {
    if let Manner::Late(time) = manner {
        tokio::time::sleep(time).await;
    }
    client.set_nodelay(true).unwrap();
    let (mut asked, mut answered) = (vec![0; 16 * 1_024], vec![0; 16 * 1_024]);
    // The doorway is free again once varnishd has greeted: then it has accepted.
    let passed = shared.doorway.acquire().await.unwrap();
    let Ok(mut server) = TcpStream::connect(shared.target).await else { return };
    server.set_nodelay(true).unwrap();
    let Ok(greeting) = server.read(&mut answered).await else { return };
    drop(passed);
    let _ = client.write_all(&answered[..greeting]).await;
    let mut holds = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => match read {
                Ok(size @ 1..) => {
                    let first = manner == Manner::Held && asked[..size].starts_with(b"ban ");
                    if first && !holds {
                        shared.held.fetch_add(1, Ordering::Relaxed);
                        holds = true;
                    }
                    if server.write_all(&asked[..size]).await.is_err() {
                        break;
                    }
                }
                _ => break,
            },
            read = server.read(&mut answered), if !holds || *opened.borrow() => match read {
                Ok(size @ 1..) => {
                    if client.write_all(&answered[..size]).await.is_err() {
                        break;
                    }
                }
                _ => break,
            },
            _ = opened.changed(), if holds && !*opened.borrow() => {}
        }
    }
}
