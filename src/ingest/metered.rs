//! A connection that counts what it reads.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A socket, with TLS or without.
pub(super) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// How many more bytes may come before the connection is given up. The client library keeps a
/// reply whole, however long it is; this is what bounds it.
#[derive(Debug, Default)]
pub(super) struct Budget {
    left: AtomicUsize,
    exceeded: AtomicBool,
}

impl Budget {
    /// From here on, so many bytes may come.
    pub(super) fn reset(&self, bytes: usize) {
        self.left.store(bytes, Ordering::Relaxed);
    }

    /// Whether more came.
    pub(super) fn exceeded(&self) -> bool {
        self.exceeded.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> io::Result<()> {
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_sub(bytes), Ordering::Relaxed);
        if bytes > left {
            self.exceeded.store(true, Ordering::Relaxed);
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the reply is too long"));
        }
        Ok(())
    }
}

/// A transport within a [`Budget`].
pub(super) struct Metered {
    transport: Box<dyn Transport>,
    budget: Arc<Budget>,
}

impl Metered {
    pub(super) fn new(transport: Box<dyn Transport>, budget: Arc<Budget>) -> Self {
        Self { transport, budget }
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.transport).poll_read(cx, buffer))?;
        Poll::Ready(self.budget.take(buffer.filled().len().saturating_sub(before)))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn more_than_the_budget_ends_the_connection() {
        let (near, mut far) = tokio::io::duplex(1_024);
        let budget = Arc::new(Budget::default());
        let mut metered = Metered::new(Box::new(near), Arc::clone(&budget));
        let mut buffer = [0; 64];
        budget.reset(100);
        for expected in [60, 40] {
            far.write_all(&vec![b'x'; expected]).await.unwrap();
            assert_eq!(metered.read(&mut buffer).await.unwrap(), expected);
        }
        assert!(!budget.exceeded());
        budget.reset(10);
        far.write_all(&[b'x'; 11]).await.unwrap();
        assert!(metered.read(&mut buffer).await.is_err());
        assert!(budget.exceeded());
    }
}
