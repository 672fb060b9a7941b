//! Groups (RFC 7252, section 8): a request that was sent to all CoAP hosts of a network at once asks which of them serve what.
//!
//! ```text
//!   datagram to a group ─┬─ anything but discovery, unconfirmed ─▶ silence
//!                        ├─ no room, or beyond its peer's rate ──▶ silence
//!                        └─ reserve ─ the answer is made ─ keep ── a random part of the leisure ─ next_due ─▶ sent
//! ```
//!
//! Invariants:
//! 1. What comes by a group runs no function, and is answered by what there is to tell or by nothing: no error, no Reset.
//! 2. What was admitted has its place until its time comes, even if there is nothing to tell. So places bound the work and the answers
//!    in a time, and with them what whoever sends from another's address can have sent to that other.
//! 3. Nothing here waits, sends or reads a clock.
//!
//! A socket for each group and interface listens beside the door's own (`membership`), so that what comes there was sent to the group and
//! nothing else comes there. Answers leave by the door's own socket, from the address and port by which it is asked without groups.
//!
//! Interfaces are looked at when the door opens. There are no groups of the applications' own, and none on a secure door: DTLS has no
//! groups.

mod interface;
mod membership;
pub(super) mod receive;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Instant;

pub use self::interface::GroupInterface;
pub(super) use self::membership::listen;

use super::config::GroupConfig;
use super::datagram::Transmit;
use super::random::Random;

/// Requests that came by groups, until the time of their answers.
#[derive(Debug)]
pub(super) struct Groups {
    config: GroupConfig,
    /// By the time of the answer; numbered, as several may have the same.
    due: BTreeMap<(Instant, u64), Waiting>,
    /// Places taken: those of `due`, and those whose answer is being made.
    places: usize,
    /// The same by IP address, without those that have none.
    places_of: HashMap<IpAddr, usize>,
    random: Random,
    serial: u64,
}

#[derive(Debug)]
struct Waiting {
    address: IpAddr,
    /// `None` if there is nothing to tell.
    answer: Option<Transmit>,
}

impl Groups {
    pub(super) fn new(config: GroupConfig) -> Self {
        let (due, places_of) = (BTreeMap::new(), HashMap::new());
        Self { config, due, places: 0, places_of, random: Random::default(), serial: 0 }
    }

    /// Whether no place is taken.
    #[cfg(any(test, feature = "fuzz"))]
    pub(super) fn is_empty(&self) -> bool {
        self.places == 0 && self.places_of.is_empty() && self.due.is_empty()
    }

    /// Whether a place is free for a request of this address.
    pub(super) fn has_room(&self, address: IpAddr) -> bool {
        let own = self.places_of.get(&address).copied().unwrap_or(0);
        self.places < self.config.pending_max && own < self.config.pending_per_address_max
    }

    /// Takes a place. [`Self::has_room`] has to have said that there is one, and [`Self::keep`] has to follow.
    pub(super) fn reserve(&mut self, address: IpAddr) {
        self.places += 1;
        *self.places_of.entry(address).or_default() += 1;
    }

    /// Keeps an answer, or that there is none, in the place that was taken for it, until a random part of the leisure is over.
    pub(super) fn keep(&mut self, address: IpAddr, answer: Option<Transmit>, now: Instant) {
        let due = now + self.config.leisure.mul_f64(self.random.fraction());
        self.serial = self.serial.wrapping_add(1);
        self.due.insert((due, self.serial), Waiting { address, answer });
    }

    /// Takes out what is due, and frees its place: an answer, if there is something to tell.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<Option<Transmit>> {
        let first = self.due.first_entry().filter(|first| first.key().0 <= now)?;
        let Waiting { address, answer } = first.remove();
        self.places -= 1;
        if let Entry::Occupied(mut own) = self.places_of.entry(address) {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
        Some(answer)
    }

    /// When [`Self::next_due`] has to be called next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((due, _), _)| *due)
    }
}
