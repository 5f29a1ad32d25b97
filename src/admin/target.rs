//! Which node, and where its secret comes from.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::{Acceptor, Kind, Place, Workdir};
use crate::model::{HostPort, NodeName, Secret};

/// The largest secret file that is read, in bytes. varnishd makes its own of 256 bytes.
pub const SECRET_LIMIT: u64 = 1024 * 1024;

/// One admin port.
#[derive(Debug, Clone)]
pub struct Target {
    /// What the operator calls the node; every error says it.
    pub node: NodeName,
    /// Where its admin port is.
    pub place: Place,
    /// What proves that we may command it (`varnishd -S`).
    pub secret: SecretSource,
}

impl Target {
    /// An admin port at a known address (`varnishd -T`).
    #[must_use]
    pub fn at(node: NodeName, address: HostPort, secret: SecretSource) -> Self {
        Self { node, place: address.into(), secret }
    }

    /// The admin port that a work directory leads to (`varnishd -n`), with the secret that it
    /// names.
    #[must_use]
    pub fn in_workdir(node: NodeName, workdir: Workdir) -> Self {
        Self { node, place: workdir.into(), secret: SecretSource::Workdir }
    }

    /// A varnishd that dials in (`varnishd -M`).
    #[must_use]
    pub fn reverse(node: NodeName, acceptor: Acceptor, secret: SecretSource) -> Self {
        Self { node, place: Place::Reverse(acceptor), secret }
    }
}

/// Where a secret comes from. It is needed only where the server asks for it.
#[derive(Debug, Clone)]
pub enum SecretSource {
    /// There is none: right for `varnishd -S none` only.
    None,
    /// The file that the work directory names, none where that names none. The same as `None` for
    /// a place that is no work directory.
    Workdir,
    /// A file, read again for each connection, so that a secret can be changed at any time.
    File(PathBuf),
    /// The bytes themselves.
    Value(Secret),
    /// It is known not to be there, and why: a server that asks for one cannot be served, and
    /// that is no reason not to serve the others.
    Missing {
        /// Why, and what to do.
        reason: String,
    },
}

impl SecretSource {
    /// The secret, if there is one to be had.
    ///
    /// Reads a small regular file on the spot: handing that to another thread would take longer
    /// than the read does.
    pub(super) fn load(&self) -> Result<Option<Secret>, Kind> {
        match self {
            Self::None | Self::Workdir => Ok(None),
            Self::Value(secret) => Ok(Some(secret.clone())),
            Self::File(path) => read(path).map(Some),
            Self::Missing { reason } => Err(Kind::SecretMissing { reason: reason.clone() }),
        }
    }

    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::None | Self::Workdir | Self::Value(_) | Self::Missing { .. } => None,
        }
    }
}

fn read(path: &Path) -> Result<Secret, Kind> {
    let unreadable = |error: &io::Error| Kind::SecretUnreadable {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    // Looked at before it is opened: opening a pipe would wait for its writer.
    let found = fs::metadata(path).map_err(|error| unreadable(&error))?;
    if !found.is_file() {
        return Err(Kind::SecretUnreadable {
            path: path.to_owned(),
            reason: "it is no regular file".to_owned(),
        });
    }
    let file = fs::File::open(path).map_err(|error| unreadable(&error))?;
    // Room for all of it at once, so that growing leaves no copy behind.
    let room = usize::try_from(found.len().min(SECRET_LIMIT)).unwrap_or(0) + 2;
    let mut bytes = Vec::with_capacity(room);
    let read = file.take(SECRET_LIMIT + 1).read_to_end(&mut bytes);
    let (secret, length) = (Secret::new(bytes), read.map_err(|error| unreadable(&error))?);
    if length as u64 > SECRET_LIMIT {
        return Err(Kind::SecretUnreadable {
            path: path.to_owned(),
            reason: format!("it has more than {SECRET_LIMIT} bytes"),
        });
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(path: &Path) -> String {
        match SecretSource::File(path.to_owned()).load() {
            Err(Kind::SecretUnreadable { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_byte_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let bytes: Vec<u8> = (0..=255).collect();
        fs::write(&path, &bytes).unwrap();
        let source = SecretSource::File(path.clone());
        assert_eq!(source.load().unwrap().unwrap().expose(), bytes);
        fs::write(&path, b"changed\n").unwrap();
        assert_eq!(source.load().unwrap().unwrap().expose(), b"changed\n", "read again");
    }

    #[test]
    fn what_is_no_secret_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(reason(&dir.path().join("absent")).contains("No such file"));
        assert_eq!(reason(dir.path()), "it is no regular file");
        assert_eq!(reason(Path::new("/dev/zero")), "it is no regular file");
        let large = dir.path().join("large");
        fs::write(&large, vec![b'x'; 1024 * 1024 + 1]).unwrap();
        assert_eq!(reason(&large), "it has more than 1048576 bytes");
    }
}
