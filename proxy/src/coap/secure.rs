//! Between the socket and the messages of a door: on a secure one the DTLS layer, as the door's tasks share it.
//!
//! It has a lock of its own, so that a handshake's computation holds up the receiving task alone, and no call's answer for
//! longer than that.

use std::sync::Arc;

use sandbar_runtime::manifest::access::within;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Shared;
use super::clockwork::Clockwork;
use super::config::Limit;
use super::datagram::{Endpoint, Transmit};
use super::dtls::{Arrival, Dtls, DtlsConfig};
use super::visitor::Visitor;
use crate::keys::{Identity, Keys};
use crate::service::Service;

/// What makes a door a secure one.
#[derive(Clone, Debug)]
pub struct Security {
    /// What handshakes and sessions may take.
    pub limits: DtlsConfig,
    /// Who may open sessions; looked at again whenever it changes.
    pub keys: watch::Receiver<Arc<Keys>>,
}

/// The layer, and the keys as they change.
#[derive(Debug)]
pub(super) struct Guard {
    dtls: Clockwork<Dtls>,
    keys: watch::Receiver<Arc<Keys>>,
}

impl Guard {
    pub(super) fn new(dtls: Dtls, keys: watch::Receiver<Arc<Keys>>) -> Self {
        Self { dtls: Clockwork::new(dtls), keys }
    }

    pub(super) fn limits(&self) -> Vec<Limit> {
        self.dtls.with(|dtls| dtls.limits.limits())
    }

    pub(super) fn receive(&self, from: &Endpoint, datagram: &[u8]) -> Arrival {
        self.dtls.change(|dtls, now| {
            let mut arrival = dtls.receive(from, datagram, now);
            arrival.ended = dtls.take_ended();
            arrival
        })
    }

    pub(super) fn seal(&self, transmit: &Transmit) -> Vec<Transmit> {
        self.dtls.with(|dtls| dtls.seal(transmit))
    }

    pub(super) fn close_all(&self) -> Vec<Transmit> {
        let mut out = Vec::new();
        self.dtls.with(|dtls| dtls.close_all(&mut out));
        out
    }

    /// The sessions that have ended since this was asked last, or a datagram came.
    pub(super) fn take_ended(&self) -> Vec<Endpoint> {
        self.dtls.with(Dtls::take_ended)
    }

    /// An identity as it is now, if there is one of its name.
    pub(super) fn known(&self, identity: &Identity) -> Option<Arc<Identity>> {
        self.keys.borrow().get(identity.name().as_bytes()).map(Arc::clone)
    }

    /// The keys as they change.
    pub(super) fn keys(&self) -> watch::Receiver<Arc<Keys>> {
        self.keys.clone()
    }

    /// Does what is due, and what a change of the keys asks for; gives what is to be sent.
    pub(super) async fn next(&self, keys: &mut watch::Receiver<Arc<Keys>>) -> Vec<Transmit> {
        loop {
            let mut out = Vec::new();
            let until = self.dtls.tick(&mut out);
            if !out.is_empty() {
                return out;
            }
            tokio::select! {
                () = self.dtls.wait(until) => {}
                () = changed(keys) => {
                    let keys = Arc::clone(&keys.borrow_and_update());
                    self.dtls.with(|dtls| dtls.replace_keys(keys, &mut out));
                    return out;
                }
            }
        }
    }
}

impl<S: Service> Shared<S> {
    /// Deals with one datagram.
    pub(super) async fn arrived(self: &Arc<Self>, from: &Endpoint, bytes: &[u8], calls: &mut JoinSet<()>) {
        let address = from.remote.ip();
        if self.config.networks.as_ref().is_some_and(|networks| !within(networks, address)) {
            self.counters.outside.add();
            return;
        }
        let Some(guard) = &self.guard else {
            return self.message(from, &Visitor::Stranger(address), bytes, calls).await;
        };
        let arrival = guard.receive(from, bytes);
        for transmit in &arrival.transmits {
            self.send_as_it_is(transmit).await;
        }
        self.forget(&arrival.ended);
        for (from, identity, bytes) in arrival.messages {
            self.message(&from, &Visitor::Known(identity), &bytes, calls).await;
        }
    }

    /// A message for a session, as datagrams.
    pub(super) fn sealed(&self, transmit: &Transmit) -> Vec<Transmit> {
        let sealed = self.guard.as_ref().map(|guard| guard.seal(transmit)).unwrap_or_default();
        if sealed.is_empty() {
            self.counters.sessions_gone.add();
        }
        sealed
    }

    /// Looks after handshakes and sessions, for ever.
    pub(super) async fn keep_sessions(&self) {
        let Some(guard) = &self.guard else {
            return std::future::pending().await;
        };
        let mut keys = guard.keys();
        let mut judged = Arc::clone(&keys.borrow());
        loop {
            for transmit in guard.next(&mut keys).await {
                self.send_as_it_is(&transmit).await;
            }
            self.forget(&guard.take_ended());
            let now = Arc::clone(&keys.borrow());
            if !Arc::ptr_eq(&judged, &now) {
                judged = now;
                self.reconsider(None).await;
            }
        }
    }

    fn forget(&self, ended: &[Endpoint]) {
        for session in ended {
            self.layers.change(|layers, _| layers.ended(session));
        }
    }
}

/// Completes when there are other keys; never if there can be none any more.
async fn changed(keys: &mut watch::Receiver<Arc<Keys>>) {
    if keys.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
