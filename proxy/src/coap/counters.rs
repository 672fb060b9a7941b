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

/// Defines the counters once, by field and by name.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Everything the door counts, layer by layer.
        #[derive(Debug, Default)]
        pub struct CoapCounters {
            $($(#[$doc])* pub $name: Counter,)*
        }

        impl CoapCounters {
            /// All counts so far, by name.
            pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name.get()),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Datagrams received.
    datagrams,
    /// Datagrams that cannot be answered: from port 0, or sent to a group or broadcast address.
    unanswerable,
    /// Errors of the socket while receiving.
    receive_errors,
    /// Datagrams that could not be sent, and were dropped as if lost on the way.
    send_errors,
    /// Datagrams that were not well-formed messages.
    malformed,
    /// Empty confirmable messages.
    pings,
    /// Requests received, repeated ones included.
    requests,
    /// Requests received again and not run again.
    repeated,
    /// Requests refused before anything ran, for any reason but overload.
    refused,
    /// Requests refused before anything ran, for want of room.
    overloaded,
    /// Requests refused until their peer has shown that its address is its own.
    challenged,
    /// Peers that have shown it.
    verified,
    /// Calls refused because their peer makes more than its rate.
    rate_limited,
    /// Calls begun.
    calls,
    /// Confirmable requests acknowledged before their answer was there.
    acknowledged_early,
    /// Answers of ours sent again.
    retransmitted,
    /// Answers of ours never acknowledged.
    unacknowledged,
    /// Answers of ours that the peer rejected.
    rejected,
    /// Exchanges forgotten because their time was over.
    exchanges_expired,
    /// Block-wise transfers that were abandoned or gave way to others.
    transfers_expired,
}
