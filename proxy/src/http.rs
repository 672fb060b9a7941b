//! The HTTP/1.1 door: calls over TCP, without TLS.
//!
//! ```text
//!   connection ── head ── find ── admission ── body ── call ──▶ status, headers, body
//!       │          │                  │          │
//!   count, idle  size, time         count      size, time, bytes of all bodies
//! ```
//!
//! The same paths and outcomes as the [CoAP door](crate::coap): `GET`, `POST` and `PUT` of `/APPLICATION` and
//! `/APPLICATION/FUNCTION`; the body is the payload. The header `Sandbar-Outcome` names the outcome, `Sandbar-Call`
//! the call. A call can be accepted instead of answered: `accepted` says how, and what its location answers.
//!
//! What can be refused is refused before the body is read. A client that goes away gives its call up.

mod accepted;
mod admission;
mod body;
mod call;
mod config;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

pub use self::config::HttpConfig;

use self::admission::Admission;
use crate::service::Service;

/// How long the door waits after a connection could not be taken, lest a lasting error keeps it busy.
const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(10);

/// The smallest header limit hyper takes.
const HEADER_BYTES_LEAST: usize = 8192;

/// The address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot bind TCP {address}")]
pub struct BindError {
    /// The address asked for.
    address: SocketAddr,
    /// What the kernel said.
    source: io::Error,
}

/// An HTTP door that is bound, and not yet serving.
#[derive(Debug)]
pub struct HttpDoor<S> {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared<S>>,
}

/// What the connections of a door share.
#[derive(Debug)]
struct Shared<S> {
    service: S,
    config: HttpConfig,
    admission: Arc<Admission>,
    /// A permit for each connection that may be open.
    connections: Arc<Semaphore>,
}

impl<S: Service> HttpDoor<S> {
    /// Binds a door to a TCP address. Has to be called within a tokio runtime.
    ///
    /// # Errors
    /// The address is taken, not ours, or needs a privilege.
    pub fn bind(address: SocketAddr, service: S, config: HttpConfig) -> Result<Self, BindError> {
        let listen = || {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, TcpListener::from_std(listener)?))
        };
        let (bound, listener) = listen().map_err(|source| BindError { address, source })?;
        let connections_max = config.connections_max.min(Semaphore::MAX_PERMITS);
        Ok(Self {
            listener,
            address: bound,
            shared: Arc::new(Shared {
                service,
                admission: Admission::new(&config),
                connections: Arc::new(Semaphore::new(connections_max)),
                config,
            }),
        })
    }

    /// The bound address; with the port the kernel chose if it was asked for port 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is ready; then takes no more requests, and gives running ones
    /// [`HttpConfig::drain`] to end.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) {
        let Self { listener, shared, .. } = self;
        let (stop, stopped) = watch::channel(());
        let mut connections = JoinSet::new();
        tokio::select! {
            () = accept(&listener, &shared, &stopped, &mut connections) => {}
            () = shutdown => {}
        }
        drop(listener);
        drop(stop);
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(shared.config.drain, ended).await.is_err() {
            tracing::warn!("requests were still running when the door closed");
        }
        connections.shutdown().await;
    }
}

/// Takes connections for ever.
async fn accept<S: Service>(
    listener: &TcpListener,
    shared: &Arc<Shared<S>>,
    stopped: &watch::Receiver<()>,
    connections: &mut JoinSet<()>,
) {
    loop {
        match listener.accept().await {
            Err(error) => {
                tracing::debug!(%error, "a connection could not be taken");
                tokio::time::sleep(ACCEPT_ERROR_PAUSE).await;
            }
            Ok((stream, peer)) => match Arc::clone(&shared.connections).try_acquire_owned() {
                Err(_) => turn_away(&stream, &shared.config),
                Ok(permit) => {
                    let connection = serve_connection(stream, peer.ip(), Arc::clone(shared), stopped.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
            },
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Answers 503 without reading anything. What does not fit the empty send buffer at once is lost.
fn turn_away(stream: &TcpStream, config: &HttpConfig) {
    if let Err(error) = stream.try_write(&call::turned_away(config)) {
        tracing::debug!(%error, "a connection was turned away without a word");
    }
}

/// Serves the requests of one connection until it ends, or the door stops and the running one has ended.
async fn serve_connection<S: Service>(
    stream: TcpStream,
    peer: IpAddr,
    shared: Arc<Shared<S>>,
    mut stopped: watch::Receiver<()>,
) {
    if let Err(error) = prepare(&stream, shared.config.unread_time_max) {
        tracing::debug!(%peer, %error, "a connection could not be set up");
        return;
    }
    let respond = service_fn(|request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(call::serve(&shared, peer, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.config.header_time_max)
        .max_buf_size(shared.config.header_bytes_max.max(HEADER_BYTES_LEAST))
        .serve_connection(TokioIo::new(stream), respond);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // The sender is dropped when the door stops; nothing is ever sent.
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

fn prepare(stream: &TcpStream, unread_time_max: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let unread_ms = u32::try_from(unread_time_max.as_millis()).unwrap_or(u32::MAX);
    setsockopt(stream, sockopt::TcpUserTimeout, &unread_ms)?;
    Ok(())
}
