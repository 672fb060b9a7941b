//! A call: one invocation of a function from outside its sandbox, and the answer to it.
//!
//! Front doors turn what arrives on their protocol into a [`Request`], hand it to the
//! [host agent](crate::HostAgent) and turn the [`Answer`] back. Nothing here knows a protocol: each
//! door maps [`Outcome`] to its own codes, once.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use sandbar_bus::{AnswerProperties, RequestProperties};
use serde::{Deserialize, Serialize};

/// Identifies one call on this host. Unique for the life of the host agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// Where it comes from. Doors at which callers are not known have to say so: the default is trusted.
    pub origin: Origin,
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
    /// The call was stored and will run; nobody waits for it.
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

impl Answer {
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
