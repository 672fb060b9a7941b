//! The CoAP door (RFC 7252): calls over UDP.
//!
//! ```text
//!   datagram      one UDP socket; knows the address that was asked
//!      │
//!   (dtls)        on a secure door: handshakes, and sessions of known identities; each session is an endpoint of its own
//!      │
//!   message       version, format, codec; pings and what is malformed end here
//!      │
//!   exchange      every request runs once and is answered: deduplication, acknowledgements, retransmission
//!      │
//!   block-wise    payloads of any size from and into blocks of up to 1,024 bytes
//!      │
//!   call          path and method to a function or an accepted call, its outcome to a code; discovery
//! ```
//!
//! Where it is asked for, `verify` has a peer show that its address is its own before anything but a refusal is made for it.
//!
//! The layers are state machines that are told the time and give back what to send (`layers` puts them together);
//! this module alone waits. One task receives, one keeps the time, and every call that is not answered at once has its
//! own: a slow call delays no other.
//!
//! Invariants:
//! 1. The state's lock is held for the time of one state change, never across an await, never while sending.
//! 2. Nothing a peer sends, and no error of the socket, ends the door.
//! 3. Every call that was begun is answered, even if its task is ended early.
//! 4. Whether a caller may make a call is decided before its payload is kept and before anything runs (`visitor`).
//!
//! In the clear it verifies that a peer's address is its own only where that is asked for (`verify`).
//! A call that is accepted is answered with its location when it is stored; the answer to it is asked for there, by requests like any others.
//! Who observes a function or an accepted call is kept beside the exchanges (`observe`), and told of what `watching` hears from the host.
//! One socket serves all peers; their state is reached through one lock (why not several: `tests/coap/README.md`). Sockets for groups, where they are asked for, only listen (`group`).

mod block;
mod blockwise;
mod call;
mod clockwork;
mod config;
mod counters;
mod datagram;
mod discovery;
mod dtls;
mod exchange;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod group;
mod layers;
mod message;
mod observe;
mod option;
mod random;
mod response;
mod running;
mod secure;
mod verify;
mod visitor;
mod watching;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coap_lite::MessageType;
use sandbar_runtime::outputs::Watcher;
use tokio::task::JoinSet;

pub use self::call::ASYNC_QUERY;
pub use self::config::{CoapConfig, GroupConfig, Limit, TransferLimits};
pub use self::counters::{CoapCounters, Counter};
pub use self::datagram::BindError;
pub use self::dtls::{DtlsConfig, DtlsError};
pub use self::group::GroupInterface;
pub use self::secure::Security;
pub use self::verify::CoapVerify;

use self::blockwise::download::Tagger;
use self::call::{Asked, inquire};
use self::clockwork::Clockwork;
use self::datagram::{DatagramSocket, Endpoint, ReceiveBuffer, Transmit};
use self::dtls::Dtls;
use self::layers::{Layers, Reaction};
use self::message::{Received, empty};
use self::running::Call;
use self::secure::Guard;
use self::visitor::Visitor;
use crate::service::Service;

/// How long the door waits after an error of its socket, lest a lasting one keeps it busy.
const RECEIVE_ERROR_PAUSE: Duration = Duration::from_millis(10);

/// A CoAP door that is bound, and not yet serving.
#[derive(Debug)]
pub struct CoapDoor<S> {
    shared: Arc<Shared<S>>,
}

/// What the tasks of a door share.
#[derive(Debug)]
struct Shared<S> {
    socket: DatagramSocket,
    /// Those that listen to groups.
    groups: Vec<DatagramSocket>,
    /// On a secure door, what stands between the socket and the messages.
    guard: Option<Guard>,
    service: S,
    config: Arc<CoapConfig>,
    counters: Arc<CoapCounters>,
    tagger: Tagger,
    /// What it watches for those who observe.
    watcher: Arc<Watcher>,
    layers: Clockwork<Layers>,
}

impl<S: Service> CoapDoor<S> {
    /// Binds a door to a UDP address. Has to be called within a tokio runtime.
    ///
    /// # Errors
    /// The address cannot be bound, or the socket not set up.
    pub fn bind(address: SocketAddr, service: S, config: CoapConfig) -> Result<Self, BindError> {
        Self::open(address, service, config, None)
    }

    /// Binds a secure door (coaps): DTLS 1.2 with keys that both sides have. Has to be called within a tokio runtime.
    ///
    /// # Errors
    /// As [`Self::bind`], or DTLS cannot be set up.
    pub fn bind_secure(
        address: SocketAddr,
        service: S,
        config: CoapConfig,
        security: Security,
    ) -> Result<Self, BindError> {
        Self::open(address, service, config, Some(security))
    }

    fn open(
        address: SocketAddr,
        service: S,
        config: CoapConfig,
        security: Option<Security>,
    ) -> Result<Self, BindError> {
        let socket = DatagramSocket::bind(address, config.receive_buffer_bytes)?;
        let groups = if security.is_none() { group::listen(&config.groups, &socket)? } else { Vec::new() };
        let config = Arc::new(config);
        let counters = Arc::new(CoapCounters::default());
        let guard = security.map(|Security { limits, mut keys }| {
            let known = Arc::clone(&keys.borrow_and_update());
            Dtls::new(limits, Arc::clone(&counters), known, Instant::now()).map(|dtls| Guard::new(dtls, keys))
        });
        let guard = guard.transpose().map_err(|source| BindError::Dtls { address, source })?;
        let watcher = watching::watcher(&service);
        let layers = Layers::new(
            Arc::clone(&config),
            Arc::clone(&counters),
            service.payload_bytes_max(),
            Arc::clone(&watcher),
            Instant::now(),
        );
        Ok(Self {
            shared: Arc::new(Shared {
                socket,
                groups,
                guard,
                service,
                config,
                counters,
                tagger: Tagger::default(),
                watcher,
                layers: Clockwork::new(layers),
            }),
        })
    }

    /// The bound address; with the port the kernel chose if it was asked for port 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.socket.local_addr()
    }

    /// The groups it listens to, each as often as there are interfaces where it does.
    pub fn groups(&self) -> impl Iterator<Item = IpAddr> {
        self.shared.groups.iter().map(|socket| socket.local_addr().ip())
    }

    /// What peers may take of it.
    #[must_use]
    pub fn limits(&self) -> Vec<Limit> {
        let own = self.shared.guard.iter().flat_map(Guard::limits);
        self.shared.config.limits().into_iter().chain(own).collect()
    }

    /// What the door counts, from now on and while it serves.
    #[must_use]
    pub fn counters(&self) -> Arc<CoapCounters> {
        Arc::clone(&self.shared.counters)
    }

    /// Serves until `shutdown` is ready; then takes no more requests, and gives running calls
    /// [`CoapConfig::drain`] to end.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) {
        let shared = self.shared;
        let mut calls = JoinSet::new();
        // Dropped, it ends them.
        let mut by_group = JoinSet::new();
        for number in 0..shared.groups.len() {
            by_group.spawn(Arc::clone(&shared).receive_group(number));
        }
        tokio::select! {
            () = shared.receive(&mut calls) => {}
            () = shared.keep_time() => {}
            () = shared.keep_sessions() => {}
            () = shared.keep_observers() => {}
            () = shutdown => {}
        }
        drop(by_group);
        let drained = async { while calls.join_next().await.is_some() {} };
        let drain = tokio::time::timeout(shared.config.drain, drained);
        tokio::select! {
            _ = drain => {}
            () = shared.keep_time() => {}
        }
        let left = shared.layers.with(|layers| layers.calls());
        if left > 0 {
            tracing::warn!(calls = left, "calls were still running when the door closed");
        }
        calls.shutdown().await;
        shared.dismiss_observers();
        for transmit in shared.guard.iter().flat_map(Guard::close_all) {
            shared.sent(&transmit, shared.socket.try_send(&transmit));
        }
    }
}

impl<S: Service> Shared<S> {
    /// Receives for ever.
    async fn receive(self: &Arc<Self>, calls: &mut JoinSet<()>) {
        let mut buffer = ReceiveBuffer::new();
        loop {
            self.received(&self.socket, &mut buffer).await;
            for (from, bytes) in buffer.datagrams() {
                self.counters.datagrams.add();
                match from {
                    Some(from) => self.arrived(from, bytes, calls).await,
                    None => self.counters.unanswerable.add(),
                }
            }
            while calls.try_join_next().is_some() {}
        }
    }

    /// Waits for datagrams. After an error there are none.
    async fn received(&self, socket: &DatagramSocket, buffer: &mut ReceiveBuffer) {
        // A socket that is never empty leaves the others their turn.
        tokio::task::consume_budget().await;
        if let Err(error) = socket.receive(buffer).await {
            self.counters.receive_errors.add();
            tracing::debug!(%error, "receiving failed");
            tokio::time::sleep(RECEIVE_ERROR_PAUSE).await;
        }
    }

    /// Deals with what should be one message.
    async fn message(self: &Arc<Self>, from: &Endpoint, visitor: &Visitor, bytes: &[u8], calls: &mut JoinSet<()>) {
        match message::read(bytes, self.config.options_max) {
            Received::Request(message) => {
                let inquiry = inquire(&self.service, &self.config, &message, visitor);
                let observed = inquiry.as_ref().ok().and_then(|inquiry| inquiry.asked(&message.packet.payload));
                let reaction = self.layers.change(|layers, now| layers.request(from, message, inquiry, now));
                match reaction {
                    Reaction::Silence => {}
                    Reaction::Send(transmit) => self.send(&transmit).await,
                    Reaction::Run(work, pending) => {
                        Call::new(Arc::clone(self), pending).begin(work, calls).await;
                    }
                }
                if let Some(Asked::ToObserve(watched)) = observed {
                    self.confirm(visitor, watched, calls).await;
                }
            }
            Received::Acknowledgement(id) => {
                self.layers.change(|layers, now| layers.confirmed(from, id, now));
            }
            Received::Reset(id) => {
                if self.layers.change(|layers, now| layers.rejected(from, id, now)) {
                    self.counters.rejected.add();
                }
            }
            Received::Ping(id) => {
                self.counters.pings.add();
                self.reset(from, id).await;
            }
            Received::Malformed(id, error) => {
                self.counters.malformed.add();
                tracing::debug!(peer = %from.remote, %error, "rejected a message");
                self.reset(from, id).await;
            }
            Received::Ignored(error) => {
                self.counters.malformed.add();
                tracing::debug!(peer = %from.remote, %error, "ignored a datagram");
            }
        }
    }

    async fn reset(&self, to: &Endpoint, id: u16) {
        let bytes = Arc::from(empty(MessageType::Reset, id));
        self.send(&Transmit { to: *to, bytes }).await;
    }

    /// Does what is due, for ever.
    async fn keep_time(&self) {
        let mut out = Vec::new();
        loop {
            let until = self.layers.tick(&mut out);
            for transmit in out.drain(..) {
                self.send(&transmit).await;
            }
            self.layers.wait(until).await;
        }
    }

    async fn send(&self, transmit: &Transmit) {
        if transmit.to.session.is_none() {
            return self.send_as_it_is(transmit).await;
        }
        for sealed in self.sealed(transmit) {
            self.send_as_it_is(&sealed).await;
        }
    }

    /// Sends a datagram if it can be sent at once.
    fn try_send(&self, transmit: Transmit) {
        let sealed = if transmit.to.session.is_none() { vec![transmit] } else { self.sealed(&transmit) };
        for transmit in sealed {
            self.sent(&transmit, self.socket.try_send(&transmit));
        }
    }

    async fn send_as_it_is(&self, transmit: &Transmit) {
        let sent = self.socket.send(transmit, self.config.send_wait).await;
        self.sent(transmit, sent);
    }

    fn sent(&self, transmit: &Transmit, sent: std::io::Result<()>) {
        if let Err(error) = sent {
            self.counters.send_errors.add();
            tracing::debug!(peer = %transmit.to.remote, %error, "sending failed");
        }
    }
}
