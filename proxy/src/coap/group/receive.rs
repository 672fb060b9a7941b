//! From datagrams that came by a group to answers that wait for their time.

use std::sync::Arc;

use sandbar_runtime::Method;
use sandbar_runtime::manifest::access::within;

use crate::coap::Shared;
use crate::coap::blockwise::download::Tagger;
use crate::coap::call::{Inquiry, Target, discover, inquire, respond};
use crate::coap::config::CoapConfig;
use crate::coap::datagram::{Endpoint, ReceiveBuffer};
use crate::coap::message::{Message, Received, read};
use crate::coap::response::Response;
use crate::coap::visitor::Visitor;
use crate::service::Service;

/// A request for discovery.
pub(in crate::coap) struct Question {
    pub(in crate::coap) message: Message,
    pub(in crate::coap) inquiry: Inquiry,
    filters: Vec<String>,
}

impl Question {
    /// What a datagram asks for, if that is discovery and need not be confirmed (RFC 7252, section 8.1).
    pub(in crate::coap) fn read<S: Service>(
        service: &S,
        config: &CoapConfig,
        visitor: &Visitor,
        bytes: &[u8],
    ) -> Option<Self> {
        let Received::Request(message) = read(bytes, config.options_max) else { return None };
        if message.confirmable {
            return None;
        }
        let inquiry = inquire(service, config, &message, visitor).ok()?;
        let in_parts = inquiry.options.block1.is_some() || inquiry.options.block2.is_some_and(|block| block.number > 0);
        let Target::Discovery { filters } = &inquiry.target else { return None };
        let filters = filters.clone();
        (inquiry.method == Method::Get && !in_parts).then_some(Self { message, inquiry, filters })
    }

    /// What there is to tell, whole.
    pub(in crate::coap) fn response<S: Service>(&self, service: &S, config: &CoapConfig, tagger: &Tagger) -> Response {
        let Inquiry { method, options, visitor, .. } = &self.inquiry;
        let mut response = respond(discover(service, visitor, &self.filters), *method, options.accept, config);
        tagger.tag(&mut response, options.block2);
        response
    }
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
        let visitor = Visitor::Stranger(address);
        let Some(question) = Question::read(&self.service, &self.config, &visitor, bytes) else {
            self.counters.group_ignored.add();
            return;
        };
        let Ok(from) = self.socket.seen_by(from.remote) else {
            self.counters.unanswerable.add();
            return;
        };
        if !self.layers.change(|layers, now| layers.group_request(&from, &question.message, now)) {
            return;
        }
        let response = question.response(&self.service, &self.config, &self.tagger);
        let Question { message, inquiry, .. } = question;
        self.layers.change(|layers, now| layers.group_answered(&from, &message, &inquiry.options, response, now));
    }
}
