//! Finding the admin port of a varnishd on this machine by its work directory.
//!
//! varnishd notes its `-T` addresses and its `-S` file in shared memory, in files of its work
//! directory. They are read here as plain files: no libvarnishapi, nothing mapped.

mod error;
mod index;

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use tokio::time::{Instant, sleep};

pub use self::error::{Unreadable, WorkdirError};
pub use self::index::{IndexError, PieceError};

use self::error::INDEX;
use self::index::{Index, Piece, addresses};
use super::SecretSource;
use super::place::MOST_ADDRESSES;
use crate::model::HostPort;

/// Where varnishd keeps the work directories of instances that have a name and no path: Debian's
/// and the upstream packages' place, that of builds of Varnish for systemd, that of Vinyl Cache,
/// and that of builds without further options.
const STATE_DIRS: &[&str] =
    &["/var/lib/varnish", "/var/run", "/var/lib/vinyl-cache", "/usr/local/var/varnish"];

/// The longest index that is read, in bytes. varnishd's manager writes some hundred.
const INDEX_LIMIT: usize = 1024 * 1024;

/// The longest file with an argument that is read, in bytes. varnishd's have one page.
const ARGUMENT_LIMIT: usize = 256 * 1024;

/// So often a work directory is read when its files change meanwhile.
const READS: usize = 3;

/// The pause between two looks at a work directory that is not there yet, as varnishadm has it.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// A varnishd on this machine, named by its work directory.
///
/// Nothing is read before [`find`](Self::find), and everything is read anew each time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workdir {
    /// How it was named, for people.
    name: String,
    /// Where it may be; the first that has an index counts.
    candidates: Vec<PathBuf>,
    /// Whether nobody named it.
    is_default: bool,
    checks_manager: bool,
}

/// What a work directory says.
#[derive(Debug, Clone)]
pub struct Instance {
    /// The directory.
    pub dir: PathBuf,
    /// Where the admin port listens: at least one address, at most 16. An address of all
    /// interfaces (`0.0.0.0`, `::`) is to be reached on the loopback one.
    pub addresses: Vec<HostPort>,
    /// Its secret file, or [`SecretSource::None`] where varnishd runs with `-S none`.
    pub secret: SecretSource,
    /// The process id of varnishd's manager, in the manager's own namespace; 0 when unknown.
    pub manager: u32,
    /// Whether no process here has that id. A hint and no proof: the manager may live in another
    /// process namespace, as in a container.
    pub manager_is_gone: bool,
}

impl Workdir {
    /// The instance that varnishd's `-n` names: a path, or a name below one of the directories
    /// where varnishd keeps them (`/var/lib/varnish`, `/var/run`, `/var/lib/vinyl-cache`,
    /// `/usr/local/var/varnish`).
    #[must_use]
    pub fn new(name: impl AsRef<Path>) -> Self {
        let name = name.as_ref();
        Self {
            name: name.display().to_string(),
            candidates: candidates(name),
            is_default: false,
            checks_manager: true,
        }
    }

    /// The instance of a varnishd that was started without `-n`. `names` are the values of
    /// `VARNISH_DEFAULT_N` and `VINYL_DEFAULT_N`, where they are set (varnishd(1) from 7.6 on);
    /// without any, the default names: `varnishd` from Varnish 7.0 on, the name of the host
    /// before, `vinyld`.
    #[must_use]
    pub fn of_default_instance(names: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut names: Vec<PathBuf> = names.into_iter().collect();
        if names.is_empty() {
            names.push("varnishd".into());
            let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
            if !host.is_empty() && !host.contains('/') {
                names.push(host.into());
            }
            names.push("vinyld".into());
        }
        Self {
            name: "of the default instance".to_owned(),
            candidates: names.iter().flat_map(|name| candidates(name)).collect(),
            is_default: true,
            checks_manager: true,
        }
    }

    /// Does not ask whether the manager's process exists, as `VSM_NOPID` in the environment has
    /// it: for a varnishd in another process namespace. Changes error messages only.
    #[must_use]
    pub fn without_manager_check(mut self) -> Self {
        self.checks_manager = false;
        self
    }

    /// Whether any of the places has an index, readable or not.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.candidates.iter().any(|dir| match fs::metadata(dir.join(INDEX)) {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
        })
    }

    /// Reads where the admin port is and where its secret comes from. Three small files, on the
    /// spot: handing that to another thread would take longer.
    ///
    /// # Errors
    /// [`WorkdirError`], but never [`WorkdirError::Leftover`]: only a connection can tell.
    pub fn find(&self) -> Result<Instance, WorkdirError> {
        let mut error = WorkdirError::Missing { tried: self.candidates.clone() };
        for dir in &self.candidates {
            match read(dir) {
                Ok(mut instance) => {
                    instance.manager_is_gone &= self.checks_manager;
                    return Ok(instance);
                }
                Err(WorkdirError::Missing { .. }) => {}
                Err(WorkdirError::NoIndex { .. }) if self.is_default => {}
                Err(found) if has_index(&found) => return Err(found),
                Err(found) => error = found,
            }
        }
        Err(error)
    }

    /// [`find`](Self::find), again every 0.25 s until `patience` is over while there is no index,
    /// as varnishadm does for a varnishd that is just starting. `again` is called before each
    /// further look.
    ///
    /// Cancellation safe.
    ///
    /// # Errors
    /// [`WorkdirError`] of the last look.
    pub async fn wait(
        &self,
        patience: Duration,
        mut again: impl FnMut(),
    ) -> Result<Instance, WorkdirError> {
        let start = Instant::now();
        loop {
            let error = match self.find() {
                Ok(instance) => return Ok(instance),
                Err(error) => error,
            };
            let may_come = matches!(
                error,
                WorkdirError::Missing { .. }
                    | WorkdirError::NoIndex { .. }
                    | WorkdirError::Unreadable { reason: Unreadable::Index(_), .. }
            );
            if !may_come || start.elapsed() + LOOK_AGAIN > patience {
                return Err(error);
            }
            again();
            sleep(LOOK_AGAIN).await;
        }
    }
}

impl fmt::Display for Workdir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "work directory {}", self.name)
    }
}

fn candidates(name: &Path) -> Vec<PathBuf> {
    if name.is_absolute() {
        return vec![name.to_owned()];
    }
    STATE_DIRS.iter().map(|dir| Path::new(dir).join(name)).collect()
}

/// Whether this is the directory that was meant, something being wrong with it.
fn has_index(error: &WorkdirError) -> bool {
    match error {
        WorkdirError::Missing { .. }
        | WorkdirError::NoIndex { .. }
        | WorkdirError::Denied { .. } => false,
        WorkdirError::Unreadable { .. }
        | WorkdirError::NoAdminPort { .. }
        | WorkdirError::Leftover { .. } => true,
    }
}

fn read(dir: &Path) -> Result<Instance, WorkdirError> {
    let mut reads = 1;
    loop {
        match read_once(dir) {
            // The index was replaced meanwhile: its files are gone.
            Err(Failure::Vanished(_)) if reads < READS => reads += 1,
            result => return result.map_err(WorkdirError::from),
        }
    }
}

enum Failure {
    Vanished(PathBuf),
    Other(WorkdirError),
}

impl From<Failure> for WorkdirError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Other(error) => error,
            Failure::Vanished(path) => {
                let reason =
                    Unreadable::System("the index names it and it is not there".to_owned());
                Self::Unreadable { path, reason }
            }
        }
    }
}

fn read_once(dir: &Path) -> Result<Instance, Failure> {
    let path = dir.join(INDEX);
    let bytes = match read_file(&path, INDEX_LIMIT) {
        Ok(bytes) => bytes,
        Err(error) => return Err(Failure::Other(without_index(dir, path, error))),
    };
    let index = Index::parse(&bytes).map_err(|fault| unreadable(path, fault))?;
    let mut found = Vec::new();
    let mut listed = false;
    for piece in index.arguments("-T") {
        listed = true;
        for address in addresses(&argument(dir, piece)?) {
            if !found.contains(&address) && found.len() < MOST_ADDRESSES {
                found.push(address);
            }
        }
    }
    if found.is_empty() {
        let error = match index.arguments("-T").next().filter(|_| listed) {
            None => WorkdirError::NoAdminPort { dir: dir.to_owned() },
            Some(piece) => {
                let path = piece_path(dir, piece);
                WorkdirError::Unreadable { path, reason: Unreadable::NoAddress }
            }
        };
        return Err(Failure::Other(error));
    }
    let secret = match index.arguments("-S").next() {
        None => SecretSource::None,
        Some(piece) => {
            let value = argument(dir, piece)?;
            SecretSource::File(dir.join(OsStr::from_bytes(&value)))
        }
    };
    let manager_is_gone = is_gone(index.manager);
    Ok(Instance {
        dir: dir.to_owned(),
        addresses: found,
        secret,
        manager: index.manager,
        manager_is_gone,
    })
}

/// What it means that there is no index to be read.
fn without_index(dir: &Path, index: PathBuf, error: ReadError) -> WorkdirError {
    match error {
        ReadError::System(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory if dir.is_dir() => {
                WorkdirError::NoIndex { dir: dir.to_owned() }
            }
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                WorkdirError::Missing { tried: vec![dir.to_owned()] }
            }
            io::ErrorKind::PermissionDenied => WorkdirError::Denied { path: index },
            _ => {
                let reason = Unreadable::System(error.to_string());
                WorkdirError::Unreadable { path: index, reason }
            }
        },
        ReadError::Unfit(reason) => WorkdirError::Unreadable { path: index, reason },
    }
}

/// The value of an argument of varnishd's command line.
fn argument(dir: &Path, piece: &Piece) -> Result<Vec<u8>, Failure> {
    let path = piece_path(dir, piece);
    let bytes = match read_file(&path, ARGUMENT_LIMIT) {
        Ok(bytes) => bytes,
        Err(ReadError::System(error)) => {
            return Err(match error.kind() {
                io::ErrorKind::NotFound => Failure::Vanished(path),
                io::ErrorKind::PermissionDenied => Failure::Other(WorkdirError::Denied { path }),
                _ => unreadable(path, Unreadable::System(error.to_string())),
            });
        }
        Err(ReadError::Unfit(reason)) => return Err(unreadable(path, reason)),
    };
    match piece.value(&bytes) {
        Ok(value) => Ok(value.to_vec()),
        Err(fault) => Err(unreadable(path, fault)),
    }
}

fn unreadable(path: PathBuf, reason: impl Into<Unreadable>) -> Failure {
    Failure::Other(WorkdirError::Unreadable { path, reason: reason.into() })
}

fn piece_path(dir: &Path, piece: &Piece) -> PathBuf {
    let mut path = dir.join(INDEX);
    path.set_file_name(&piece.file);
    path
}

enum ReadError {
    System(io::Error),
    Unfit(Unreadable),
}

fn read_file(path: &Path, limit: usize) -> Result<Vec<u8>, ReadError> {
    // Opening a pipe would wait for its writer.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = File::options().read(true).custom_flags(flags).open(path);
    let file = file.map_err(ReadError::System)?;
    if !file.metadata().map_err(ReadError::System)?.is_file() {
        return Err(ReadError::Unfit(Unreadable::NoFile));
    }
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut bytes).map_err(ReadError::System)?;
    if bytes.len() > limit {
        return Err(ReadError::Unfit(Unreadable::TooLarge { limit }));
    }
    Ok(bytes)
}

/// Whether no process here has that id.
fn is_gone(manager: u32) -> bool {
    let pid = i32::try_from(manager).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

#[cfg(test)]
mod tests;
