//! What a CoAP door has counted since it was opened.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one.
    pub(super) fn add(&self) {
        // Relaxed: each count stands alone, nothing is read on the strength of it.
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything the door counts, layer by layer.
#[derive(Debug, Default)]
pub struct CoapCounters {
    /// Datagrams received.
    pub datagrams: Counter,
    /// Datagrams that cannot be answered: from port 0, or sent to a group or broadcast address.
    pub unanswerable: Counter,
    /// Errors of the socket while receiving.
    pub receive_errors: Counter,
    /// Datagrams that could not be sent, and were dropped as if lost on the way.
    pub send_errors: Counter,
    /// Datagrams that were not well-formed messages.
    pub malformed: Counter,
    /// Empty confirmable messages.
    pub pings: Counter,
    /// Requests received, repeated ones included.
    pub requests: Counter,
    /// Requests received again and not run again.
    pub repeated: Counter,
    /// Requests refused before anything ran, for any reason but overload.
    pub refused: Counter,
    /// Requests refused before anything ran, for want of room.
    pub overloaded: Counter,
    /// Requests refused until their peer has shown that its address is its own.
    pub challenged: Counter,
    /// Peers that have shown it.
    pub verified: Counter,
    /// Calls begun.
    pub calls: Counter,
    /// Confirmable requests acknowledged before their answer was there.
    pub acknowledged_early: Counter,
    /// Answers of ours sent again.
    pub retransmitted: Counter,
    /// Answers of ours never acknowledged.
    pub unacknowledged: Counter,
    /// Answers of ours that the peer rejected.
    pub rejected: Counter,
    /// Exchanges forgotten because their time was over.
    pub exchanges_expired: Counter,
    /// Block-wise transfers that were abandoned or gave way to others.
    pub transfers_expired: Counter,
}
