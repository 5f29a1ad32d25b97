//! Which varnishd `adm` talks to, and with which limits.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use super::Arguments;
use super::status::Status;
use crate::admin::{Options, SecretSource, Target};
use crate::commands::output::{Untrusted, complain};
use crate::model::{NodeName, Secret};

impl Arguments {
    /// The target that the arguments name; what is wrong is said on stderr.
    pub(super) fn target(&self) -> Result<Target, Status> {
        let address = self.admin.first().cloned();
        let Some(address) = address else { return Err(Status::NoAnswer) };
        let node = NodeName::from_address(&address.to_string());
        Ok(Target { node, address, secret: self.secret()? })
    }

    /// The limits that `-t` sets.
    pub(super) fn options(&self) -> Options {
        Options {
            connect: self.timeout,
            authenticate: self.timeout,
            reply: self.timeout,
            keep_alive: None,
            body_limit: LONGEST_BODY,
            ..Options::default()
        }
    }

    fn secret(&self) -> Result<SecretSource, Status> {
        if let Some(file) = &self.secret_file {
            return Ok(SecretSource::File(file.clone()));
        }
        let Some(name) = &self.secret_env else { return Ok(SecretSource::None) };
        match std::env::var_os(name).filter(|value| !value.is_empty()) {
            Some(value) => Ok(SecretSource::Value(Secret::new(OsString::into_vec(value)))),
            None => {
                complain(format_args!(
                    "--secret-env: the environment variable {} is not set, or empty",
                    Untrusted(&name.to_string_lossy())
                ));
                Err(Status::NoAnswer)
            }
        }
    }
}

/// The most that varnishd sends: its `cli_limit` goes no further.
const LONGEST_BODY: usize = 99_999_999;
