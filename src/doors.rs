//! The doors of a serving host: opened together, closed together.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use sandbar_proxy::coap::{CoapConfig, CoapDoor, Security, TransferLimits};
use sandbar_proxy::http::{HttpConfig, HttpDoor};
use sandbar_proxy::management::{self, Door, ManagementSocket, OpenDoor, Protocol};
use sandbar_runtime::HostAgent;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::failure::Failure;
use crate::secure::{self, KeyFile};
use crate::serve::{LAST_ANSWERS, ServeArguments};

const NO_GROUPS: &str =
    "no CoAP door is on an interface of --coap-group: open one with --coap 0.0.0.0:5683 or --coap '[::]:5683'";

/// Every open door, management included, each served by a task of its own.
#[derive(Debug)]
pub(crate) struct Doors {
    tasks: JoinSet<()>,
    /// Tells every door to take nothing new and to end with what it has.
    stop: watch::Sender<bool>,
}

impl Doors {
    /// Opens all doors that were asked for, the management service last: whoever finds it finds the others open.
    pub(crate) fn open(
        arguments: &ServeArguments,
        host: &HostAgent,
        socket: ManagementSocket,
    ) -> Result<Self, Failure> {
        let mut doors = Self { tasks: JoinSet::new(), stop: watch::Sender::new(false) };
        let mut open = Vec::new();
        let mut groups = 0;
        for address in arguments.coap_addresses() {
            let networks = Some(arguments.coap_from.clone()).filter(|networks| !networks.is_empty());
            let config = CoapConfig { networks, ..coap_config(arguments) };
            let door =
                CoapDoor::bind(address, host.clone(), config).map_err(|source| cannot_open("CoAP", address, source))?;
            open.push(announced(Protocol::Coap, door.local_addr(), door.limits()).counting(door.counters()));
            for group in door.groups() {
                tracing::info!(%group, door = %door.local_addr(), "listening to a group");
                groups += 1;
            }
            doors.keep(door.serve(doors.stopped()));
        }
        if arguments.coap_limits.has_groups() && groups == 0 {
            return Err(Failure::Arguments(NO_GROUPS.to_owned()));
        }
        if let Some(path) = &arguments.secure.psk_file {
            let file = KeyFile::open(path)?;
            for address in &arguments.secure.coaps {
                let security = Security { limits: arguments.coaps_limits.config(), keys: file.keys() };
                let door = CoapDoor::bind_secure(*address, host.clone(), coap_config(arguments), security)
                    .map_err(|source| cannot_open("coaps", *address, source))?;
                open.push(announced(Protocol::Coaps, door.local_addr(), door.limits()).counting(door.counters()));
                doors.keep(door.serve(doors.stopped()));
            }
            doors.keep(file.keep_up(doors.stopped()));
        } else {
            doors.keep(secure::nothing_to_read_again(doors.stopped())?);
        }
        for address in &arguments.http {
            let config = http_config(arguments);
            let limits = config.limits();
            let door = HttpDoor::bind(*address, host.clone(), config)
                .map_err(|source| cannot_open("HTTP", *address, source))?;
            open.push(announced(Protocol::Http, door.local_addr(), limits));
            doors.keep(door.serve(doors.stopped()));
        }
        let management = management::serve(socket, host.clone(), open, doors.stopped());
        doors.keep(management);
        Ok(doors)
    }

    /// Serves until `stop` completes, or until a door ends, which none should before.
    pub(crate) async fn serve_until(&mut self, stop: impl Future) -> Result<(), Failure> {
        tokio::select! {
            _ = stop => Ok(()),
            Some(ended) = self.tasks.join_next() => match ended {
                Ok(()) => Err(Failure::DoorClosed),
                Err(panicked) => Err(Failure::DoorPanicked(panicked)),
            },
        }
    }

    /// Closes the doors and waits, at most for `patience`, until they have answered what they had taken in.
    /// Doors that have not are left open a crack: their calls' last answers can still leave.
    pub(crate) async fn close(&mut self, patience: Duration) {
        self.stop.send_replace(true);
        let all_closed = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "a door broke down");
                }
            }
        };
        if tokio::time::timeout(patience, all_closed).await.is_err() {
            tracing::info!(doors = self.tasks.len(), "calls are still under way");
        }
    }

    /// Completes when the doors are to close.
    fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stop = self.stop.subscribe();
        async move {
            // An error says that the sender is gone, and we with it.
            stop.wait_for(|stop| *stop).await.map(drop).unwrap_or_default();
        }
    }

    fn keep(&mut self, serving: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(serving);
    }
}

/// The CoAP door's limits, where the command line has a say in them.
fn coap_config(arguments: &ServeArguments) -> CoapConfig {
    let usual = arguments.coap_limits.config();
    let transfers = usual.uploads.clone();
    // One payload of the largest size has to fit, whatever the size.
    let transfers = TransferLimits {
        bytes_max: transfers.bytes_max.max(arguments.payload_max),
        bytes_per_peer_max: transfers.bytes_per_peer_max.max(arguments.payload_max),
        ..transfers
    };
    CoapConfig {
        // Which calls there is room for is for the host bus to say, which knows whose they are: a door that took fewer than it
        // admits could be filled by one application's.
        calls_in_flight_max: arguments.calls_admitted_max(),
        payload_bytes_in_flight_max: usual.payload_bytes_in_flight_max.max(arguments.payload_max),
        uploads: transfers.clone(),
        downloads: transfers,
        drain: arguments.grace + LAST_ANSWERS,
        ..usual
    }
}

/// The HTTP door's limits, likewise.
fn http_config(arguments: &ServeArguments) -> HttpConfig {
    let usual = HttpConfig::default();
    HttpConfig {
        calls_in_flight_max: arguments.calls_admitted_max(),
        body_bytes_in_flight_max: usual.body_bytes_in_flight_max.max(arguments.payload_max),
        drain: arguments.grace + LAST_ANSWERS,
        ..usual
    }
}

fn announced(protocol: Protocol, address: SocketAddr, limits: Vec<(String, u64)>) -> OpenDoor {
    tracing::info!(?protocol, %address, "door open");
    Door { protocol, address, counters: BTreeMap::default(), limits: limits.into_iter().collect() }.into()
}

fn cannot_open(protocol: &'static str, address: SocketAddr, source: impl Error + Send + Sync + 'static) -> Failure {
    Failure::OpenDoor { protocol, address, source: source.into() }
}
