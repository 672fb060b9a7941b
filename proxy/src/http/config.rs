//! Every limit and time of the HTTP door, with its default.

use std::time::Duration;

/// How an HTTP door is set up.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Connections open at one time; one more is answered 503 and closed.
    pub connections_max: usize,
    /// Bytes of a request's line and headers; at least 8,192.
    pub header_bytes_max: usize,
    /// How long a request's line and headers may take, counted from the end of the request before: this ends idle
    /// connections, too.
    pub header_time_max: Duration,
    /// How long a request's body may take, from first to last byte.
    pub body_time_max: Duration,
    /// How long sent bytes may stay unacknowledged: this ends connections of clients that do not read.
    pub unread_time_max: Duration,

    /// Calls running for this door, or being answered, at one time.
    pub calls_in_flight_max: usize,
    /// The same of one client address.
    pub calls_in_flight_per_peer_max: usize,
    /// Request bodies held at one time, in bytes.
    pub body_bytes_in_flight_max: usize,

    /// Text of an error answer, in bytes.
    pub diagnostic_bytes_max: usize,
    /// What a refused client is told to wait before it tries again; whole seconds go out.
    pub retry_after: Duration,
    /// How long running calls may take to end once the door is told to stop.
    pub drain: Duration,
}

impl HttpConfig {
    /// What clients may take of a door, and for how long, by name: times in milliseconds, under names that say so.
    #[must_use]
    pub fn limits(&self) -> Vec<(String, u64)> {
        let time = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let limits = [
            ("connections_max", self.connections_max as u64),
            ("header_bytes_max", self.header_bytes_max as u64),
            ("header_time_max_ms", time(self.header_time_max)),
            ("body_time_max_ms", time(self.body_time_max)),
            ("unread_time_max_ms", time(self.unread_time_max)),
            ("calls_in_flight_max", self.calls_in_flight_max as u64),
            ("calls_in_flight_per_peer_max", self.calls_in_flight_per_peer_max as u64),
            ("body_bytes_in_flight_max", self.body_bytes_in_flight_max as u64),
            ("drain_ms", time(self.drain)),
        ];
        limits.map(|(name, limit)| (name.to_owned(), limit)).into()
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            header_bytes_max: 16 * 1024,
            header_time_max: Duration::from_secs(30),
            body_time_max: Duration::from_secs(30),
            unread_time_max: Duration::from_secs(30),
            calls_in_flight_max: 1024,
            calls_in_flight_per_peer_max: 128,
            body_bytes_in_flight_max: 256 * 1024 * 1024,
            diagnostic_bytes_max: 1024,
            retry_after: Duration::from_secs(1),
            drain: Duration::from_secs(2),
        }
    }
}
