//! A varnishd that plays a part, for the tests of programs that use the client.

use std::collections::VecDeque;
use std::fmt;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::{Client, Options, SecretSource, Target};
use crate::model::{NodeName, Secret};
use crate::protocol::{Challenge, Excerpt, Request, Script, Status};

/// As much fits into each direction of the connection before its writer waits, in bytes.
const IN_TRANSIT: usize = 64 * 1024;

/// Any challenge will do.
const CHALLENGE: &str = "purgewatchpurgewatchpurgewatchpu";

/// What a scripted varnishd expects and answers, command by command.
///
/// It speaks the protocol over memory: no varnishd, no socket, no port. It greets, with a
/// challenge if it has a secret, then waits for each command in turn, compares it byte by byte
/// with what was expected (without its line end), and answers. At the first difference it closes
/// the connection; [`Performance::finish`] tells what it was.
///
/// ```
/// use purgewatch::admin::{AdminError, Client, Options, Scripted};
/// use purgewatch::protocol::Command;
///
/// /// The code under test: it takes a client, and does not know what is behind it.
/// async fn forget(client: &Client, path: &str) -> Result<u64, AdminError> {
///     client.ban(Command::ban(["obj.http.x-url", "==", path]).expect("no blank in it")).await?;
///     let list = client.ban_list().await?;
///     Ok(list.bans.iter().filter(|ban| !ban.completed).count() as u64)
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (client, varnishd) = Scripted::new()
///     .expect("ban obj.http.x-url == /a", 200, "")
///     .expect(
///         "ban.list -j",
///         200,
///         r#"[ 2, ["ban.list", "-j"], 1795477040.411,
///             {"time": 1795477040.410, "refs": 0, "completed": false, "spec": "x"} ]"#,
///     )
///     .expect("ban obj.http.x-url == /b", 106, "Unknown field")
///     .start(Options::default())?;
///
/// assert_eq!(forget(&client, "/a").await?, 1);
/// let error = forget(&client, "/b").await.unwrap_err();
/// assert_eq!(error.words().map(|words| &words[..]), Some(&b"Unknown field"[..]));
/// varnishd.finish().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Scripted {
    secret: Option<Secret>,
    steps: VecDeque<Step>,
}

#[derive(Debug, Clone)]
struct Step {
    line: Vec<u8>,
    act: Act,
}

#[derive(Debug, Clone)]
enum Act {
    Reply(Status, Vec<u8>),
    Raw(Vec<u8>),
    Silence,
    Close,
}

impl Scripted {
    /// One that greets without a challenge, and expects no command.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Greets with a challenge, and takes this secret only.
    #[must_use]
    pub fn with_secret(mut self, secret: &[u8]) -> Self {
        self.secret = Some(Secret::new(secret.to_vec()));
        self
    }

    /// Expects `line` next, a command without its line end as the client sends it, and answers
    /// with `body`. A status that has not three digits becomes 999, which varnishd does not have.
    #[must_use]
    pub fn expect(self, line: &str, status: u16, body: impl AsRef<[u8]>) -> Self {
        let status = Status::new(status).or(Status::new(999)).unwrap_or(Status::SYNTAX);
        self.step(line, Act::Reply(status, body.as_ref().to_vec()))
    }

    /// Expects `line` next, and sends these bytes, whatever they are: half a reply, two of them,
    /// or none that varnishd would send.
    #[must_use]
    pub fn expect_raw(self, line: &str, bytes: impl AsRef<[u8]>) -> Self {
        self.step(line, Act::Raw(bytes.as_ref().to_vec()))
    }

    /// Expects `line` next, and does not answer it. Nor, since replies come in order, anything
    /// after it.
    #[must_use]
    pub fn expect_and_hang(self, line: &str) -> Self {
        self.step(line, Act::Silence)
    }

    /// Expects `line` next, and closes the connection instead of an answer.
    #[must_use]
    pub fn expect_and_close(self, line: &str) -> Self {
        self.step(line, Act::Close)
    }

    fn step(mut self, line: &str, act: Act) -> Self {
        self.steps.push_back(Step { line: line.as_bytes().to_vec(), act });
        self
    }

    /// Begins, and returns a client that is connected to it and knows its secret.
    ///
    /// # Errors
    /// [`PerformanceError::NoRuntime`] outside of a tokio runtime.
    pub fn start(self, options: Options) -> Result<(Client, Performance), PerformanceError> {
        let secret = self.secret.clone().map_or(SecretSource::None, SecretSource::Value);
        let (stream, performance) = self.over()?;
        // What nobody dials; each of these is a valid name or address.
        let (Ok(node), Ok(address)) = (NodeName::new("scripted"), "localhost:1".parse()) else {
            return Err(PerformanceError::NoRuntime);
        };
        Ok((Client::over(stream, Target::at(node, address, secret), options), performance))
    }

    /// Begins, and returns the client's end of the connection, for [`Client::over`].
    ///
    /// # Errors
    /// [`PerformanceError::NoRuntime`] outside of a tokio runtime.
    pub fn over(self) -> Result<(DuplexStream, Performance), PerformanceError> {
        let runtime = Handle::try_current().map_err(|_| PerformanceError::NoRuntime)?;
        let (ours, theirs) = duplex(IN_TRANSIT);
        Ok((theirs, Performance { task: runtime.spawn(perform(self, ours)) }))
    }
}

/// A scripted varnishd that has begun. It ends when this is dropped.
#[derive(Debug)]
pub struct Performance {
    task: JoinHandle<Result<(), PerformanceError>>,
}

impl Performance {
    /// Waits until every command that was expected was answered, or something else happened.
    ///
    /// Cancellation safe only in that nothing leaks: the scripted varnishd ends.
    ///
    /// # Errors
    /// [`PerformanceError`], the first difference from the script.
    pub async fn finish(mut self) -> Result<(), PerformanceError> {
        match (&mut self.task).await {
            Ok(result) => result,
            Err(_) => Err(PerformanceError::NoRuntime),
        }
    }
}

impl Drop for Performance {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a client departed from the script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PerformanceError {
    /// Another command than the one expected. The code under test's, or its test's.
    #[error("expected {}, got {}", Excerpt::new(expected, 200), Excerpt::new(got, 200))]
    Other {
        /// The command expected.
        expected: Vec<u8>,
        /// The command that came.
        got: Vec<u8>,
    },
    /// The connection was closed before a command that was expected.
    #[error("expected {}, and the connection was closed", Excerpt::new(expected, 200))]
    Missing {
        /// The command expected.
        expected: Vec<u8>,
    },
    /// The client did not answer the challenge, or with another secret.
    #[error("the challenge was not answered with the right secret")]
    Secret,
    /// There is no tokio runtime, or it ended.
    #[error("there is no tokio runtime")]
    NoRuntime,
}

async fn perform(scripted: Scripted, stream: DuplexStream) -> Result<(), PerformanceError> {
    let mut stage = Stage { stream, script: Script::new() };
    const BANNER: &[u8] = b"Varnish Cache CLI 1.0\n\nvarnish-7.1.1 revision 0\n";
    if let Some(secret) = &scripted.secret {
        let greeting = format!("{CHALLENGE}\n\nAuthentication required.\n");
        stage.say(Status::AUTH, greeting.as_bytes()).await;
        let expected = Challenge::from_greeting(greeting.as_bytes());
        let expected = expected.map(|challenge| format!("auth {}", challenge.answer(secret)));
        match stage.hear().await {
            Some(request) if Some(line(&request)) == expected.as_deref().map(str::as_bytes) => {}
            _ => {
                stage.say(Status::CLOSE, b"").await;
                return Err(PerformanceError::Secret);
            }
        }
    }
    stage.say(Status::OK, BANNER).await;
    for Step { line: expected, act } in scripted.steps {
        let Some(request) = stage.hear().await else {
            return Err(PerformanceError::Missing { expected });
        };
        if line(&request) != expected {
            return Err(PerformanceError::Other { expected, got: line(&request).to_vec() });
        }
        match act {
            Act::Reply(status, body) => stage.say(status, &body).await,
            Act::Raw(bytes) => stage.write(&bytes).await,
            Act::Silence => while stage.hear().await.is_some() {},
            Act::Close => return Ok(()),
        }
    }
    Ok(())
}

fn line(request: &Request) -> &[u8] {
    let bytes = request.bytes();
    bytes.strip_suffix(b"\n").unwrap_or(bytes)
}

/// The server's end.
struct Stage {
    stream: DuplexStream,
    script: Script,
}

impl Stage {
    async fn say(&mut self, status: Status, body: &[u8]) {
        let mut reply = format!("{status} {:<8}\n", body.len()).into_bytes();
        reply.extend_from_slice(body);
        reply.push(b'\n');
        self.write(&reply).await;
    }

    async fn write(&mut self, bytes: &[u8]) {
        // A client that has gone is noticed at the next command.
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next command; `None` at the end of the connection.
    async fn hear(&mut self) -> Option<Request> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(request) = self.script.next() {
                return request.ok();
            }
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(length) => self.script.push(buffer.get(..length).unwrap_or_default()),
            }
        }
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::admin::{AdminError, Kind};
    use crate::protocol::answer::{AnswerError, ChildState};
    use crate::protocol::{Command, VclState};

    fn options() -> Options {
        Options { keep_alive: None, ..Options::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn it_plays_varnishd_with_and_without_a_secret() {
        for scripted in [Scripted::new(), Scripted::new().with_secret(b"a secret\n")] {
            let scripted = scripted.expect("status", 200, "Child in state stopped");
            let (client, varnishd) = scripted.start(options()).unwrap();
            assert_eq!(client.child_state().await, Ok(ChildState::Stopped));
            assert_eq!(varnishd.finish().await, Ok(()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_difference_is_told() {
        let (client, varnishd) =
            Scripted::new().expect("status", 200, "").start(options()).unwrap();
        assert_eq!(client.ping().await.unwrap_err().kind, Kind::Closed);
        let error = varnishd.finish().await.unwrap_err();
        assert_eq!(error.to_string(), "expected \"status\", got \"ping\"");

        let (client, varnishd) =
            Scripted::new().expect("status", 200, "").start(options()).unwrap();
        client.connect().await.unwrap();
        drop(client);
        let expected = b"status".to_vec();
        assert_eq!(varnishd.finish().await, Err(PerformanceError::Missing { expected }));

        let (stream, varnishd) = Scripted::new().with_secret(b"right").over().unwrap();
        let target = Target::at(
            NodeName::new("a").unwrap(),
            "localhost:1".parse().unwrap(),
            SecretSource::Value(Secret::new(b"wrong".to_vec())),
        );
        let error = Client::over(stream, target, options()).ping().await.unwrap_err();
        assert_eq!(error.label(), "secret_refused");
        assert_eq!(varnishd.finish().await, Err(PerformanceError::Secret));
    }

    async fn error_of(scripted: Scripted) -> AdminError {
        let (client, varnishd) = scripted.start(options()).unwrap();
        let error = client.child_state().await.unwrap_err();
        assert_eq!(varnishd.finish().await, Ok(()));
        error
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_none_is_an_error() {
        let error = error_of(Scripted::new().expect("status", 200, "PONG 1 1.0")).await;
        assert!(matches!(error.kind, Kind::Unreadable(AnswerError::Malformed { .. })), "{error}");
        assert_eq!(error.label(), "unreadable");
        assert!(crate::admin::LABELS.contains(&"unreadable"));
        let error = error_of(Scripted::new().expect_and_close("status")).await;
        assert_eq!(error.kind, Kind::Closed);
        let error = error_of(Scripted::new().expect_raw("status", "HTTP/1.1 400\r\n")).await;
        assert_eq!(error.label(), "not_varnish");

        let shifted = r#"[ 2, ["ban.list", "-j", "other"], 1.5, {} ]"#;
        let (client, _varnishd) =
            Scripted::new().expect("ban.list -j", 200, shifted).start(options()).unwrap();
        let error = client.ban_list().await.unwrap_err();
        assert!(matches!(error.kind, Kind::ForeignReply { .. }), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_sent_is_not() {
        let (client, varnishd) = Scripted::new().start(options()).unwrap();
        for error in [
            client.backends(Some("a b")).await.unwrap_err(),
            client.use_vcl("a\0b").await.unwrap_err(),
            client.inline_vcl("a", b"x\0", VclState::Auto).await.unwrap_err(),
        ] {
            assert_eq!(error.label(), "unsendable");
            assert_eq!(error.outcome(), crate::admin::Outcome::NotDone);
        }
        drop(client);
        assert_eq!(varnishd.finish().await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn where_json_fails_text_is_asked_for() {
        let broken = r#"[ 2, ["ban.list", "-j"], 1.5, {"time": 1.5, "spec": "obj.http.a"b == c"}"#;
        let (client, varnishd) = Scripted::new()
            .expect("ban.list -j", 200, broken)
            .expect("ban.list", 200, "Present bans:\n1.5     0 -  obj.http.a\"b == c\n")
            .expect("backend.list -j", 102, "JSON unimplemented\n")
            .expect("backend.list", 200, "Backend name   Admin      Probe   Last updated\n")
            .start(options())
            .unwrap();
        assert_eq!(client.ban_list().await.unwrap().bans.len(), 1);
        assert_eq!(client.backends(None).await.unwrap().backends.len(), 0);
        assert_eq!(varnishd.finish().await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_patient_handle_waits_longer_than_others() {
        let limit = Duration::from_secs(100);
        let (client, _varnishd) =
            Scripted::new().expect_and_hang("vcl.load a /a.vcl auto").start(options()).unwrap();
        client.connect().await.unwrap();
        let start = Instant::now();
        let patient = client.patient(limit);
        let error = patient.load_vcl("a", b"/a.vcl", VclState::Auto).await.unwrap_err();
        assert_eq!((start.elapsed(), error.kind), (limit, Kind::ReplyTimedOut { limit }));

        let (client, _varnishd) =
            Scripted::new().expect_and_hang("status").start(options()).unwrap();
        client.connect().await.unwrap();
        client.request(Command::status()).await.unwrap_err();
        assert_eq!(start.elapsed(), limit + options().reply);
    }
}
