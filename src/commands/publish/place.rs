//! Which Redis server, and which stream there.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use zeroize::Zeroizing;

use super::super::Exit;
use super::super::config_file::ConfigFile;
use super::super::output::{Untrusted, complain};
use super::chain;
use crate::config::{
    Config, EventSource, RedisSettings, RedisUrlError, SecretSettings, StreamSettings,
};
use crate::ingest::RedisOptions;
use crate::model::Secret;
use crate::net::tls::TlsClient;
use crate::systemd::Credentials;

/// The stream where nothing names another.
const USUAL_STREAM: &str = "invalidations";

/// The longest password that is read.
const LONGEST_PASSWORD: u64 = 4_096;

/// The longest name of a stream, as the configuration has it.
const LONGEST_KEY: usize = 1_024;

/// The arguments that say where an event goes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Redis")]
pub(super) struct Server {
    /// The server: redis://HOST:PORT, or rediss:// for TLS, with a user (redis://USER@HOST) and the
    /// number of a database as the path where needed
    // A text as yet: what clap says of a URL that is none would repeat a password in it.
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// The file that holds its password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The environment variable that holds its password, as CI systems hand one out
    #[arg(long, value_name = "NAME", conflicts_with = "password_file")]
    password_env: Option<OsString>,
    /// With rediss: certificates (PEM) that are trusted in place of the system's
    #[arg(long, value_name = "FILE", requires = "redis")]
    ca_file: Option<PathBuf>,
    #[command(flatten)]
    file: ConfigFile,
    /// The stream [default: the only one that the configuration follows, else invalidations]
    #[arg(long, value_name = "KEY", value_parser = key)]
    stream: Option<String>,
    /// The stream that the hosts answer on [default: as configured, else that of the events with
    /// :replies behind it]
    #[arg(long, value_name = "KEY", value_parser = key)]
    replies: Option<String>,
}

/// Where an event goes.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) redis: RedisOptions,
    pub(super) stream: String,
    pub(super) replies: String,
}

impl Server {
    /// Finds out which server and which stream are meant. What is wrong is said on stderr.
    ///
    /// # Errors
    /// [`Exit::Usage`] where that is not clear; [`Exit::Secret`] for a password that cannot be had.
    pub(super) fn find(&self) -> Result<Place, Exit> {
        let (settings, config) = self.settings()?;
        let streams = config.as_ref().map(streams).unwrap_or_default();
        let stream = match (&self.stream, &streams[..]) {
            (Some(named), _) => named.clone(),
            (None, []) => USUAL_STREAM.to_owned(),
            (None, [only]) => only.key.clone(),
            (None, several) => {
                let names: Vec<&str> = several.iter().map(|stream| stream.key.as_str()).collect();
                return Err(usage(format_args!(
                    "the configuration follows several streams: choose one with --stream ({})",
                    Untrusted(&names.join(", "))
                )));
            }
        };
        let configured = streams.iter().find(|known| known.key == stream);
        let replies = self.replies.clone().or_else(|| Some(configured?.replies.clone()));
        let mut redis = RedisOptions::new(settings.address.clone());
        redis.tls = settings.tls.then(|| {
            Arc::new(TlsClient::without_alpn(self.ca_file.clone().or(settings.ca_file.clone())))
        });
        redis.username.clone_from(&settings.username);
        redis.database = settings.database;
        redis.password = self.password(&settings)?;
        Ok(Place { redis, replies: replies.unwrap_or_else(|| format!("{stream}:replies")), stream })
    }

    fn settings(&self) -> Result<(RedisSettings, Option<Config>), Exit> {
        let Some(url) = &self.redis else {
            if self.file.named_or_present().is_none() {
                return Err(usage(
                    "no Redis server is named: expected --redis URL, or a configuration with the \
                     table [redis] (-c FILE)",
                ));
            }
            let config = self.file.load()?.config;
            let Some(settings) = config.redis.clone() else {
                return Err(usage(format_args!(
                    "{} has no table [redis]: add one, or name the server with --redis",
                    Untrusted(&self.file.path().display().to_string())
                )));
            };
            return Ok((settings, Some(config)));
        };
        let from_environment = std::env::var_os("PURGEWATCH_CONFIG").map(PathBuf::from);
        if self.file.named().is_some_and(|path| from_environment.as_deref() != Some(path)) {
            return Err(usage("--redis names a server and -c a configuration: choose one"));
        }
        let settings: RedisSettings = url.parse().map_err(|fault| match fault {
            RedisUrlError::Password => usage(
                "--redis: no password is taken from an argument, where everybody on this machine \
                 can read it: give --password-file or --password-env",
            ),
            // What was written may be a password all the same.
            RedisUrlError::Scheme { .. } => usage(
                "--redis: expected a URL such as redis://127.0.0.1:6379, or rediss:// for TLS",
            ),
            fault => usage(format_args!("--redis: {}", chain(&fault))),
        })?;
        if self.ca_file.is_some() && !settings.tls {
            return Err(usage("--ca-file is for rediss://, and this URL is redis://"));
        }
        Ok((settings, None))
    }

    fn password(&self, settings: &RedisSettings) -> Result<Option<Secret>, Exit> {
        if let Some(name) = &self.password_env {
            return from_variable(name).map(Some);
        }
        if let Some(path) = &self.password_file {
            return from_file(path).map(Some);
        }
        match &settings.password {
            SecretSettings::None => Ok(None),
            SecretSettings::File(path) => from_file(path).map(Some),
            SecretSettings::Credential { name, file } => {
                match (Credentials::from_environment().path(name), file) {
                    (Ok(path), _) => from_file(&path).map(Some),
                    (Err(_), Some(file)) => from_file(file).map(Some),
                    (Err(fault), None) => {
                        complain(format_args!(
                            "the password of Redis cannot be read: {}; --password-file and \
                             --password-env serve commands outside of the unit",
                            chain(&fault)
                        ));
                        Err(Exit::Secret)
                    }
                }
            }
        }
    }
}

/// The streams that are followed, each once.
fn streams(config: &Config) -> Vec<StreamSettings> {
    let mut streams: Vec<StreamSettings> = Vec::new();
    for subscription in &config.subscriptions {
        if let EventSource::Stream(stream) = &subscription.source
            && !streams.iter().any(|known| known.key == stream.key)
        {
            streams.push(stream.clone());
        }
    }
    streams
}

fn from_variable(name: &OsStr) -> Result<Secret, Exit> {
    if let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) {
        return Ok(Secret::new(value.into_vec()));
    }
    complain(format_args!(
        "--password-env: the environment variable {} is not set, or empty",
        Untrusted(&name.to_string_lossy())
    ));
    Err(Exit::Secret)
}

fn from_file(path: &Path) -> Result<Secret, Exit> {
    let read = || {
        let mut bytes = Zeroizing::new(Vec::new());
        File::open(path)?.take(LONGEST_PASSWORD + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LONGEST_PASSWORD {
            let why = format!("expected {LONGEST_PASSWORD} bytes at most");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(Secret::new(std::mem::take(&mut *bytes)))
    };
    read().map_err(|fault: io::Error| {
        complain(format_args!(
            "the password of Redis cannot be read from {}: {fault}",
            Untrusted(&path.display().to_string())
        ));
        Exit::Secret
    })
}

/// The name of a stream.
fn key(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("expected the name of a stream, got an empty text".to_owned()),
        got if got > LONGEST_KEY => {
            Err(format!("the name of a stream has at most {LONGEST_KEY} bytes, this one has {got}"))
        }
        _ if text.contains(char::is_control) => {
            Err("the name of a stream holds no control characters".to_owned())
        }
        _ => Ok(text.to_owned()),
    }
}

fn usage(text: impl std::fmt::Display) -> Exit {
    complain(text);
    Exit::Usage
}

/// The limits of a server's answers, so that they fit into `within`.
pub(super) fn limited(mut redis: RedisOptions, within: Duration) -> RedisOptions {
    redis.connect_timeout = redis.connect_timeout.min(within);
    redis.reply_timeout = redis.reply_timeout.min(within);
    redis
}
