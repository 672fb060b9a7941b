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

    /// Counts several.
    pub(super) fn add_many(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A struct of counters, with a list of them by name.
macro_rules! counters {
    ($(#[$about:meta])* pub struct $name:ident { $($(#[$doc:meta])* pub $counter:ident: Counter,)* }) => {
        $(#[$about])*
        #[derive(Debug, Default)]
        pub struct $name { $($(#[$doc])* pub $counter: Counter,)* }

        impl $name {
            /// Every counter's name and its count so far.
            #[must_use]
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($counter), self.$counter.get()),)*]
            }
        }
    };
}

counters! {
/// Everything the door counts, layer by layer.
pub struct CoapCounters {
    /// Datagrams received.
    pub datagrams: Counter,
    /// Datagrams that cannot be answered: from port 0, or sent to a broadcast address or a group that is not listened to.
    pub unanswerable: Counter,
    /// Errors of the socket while receiving.
    pub receive_errors: Counter,
    /// Datagrams that could not be sent, and were dropped as if lost on the way.
    pub send_errors: Counter,
    /// Datagrams from networks that the door does not answer.
    pub outside: Counter,
    /// Clients that were asked to verify their address before a handshake.
    pub cookies_sent: Counter,
    /// Handshakes begun, with clients whose address was verified.
    pub handshakes_begun: Counter,
    /// Handshakes after which there was a session.
    pub handshakes_done: Counter,
    /// Handshakes that ended otherwise: another key, an unknown identity, given up, too slow, in the way of others.
    pub handshakes_failed: Counter,
    /// Handshakes not begun, or their session not opened: for want of room, or because the client offers nothing we have.
    pub handshakes_refused: Counter,
    /// Sessions that ended, in whatever way. `handshakes_done` less this is how many there are.
    pub sessions_ended: Counter,
    /// Sessions among them that were closed because nothing came.
    pub sessions_expired: Counter,
    /// Sessions among them that were closed because they had lasted as long as one may.
    pub sessions_outlived: Counter,
    /// Datagrams of a secure door that were dropped: no records, of no session, forged, repeated or damaged.
    pub records_dropped: Counter,
    /// Answers that were dropped because their session had ended.
    pub sessions_gone: Counter,
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
    /// Requests among them of callers that may not make them.
    pub forbidden: Counter,
    /// Requests refused before anything ran, for want of room.
    pub overloaded: Counter,
    /// Requests refused until their peer has shown that its address is its own.
    pub challenged: Counter,
    /// Peers that have shown it.
    pub verified: Counter,
    /// Calls refused because their peer makes more than its rate.
    pub rate_limited: Counter,
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
    /// Datagrams that came by a group.
    pub group_requests: Counter,
    /// Those among them that nobody is to answer: confirmable ones, all that are not discovery, and such as come from addresses that have
    /// to be shown.
    pub group_ignored: Counter,
    /// Those among them that were dropped for want of room, or because their peer makes more than its rate.
    pub group_dropped: Counter,
    /// Those among them for which there was nothing to tell.
    pub group_unmatched: Counter,
    /// Answers to what came by a group.
    pub group_answers: Counter,
    /// Observations begun. Less those ended, in the six ways below, this is how many there are.
    pub observers_registered: Counter,
    /// Observations asked for again, with the same token.
    pub observers_renewed: Counter,
    /// Observations not begun for want of room: the request was answered without.
    pub observers_refused: Counter,
    /// Observations ended because their peer asked for that, or used their token for something else.
    pub observers_cancelled: Counter,
    /// Observations ended because their peer rejected a notification.
    pub observers_rejected: Counter,
    /// Observations ended because their peer did not acknowledge a notification.
    pub observers_unreachable: Counter,
    /// Observations ended with their session.
    pub observers_gone: Counter,
    /// Observations of accepted calls ended with the call, by its answer.
    pub observers_answered: Counter,
    /// Observations ended with an error: no such function any more, not allowed any more, another format, or the door closes.
    pub observers_ended: Counter,
    /// Notifications sent; those that were sent again in a newer state included.
    pub notifications: Counter,
    /// Notifications among them that have to be acknowledged.
    pub notifications_confirmable: Counter,
    /// Outputs that an observer was not sent, as newer ones came before it could be.
    pub notifications_superseded: Counter,
    /// Outputs that were told to no observer, for want of room.
    pub outputs_too_large: Counter,
}
}
