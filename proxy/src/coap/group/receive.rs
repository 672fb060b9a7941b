//! From datagrams that came by a group to answers that wait for their time.

use std::sync::Arc;

use sandbar_runtime::Method;
use sandbar_runtime::manifest::access::within;

use crate::coap::Shared;
use crate::coap::call::{Inquiry, Target, discover, inquire, respond};
use crate::coap::datagram::{Endpoint, ReceiveBuffer};
use crate::coap::message::{Message, Received, read};
use crate::coap::visitor::Visitor;
use crate::service::Service;

/// A request for discovery.
struct Question {
    message: Message,
    inquiry: Inquiry,
    filters: Vec<String>,
}

impl<S: Service> Shared<S> {
    /// Receives by one of the door's groups, for ever.
    pub(in crate::coap) async fn receive_group(self: Arc<Self>, number: usize) {
        let Some(socket) = self.groups.get(number) else { return };
        let mut buffer = ReceiveBuffer::new();
        loop {
            self.received(socket, &mut buffer).await;
            for (from, bytes) in buffer.datagrams() {
                self.counters.datagrams.add();
                match from {
                    Some(from) => self.asked_by_group(from, bytes),
                    None => self.counters.unanswerable.add(),
                }
            }
        }
    }

    /// Deals with one datagram: never sends anything, which is for its time to come.
    fn asked_by_group(&self, from: &Endpoint, bytes: &[u8]) {
        let address = from.remote.ip();
        if self.config.networks.as_ref().is_some_and(|networks| !within(networks, address)) {
            self.counters.outside.add();
            return;
        }
        self.counters.group_requests.add();
        let Some(question) = self.question(&Visitor::Stranger(address), bytes) else {
            self.counters.group_ignored.add();
            return;
        };
        let Ok(from) = self.socket.seen_by(from.remote) else {
            self.counters.unanswerable.add();
            return;
        };
        let Question { message, inquiry, filters } = question;
        if !self.layers.change(|layers, now| layers.group_request(&from, &message, now)) {
            return;
        }
        let answer = discover(&self.service, &inquiry.visitor, &filters);
        let mut response = respond(answer, inquiry.method, inquiry.options.accept, &self.config);
        self.tagger.tag(&mut response, inquiry.options.block2);
        self.layers.change(|layers, now| layers.group_answered(&from, &message, &inquiry.options, response, now));
    }

    /// What a datagram asks for, if that is discovery and need not be confirmed (RFC 7252, section 8.1).
    fn question(&self, visitor: &Visitor, bytes: &[u8]) -> Option<Question> {
        let Received::Request(message) = read(bytes, self.config.options_max) else { return None };
        if message.confirmable {
            return None;
        }
        let inquiry = inquire(&self.service, &self.config, &message, visitor).ok()?;
        let in_parts = inquiry.options.block1.is_some() || inquiry.options.block2.is_some_and(|block| block.number > 0);
        let Target::Discovery { filters } = &inquiry.target else { return None };
        let filters = filters.clone();
        (inquiry.method == Method::Get && !in_parts).then_some(Question { message, inquiry, filters })
    }
}
