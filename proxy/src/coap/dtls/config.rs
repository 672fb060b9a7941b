//! Every limit and time of the DTLS layer, with its default.

use std::time::Duration;

/// What the DTLS layer may take.
#[derive(Clone, Debug)]
pub struct DtlsConfig {
    /// Handshakes under way, of all addresses. Nothing is kept of a client before its address is verified.
    pub handshakes_max: usize,
    /// Handshakes under way with one IP address, whatever its ports.
    pub handshakes_per_address_max: usize,
    /// How long a handshake may take.
    pub handshake_time_max: Duration,
    /// A handshake that is older than this gives way to a new one when there is no room otherwise. Those of an address that
    /// has more than others give way at once.
    pub handshake_yields_after: Duration,
    /// When a flight of ours that was not answered is sent again; twice as late each time.
    pub retransmit_after: Duration,
    /// Sessions of all identities. One takes 8 KiB, which the test `coaps_memory` measures.
    pub sessions_max: usize,
    /// Sessions of one identity; with more, its least recently used one is closed.
    pub sessions_per_identity_max: usize,
    /// A session in which nothing came for this long is closed.
    pub session_idle_max: Duration,
    /// A session is closed after this long, however much it is used: its client makes a new handshake, and with it new keys.
    pub session_life_max: Duration,
    /// A session in which nothing came for this long gives way to a new one when there is no room otherwise.
    pub session_yields_after: Duration,
}

impl Default for DtlsConfig {
    fn default() -> Self {
        Self {
            handshakes_max: 512,
            handshakes_per_address_max: 32,
            handshake_time_max: Duration::from_secs(15),
            handshake_yields_after: Duration::from_secs(3),
            retransmit_after: Duration::from_secs(1),
            sessions_max: 4096,
            sessions_per_identity_max: 64,
            session_idle_max: Duration::from_secs(3600),
            session_life_max: Duration::from_secs(24 * 3600),
            session_yields_after: Duration::from_secs(60),
        }
    }
}
