//! Answers apart from their acknowledgement: the call was slow, its request has been acknowledged, and the answer is a
//! confirmable message of our own, sent again until the peer has it (RFC 7252, sections 4.2 and 5.2.2).

use std::sync::Arc;
use std::time::Instant;

use coap_lite::MessageType;

use super::Exchanges;
use super::peer::{Confirmation, ExchangeId, State};
use super::timing::Resend;
use crate::coap::datagram::{Endpoint, Transmit};
use crate::coap::message::empty;

impl Exchanges {
    /// The peer has our message, or wants no more of it: it is not sent again.
    pub(in crate::coap) fn confirmed(&mut self, from: &Endpoint, message_id: u16) -> bool {
        let Some(number) = self.peers.number(from) else {
            return false;
        };
        let found = self.take_confirmation(number, message_id).is_some();
        if found {
            self.release(number);
        }
        found
    }

    /// Acknowledges a request whose call still runs.
    pub(super) fn acknowledge(&mut self, id: ExchangeId) -> Option<Transmit> {
        let peer = self.peers.get_mut(id.peer)?;
        let exchange = peer.exchanges.get_mut(&id.message_id)?;
        let State::Running(running) = exchange.state else {
            return None;
        };
        if exchange.serial != id.serial {
            return None;
        }
        exchange.state = State::Acknowledged(running);
        self.counters.acknowledged_early.add();
        Some(Transmit { to: peer.endpoint, bytes: empty(MessageType::Acknowledgement, id.message_id).into() })
    }

    /// Sends an answer again that has not been acknowledged, or gives it up.
    pub(super) fn retransmit(&mut self, resend: Resend, now: Instant) -> Option<Transmit> {
        let peer = self.peers.get_mut(resend.peer)?;
        let confirmation =
            peer.confirmations.iter_mut().find(|confirmation| confirmation.message_id == resend.message_id)?;
        if confirmation.due != resend.due {
            return None;
        }
        if confirmation.retransmissions >= self.config.retransmissions_max {
            self.counters.unacknowledged.add();
            self.take_confirmation(resend.peer, resend.message_id);
            self.release(resend.peer);
            return None;
        }
        confirmation.retransmissions += 1;
        confirmation.wait *= 2;
        confirmation.due = now + confirmation.wait;
        self.counters.retransmitted.add();
        self.timing.resend(Resend { due: confirmation.due, ..resend });
        Some(Transmit { to: peer.endpoint, bytes: Arc::clone(&confirmation.datagram) })
    }

    /// Notes an answer that has been sent.
    pub(super) fn expect_acknowledgement(&mut self, number: u32, message_id: u16, datagram: &Arc<[u8]>, now: Instant) {
        let wait = self.first_wait();
        let Some(peer) = self.peers.get_mut(number) else {
            return;
        };
        let due = now + wait;
        let datagram = Arc::clone(datagram);
        peer.bytes += datagram.len();
        self.bytes += datagram.len();
        self.confirmations += 1;
        peer.confirmations.push(Confirmation { message_id, datagram, retransmissions: 0, wait, due });
        self.timing.resend(Resend { due, peer: number, message_id });
    }

    fn take_confirmation(&mut self, number: u32, message_id: u16) -> Option<Confirmation> {
        let peer = self.peers.get_mut(number)?;
        let at = peer.confirmations.iter().position(|confirmation| confirmation.message_id == message_id)?;
        let confirmation = peer.confirmations.swap_remove(at);
        peer.bytes -= confirmation.datagram.len();
        self.bytes -= confirmation.datagram.len();
        self.confirmations -= 1;
        Some(confirmation)
    }
}
