//! Request bodies, within limits: small ones collected, uploads pumped to a blocking reader, refused ones drained.
//!
//! A client that still sends when it is refused would get a reset instead of the answer if we closed. So the answer goes
//! out while the rest is taken in and thrown away, for at most [`DRAIN_MS_MAX`].

use std::io::{self, Read};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::Problem;
use super::encoding::too_long;

/// How long the body of a refused request is still taken in: over loopback some gigabytes, over a slow line enough to notice.
pub(super) const DRAIN_MS_MAX: u64 = 5_000;
/// Pieces of an upload in flight between the socket and the disk; hyper's are at most some 400 KiB.
const PIECES: usize = 4;
/// An upload must bring this much per stall timeout, or it only pretends to move.
const PROGRESS_BYTES_MIN: usize = 4 << 10;

/// Takes in and throws away what a refused client still sends, in the background.
pub(super) fn drain(mut body: Incoming) {
    if body.is_end_stream() {
        return;
    }
    tokio::spawn(async move {
        let all = async { while let Some(Ok(_)) = body.frame().await {} };
        let _ = timeout(Duration::from_millis(DRAIN_MS_MAX), all).await;
    });
}

/// What an upload must bring on average once its first stall timeout is over: with `limits.upload_bytes` it bounds how
/// long one can be under way, and a slot costs who means ill real traffic. Any line that carries uploads has more.
const BYTES_PER_SECOND_MIN: u64 = 64 << 10;

/// A small body as a whole.
pub(super) async fn collect(
    body: &mut Incoming,
    bytes_max: usize,
    limit: &str,
    within: Duration,
) -> Result<Vec<u8>, Problem> {
    let all = async {
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| cut())?;
            let data = frame.into_data().unwrap_or_default();
            if bytes.len().saturating_add(data.len()) > bytes_max {
                return Err(too_long(bytes_max as u64, limit));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes)
    };
    timeout(within, all)
        .await
        .unwrap_or_else(|_| Err(stalled()))
}

/// A piece of an upload on its way to the blocking reader.
enum Piece {
    Data(Bytes),
    End,
    Stalled,
}

/// How an upload's body ended before its end.
#[derive(Debug, Clone, Copy)]
enum Broken {
    Cut,
    Stalled,
}

/// Both ends of a pump.
pub(super) fn pipe() -> (Pump, BodyReader) {
    let (pieces, receiver) = mpsc::channel(PIECES);
    let reader = BodyReader {
        pieces: receiver,
        rest: Bytes::new(),
        ended: false,
        broken: Arc::default(),
    };
    (Pump { pieces }, reader)
}

/// The socket's end.
pub(super) struct Pump {
    pieces: mpsc::Sender<Piece>,
}

impl Pump {
    /// Moves the body until it ends, breaks or the reader has gone. Only waiting for the client counts as a stall: our
    /// own disk may take its time. Dropped half-way, the reader sees a cut body.
    pub(super) async fn run(self, body: &mut Incoming, stall: Duration) {
        let mut left = stall;
        let mut progress = 0usize;
        let (mut waited, mut bytes) = (Duration::ZERO, 0u64);
        loop {
            let over = waited.saturating_sub(stall).as_millis();
            if over * u128::from(BYTES_PER_SECOND_MIN) > u128::from(bytes) * 1000 {
                let _ = self.pieces.send(Piece::Stalled).await;
                return;
            }
            let waiting = Instant::now();
            let frame = match timeout(left, body.frame()).await {
                Err(_) => {
                    let _ = self.pieces.send(Piece::Stalled).await;
                    return;
                }
                Ok(None) => {
                    let _ = self.pieces.send(Piece::End).await;
                    return;
                }
                Ok(Some(Err(_))) => return,
                Ok(Some(Ok(frame))) => frame,
            };
            waited += waiting.elapsed();
            left = left.saturating_sub(waiting.elapsed());
            // Trailers say nothing to us.
            let Ok(data) = frame.into_data() else {
                continue;
            };
            progress = progress.saturating_add(data.len());
            bytes = bytes.saturating_add(data.len() as u64);
            if progress >= PROGRESS_BYTES_MIN {
                progress = 0;
                left = stall;
            }
            if self.pieces.send(Piece::Data(data)).await.is_err() {
                return;
            }
        }
    }
}

/// The blocking end.
pub(super) struct BodyReader {
    pieces: mpsc::Receiver<Piece>,
    rest: Bytes,
    ended: bool,
    broken: Arc<OnceLock<Broken>>,
}

impl BodyReader {
    /// What went wrong with the body, where something did; decoders may hide it in errors of their own.
    pub(super) fn problem(&self) -> Option<Problem> {
        self.broken.get().map(|broken| match broken {
            Broken::Cut => cut(),
            Broken::Stalled => stalled(),
        })
    }

    fn fail(&mut self, broken: Broken) -> io::Error {
        let _ = self.broken.set(broken);
        io::ErrorKind::ConnectionAborted.into()
    }
}

impl Read for BodyReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            if self.ended {
                return Ok(0);
            }
            match self.pieces.blocking_recv() {
                Some(Piece::Data(data)) => self.rest = data,
                Some(Piece::End) => self.ended = true,
                Some(Piece::Stalled) => return Err(self.fail(Broken::Stalled)),
                None => return Err(self.fail(Broken::Cut)),
            }
        }
        let length = self.rest.len().min(out.len());
        self.rest
            .copy_to_slice(out.get_mut(..length).unwrap_or_default());
        Ok(length)
    }
}

fn cut() -> Problem {
    Problem::new(
        400,
        "body_cut",
        "the body ended before its announced length; nothing was stored, send it again",
    )
}

fn stalled() -> Problem {
    Problem::new(
        408,
        "body_stalled",
        "the body came too slowly (limits.upload_stall_timeout_ms, limits.body_timeout_ms; an upload brings 64 KiB a second on average); nothing was stored, send it again",
    )
}
