//! A peer that does what a real varnishd cannot be made to do.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// A TCP server that does one scripted thing with each connection; its thread ends with the test.
pub struct Faulty {
    pub address: SocketAddr,
}

/// The server's end of one connection.
pub struct Conversation {
    reader: BufReader<TcpStream>,
}

impl Faulty {
    /// Runs `script` for each connection, one after the other; the connection closes when it
    /// returns.
    pub fn start(script: impl Fn(&mut Conversation) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                script(&mut Conversation { reader: BufReader::new(stream) });
            }
        });
        Self { address }
    }

    /// Greets as varnishd does without a secret, reads one command, and answers with `answer`.
    pub fn answering(answer: &'static [u8]) -> Self {
        Self::start(move |peer| {
            peer.greet();
            peer.line();
            peer.say(answer);
            peer.wait_for_the_end();
        })
    }
}

impl Conversation {
    pub fn say(&mut self, bytes: &[u8]) {
        // The other end may have had enough already.
        let _ = self.reader.get_mut().write_all(bytes);
    }

    pub fn greet(&mut self) {
        self.say(b"200 29      \nvarnish-7.1.1 revision 7cee1c\n");
    }

    /// The next line, empty at the end of the connection.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let _ = self.reader.read_line(&mut line);
        line
    }

    pub fn wait_for_the_end(&mut self) {
        while !self.line().is_empty() {}
    }
}
