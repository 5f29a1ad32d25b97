//! What tells this daemon from another one with the same name.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::rand::{GetRandomFlags, getrandom};
use tracing::warn;

const FILE_NAME: &str = "instance";

/// This start of the daemon whose state lies in `directory`: the daemon's id, a colon, and
/// something that no other start has, which tells it from one with a copy of that state.
pub(super) fn id(directory: &Path) -> String {
    let start = fresh();
    format!("{}:{}", lasting(directory), start.get(..16).unwrap_or(&start))
}

/// The id of the daemon: made once, and the same after every restart, so that one that was killed
/// goes on where it was at once. Where it cannot be kept it is made anew, and a restart has to wait
/// until the name is free.
fn lasting(directory: &Path) -> String {
    let path = directory.join(FILE_NAME);
    match read(&path) {
        Ok(Some(id)) => return id,
        Ok(None) => {}
        Err(fault) => warn!("cannot read {}: {fault}", path.display()),
    }
    let id = fresh();
    if let Err(fault) = keep(&path, &id) {
        warn!(
            "cannot write {}: {fault}; after a restart, streams are read some seconds later",
            path.display()
        );
    }
    id
}

/// The id that was kept, if there is one that this program wrote.
fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::read(path) {
        Ok(bytes) => {
            let text = bytes.trim_ascii();
            let is_id = text.len() == 32 && text.iter().all(u8::is_ascii_hexdigit);
            Ok(is_id.then(|| String::from_utf8_lossy(text).into_owned()))
        }
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Under another name first: a file that is half-written would be another id.
pub(super) fn keep(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

fn fresh() -> String {
    let mut bytes = [0_u8; 16];
    // Without randomness of the system's (never seen on Linux since 3.17) a weaker one tells two
    // daemons apart as well.
    if getrandom(&mut bytes, GetRandomFlags::empty()).is_err() {
        bytes[..8].copy_from_slice(&crate::clock::random_seed().to_be_bytes());
    }
    hex::encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_same_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let first = lasting(directory.path());
        assert_eq!(lasting(directory.path()), first);
        fs::write(directory.path().join(FILE_NAME), "x").unwrap();
        let second = lasting(directory.path());
        assert!(second != first && second.len() == 32);
        assert_eq!(lasting(directory.path()), second);
        assert_eq!(lasting(Path::new("/nowhere")).len(), 32);
        let starts = [id(directory.path()), id(directory.path())];
        assert!(starts.iter().all(|start| start.starts_with(&format!("{second}:"))));
        assert_ne!(starts[0], starts[1]);
    }
}
