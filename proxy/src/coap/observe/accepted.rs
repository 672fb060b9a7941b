//! Accepted calls, as they are observed: that one has not ended, and then its answer.
//!
//! ```text
//!   GET, Observe: 0 ─▶ register ─▶ "accepted", with Observe           the call ends ─▶ call_ended ─▶ its answer, without Observe
//! ```
//!
//! The first is JSON, the answer is in whatever format the function gives it. By RFC 7641, section 4.2, all notifications of an observation have
//! the Content-Format of its first response, and a server that cannot keep to that says 4.06 and ends it: nobody would ever be told an
//! answer. But a notification is what has an Observe option (section 2). So the answer has none: it is the response to the request,
//! under its token, sent until it is acknowledged as a late answer is, and the last. That it is the last is true besides: a call that has ended
//! changes no more, and there is nothing left to observe. Clients take it so: libcoap's `coap-client` (4.3.1) prints it, with all its
//! blocks, and has nothing to cancel; aiocoap hands it over as it does notifications, and then tells that the observation is over.
//!
//! A format that a client asks for is one of the answer's: 4.06 is said at the end, if at all.

use std::time::Instant;

use coap_lite::ResponseType;
use sandbar_runtime::outputs::{Subject, Watched};

use super::{Below, Observers, TURNS_AT_ONCE};
use crate::coap::blockwise::Key;
use crate::coap::call::not_ended;
use crate::coap::datagram::Transmit;
use crate::coap::response::Response;

/// The state of what has given out nothing since it is observed: of a function that is nothing, of an accepted call that it has not ended.
pub(super) fn first_state(subject: &Subject, accept: Option<u16>) -> Response {
    match subject {
        Subject::Entry | Subject::Function(_) => Response::new(ResponseType::Content),
        // To an observer Max-Age says when to begin anew if nothing came (section 3.3.1). That is the usual minute, not the second after which
        // one asks again who is not told.
        Subject::Call(_) => Response { max_age_s: None, ..not_ended(accept) },
    }
}

impl Observers {
    /// An accepted call has ended: its observers are sent its answer, as many as one go allows, and observe it no more. `answer` gives it to one
    /// that takes only that content format, whole. If there is nothing to send, all have it.
    pub(in crate::coap) fn call_ended(
        &mut self,
        watched: &Watched,
        answer: impl Fn(Option<u16>) -> Response,
        below: &mut Below<'_>,
        now: Instant,
    ) -> Vec<Transmit> {
        let mut sent = Vec::new();
        for _ in 0..TURNS_AT_ONCE {
            let Some((topic, number)) = self.topics.an_observer(watched) else { break };
            let Some(to) = below.exchanges.endpoint(number) else { break };
            let Some(subscriber) = self.subscribers.get(&number) else { break };
            let Some(at) = subscriber.by_topic(topic) else { break };
            let observation = &subscriber.observations[at];
            let key = Key { peer: to, request: observation.request.clone() };
            let block2 = observation.block2();
            let response = below.downloads.begin(&key, answer(observation.accept), block2, now);
            self.counters.observers_answered.add();
            sent.extend(self.end_with(number, at, &response, below.exchanges, now));
        }
        sent
    }
}
