//! The network between the daemon and the admin port: a relay that can be cut, as a packet filter
//! cuts a path.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A path to one address. While it is blocked, connections are taken and nothing is passed on.
#[derive(Debug)]
pub(super) struct Relay {
    address: SocketAddr,
    blocked: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Opens a path to `target`.
    pub(super) async fn open(target: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let blocked = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        tasks.spawn(pass(listener, target, blocked.clone()));
        Ok(Self { address, blocked, _tasks: tasks })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }
}

async fn pass(listener: TcpListener, target: SocketAddr, blocked: Arc<AtomicBool>) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((mut stream, _)) = accepted else { return };
                let blocked = blocked.load(Ordering::Relaxed);
                open.spawn(async move {
                    if blocked {
                        // Held, not closed: who is behind a packet filter hears nothing at all.
                        let (mut read, _write) = stream.split();
                        let _ = tokio::io::copy(&mut read, &mut tokio::io::sink()).await;
                        return;
                    }
                    if let Ok(mut to) = TcpStream::connect(target).await {
                        // Either side may close at any time.
                        let _ = copy_bidirectional(&mut stream, &mut to).await;
                    }
                });
            }
            Some(_) = open.join_next(), if !open.is_empty() => {}
        }
    }
}
