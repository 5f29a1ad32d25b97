//! One connection to Redis: dialled, authenticated, and measured.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Cmd, Pipeline, ProtocolVersion, RedisConnectionInfo, Value};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::RedisOptions;
use super::error::{IngestError, Kind, Stage};
use super::metered::{Budget, Metered, Transport};
use super::reply;
use crate::model::HostPort;
use crate::net::dial;

/// No reply is longer: a read that would be is given up, and made in smaller steps.
pub(super) const LONGEST_REPLY: usize = 16 * 1_024 * 1_024;

/// What a connection is for, and so what the server has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Keys are read and written: a master that is not clustered.
    Keys,
    /// Pub/Sub: every server but a Sentinel.
    PubSub,
}

/// A connection. Closed when dropped.
///
/// Any error that is no answer of the server's leaves it unusable: it is to be dropped then, which
/// is also why no call may be cancelled and the connection used again.
pub(super) struct Link {
    connection: MultiplexedConnection,
    budget: Arc<Budget>,
    address: HostPort,
    limit: Duration,
    /// Moves the bytes; ends with this value.
    _driver: JoinSet<()>,
}

impl Link {
    /// Dials, authenticates and looks what kind of server it is, within the connect timeout.
    pub(super) async fn open(
        options: &RedisOptions,
        purpose: Purpose,
    ) -> Result<Self, IngestError> {
        Self::open_with(options, purpose, Arc::default(), AsyncConnectionConfig::new()).await
    }

    /// The same, with a place for what the server sends unasked. That has to reset the budget.
    pub(super) async fn open_pushing(
        options: &RedisOptions,
        budget: Arc<Budget>,
        pushes: impl AsyncPushSender,
    ) -> Result<Self, IngestError> {
        let config = AsyncConnectionConfig::new().set_push_sender(pushes);
        Self::open_with(options, Purpose::PubSub, budget, config).await
    }

    async fn open_with(
        options: &RedisOptions,
        purpose: Purpose,
        budget: Arc<Budget>,
        config: AsyncConnectionConfig,
    ) -> Result<Self, IngestError> {
        let limit = options.connect_timeout;
        let failed = |stage, kind| IngestError { address: options.address.clone(), stage, kind };
        let dialled = dial(&options.address, limit)
            .await
            .map_err(|error| failed(Stage::Connect, Kind::Dial(Box::new(error))))?;
        let left = limit.saturating_sub(dialled.lookup).saturating_sub(dialled.connect);
        let stream: Box<dyn Transport> = match &options.tls {
            None => Box::new(dialled.stream),
            Some(tls) => {
                match timeout(left, tls.connect(dialled.stream, options.address.host())).await {
                    Ok(Ok(stream)) => Box::new(stream),
                    Ok(Err(error)) => return Err(failed(Stage::Tls, Kind::Tls(Arc::new(error)))),
                    Err(_) => return Err(failed(Stage::Tls, Kind::TimedOut { limit })),
                }
            }
        };
        // The limits are ours: one of the library's would also hit reads that are to wait.
        let config = config.set_response_timeout(None).set_connection_timeout(None);
        budget.reset(LONGEST_REPLY);
        let metered = Metered::new(stream, Arc::clone(&budget));
        let info = connection_info(options).map_err(|kind| failed(Stage::Authenticate, kind))?;
        let setup = MultiplexedConnection::new_with_config(&info, metered, config);
        let (connection, driver) = timeout(left, setup)
            .await
            .map_err(|_| failed(Stage::Authenticate, Kind::TimedOut { limit }))?
            .map_err(|error| failed(Stage::Authenticate, Kind::of(&error)))?;
        let mut tasks = JoinSet::new();
        tasks.spawn(driver);
        let mut link = Self {
            connection,
            budget,
            address: options.address.clone(),
            limit: options.reply_timeout,
            _driver: tasks,
        };
        link.check_kind(purpose).await?;
        Ok(link)
    }

    /// Asks one thing. An error of the server's is an error here.
    ///
    /// # Errors
    /// [`IngestError`]; after one that is no answer the connection is of no use any more.
    pub(super) async fn ask(
        &mut self,
        name: &'static str,
        command: &Cmd,
    ) -> Result<Value, IngestError> {
        self.ask_for(name, command, Duration::ZERO).await
    }

    /// Asks something that the server may take `wait` to answer, on top of the usual limit.
    pub(super) async fn ask_for(
        &mut self,
        name: &'static str,
        command: &Cmd,
        wait: Duration,
    ) -> Result<Value, IngestError> {
        self.budget.reset(LONGEST_REPLY);
        let limit = self.limit.saturating_add(wait);
        let answer = timeout(limit, self.connection.send_packed_command(command)).await;
        match answer {
            Ok(Ok(Value::ServerError(error))) => Err(self.failed(name, Kind::of(&error.into()))),
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.failed(name, self.broken(&error))),
            Err(_) => Err(self.failed(name, Kind::TimedOut { limit })),
        }
    }

    /// Asks several things at once. The answers are in order; an error of the server's stands
    /// among them as its own answer.
    pub(super) async fn ask_all(
        &mut self,
        name: &'static str,
        commands: &Pipeline,
    ) -> Result<Vec<Value>, IngestError> {
        self.budget.reset(LONGEST_REPLY);
        let (limit, count) = (self.limit, commands.len());
        let answers = self.connection.send_packed_commands(commands, 0, count);
        match timeout(limit, answers).await {
            Ok(Ok(values)) if values.len() == count => Ok(values),
            Ok(Ok(_)) => Err(self.failed(name, Kind::Unexpected { expected: "as many answers" })),
            Ok(Err(error)) => Err(self.failed(name, self.broken(&error))),
            Err(_) => Err(self.failed(name, Kind::TimedOut { limit })),
        }
    }

    /// Asks several things in one transaction: MULTI, the commands, EXEC. `None` when a watched
    /// key was changed meanwhile.
    pub(super) async fn transact(
        &mut self,
        name: &'static str,
        commands: &Pipeline,
    ) -> Result<Option<Vec<Value>>, IngestError> {
        let mut whole = Pipeline::new();
        whole.cmd("MULTI");
        for command in commands.cmd_iter() {
            whole.add_command(command.clone());
        }
        whole.cmd("EXEC");
        let mut answers = self.ask_all(name, &whole).await?;
        let last = answers.pop();
        // A command that could not even be queued says why; EXEC then only says that it did not.
        let refused = answers.into_iter().find_map(|answer| match answer {
            Value::ServerError(error) => Some(error),
            _ => None,
        });
        match (refused, last) {
            (Some(error), _) | (None, Some(Value::ServerError(error))) => {
                Err(self.failed(name, Kind::of(&error.into())))
            }
            (None, Some(Value::Array(values))) => Ok(Some(values)),
            (None, Some(Value::Nil)) => Ok(None),
            (None, _) => Err(self.failed(name, Kind::Unexpected { expected: "EXEC's array" })),
        }
    }

    /// Subscribes to channels, or to patterns.
    pub(super) async fn subscribe(
        &mut self,
        channels: &[String],
        patterns: &[String],
    ) -> Result<(), IngestError> {
        let limit = self.limit;
        let subscribing = async {
            if !channels.is_empty() {
                self.connection.subscribe(channels).await?;
            }
            if !patterns.is_empty() {
                self.connection.psubscribe(patterns).await?;
            }
            Ok(())
        };
        match timeout(limit, subscribing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.failed("SUBSCRIBE", self.broken(&error))),
            Err(_) => Err(self.failed("SUBSCRIBE", Kind::TimedOut { limit })),
        }
    }

    /// An error of this server's at the command `name`.
    pub(super) fn failed(&self, name: &'static str, kind: Kind) -> IngestError {
        IngestError { address: self.address.clone(), stage: Stage::Command(name), kind }
    }

    /// An answer that is not what was asked for.
    pub(super) fn unexpected(&self, name: &'static str, expected: &'static str) -> IngestError {
        self.failed(name, Kind::Unexpected { expected })
    }

    fn broken(&self, error: &redis::RedisError) -> Kind {
        if self.budget.exceeded() {
            return Kind::TooLong { limit: LONGEST_REPLY };
        }
        Kind::of(error)
    }

    /// HELLO without arguments says what the server is.
    async fn check_kind(&mut self, purpose: Purpose) -> Result<(), IngestError> {
        let hello = self.ask("HELLO", &redis::cmd("HELLO")).await?;
        let is = |key, value: &str| reply::text_of(&hello, key).is_some_and(|got| got == value);
        let kind = if is("mode", "sentinel") {
            Kind::Sentinel
        } else if purpose == Purpose::Keys && is("mode", "cluster") {
            Kind::Cluster
        } else if purpose == Purpose::Keys && (is("role", "replica") || is("role", "slave")) {
            Kind::Replica
        } else {
            return Ok(());
        };
        Err(IngestError { address: self.address.clone(), stage: Stage::Authenticate, kind })
    }
}

fn connection_info(options: &RedisOptions) -> Result<RedisConnectionInfo, Kind> {
    let mut info = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_skip_set_lib_name()
        .set_db(i64::from(options.database));
    if let Some(username) = &options.username {
        info = info.set_username(username);
    }
    if let Some(password) = &options.password {
        let text = std::str::from_utf8(password.expose()).map_err(|_| Kind::PasswordNotText)?;
        info = info.set_password(text.trim_end_matches(['\r', '\n']));
    }
    Ok(info)
}
