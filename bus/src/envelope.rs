//! What a message says of itself, and how the serving of a request ends.

/// Where the result of a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// To the agent, for the caller outside who waits for it.
    Caller,
    /// To the agent, for the application's log: nobody waits.
    Log,
    /// To an instance that waits for it: its slot, and which of the slot's instances.
    Instance {
        /// The slot.
        slot: usize,
        /// Which of the slot's instances.
        generation: u32,
    },
}

impl Address {
    pub(crate) fn pack(self) -> u64 {
        match self {
            Self::Log => 0,
            Self::Caller => 1 << 60,
            Self::Instance { slot, generation } => 2 << 60 | (slot as u64 & 0xFFFF) << 32 | u64::from(generation),
        }
    }

    pub(crate) fn unpack(word: u64) -> Self {
        match word >> 60 {
            1 => Self::Caller,
            2 => Self::Instance { slot: (word >> 32 & 0xFFFF) as usize, generation: (word & 0xFFFF_FFFF) as u32 },
            _ => Self::Log,
        }
    }
}

/// How the serving of a request ended, as it travels on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// The function answered; the payload is its output.
    Done = 1,
    /// The function raised an error; the payload says which. So for all below.
    Failed = 2,
    /// The instance died: a signal, or an exit without an answer.
    Crashed = 3,
    /// The deadline passed.
    DeadlinePassed = 4,
    /// A queue or the message buffers were full.
    Overloaded = 5,
    /// The output is larger than the application's payload limit.
    TooLarge = 6,
    /// The call went through more functions than allowed.
    Loop = 7,
    /// Another application was called that is not there, or has no such function.
    NotFound = 8,
    /// Another application was called that does not name this one among its callers.
    NotAllowed = 9,
    /// The instance, or the program it ran, was killed for want of memory.
    OutOfMemory = 10,
}

impl Verdict {
    /// `None` for 0, a request, and for codes that do not exist.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            1 => Self::Done,
            2 => Self::Failed,
            3 => Self::Crashed,
            4 => Self::DeadlinePassed,
            5 => Self::Overloaded,
            6 => Self::TooLarge,
            7 => Self::Loop,
            8 => Self::NotFound,
            9 => Self::NotAllowed,
            10 => Self::OutOfMemory,
            _ => return None,
        })
    }
}

/// What a message says of itself, besides its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The call it belongs to.
    pub call: u64,
    /// When the call must be over, in nanoseconds of `CLOCK_MONOTONIC`.
    pub deadline_ns: u64,
    /// When the message was sent, likewise.
    pub sent_ns: u64,
    /// Where the result goes.
    pub reply_to: Address,
    /// CoAP Content-Format of the payload.
    pub content_format: Option<u16>,
    /// `None` for a request.
    pub verdict: Option<Verdict>,
    /// The function that the message is for or, if it is an answer, that gave it. In a request that goes out: the index of
    /// the function of another application in the catalogue's list of them.
    pub function: usize,
    /// Whether each hop of the call is to be reported.
    pub traced: bool,
    /// Functions the call has passed through.
    pub hops: u32,
}
