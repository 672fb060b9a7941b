//! Observing, as the layers do it: a request to observe is answered at once, and nothing runs for it.

use std::time::Instant;

use sandbar_runtime::outputs::Watched;

use super::{Arrival, Layers, Reaction};
use crate::coap::blockwise::Key;
use crate::coap::call::{Asked, Inquiry};
use crate::coap::datagram::{Endpoint, Transmit};
use crate::coap::exchange::Need;
use crate::coap::observe::{Below, Registration, Representation};
use crate::coap::response::Response;
use crate::coap::visitor::Visitor;

impl Layers {
    /// Observations, and what they are sent by.
    pub(super) fn observing(&mut self) -> (&mut crate::coap::observe::Observers, Below<'_>) {
        (&mut self.observers, Below { exchanges: &mut self.exchanges, downloads: &mut self.downloads })
    }

    /// A request to observe, or to observe no more.
    pub(super) fn observe(&mut self, arrival: &Arrival<'_>, key: Key, asked: Asked, inquiry: &Inquiry) -> Reaction {
        let Arrival { from, message, now, .. } = *arrival;
        if let Err(no_room) = self.exchanges.vacancy(from, message, Need::Answer, now) {
            return self.no_room(arrival, no_room);
        }
        let Inquiry { options, visitor, .. } = inquiry;
        let (watched, begins) = match asked {
            Asked::ToObserve(watched) => (watched, true),
            Asked::NoMore(watched) => (watched, false),
        };
        let (accept, block2) = (options.accept, options.block2);
        let registration = Registration { key, token: message.token, watched, visitor, accept, block2 };
        let (observers, mut below) = self.observing();
        let response = if begins {
            observers.register(registration, below, now)
        } else {
            let state = observers.state(&registration, &mut below, now);
            observers.cancel(from, &message.token, &mut below);
            state
        };
        let transmit = self.exchanges.answer_at_once(from, message, Some(&response), now);
        if let Some(sent) = transmit.as_ref().filter(|_| !message.confirmable) {
            let id = u16::from_be_bytes([sent.bytes[2], sent.bytes[3]]);
            let (observers, below) = self.observing();
            observers.answered(from, &message.token, id, &below);
        }
        transmit.into()
    }

    /// The peer rejects a message of ours. True if it is one that it could reject.
    pub(in crate::coap) fn rejected(&mut self, from: &Endpoint, message_id: u16, now: Instant) -> bool {
        let (observers, mut below) = self.observing();
        observers.rejected(from, message_id, &mut below, now) || self.exchanges.confirmed(from, message_id)
    }

    /// A function has given out something new: the newest of so many.
    pub(in crate::coap) fn published(&mut self, watched: &Watched, newest: Representation, given: u32) {
        self.observers.published(watched, newest, given);
    }

    /// An accepted call has ended; see [`Observers::call_ended`](crate::coap::observe::Observers::call_ended).
    pub(in crate::coap) fn call_ended(
        &mut self,
        watched: &Watched,
        answer: impl Fn(Option<u16>) -> Response,
        now: Instant,
    ) -> Vec<Transmit> {
        let (observers, mut below) = self.observing();
        observers.call_ended(watched, answer, &mut below, now)
    }

    /// Ends the observations that may not go on; see [`Observers::reconsider`](crate::coap::observe::Observers::reconsider).
    pub(in crate::coap) fn reconsider(
        &mut self,
        application: Option<&str>,
        judge: impl Fn(&Visitor, &Watched) -> Result<(), Response>,
        now: Instant,
    ) -> Vec<Transmit> {
        let (observers, mut below) = self.observing();
        observers.reconsider(application, judge, &mut below, now)
    }

    /// Ends all observations, as the door closes.
    pub(in crate::coap) fn close(&mut self) -> Vec<Transmit> {
        let (observers, mut below) = self.observing();
        observers.close(&mut below)
    }
}
