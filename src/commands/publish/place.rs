//! Which Redis server, and which stream there.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::super::Exit;
use super::super::config_file::ConfigFile;
use super::super::output::{Untrusted, complain};
use super::chain;
use crate::config::{
    Config, EventSource, RedisSettings, RedisUrlError, SecretSettings, StreamSettings,
};
use crate::daemon::{SourceError, redis_options};
use crate::ingest::RedisOptions;
use crate::model::Secret;
use crate::systemd::Credentials;

/// The stream where nothing names another.
const USUAL_STREAM: &str = "invalidations";

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
        let redis = self.options(settings)?;
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

    /// How the server is reached; arguments come before the configuration.
    fn options(&self, mut settings: RedisSettings) -> Result<RedisOptions, Exit> {
        if let Some(file) = &self.ca_file {
            settings.ca_file = Some(file.clone());
        }
        let from_variable = self.password_env.as_deref().map(from_variable).transpose()?;
        if from_variable.is_some() {
            settings.password = SecretSettings::None;
        } else if let Some(file) = &self.password_file {
            settings.password = SecretSettings::File(file.clone());
        }
        let found = redis_options(&settings, &Credentials::from_environment());
        let mut options = found.map_err(|fault| {
            let advice = match fault {
                SourceError::Credential(_) => {
                    "; --password-file and --password-env serve commands outside of the unit"
                }
                SourceError::Password { .. } => "",
            };
            complain(format_args!("{}{advice}", Untrusted(&chain(&fault))));
            Exit::Secret
        })?;
        options.password = from_variable.or(options.password);
        Ok(options)
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
