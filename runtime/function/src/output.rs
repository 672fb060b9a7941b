//! What a handler gives back: bytes of its own or, to hand its event on without moving a byte, a part of the event.

use std::ops::Range;

/// A handler's output, on its way out of the instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output<'a> {
    /// Bytes of the handler's own; they are written to shared memory once.
    Bytes(&'a [u8]),
    /// This part of the event, in bytes from its start, where it lies. What is beyond the event's end is cut off.
    Event(Range<usize>),
}

/// What a handler may return: whatever is bytes, or a [`Reply`].
pub trait AsOutput {
    /// The output it stands for.
    fn as_output(&self) -> Output<'_>;
}

impl<T: AsRef<[u8]>> AsOutput for T {
    fn as_output(&self) -> Output<'_> {
        Output::Bytes(self.as_ref())
    }
}

/// What a handler returns that hands its event on, always or at times. A filter, say, that lets most of what it sees pass:
///
/// ```no_run
/// use std::convert::Infallible;
/// use sandbar_function::{Context, Reply};
///
/// fn trim(event: &[u8], _context: &Context<'_>) -> Result<Reply, Infallible> {
///     Ok(match event.iter().position(|byte| *byte == 0) {
///         Some(end) => Reply::Part(0..end),
///         None => Reply::Unchanged,
///     })
/// }
///
/// fn main() {
///     sandbar_function::serve(trim)
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Bytes of the handler's own.
    Bytes(Vec<u8>),
    /// The whole event. It goes on in the message it came in, whatever its size.
    Unchanged,
    /// This part of the event, in bytes from its start; likewise.
    Part(Range<usize>),
}

impl AsOutput for Reply {
    fn as_output(&self) -> Output<'_> {
        match self {
            Self::Bytes(bytes) => Output::Bytes(bytes),
            Self::Unchanged => Output::Event(0..usize::MAX),
            Self::Part(part) => Output::Event(part.clone()),
        }
    }
}

impl Output<'_> {
    /// The output's bytes, wherever they lie.
    pub(crate) fn bytes<'b>(&'b self, event: &'b [u8]) -> &'b [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Event(part) => {
                let end = part.end.min(event.len());
                &event[part.start.min(end)..end]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_event_is_cut_off_at_its_end() {
        let event = b"0123456789";
        for (reply, bytes) in [
            (Reply::Unchanged, &b"0123456789"[..]),
            (Reply::Part(2..5), b"234"),
            (Reply::Part(8..100), b"89"),
            (Reply::Part(100..200), b""),
            (Reply::Bytes(b"own".to_vec()), b"own"),
        ] {
            assert_eq!(reply.as_output().bytes(event), bytes, "{reply:?}");
        }
        assert_eq!("text".as_output(), Output::Bytes(b"text"));
    }
}
