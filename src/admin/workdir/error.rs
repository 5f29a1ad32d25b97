//! Why a work directory leads to no admin port.

use std::path::PathBuf;

use super::index::{IndexError, PieceError};

/// Why a work directory leads to no admin port. Each is the operator's to mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkdirError {
    /// There is no such directory. The name or the path is wrong, or that varnishd never ran.
    Missing {
        /// Every place that was looked at, in order.
        tried: Vec<PathBuf>,
    },
    /// The directory is there and has no index: varnishd was stopped, is just starting, or this
    /// is not its work directory.
    NoIndex {
        /// The directory.
        dir: PathBuf,
    },
    /// This user may not look into it. Being in the group that the directory belongs to helps,
    /// which is `varnish` where a package installed Varnish.
    Denied {
        /// What may not be read.
        path: PathBuf,
    },
    /// It cannot be read, or is not what varnishd writes.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: Unreadable,
    },
    /// varnishd runs without an admin port (`-T none`).
    NoAdminPort {
        /// The directory.
        dir: PathBuf,
    },
    /// No varnishd answers, and the one that wrote the index is gone: the directory is what it
    /// left behind.
    Leftover {
        /// The directory.
        dir: PathBuf,
        /// The process id of the manager that is gone.
        manager: u32,
        /// What came of the attempt, in words.
        attempt: String,
    },
}

/// Why a file of a work directory is no good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The operating system says so.
    #[error("{0}")]
    System(String),
    /// It is a directory, a pipe or a device.
    #[error("it is no regular file")]
    NoFile,
    /// It is larger than any that varnishd writes.
    #[error("it has more than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// It is no index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// It is shorter than the index says.
    #[error(transparent)]
    Piece(#[from] PieceError),
    /// It has no address where there should be one.
    #[error("it holds no address")]
    NoAddress,
}

impl WorkdirError {
    /// The error as a metric's label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Missing { .. } | Self::NoIndex { .. } => "workdir_missing",
            Self::Denied { .. } => "workdir_denied",
            Self::Unreadable { .. } => "workdir_unreadable",
            Self::NoAdminPort { .. } => "workdir_no_admin_port",
            Self::Leftover { .. } => "workdir_leftover",
        }
    }

    /// Whether it may pass by itself, as when varnishd is being restarted.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::NoIndex { .. } | Self::Leftover { .. } => true,
            Self::Unreadable { .. } | Self::Denied { .. } | Self::NoAdminPort { .. } => false,
        }
    }
}

impl std::error::Error for WorkdirError {}

impl std::fmt::Display for WorkdirError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing { tried } => match tried.as_slice() {
                [only] => write!(f, "there is no directory {}", only.display()),
                tried => {
                    f.write_str("there is no work directory of a running varnishd (looked at ")?;
                    for (at, dir) in tried.iter().enumerate() {
                        write!(f, "{}{}", if at == 0 { "" } else { ", " }, dir.display())?;
                    }
                    f.write_str(")")
                }
            },
            Self::NoIndex { dir } => write!(
                f,
                "{} has no {INDEX}: varnishd does not run there, or was started with another -n",
                dir.display()
            ),
            Self::Denied { path } => write!(
                f,
                "this user may not read {}: it takes root, or the group that the directory \
                 belongs to (varnish, as a rule)",
                path.display()
            ),
            Self::Unreadable { path, reason } => {
                write!(f, "{} is not what varnishd writes: {reason}", path.display())
            }
            Self::NoAdminPort { dir } => write!(
                f,
                "the varnishd of {} has no admin port: it was started with -T none",
                dir.display()
            ),
            Self::Leftover { dir, manager, attempt } => write!(
                f,
                "{} was left behind by a varnishd that is gone (its process {manager} does not \
                 exist here), and no varnishd answers: {attempt}",
                dir.display()
            ),
        }
    }
}

/// The index, within a work directory.
pub(super) const INDEX: &str = "_.vsm_mgt/_.index";
