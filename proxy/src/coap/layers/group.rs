//! What becomes of a request for discovery that came by a group.

use std::time::Instant;

use super::Layers;
use crate::coap::blockwise::Key;
use crate::coap::datagram::Endpoint;
use crate::coap::exchange::{Need, NoRoom, Recall};
use crate::coap::message::Message;
use crate::coap::option::{self, RequestOptions};
use crate::coap::response::Response;

impl Layers {
    /// Whether it is to be answered; then a place is kept for its answer, and [`Self::group_answered`] has to follow. Who is not answered
    /// is not told: neither that its address is to be shown, nor that there is no room.
    pub(in crate::coap) fn group_request(&mut self, from: &Endpoint, message: &Message, now: Instant) -> bool {
        if !matches!(self.exchanges.recall(from, message), Recall::New) {
            self.counters.repeated.add();
            return false;
        }
        if !self.trusts(from, message, now) {
            self.counters.group_ignored.add();
            return false;
        }
        let vacancy = self.exchanges.vacancy(from, message, Need::Call { payload_bytes: 0 }, now);
        if matches!(vacancy, Err(NoRoom::Rate { .. })) {
            self.counters.rate_limited.add();
        }
        let address = from.remote.ip();
        let fits = vacancy.is_ok() && self.groups.has_room(address);
        if fits {
            self.groups.reserve(address);
        } else {
            self.counters.group_dropped.add();
        }
        fits
    }

    /// What there is to tell is there; it goes out when its time comes. Nothing does if no link passed the filter.
    pub(in crate::coap) fn group_answered(
        &mut self,
        from: &Endpoint,
        message: &Message,
        options: &RequestOptions,
        response: Response,
        now: Instant,
    ) {
        let tells = |response: &Response| response.class() == 2 && !response.payload.is_empty();
        let wanted = Some(response).filter(tells).filter(|response| !options.unwanted.covers(response));
        let key = Key { peer: *from, request: option::cache_key(message.method, &message.packet) };
        let cut = wanted.map(|response| self.downloads.begin(&key, response, options.block2, now)).filter(tells);
        if cut.is_none() {
            self.counters.group_unmatched.add();
        }
        let answer = self.exchanges.answer_at_once(from, message, cut.as_ref(), now);
        self.exchanges.charge_peer(from, now);
        self.groups.keep(from.remote.ip(), answer, now);
    }
}

#[cfg(test)]
#[path = "group/tests.rs"]
mod tests;
