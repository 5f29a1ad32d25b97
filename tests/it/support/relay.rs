//! A path to an admin port that can be blocked.

use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// The network between the daemon and an admin port. While it is blocked, connections are taken
/// and held, and nothing is passed on: so a network ACL that drops packets behind a load balancer
/// looks.
pub struct Relay {
    pub address: SocketAddr,
    blocked: Arc<AtomicBool>,
    stopping: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Relay {
    pub fn open(target: SocketAddr) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), target)
    }

    /// At this address: that of one that was dropped, which refused connections meanwhile.
    pub fn at(address: SocketAddr, target: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (blocked, stopping) = <(Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let acceptor = std::thread::spawn({
            let (blocked, stopping) = (Arc::clone(&blocked), Arc::clone(&stopping));
            move || {
                for client in listener.incoming() {
                    if stopping.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(client) = client else { continue };
                    let blocked = blocked.load(Ordering::SeqCst);
                    std::thread::spawn(move || {
                        if blocked {
                            hold(client);
                        } else {
                            pass(client, target);
                        }
                    });
                }
            }
        });
        Self { address, blocked, stopping, acceptor: Some(acceptor) }
    }

    pub fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

/// Takes what comes and says nothing, until the peer hangs up.
fn hold(mut client: TcpStream) {
    let mut buffer = [0; 1_024];
    while client.read(&mut buffer).is_ok_and(|length| length > 0) {}
}

fn pass(client: TcpStream, target: SocketAddr) {
    let Ok(server) = TcpStream::connect(target) else { return };
    let copy = |mut from: TcpStream, mut to: TcpStream| {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    };
    let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let backwards = std::thread::spawn(move || copy(back.0, back.1));
    copy(client, server);
    let _ = backwards.join();
}
