//! The management service: what the command (and whoever owns the host) says to a running host agent.
//!
//! HTTP/1.1 on a Unix stream socket that only its owner can use; JSON but for the bytes of calls.
//!
//! | path | method | what it does | success |
//! |---|---|---|---|
//! | `/v1/host` | GET | version, uptime, the open doors' addresses, their limits and what they have counted | 200 [`HostStatus`] |
//! | `/v1/applications` | GET | lists applications | 200, a list of [`ApplicationStatus`](sandbar_runtime::ApplicationStatus) |
//! | `/v1/applications` | POST `{"source": "/absolute/path"}` | deploys a folder or an archive; answers when the application answers calls | 200 [`Deployed`](sandbar_runtime::Deployed) |
//! | `/v1/applications/NAME` | DELETE | removes | 204 |
//! | `/v1/applications/NAME/rest` | POST | puts it to rest now; 409 if it serves calls for five seconds on | 204 |
//! | `/v1/applications/NAME/calls?function=F&trace=true&timeout_ms=N&content_format=N` | POST payload | calls, waits for the answer | 200, a line of JSON ([`AnswerHead`]), then the answer's payload |
//! | the same with `asynchronous=true` | POST payload | has the call accepted, to be made later | 200, the same, with the location in its head |
//! | `/v1/calls?application=NAME` | GET | lists accepted calls, of one application or all | 200, a list of [`AcceptedStatus`](sandbar_runtime::AcceptedStatus) |
//! | `/v1/applications/NAME/calls/TICKET` | GET | tells the answer to an accepted call, outcome "accepted" while it has not ended | 200, as of a call |
//! | `/v1/applications/NAME/calls/TICKET` | DELETE | forgets it, or takes it back before it is made; 409 if it is under way | 204 |
//! | `/v1/applications/NAME/calls/TICKET/replay` | POST | has one made again that was given up; 409 if it was not, 503 if there is no room | 204 |
//! | `/v1/applications/NAME/logs?function=F&follow=true` | GET | reads the log | 200, one [`LogRecord`] a line, as they come |
//!
//! A call that ended badly is still a request that was served: its outcome stands in the [`AnswerHead`], not in
//! the HTTP status. Everything else that fails is a 4xx or 5xx with an [`ErrorBody`].
//!
//! Who may speak is decided twice: by the socket file, which is private from its first moment, and by the peer's
//! user id, which the kernel vouches for. The service grants all or nothing; it knows no roles.

mod client;
mod protocol;
mod routes;
mod socket;

pub use client::{Client, ClientError, LogRecords};
pub use protocol::{AnswerHead, Door, ErrorBody, HostStatus, LogRecord, Protocol};
pub use socket::{BindError, ManagementSocket};

use std::sync::Arc;
use std::time::Instant;

use sandbar_runtime::HostAgent;
use tokio::sync::watch;

use crate::coap::CoapCounters;

/// An open front door, and what it counts.
#[derive(Clone, Debug)]
pub struct OpenDoor {
    door: Door,
    counters: Option<Arc<CoapCounters>>,
}

impl From<Door> for OpenDoor {
    fn from(door: Door) -> Self {
        Self { door, counters: None }
    }
}

impl OpenDoor {
    /// The same, with what it counts.
    #[must_use]
    pub fn counting(self, counters: Arc<CoapCounters>) -> Self {
        Self { counters: Some(counters), ..self }
    }

    /// The door as it is told, with its counts so far.
    fn told(&self) -> Door {
        let counts = self.counters.iter().flat_map(|counters| counters.list());
        Door { counters: counts.map(|(name, count)| (name.to_owned(), count)).collect(), ..self.door.clone() }
    }
}

/// Serves management requests until `shutdown` completes and the requests then under way have ended.
///
/// Followed logs end at `shutdown`; calls and deployments under way are waited for, so a caller that cannot wait
/// for long puts a time limit around this. `doors` is what `/v1/host` tells of the other front doors.
pub async fn serve(
    socket: ManagementSocket,
    host: HostAgent,
    doors: Vec<OpenDoor>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let (stop, stopping) = watch::channel(false);
    let router = routes::router(routes::Management { host, doors, started: Instant::now(), stopping });
    let (listener, _file) = socket.into_parts();
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            shutdown.await;
            stop.send_replace(true);
        })
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the management service broke down");
    }
}
