//! Secrets that the service manager hands over (`LoadCredential=`, systemd.exec(5)).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where credentials lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    directory: Option<PathBuf>,
}

/// A credential that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The name could lead out of the directory, or cannot be one. The configuration's fault.
    #[error(
        "{got:?} is no name of a credential: expected 1 to 255 bytes without '/', not '.' or '..'"
    )]
    Name {
        /// What was written.
        got: String,
    },
    /// The process was not started by systemd with any credential.
    #[error(
        "the credential {name:?} is handed over by systemd, which did not start this process or \
         has no LoadCredential= for it; outside of systemd use secret_file"
    )]
    NoDirectory {
        /// The credential asked for.
        name: String,
    },
    /// systemd handed over credentials, but not this one.
    #[error(
        "systemd handed over no credential {name:?}: add LoadCredential={name}:FILE to the unit"
    )]
    Missing {
        /// The credential asked for.
        name: String,
    },
}

impl Credentials {
    /// Reads `CREDENTIALS_DIRECTORY`.
    #[must_use]
    pub fn from_environment() -> Self {
        let set = std::env::var_os("CREDENTIALS_DIRECTORY");
        let directory = set.filter(|d: &OsString| !d.is_empty()).map(PathBuf::from);
        Self { directory }
    }

    /// Credentials that lie in `directory`.
    #[must_use]
    pub fn within(directory: &Path) -> Self {
        Self { directory: Some(directory.to_owned()) }
    }

    /// The file that holds the credential `name`.
    ///
    /// # Errors
    /// [`CredentialError`] when the name cannot be one or there is no such credential.
    pub fn path(&self, name: &str) -> Result<PathBuf, CredentialError> {
        let fits = (1..=255).contains(&name.len())
            && !matches!(name, "." | "..")
            && !name.chars().any(|c| c == '/' || c.is_control());
        if !fits {
            return Err(CredentialError::Name { got: name.chars().take(255).collect() });
        }
        let Some(directory) = &self.directory else {
            return Err(CredentialError::NoDirectory { name: name.to_owned() });
        };
        let path = directory.join(name);
        if path.is_file() {
            Ok(path)
        } else {
            Err(CredentialError::Missing { name: name.to_owned() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_lead_out_of_the_directory() {
        let credentials = Credentials::within(Path::new("/nowhere"));
        for name in ["", ".", "..", "../secret", "/etc/varnish/secret", "a/b", "a\0b", "a\nb"] {
            let wrong = CredentialError::Name { got: name.to_owned() };
            assert_eq!(credentials.path(name), Err(wrong));
        }
        let missing = CredentialError::Missing { name: "varnish-secret".to_owned() };
        assert_eq!(credentials.path("varnish-secret"), Err(missing));
        let none = Credentials { directory: None };
        assert!(matches!(none.path("a"), Err(CredentialError::NoDirectory { .. })));
    }
}
