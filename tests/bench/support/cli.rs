//! The admin protocol of varnishd over a blocking socket, bare.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use sha2::{Digest, Sha256};

/// A session, authenticated.
pub struct Cli {
    pub socket: TcpStream,
    pub received: Vec<u8>,
}

impl Cli {
    pub fn open(address: SocketAddr, secret_file: &Path) -> Self {
        let mut cli = Self::connect(address);
        cli.answer(secret_file);
        cli.wait_for_success();
        cli
    }

    /// A session that is not authenticated yet.
    pub fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket, received: Vec::with_capacity(64 * 1_024) }
    }

    /// Sends one command line, which has to succeed.
    pub fn run(&mut self, command: &str) {
        self.send(command);
        self.wait_for_success();
    }

    /// Sends one command line, and leaves the reply to be waited for.
    pub fn send(&mut self, command: &str) {
        self.socket.write_all(format!("{command}\n").as_bytes()).unwrap();
    }

    /// All of these bans, with `window` commands under way. It does nothing else, but
    /// counts the replies. As soon as one is there the next command goes out: loops that wait for
    /// more of them are slower by far, since varnishd's TCP holds a reply back until the one
    /// before is acknowledged, which the next command does and a read does not.
    pub fn ban_all(&mut self, bans: &[String], window: usize) {
        let (mut sent, mut answered) = (0, 0);
        let mut commands = Vec::new();
        while answered < bans.len() {
            let until = bans.len().min(answered + window);
            for ban in &bans[sent..until] {
                commands.extend_from_slice(b"ban ");
                commands.extend_from_slice(ban.as_bytes());
                commands.push(b'\n');
            }
            sent = until;
            self.socket.write_all(&commands).unwrap();
            commands.clear();
            self.read_more();
            let mut read = 0;
            while let Some((status, body, length)) = frame(&self.received[read..]) {
                assert_eq!((status, body), (200, [].as_slice()));
                answered += 1;
                read += length;
            }
            self.received.drain(..read);
        }
    }

    pub fn read_more(&mut self) {
        let mut buffer = [0; 16 * 1_024];
        let read = self.socket.read(&mut buffer).unwrap();
        assert!(read > 0, "varnishd has hung up");
        self.received.extend_from_slice(&buffer[..read]);
    }

    /// Answers the challenge, and leaves the reply to be waited for.
    pub fn answer(&mut self, secret_file: &Path) {
        let challenge = loop {
            self.read_more();
            if let Some((107, body, _)) = frame(&self.received) {
                break body[..32].to_owned();
            }
        };
        let secret = fs::read(secret_file).unwrap();
        let mut digest = Sha256::new();
        for part in [challenge.as_slice(), b"\n", &secret, &challenge, b"\n"] {
            digest.update(part);
        }
        self.received.clear();
        self.send(&format!("auth {}", hex::encode(digest.finalize())));
    }

    /// Waits for a reply, which has to be a success.
    pub fn wait_for_success(&mut self) {
        while frame(&self.received).is_none() {
            self.read_more();
        }
        assert_eq!(frame(&self.received).unwrap().0, 200);
        self.received.clear();
    }
}

/// The status and the body of the first reply, and how long it is: `200 19      `, a line feed, so
/// many bytes, and another line feed.
pub fn frame(bytes: &[u8]) -> Option<(u16, &[u8], usize)> {
    let head = std::str::from_utf8(bytes.get(..12)?).unwrap();
    let length = 13 + head[4..].trim_end().parse::<usize>().unwrap() + 1;
    let whole = bytes.get(..length)?;
    Some((head[..3].parse().unwrap(), &whole[13..length - 1], length))
}
