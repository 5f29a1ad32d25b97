//! The Unix socket: for what changes something, and so is for this host alone.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::connection::serve_on;
use super::routes::{Reach, Router};
use super::{Limits, Surface};

/// Who may connect: the daemon's user and group (unix(7): to connect is to write).
const MODE: u32 = 0o660;

/// How long another daemon may take to accept before it counts as one all the same.
const PATIENCE: Duration = Duration::from_secs(1);

/// A socket that cannot be listened on. The operator's to put right.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another daemon answers there.
    #[error("another daemon listens on {}", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something of that name is no socket, and is left alone.
    #[error("{} is there and no socket", path.display())]
    NoSocket {
        /// The file.
        path: PathBuf,
    },
    /// Anything else: a directory that is missing or may not be written to, a path that is too
    /// long (more than 107 bytes).
    #[error("cannot listen on {}", path.display())]
    Other {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Listens on the socket at `path`, mode 0660. The socket of a daemon that is gone is replaced;
/// that of one that answers, and any other file, is not.
///
/// # Errors
/// [`SocketError`] says what is in the way.
pub async fn bind_socket(path: &Path) -> Result<UnixListener, SocketError> {
    let other = |source| SocketError::Other { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(other(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NoSocket { path: path.to_owned() });
        }
        Ok(_) => match timeout(PATIENCE, UnixStream::connect(path)).await {
            // Nobody has it open any more.
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(other(error));
            }
            _ => return Err(SocketError::InUse { path: path.to_owned() }),
        },
    }
    // Under another name first, so that nobody can connect before the mode is right, and so that
    // there is always either the old socket or the new one.
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(name);
    let _ = fs::remove_file(&beside);
    let listener = UnixListener::bind(&beside).map_err(other)?;
    let placed = fs::set_permissions(&beside, Permissions::from_mode(MODE))
        .and_then(|()| fs::rename(&beside, path));
    if let Err(error) = placed {
        let _ = fs::remove_file(&beside);
        return Err(other(error));
    }
    Ok(listener)
}

/// Answers requests on a socket as [`serve`](super::serve) does on a port, and `/api/v1/bans`
/// beside all that is answered there.
pub async fn serve_socket(
    listener: UnixListener,
    surface: Arc<Surface>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let clock = surface.clock;
    let router = Router::new(surface, &limits, Reach::Host);
    serve_on(listener, router, limits, clock, shutdown).await;
}
