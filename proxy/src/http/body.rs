//! Bodies: of requests, read under limits; of answers, keeping their call's place until they have been sent.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::admission::{NoRoom, Place};

/// Why a request's body was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// More bytes than a payload may have; the number is the limit.
    #[error("a payload may have {0} bytes")]
    TooLarge(usize),
    /// It took too long.
    #[error("the body did not arrive in time")]
    TooSlow,
    /// No room for it now.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// It ended early, or was no HTTP.
    #[error("the body could not be read")]
    Broken(#[from] hyper::Error),
}

/// Reads a body of at most `bytes_max` bytes in at most `time_max`.
pub(super) async fn read(
    body: Incoming,
    place: &mut Place,
    bytes_max: usize,
    time_max: Duration,
) -> Result<Bytes, BodyError> {
    let announced = body.size_hint().lower();
    if announced > bytes_max as u64 {
        return Err(BodyError::TooLarge(bytes_max));
    }
    tokio::time::timeout(time_max, collect(body, place, bytes_max)).await.unwrap_or(Err(BodyError::TooSlow))
}

async fn collect(mut body: Incoming, place: &mut Place, bytes_max: usize) -> Result<Bytes, BodyError> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // Trailers are of no use to a function.
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if first.len() + all.len() + data.len() > bytes_max {
            return Err(BodyError::TooLarge(bytes_max));
        }
        place.reserve(data.len())?;
        // A body that came in one piece is passed on as it is.
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        if !first.is_empty() {
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&data);
    }
    Ok(if first.is_empty() { all.freeze() } else { first })
}

/// An answer's body, in one piece. The call's place is given back when it has been handed to the connection.
#[derive(Debug)]
pub(super) struct AnswerBody {
    bytes: Bytes,
    /// Held, not looked at.
    _place: Option<Place>,
}

impl AnswerBody {
    pub(super) fn new(bytes: Bytes, place: Option<Place>) -> Self {
        Self { bytes, _place: place }
    }

    /// What has not been handed on.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = std::mem::take(&mut self.bytes);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}
