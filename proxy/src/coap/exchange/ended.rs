//! A peer that will not speak again: its session has ended.

use super::Exchanges;
use super::peer::EXCHANGE_BYTES;
use crate::coap::datagram::Endpoint;

impl Exchanges {
    /// Forgets all of a peer but its running calls, which are forgotten in their time.
    pub(in crate::coap) fn forget(&mut self, ended: &Endpoint) {
        let Some(number) = self.peers.number(ended) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(number) else {
            return;
        };
        let before = (peer.bytes, peer.exchanges.len());
        for confirmation in peer.confirmations.drain(..) {
            peer.bytes -= confirmation.datagram.len();
            self.confirmations -= 1;
        }
        let bytes = &mut peer.bytes;
        peer.exchanges.retain(|_, exchange| {
            let runs = exchange.state.running().is_some();
            if !runs {
                *bytes -= EXCHANGE_BYTES + exchange.state.bytes();
            }
            runs
        });
        self.bytes -= before.0 - peer.bytes;
        self.count -= before.1 - peer.exchanges.len();
        self.release(number);
    }
}
