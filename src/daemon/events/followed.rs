//! That a stream was followed, and how far: without a note of our own, nobody could tell a group
//! that was deleted from a stream that is followed for the first time.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tracing::warn;

use super::instance::keep;
use crate::ingest::StreamId;

/// The pause between two notes. What lies between is read twice, where the group is gone.
const PAUSE: Duration = Duration::from_secs(60);

/// The note of one stream.
#[derive(Debug)]
pub(super) struct Followed {
    path: PathBuf,
    kept: Option<StreamId>,
    /// The next note is not made before.
    next: Option<Instant>,
}

impl Followed {
    /// That of `stream`, as followed under the host's `name`, among the state in `directory`.
    pub(super) fn of(directory: &Path, name: &str, stream: &str) -> Self {
        // Neither has a length limit or an alphabet that a file's name could keep to.
        let digest = Sha256::digest(format!("{name}\n{stream}"));
        let file = format!("stream-{}", hex::encode(digest.get(..8).unwrap_or_default()));
        let path = directory.join(file);
        let kept = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().ok(),
            Err(fault) => {
                if fault.kind() != io::ErrorKind::NotFound {
                    warn!("cannot read {}: {fault}", path.display());
                }
                None
            }
        };
        Self { path, kept, next: None }
    }

    /// How far it was followed before, if it was.
    pub(super) fn up_to(&self) -> Option<StreamId> {
        self.kept
    }

    /// It is followed, and done with up to there. Kept now and then.
    pub(super) async fn reached(&mut self, id: Option<StreamId>) {
        let now = Instant::now();
        if self.next.is_none_or(|next| next <= now) && id.is_some() {
            self.next = Some(now + PAUSE);
            self.keep(id).await;
        }
    }

    /// The same, kept at once.
    pub(super) async fn keep(&mut self, id: Option<StreamId>) {
        let Some(id) = id.filter(|id| self.kept != Some(*id)) else { return };
        let path = self.path.clone();
        let kept = tokio::task::spawn_blocking(move || keep(&path, &id.to_string())).await;
        match kept {
            Ok(Ok(())) => self.kept = Some(id),
            Ok(Err(fault)) => warn!(
                "cannot write {}: {fault}; a consumer group that is deleted while this daemon is \
                 stopped is not noticed",
                self.path.display()
            ),
            // The program is at its end.
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(milliseconds: u64) -> StreamId {
        StreamId { milliseconds, sequence: 0 }
    }

    #[tokio::test]
    async fn is_there_after_a_restart_and_for_its_stream_alone() {
        let directory = tempfile::tempdir().unwrap();
        let of = |name, stream| Followed::of(directory.path(), name, stream);
        let mut first = of("h", "a/../b");
        assert_eq!(first.up_to(), None);
        first.reached(None).await;
        first.reached(Some(id(1))).await;
        first.reached(Some(id(2))).await;
        assert_eq!(of("h", "a/../b").up_to(), Some(id(1)), "kept now and then");
        first.keep(Some(id(2))).await;
        assert_eq!(of("h", "a/../b").up_to(), Some(id(2)));
        assert_eq!((of("h", "b").up_to(), of("g", "a/../b").up_to()), (None, None));
        fs::write(&first.path, "x").unwrap();
        assert_eq!(of("h", "a/../b").up_to(), None);
    }
}
