//! What an instance tells the agent of its part in a traced call: one record, sent before its output is handed over.
//!
//! The kernel adds the sender's process id as the host knows it (`SCM_CREDENTIALS`), so an instance need not know, and cannot
//! forge, its own.

/// A report of one hop. All times in nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HopReport {
    /// The call.
    pub call: u64,
    /// Index of the function.
    pub function: u64,
    /// When the message was handed to the function's queue.
    pub sent_ns: u64,
    /// When the instance had it in hand.
    pub taken_ns: u64,
    /// When the instance's output was ready to be handed over.
    pub done_ns: u64,
}

/// Length of a report on the wire, in bytes.
pub const HOP_REPORT_BYTES: usize = 40;

impl HopReport {
    /// The report as it is sent.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HOP_REPORT_BYTES] {
        let words = [self.call, self.function, self.sent_ns, self.taken_ns, self.done_ns];
        let mut bytes = [0; HOP_REPORT_BYTES];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// `None` for a record of another length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HOP_REPORT_BYTES] = bytes.try_into().ok()?;
        let mut words = [0; HOP_REPORT_BYTES / 8];
        for (word, from) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_ne_bytes(from.try_into().ok()?);
        }
        let [call, function, sent_ns, taken_ns, done_ns] = words;
        Some(Self { call, function, sent_ns, taken_ns, done_ns })
    }
}
