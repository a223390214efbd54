//! A socket whose peer must take what it is sent, and end a head that it has begun: who does neither gives its place back.
//!
//! hyper has one timeout for both the wait for a request and the wait for the rest of its head. Ours is the second; hyper
//! is given `limits.idle_timeout_ms`.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// How far a connection is with its requests; told by whoever answers them.
#[derive(Debug, Default)]
pub(super) struct Requests {
    begun: AtomicU64,
    answered: AtomicU64,
}

impl Requests {
    /// A head has been read.
    pub(super) fn begin(&self) {
        self.begun.fetch_add(1, Relaxed);
    }

    /// Its answer is ready.
    pub(super) fn answer(&self) {
        self.answered.fetch_add(1, Relaxed);
    }
}

/// A stream whose writes fail when the peer takes nothing for `limits.write_timeout_ms`.
#[derive(Debug)]
pub(super) struct Patient {
    stream: TcpStream,
    patience: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
    requests: Arc<Requests>,
    head_patience: Duration,
    /// Until when the head of request number so many must be there; from its first byte on.
    head: Option<(u64, Pin<Box<Sleep>>)>,
}

impl Patient {
    pub(super) fn new(
        stream: TcpStream,
        patience: Duration,
        head_patience: Duration,
        requests: Arc<Requests>,
    ) -> Patient {
        Patient {
            stream,
            patience,
            waiting: None,
            requests,
            head_patience,
            head: None,
        }
    }

    /// Lets an outcome through; a pending one only until patience ends. The clock starts at the first pending write.
    fn within<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.waiting = None;
            return outcome;
        }
        let patience = self.patience;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        match waiting.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, into);
        let begun = self.requests.begun.load(Relaxed);
        // What is read while a request is answered is its body.
        if begun != self.requests.answered.load(Relaxed) {
            self.head = None;
            return outcome;
        }
        if self
            .head
            .as_ref()
            .is_some_and(|(number, _)| *number != begun)
        {
            self.head = None;
        }
        if self.head.is_none() && into.filled().len() > before {
            self.head = Some((begun, Box::pin(sleep(self.head_patience))));
        }
        match &mut self.head {
            Some((_, until)) if outcome.is_pending() => {
                if until.as_mut().poll(context).is_ready() {
                    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
                } else {
                    Poll::Pending
                }
            }
            _ => outcome,
        }
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.within(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.within(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.within(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
