//! How many calls, and how many bytes of their bodies, a door holds at one time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::config::HttpConfig;

/// Why there is no room for another call, or for more of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoRoom {
    /// Of all clients.
    #[error("too many calls are running")]
    Calls,
    /// Of this client's address.
    #[error("too many of your calls are running")]
    CallsOfPeer,
    /// Of all clients.
    #[error("too many payloads are on their way in")]
    Bodies,
}

/// What the door may hold, and holds.
#[derive(Debug)]
pub(super) struct Admission {
    calls_max: usize,
    calls_per_peer_max: usize,
    body_bytes_max: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    calls: usize,
    by_peer: HashMap<IpAddr, usize>,
    body_bytes: usize,
}

/// A call's place. Given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    admission: Arc<Admission>,
    peer: IpAddr,
    body_bytes: usize,
}

impl Admission {
    pub(super) fn new(config: &HttpConfig) -> Arc<Self> {
        Arc::new(Self {
            calls_max: config.calls_in_flight_max,
            calls_per_peer_max: config.calls_in_flight_per_peer_max,
            body_bytes_max: config.body_bytes_in_flight_max,
            held: Mutex::default(),
        })
    }

    /// Takes a place for a call of `peer`.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr) -> Result<Place, NoRoom> {
        let mut held = self.held();
        if held.calls >= self.calls_max {
            return Err(NoRoom::Calls);
        }
        let of_peer = held.by_peer.get(&peer).copied().unwrap_or(0);
        if of_peer >= self.calls_per_peer_max {
            return Err(NoRoom::CallsOfPeer);
        }
        held.calls += 1;
        held.by_peer.insert(peer, of_peer + 1);
        Ok(Place { admission: Arc::clone(self), peer, body_bytes: 0 })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing panics under the lock, and the numbers hold even if something did.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Counts `bytes` more of the call's body.
    pub(super) fn reserve(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let mut held = self.admission.held();
        if held.body_bytes + bytes > self.admission.body_bytes_max {
            return Err(NoRoom::Bodies);
        }
        held.body_bytes += bytes;
        self.body_bytes += bytes;
        Ok(())
    }

    /// The call has ended: its body is gone, its answer is not.
    pub(super) fn release_body(&mut self) {
        self.admission.held().body_bytes -= self.body_bytes;
        self.body_bytes = 0;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.release_body();
        let mut held = self.admission.held();
        held.calls -= 1;
        if let Some(of_peer) = held.by_peer.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                held.by_peer.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_and_come_back() {
        let admission = Admission::new(&HttpConfig {
            calls_in_flight_max: 3,
            calls_in_flight_per_peer_max: 2,
            body_bytes_in_flight_max: 100,
            ..HttpConfig::default()
        });
        let (one, two) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let mut first = admission.admit(one).unwrap();
        let second = admission.admit(one).unwrap();
        assert_eq!(admission.admit(one).unwrap_err(), NoRoom::CallsOfPeer);
        let mut third = admission.admit(two).unwrap();
        assert_eq!(admission.admit(two).unwrap_err(), NoRoom::Calls);
        first.reserve(60).unwrap();
        assert_eq!(third.reserve(60), Err(NoRoom::Bodies));
        first.release_body();
        third.reserve(60).unwrap();
        drop((first, second, third));
        let held = admission.held();
        assert_eq!((held.calls, held.body_bytes, held.by_peer.len()), (0, 0, 0));
    }
}
