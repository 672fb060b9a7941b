//! A call: one invocation of a function from outside its sandbox, and the answer to it.
//!
//! Front doors turn what arrives on their protocol into a [`Request`], hand it to the
//! [host agent](crate::HostAgent) and turn the [`Answer`] back. Nothing here knows a protocol: each
//! door maps [`Outcome`] to its own codes, once.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use sandbar_bus::{AnswerProperties, RequestProperties};
use serde::{Deserialize, Serialize};

/// Identifies one call on this host. Unique for the life of the host agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallId(pub u64);

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a caller asks for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The application's name, as it came from outside: it need not exist.
    pub application: String,
    /// The function's name; `None` calls the application's entry function.
    pub function: Option<String>,
    /// The payload, any bytes.
    pub payload: Bytes,
    /// The payload's format, a number of the CoAP Content-Formats registry (RFC 7252, 12.3).
    pub content_format: Option<u16>,
    /// What else is said of the request, for the functions to know.
    pub properties: RequestProperties,
    /// How long the caller will wait; the chain's own time-out applies where it is shorter.
    pub timeout: Option<Duration>,
    /// Whether the answer is to list the hops of the call.
    pub trace: bool,
    /// Whether the caller waits for the answer.
    pub mode: Mode,
    /// Where it comes from. Doors at which callers are not known have to say so: the default is trusted.
    pub origin: Origin,
}

/// Whether the caller waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// For the answer.
    #[default]
    Synchronous,
    /// Until the call is stored. It is made then, and its answer kept for whoever has its [`Ticket`].
    Asynchronous,
}

/// The segment of a path between an application's name and a [`Ticket`]. No function can have this name.
pub const ACCEPTED_CALLS: &str = ".calls";

/// What the caller of an asynchronous call is given to ask after it with. Whoever has it knows the call: it cannot be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The call's id.
    pub call: CallId,
    /// A number by chance.
    pub secret: u64,
}

impl Ticket {
    /// Where the call is to be found, on every protocol: `/APPLICATION/.calls/TICKET`.
    #[must_use]
    pub fn location(&self, application: &str) -> String {
        format!("/{application}/{ACCEPTED_CALLS}/{self}")
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:016x}", self.call, self.secret)
    }
}

/// A text is no [`Ticket`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a call's ticket: that is 32 hexadecimal digits")]
pub struct TicketError;

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        // `from_str_radix` would take a sign.
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase()) {
            return Err(TicketError);
        }
        let half = |digits: &str| u64::from_str_radix(digits, 16).map_err(|_| TicketError);
        Ok(Self { call: CallId(half(&text[..16])?), secret: half(&text[16..])? })
    }
}

/// Where a call from outside its sandbox comes from, as far as it decides whether it may be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// The host itself, or a caller that its door knows and has judged: coaps.
    #[default]
    Known,
    /// Anybody at this address, over plain CoAP.
    Coap(IpAddr),
    /// Anybody at this address, over HTTP.
    Http(IpAddr),
}

/// A call that the host bus has admitted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) id: CallId,
    /// Index of the function.
    pub(crate) function: usize,
    /// How many calls from one application into another led to this one, itself among them.
    pub(crate) depth: u32,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The function answered.
    Done,
    /// The call is stored and has not ended; nobody waits for it.
    Accepted,
    /// The request makes no sense.
    BadRequest,
    /// The caller may not make this call.
    NotAllowed,
    /// There is no such application or function.
    NotFound,
    /// The payload is larger than the host or the application takes.
    TooLarge,
    /// The function raised an error, crashed, or was killed for memory.
    Failed,
    /// No room now; the same call may succeed later.
    Overloaded,
    /// The call was not answered by its deadline.
    DeadlinePassed,
}

impl Outcome {
    /// The outcome in words, as it is printed to people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Accepted => "accepted",
            Self::BadRequest => "bad request",
            Self::NotAllowed => "not allowed",
            Self::NotFound => "not found",
            Self::TooLarge => "payload too large",
            Self::Failed => "failed",
            Self::Overloaded => "overloaded",
            Self::DeadlinePassed => "deadline passed",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// What a caller gets. Exactly one per call, by the call's deadline.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The call's id; `None` when the request was refused before it became a call.
    pub call: Option<CallId>,
    /// How the call ended.
    pub outcome: Outcome,
    /// The function's output; empty unless the outcome is [`Outcome::Done`].
    pub payload: Bytes,
    /// The output's format (CoAP Content-Formats registry), if the function said one.
    pub content_format: Option<u16>,
    /// What else the function said of its output.
    pub properties: AnswerProperties,
    /// Why the outcome is not [`Outcome::Done`], in a short line fit for the caller.
    pub diagnostic: String,
    /// With [`Outcome::Overloaded`]: when to try again.
    pub retry_after: Option<Duration>,
    /// With [`Outcome::TooLarge`]: the largest payload that is taken, in bytes.
    pub payload_bytes_max: Option<usize>,
    /// The instances the call passed through, in order of hand-over, if the request asked for them.
    pub hops: Vec<Hop>,
}

/// What is to be seen of an accepted call that has not ended: the outcome as an object in JSON, for those who cannot tell by a code.
const NOT_ENDED: &[u8] = br#"{"outcome":"accepted"}"#;
/// The number of JSON in the CoAP Content-Formats registry.
const JSON: u16 = 50;
/// When it is worth while to ask again for the answer to a call that has not ended.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl Answer {
    /// What whoever asks after an accepted call is told until it has ended.
    #[must_use]
    pub fn not_ended() -> Self {
        Self {
            payload: Bytes::from_static(NOT_ENDED),
            content_format: Some(JSON),
            retry_after: Some(ASK_AGAIN),
            ..Self::refused(Outcome::Accepted, "")
        }
    }

    /// An answer that carries no output, only why there is none.
    #[must_use]
    pub fn refused(outcome: Outcome, diagnostic: impl Into<String>) -> Self {
        Self {
            call: None,
            outcome,
            payload: Bytes::new(),
            content_format: None,
            properties: AnswerProperties::default(),
            diagnostic: diagnostic.into(),
            retry_after: (outcome == Outcome::Overloaded).then_some(Duration::from_secs(1)),
            payload_bytes_max: None,
            hops: Vec::new(),
        }
    }
}

/// One function's part in a traced call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// The function that ran.
    pub function: String,
    /// The instance's process id on the host, as the kernel vouched for it.
    pub pid: u32,
    /// Nanoseconds from the call's start to the moment the message was handed to this function.
    pub sent_ns: u64,
    /// Nanoseconds from the call's start to the moment this instance had the message in hand.
    pub taken_ns: u64,
    /// Nanoseconds from the call's start to the moment this instance handed its output over.
    pub done_ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_read_as_it_is_written_and_nothing_else_is_one() {
        let ticket = Ticket { call: CallId(0xfeed), secret: u64::MAX };
        assert_eq!(ticket.to_string(), "000000000000feedffffffffffffffff");
        assert_eq!(ticket.to_string().parse(), Ok(ticket));
        assert_eq!(ticket.location("porch"), "/porch/.calls/000000000000feedffffffffffffffff");
        let others = [
            "",
            "feed",
            "000000000000FEEDffffffffffffffff",
            "+00000000000feed+fffffffffffffff",
            "ä00000000000feedfffffffffffffff",
        ];
        for text in others {
            assert_eq!(text.parse::<Ticket>(), Err(TicketError), "{text}");
        }
    }
}
