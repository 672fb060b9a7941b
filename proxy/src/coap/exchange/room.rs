//! Whether another exchange fits under the limits, overall and of its peer.

use std::time::{Duration, Instant};

use super::peer::{EXCHANGE_BYTES, PEER_BYTES};
use super::{ANSWER_BYTES_MAX, EXPIRED_AT_ONCE_MAX, Exchanges};
use crate::coap::datagram::Endpoint;
use crate::coap::message::Message;

/// Why there is no room for another exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::coap) enum NoRoom {
    /// Of all peers.
    #[error("too many calls are running")]
    Calls,
    /// Of this peer.
    #[error("too many of your calls are running or unacknowledged")]
    CallsOfPeer,
    /// Of this peer.
    #[error("you make more calls than your rate allows")]
    Rate {
        /// When it may make another.
        wait: Duration,
    },
    /// Of all peers.
    #[error("too many payloads are being worked on")]
    Payloads,
    /// Of all peers.
    #[error("too many requests to remember")]
    Exchanges,
    /// Of this peer.
    #[error("too many of your requests to remember")]
    ExchangesOfPeer,
}

/// What a new request is going to need.
#[derive(Clone, Copy, Debug)]
pub(in crate::coap) enum Need {
    /// An answer to remember, nothing more.
    Answer,
    /// A call with a payload of this many bytes.
    Call { payload_bytes: usize },
}

impl Exchanges {
    /// Whether a new exchange with this message fits.
    pub(in crate::coap) fn vacancy(
        &mut self,
        from: &Endpoint,
        message: &Message,
        need: Need,
        now: Instant,
    ) -> Result<(), NoRoom> {
        let fits = self.fits(from, message, need, now);
        if matches!(fits, Err(NoRoom::Exchanges | NoRoom::ExchangesOfPeer)) {
            self.forget_expired(now, EXPIRED_AT_ONCE_MAX);
            return self.fits(from, message, need, now);
        }
        fits
    }

    fn fits(&self, from: &Endpoint, message: &Message, need: Need, now: Instant) -> Result<(), NoRoom> {
        let config = &self.config;
        let peer = self.peers.number(from).and_then(|number| self.peers.get(number));
        let bytes = EXCHANGE_BYTES + ANSWER_BYTES_MAX + if peer.is_none() { PEER_BYTES } else { 0 };
        // A message id that is used again takes the place it had.
        let place = usize::from(!peer.is_some_and(|peer| peer.exchanges.contains_key(&message.id)));
        if self.count + place > config.exchanges_max
            || self.bytes + bytes > config.exchange_bytes_max
            || (peer.is_none() && self.peers.len() >= config.peers_max)
        {
            return Err(NoRoom::Exchanges);
        }
        let peer_is_full = peer.is_some_and(|peer| {
            peer.exchanges.len() + place > config.exchanges_per_peer_max
                || peer.bytes + bytes > config.exchange_bytes_per_peer_max
        });
        if peer_is_full {
            return Err(NoRoom::ExchangesOfPeer);
        }
        let Need::Call { payload_bytes } = need else {
            return Ok(());
        };
        if let Some(wait) = peer.and_then(|peer| peer.paid_at).and_then(|paid_at| self.wait_for_rate(paid_at, now)) {
            return Err(NoRoom::Rate { wait });
        }
        let open = peer.map_or(0, |peer| peer.calls + peer.confirmations.len());
        if open >= config.calls_in_flight_per_peer_max {
            return Err(NoRoom::CallsOfPeer);
        }
        if self.calls >= config.calls_in_flight_max {
            return Err(NoRoom::Calls);
        }
        if payload_bytes > 0 && self.payload_bytes + payload_bytes > config.payload_bytes_in_flight_max {
            return Err(NoRoom::Payloads);
        }
        Ok(())
    }

    /// How long a peer has to wait before its next call, if it has to.
    fn wait_for_rate(&self, paid_at: Instant, now: Instant) -> Option<Duration> {
        let allowed_ahead = self.call_interval()? * self.config.rate_burst;
        let ahead = paid_at.saturating_duration_since(now);
        ahead.checked_sub(allowed_ahead).filter(|wait| !wait.is_zero())
    }

    /// Counts a call to its peer's rate: a token bucket, kept as the time at which it will be full again.
    pub(super) fn charge(&mut self, number: u32, now: Instant) {
        let Some(interval) = self.call_interval() else { return };
        if let Some(peer) = self.peers.get_mut(number) {
            peer.paid_at = Some(peer.paid_at.map_or(now, |paid_at| paid_at.max(now)) + interval);
        }
    }

    /// The time between two calls of a peer that keeps to its rate.
    fn call_interval(&self) -> Option<Duration> {
        Duration::from_secs(1).checked_div(self.config.rate_per_peer)
    }
}
