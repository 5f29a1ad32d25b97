//! A TCP connection to varnishd that acknowledges at once while more replies are to come.
//!
//! varnishd writes each reply by itself and leaves Nagle's algorithm on: a reply waits in its kernel
//! until the one before is acknowledged (RFC 1122 section 4.2.3.4). As long as commands go out,
//! these carry the acknowledgements. Behind the last command of a batch there is none, and each
//! acknowledgement would be delayed, by 40 ms on Linux (tcp(7), `TCP_QUICKACK`).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The connection.
pub(super) struct Socket {
    stream: TcpStream,
    awaits_more: AwaitsMore,
}

/// Whether replies are to come and nothing is to be written that would carry an acknowledgement.
#[derive(Debug, Clone, Default)]
pub(super) struct AwaitsMore(Arc<AtomicBool>);

impl AwaitsMore {
    pub(super) fn set(&self, awaits_more: bool) {
        self.0.store(awaits_more, Ordering::Relaxed);
    }
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> (Self, AwaitsMore) {
        let awaits_more = AwaitsMore::default();
        (Self { stream, awaits_more: awaits_more.clone() }, awaits_more)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if polled.is_pending() && self.awaits_more.0.load(Ordering::Relaxed) {
            acknowledge(&self.stream);
        }
        polled
    }
}

/// Sends the acknowledgement that is due, if one is. Linux forgets the option again: it is set
/// each time.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn acknowledge(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_tcp_quickack(stream, true);
}

/// Elsewhere there is no such option, and a batch takes a moment longer.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const fn acknowledge(_: &TcpStream) {}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
