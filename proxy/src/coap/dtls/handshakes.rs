//! Handshakes under way: bounded in all and for each address, found by endpoint, and looked after in time.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::association::Association;
use super::config::DtlsConfig;
use crate::coap::datagram::Endpoint;
use crate::keys::Identity;

/// One handshake.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) association: Association,
    /// The client's random bytes: two handshakes never have the same.
    pub(super) random: [u8; 32],
    /// Who the client says it is.
    pub(super) claimed: Option<Arc<Identity>>,
    pub(super) begun: Instant,
    /// When it has to be looked after.
    pub(super) due: Instant,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    by_endpoint: HashMap<Endpoint, (u64, Handshake)>,
    /// When each has to be looked after; numbered, as several may at the same time.
    due: BTreeMap<(Instant, u64), Endpoint>,
    /// The oldest first.
    by_age: BTreeMap<u64, Endpoint>,
    addresses: HashMap<IpAddr, usize>,
    numbered: u64,
}

impl Handshakes {
    pub(super) fn len(&self) -> usize {
        self.by_endpoint.len()
    }

    pub(super) fn get(&self, client: &Endpoint) -> Option<&Handshake> {
        self.by_endpoint.get(client).map(|(_, handshake)| handshake)
    }

    /// Whether there is room for one more of this client's address. If there is none otherwise, one gives way: the oldest of
    /// the address that has the most, if that is more than this one would have; or else the oldest, if it is slow. Tells
    /// how many did.
    pub(super) fn make_room(&mut self, client: &Endpoint, limits: &DtlsConfig, now: Instant) -> Result<u64, ()> {
        let own = self.addresses.get(&client.remote.ip()).copied().unwrap_or(0);
        if own >= limits.handshakes_per_address_max {
            return Err(());
        }
        if self.len() < limits.handshakes_max {
            return Ok(0);
        }
        let greediest = self.addresses.iter().max_by_key(|(_, count)| **count).filter(|(_, count)| **count > own + 1);
        let goes = match greediest.map(|(address, _)| *address) {
            Some(address) => self.by_age.values().find(|endpoint| endpoint.remote.ip() == address),
            None => self.by_age.values().next().filter(|oldest| {
                let begun = self.get(oldest).map_or(now, |handshake| handshake.begun);
                now.saturating_duration_since(begun) > limits.handshake_yields_after
            }),
        };
        let goes = *goes.ok_or(())?;
        self.remove(&goes);
        Ok(1)
    }

    /// Enters one, or puts one back that goes on.
    pub(super) fn insert(&mut self, client: Endpoint, number: Option<u64>, handshake: Handshake) {
        let number = number.unwrap_or_else(|| {
            self.numbered += 1;
            self.numbered
        });
        self.due.insert((handshake.due, number), client);
        self.by_age.insert(number, client);
        *self.addresses.entry(client.remote.ip()).or_default() += 1;
        self.by_endpoint.insert(client, (number, handshake));
    }

    /// Takes one out, with its number.
    pub(super) fn remove(&mut self, client: &Endpoint) -> Option<(u64, Handshake)> {
        let (number, handshake) = self.by_endpoint.remove(client)?;
        self.due.remove(&(handshake.due, number));
        self.by_age.remove(&number);
        if let Some(count) = self.addresses.get_mut(&client.remote.ip()) {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&client.remote.ip());
            }
        }
        if self.by_endpoint.is_empty() {
            // What a flood left of room is given back.
            let numbered = self.numbered;
            *self = Self { numbered, ..Self::default() };
        }
        Some((number, handshake))
    }

    /// When the next has to be looked after.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((due, _), _)| *due)
    }

    /// The client of one that has to be looked after by now.
    pub(super) fn due_by(&self, now: Instant) -> Option<Endpoint> {
        self.due.first_key_value().filter(|((due, _), _)| *due <= now).map(|(_, client)| *client)
    }
}
