//! A programmable HTTP origin: routes to closures, counts what it is asked, and misbehaves on
//! request. It has threads of its own, so tests with and without a runtime can use it; all of
//! them end when it is dropped.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A running origin.
pub struct Origin {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// The request target, as sent.
    pub target: String,
    pub headers: Vec<(String, String)>,
    /// Which connection it came over, counted from 1.
    pub connection: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// One thing to do on the connection.
#[derive(Debug, Clone)]
pub enum Step {
    Send(Vec<u8>),
    Pause(Duration),
    /// Sends this again and again until the peer hangs up.
    Endless(Vec<u8>),
    /// Says nothing more, and keeps the connection open until the peer hangs up.
    Hang,
    /// Closes the connection.
    Close,
    /// Closes the connection with a reset.
    Reset,
}

/// What a route answers: a well-formed response, or any script.
#[derive(Debug, Clone)]
pub struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    framing: Framing,
    delay: Duration,
    script: Option<Vec<Step>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
    UntilClosed,
}

impl Response {
    /// 200 with a body and its length.
    pub fn ok(body: impl AsRef<[u8]>) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: body.as_ref().to_vec(),
            framing: Framing::Length,
            delay: Duration::ZERO,
            script: None,
        }
    }

    /// Another status, without a body.
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::ok("") }
    }

    /// What comes over the wire instead of an answer; afterwards the next request is awaited.
    pub fn script(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { script: Some(steps.into_iter().collect()), ..Self::ok("") }
    }

    /// These bytes, then the connection is closed.
    pub fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self::script([Step::Send(bytes.as_ref().to_vec()), Step::Close])
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn with_body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    /// Waits so long before the first byte.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sends the body in chunks, of about a third of it each.
    pub fn chunked(mut self) -> Self {
        self.framing = Framing::Chunked;
        self
    }

    /// Sends no length: the body ends with the connection.
    pub fn until_closed(mut self) -> Self {
        self.framing = Framing::UntilClosed;
        self
    }

    /// Packs the body.
    pub fn gzip(mut self) -> Self {
        self.body = gzip(&self.body);
        self.header("Content-Encoding", "gzip")
    }

    fn steps(&self) -> Vec<Step> {
        if let Some(script) = &self.script {
            return script.clone();
        }
        let mut head = format!("HTTP/1.1 {} Status\r\n", self.status);
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let bodyless = matches!(self.status, 100..=199 | 204 | 304);
        match self.framing {
            _ if bodyless => {}
            Framing::Length => {
                let _ = write!(head, "Content-Length: {}\r\n", self.body.len());
            }
            Framing::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
            Framing::UntilClosed => head.push_str("Connection: close\r\n"),
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if bodyless {
            return vec![Step::Send(bytes)];
        }
        if self.framing == Framing::Chunked {
            for chunk in self.body.chunks(self.body.len() / 3 + 1) {
                let _ = write!(bytes, "{:x}\r\n", chunk.len());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        } else {
            bytes.extend_from_slice(&self.body);
        }
        let mut steps = vec![Step::Send(bytes)];
        if self.framing == Framing::UntilClosed {
            steps.push(Step::Close);
        }
        steps
    }
}

/// The bytes, packed as one gzip member.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

type Handler = Arc<dyn Fn(&Request) -> Response + Send + Sync>;

struct Shared {
    routes: Mutex<HashMap<String, Handler>>,
    requests: Mutex<Vec<Request>>,
    /// The connections that are open now, by number.
    open: Mutex<HashMap<usize, TcpStream>>,
    accepted: AtomicUsize,
    most_open: AtomicUsize,
    stopping: AtomicBool,
    /// What is said to every connection before any request, and whether that is all.
    greeting: Mutex<Option<Vec<u8>>>,
    tls: Option<Arc<ServerConfig>>,
}

impl Origin {
    /// Starts one on a free port of 127.0.0.1. Every path is 404 until it has a route.
    pub fn start() -> Self {
        Self::start_on("127.0.0.1:0", None)
    }

    /// Starts one that speaks TLS.
    pub fn start_tls(config: ServerConfig) -> Self {
        Self::start_on("127.0.0.1:0", Some(Arc::new(config)))
    }

    /// Starts one on an address of the caller's choice.
    pub fn start_on(address: &str, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            routes: Mutex::default(),
            requests: Mutex::default(),
            open: Mutex::default(),
            accepted: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            greeting: Mutex::default(),
            tls,
        });
        let acceptor = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// Answers requests for this path (with its query, as sent) by what `respond` makes of them,
    /// in place of any route that it had.
    pub fn route(
        &self,
        path: &str,
        respond: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) {
        self.shared.routes.lock().unwrap().insert(path.to_owned(), Arc::new(respond));
    }

    /// Always answers this.
    pub fn serve(&self, path: &str, response: Response) {
        self.route(path, move |_| response.clone());
    }

    /// Answers these in turn, and begins again after the last.
    pub fn flap(&self, path: &str, responses: Vec<Response>) {
        let turn = AtomicUsize::new(0);
        self.route(path, move |_| {
            responses[turn.fetch_add(1, Ordering::SeqCst) % responses.len()].clone()
        });
    }

    /// Answers with this tag and body, or 304 to a request whose `If-None-Match` is the tag.
    pub fn serve_tagged(&self, path: &str, etag: &str, body: impl AsRef<[u8]>) {
        let (etag, body) = (etag.to_owned(), body.as_ref().to_vec());
        self.route(path, move |request| {
            let same = request.header("if-none-match") == Some(&etag);
            let response = if same { Response::status(304) } else { Response::ok(&body) };
            response.header("ETag", &etag)
        });
    }

    /// Says this to every new connection and then closes it, whatever it asks.
    pub fn greet(&self, bytes: impl AsRef<[u8]>) {
        *self.shared.greeting.lock().unwrap() = Some(bytes.as_ref().to_vec());
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// How many requests came for this path.
    pub fn hits(&self, path: &str) -> usize {
        self.requests().iter().filter(|request| request.target == path).count()
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> usize {
        self.shared.open.lock().unwrap().len()
    }

    /// The most connections that were ever open at a time.
    pub fn most_open(&self) -> usize {
        self.shared.most_open.load(Ordering::SeqCst)
    }

    /// Closes every open connection, and waits until that is done.
    pub fn close_connections(&self) {
        for socket in self.shared.open.lock().unwrap().values() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        while self.open_connections() > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        self.close_connections();
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for socket in listener.incoming() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(socket) = socket else { continue };
        let number = shared.accepted.fetch_add(1, Ordering::SeqCst) + 1;
        {
            let mut open = shared.open.lock().unwrap();
            open.insert(number, socket.try_clone().unwrap());
            shared.most_open.fetch_max(open.len(), Ordering::SeqCst);
        }
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            let _ = socket.set_nodelay(true);
            let control = socket.try_clone().unwrap();
            match &shared.tls {
                None => serve(socket, &control, number, &shared),
                Some(config) => {
                    let session = ServerConnection::new(Arc::clone(config)).unwrap();
                    let mut stream = StreamOwned::new(session, socket);
                    serve(&mut stream, &control, number, &shared);
                    if !is_to_reset(&control) {
                        stream.conn.send_close_notify();
                        let _ = stream.flush();
                    }
                }
            }
            if !is_to_reset(&control) {
                let _ = control.shutdown(Shutdown::Both);
            }
            shared.open.lock().unwrap().remove(&number);
        });
    }
}

/// Whether [`Step::Reset`] was done on it.
fn is_to_reset(socket: &TcpStream) -> bool {
    socket2::SockRef::from(socket).linger().is_ok_and(|linger| linger.is_some())
}

/// Answers one request after the other until either side has enough.
fn serve(stream: impl Read + Write, control: &TcpStream, number: usize, shared: &Shared) {
    let greeting = shared.greeting.lock().unwrap().clone();
    let mut stream = BufReader::new(stream);
    if let Some(bytes) = greeting {
        let _ = stream.get_mut().write_all(&bytes);
        return;
    }
    while let Some(request) = read_request(&mut stream, number) {
        let handler = shared.routes.lock().unwrap().get(&request.target).cloned();
        shared.requests.lock().unwrap().push(request.clone());
        let response = handler.map_or_else(|| Response::status(404), |handler| handler(&request));
        if !pause(response.delay, shared) {
            return;
        }
        for step in response.steps() {
            if !perform(step, stream.get_mut(), control, shared) {
                return;
            }
        }
    }
}

/// Does one step; false when the connection is over.
fn perform(
    step: Step,
    stream: &mut (impl Read + Write),
    control: &TcpStream,
    shared: &Shared,
) -> bool {
    match step {
        Step::Send(bytes) => stream.write_all(&bytes).and_then(|()| stream.flush()).is_ok(),
        Step::Pause(time) => pause(time, shared),
        Step::Endless(bytes) => {
            while stream.write_all(&bytes).and_then(|()| stream.flush()).is_ok() {
                if shared.stopping.load(Ordering::SeqCst) {
                    break;
                }
            }
            false
        }
        Step::Hang => {
            let _ = stream.read(&mut [0; 64]);
            false
        }
        Step::Close => false,
        Step::Reset => {
            // The last handle of the socket to be closed then sends RST in place of FIN.
            let _ = socket2::SockRef::from(control).set_linger(Some(Duration::ZERO));
            false
        }
    }
}

fn pause(time: Duration, shared: &Shared) -> bool {
    let slice = Duration::from_millis(5);
    let mut left = time;
    while !left.is_zero() && !shared.stopping.load(Ordering::SeqCst) {
        std::thread::sleep(left.min(slice));
        left = left.saturating_sub(slice);
    }
    !shared.stopping.load(Ordering::SeqCst)
}

fn read_request(stream: &mut impl BufRead, connection: usize) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    Some(Request { method, target, headers, connection })
}
