//! Peers that are remembered for more than their exchanges: those that observe. What is sent to them shares the message ids of separate
//! answers, which is why they are known here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coap_lite::MessageType;

use super::Exchanges;
use super::peer::PEER_BYTES;
use crate::coap::datagram::{Endpoint, Transmit};
use crate::coap::message::Token;
use crate::coap::response::Response;

impl Exchanges {
    /// A peer's number, as long as anything is remembered of it.
    pub(in crate::coap) fn number(&self, endpoint: &Endpoint) -> Option<u32> {
        self.peers.number(endpoint)
    }

    /// The peer of that number.
    pub(in crate::coap) fn endpoint(&self, number: u32) -> Option<Endpoint> {
        self.peers.get(number).map(|peer| peer.endpoint)
    }

    /// Remembers a peer until it is unpinned. [`Self::vacancy`] has to have said that it fits.
    pub(in crate::coap) fn pin(&mut self, endpoint: &Endpoint) -> u32 {
        let number = self.number_of(endpoint);
        if let Some(peer) = self.peers.get_mut(number) {
            peer.pinned = true;
        }
        number
    }

    /// Forgets a peer, if nothing else is to be remembered of it.
    pub(in crate::coap) fn unpin(&mut self, number: u32) {
        if let Some(peer) = self.peers.get_mut(number) {
            peer.pinned = false;
        }
        self.release(number);
    }

    /// An id for a message of ours.
    pub(in crate::coap) fn draw_message_id(&mut self, number: u32) -> Option<u16> {
        self.peers.get_mut(number).map(super::peer::Peer::draw_message_id)
    }

    /// How long the first wait for an acknowledgement is: drawn at random (RFC 7252, section 4.2).
    pub(in crate::coap) fn first_wait(&mut self) -> Duration {
        let spread = self.config.acknowledgement_random_factor - 1.0;
        self.config.acknowledgement_timeout.mul_f64(1.0 + spread.max(0.0) * self.random.fraction())
    }

    /// Something that a peer is to know though it asked long ago: sent until it is acknowledged, or once if too much waits for that.
    pub(in crate::coap) fn say(
        &mut self,
        number: u32,
        response: &Response,
        token: &Token,
        now: Instant,
    ) -> Option<Transmit> {
        let few = self.confirmations < self.config.confirmations_max;
        let peer = self.peers.get_mut(number)?;
        let confirmable = few && peer.confirmations.len() < self.config.calls_in_flight_per_peer_max;
        let (to, id) = (peer.endpoint, peer.draw_message_id());
        let kind = if confirmable { MessageType::Confirmable } else { MessageType::NonConfirmable };
        let bytes: Arc<[u8]> = response.encode(kind, id, token);
        if confirmable {
            self.expect_acknowledgement(number, id, &bytes, now);
        }
        Some(Transmit { to, bytes })
    }

    /// A peer's number; it is remembered from now on.
    pub(super) fn number_of(&mut self, endpoint: &Endpoint) -> u32 {
        self.peers.number(endpoint).unwrap_or_else(|| {
            self.bytes += PEER_BYTES;
            self.peers.insert(*endpoint, self.random.message_id())
        })
    }
}
