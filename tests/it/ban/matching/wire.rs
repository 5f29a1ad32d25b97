//! Requests and answers as bytes, many on one connection.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// A connection that is kept.
pub(super) struct Http(RefCell<BufReader<TcpStream>>);

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
}

impl Http {
    pub(super) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(RefCell::new(BufReader::new(stream)))
    }

    /// Asks for all of these, object by number in `x-object`, one behind the other.
    pub(super) fn fetch_all<'a>(
        &self,
        requests: impl Iterator<Item = (&'a [u8], &'a HeaderMap)>,
    ) -> Vec<Answer> {
        let mut bytes = Vec::new();
        let mut count = 0;
        for (url, headers) in requests {
            bytes.extend([b"GET ", url, b" HTTP/1.1\r\n"].concat());
            write!(bytes, "x-object: {count}\r\n").unwrap();
            for (name, value) in headers {
                bytes.extend(
                    [name.as_str().as_bytes(), b":\t ", value.as_bytes(), b" \r\n"].concat(),
                );
            }
            bytes.extend(b"\r\n");
            count += 1;
        }
        let mut stream = self.0.borrow_mut();
        stream.get_mut().write_all(&bytes).unwrap();
        (0..count).map(|_| read_answer(&mut *stream)).collect()
    }
}

impl Answer {
    /// Whether the object was in the cache: the last line of `X-Varnish` then has two numbers.
    pub(super) fn is_hit(&self) -> bool {
        let line = self.headers.get_all("x-varnish").iter().next_back().unwrap();
        line.to_str().unwrap().split(' ').count() == 2
    }
}

fn read_answer(stream: &mut impl BufRead) -> Answer {
    let status = line(stream);
    let status = String::from_utf8(status[9..12].to_vec()).unwrap().parse().unwrap();
    let mut headers = HeaderMap::new();
    loop {
        let line = line(stream);
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|b| *b == b':').unwrap();
        let name = HeaderName::from_bytes(&line[..colon]).unwrap();
        headers.append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).unwrap());
    }
    if headers.contains_key("transfer-encoding") {
        loop {
            let size = String::from_utf8(line(stream)).unwrap();
            let size = usize::from_str_radix(&size, 16).unwrap();
            skip(stream, size + 2);
            if size == 0 {
                break;
            }
        }
    } else {
        skip(stream, headers["content-length"].to_str().unwrap().parse().unwrap());
    }
    Answer { status, headers }
}

fn line(stream: &mut impl BufRead) -> Vec<u8> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line).unwrap();
    assert!(line.ends_with(b"\r\n"), "{:?}", String::from_utf8_lossy(&line));
    line.truncate(line.len() - 2);
    line
}

fn skip(stream: &mut impl Read, bytes: usize) {
    stream.read_exact(&mut vec![0; bytes]).unwrap();
}
