//! Established sessions: bounded in all, for each identity and in time, found by number and by endpoint, closed when idle.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::association::Association;
use super::config::DtlsConfig;
use crate::coap::datagram::{Endpoint, SessionNumber};
use crate::keys::Identity;

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    /// The client, as the datagram layer knows it.
    pub(super) client: Endpoint,
    pub(super) association: Association,
    pub(super) identity: Arc<Identity>,
    /// The client's random bytes in its handshake.
    pub(super) random: [u8; 32],
    /// When its handshake was complete.
    opened: Instant,
    /// When the client last said something.
    pub(super) used: Instant,
    /// When it is looked at next.
    due: Instant,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Nothing came for too long.
    Idle,
    /// It has lasted as long as one may.
    Old,
}

impl Session {
    /// When it is over, if nothing comes until then, and why.
    fn end(&self, limits: &DtlsConfig) -> (Instant, Over) {
        let (idle, old) = (self.used + limits.session_idle_max, self.opened + limits.session_life_max);
        if old <= idle { (old, Over::Old) } else { (idle, Over::Idle) }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_number: HashMap<SessionNumber, Session>,
    by_endpoint: HashMap<Endpoint, SessionNumber>,
    by_identity: HashMap<Box<str>, Vec<SessionNumber>>,
    due: BTreeSet<(Instant, SessionNumber)>,
    last: SessionNumber,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }

    pub(super) fn get_mut(&mut self, number: SessionNumber) -> Option<&mut Session> {
        self.by_number.get_mut(&number)
    }

    /// The number of the session with a client.
    pub(super) fn with(&self, client: &Endpoint) -> Option<SessionNumber> {
        self.by_endpoint.get(client).copied()
    }

    /// Whether the session with a client came of a handshake with these random bytes.
    pub(super) fn came_of(&self, client: &Endpoint, random: &[u8; 32]) -> bool {
        let number = self.with(client);
        number.and_then(|number| self.by_number.get(&number)).is_some_and(|session| session.random == *random)
    }

    pub(super) fn numbers(&self) -> Vec<SessionNumber> {
        self.by_number.keys().copied().collect()
    }

    /// Whether one more would fit: there is room, or a session that may give way.
    pub(super) fn fits(&self, limits: &DtlsConfig, now: Instant) -> bool {
        self.len() < limits.sessions_max || self.idlest(limits, now).is_some()
    }

    /// The sessions that have to go for one more of this identity; `Err` if none may and there is no room.
    pub(super) fn to_go(&self, identity: &str, limits: &DtlsConfig, now: Instant) -> Result<Option<SessionNumber>, ()> {
        let own = self.by_identity.get(identity).map(Vec::as_slice).unwrap_or_default();
        if own.len() >= limits.sessions_per_identity_max {
            let used = |number: &&SessionNumber| self.by_number.get(number).map(|session| session.used);
            return Ok(own.iter().min_by_key(used).copied());
        }
        if self.len() < limits.sessions_max {
            return Ok(None);
        }
        self.idlest(limits, now).map(Some).ok_or(())
    }

    /// The least recently used session, if it may give way.
    fn idlest(&self, limits: &DtlsConfig, now: Instant) -> Option<SessionNumber> {
        let (number, session) = self.by_number.iter().min_by_key(|(_, session)| session.used)?;
        (now.saturating_duration_since(session.used) > limits.session_yields_after).then_some(*number)
    }

    /// Enters a session with a client that has none. Its number has been no other's.
    pub(super) fn insert(
        &mut self,
        client: Endpoint,
        association: Association,
        identity: Arc<Identity>,
        random: [u8; 32],
        limits: &DtlsConfig,
        now: Instant,
    ) -> SessionNumber {
        self.last = self.last.next();
        let number = self.last;
        let mut session = Session { client, association, identity, random, opened: now, used: now, due: now };
        (session.due, _) = session.end(limits);
        self.by_endpoint.insert(client, number);
        self.by_identity.entry(session.identity.name().into()).or_default().push(number);
        self.due.insert((session.due, number));
        self.by_number.insert(number, session);
        number
    }

    /// Takes a session out.
    pub(super) fn remove(&mut self, number: SessionNumber) -> Option<Session> {
        let session = self.by_number.remove(&number)?;
        self.by_endpoint.remove(&session.client);
        self.due.remove(&(session.due, number));
        if let Some(own) = self.by_identity.get_mut(session.identity.name()) {
            own.retain(|other| *other != number);
            if own.is_empty() {
                self.by_identity.remove(session.identity.name());
            }
        }
        if self.by_number.is_empty() {
            let last = self.last;
            *self = Self { last, ..Self::default() };
        }
        Some(session)
    }

    /// When the next has to be looked at.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// A session that is over by now, and why. That one was used is noted when its time comes, not each time.
    pub(super) fn over_by(&mut self, limits: &DtlsConfig, now: Instant) -> Option<(SessionNumber, Over)> {
        loop {
            let (due, number) = self.due.first().copied().filter(|(due, _)| *due <= now)?;
            let session = self.by_number.get_mut(&number);
            let (later, over) = session.as_ref().map_or((now, Over::Idle), |session| session.end(limits));
            let Some(session) = session.filter(|_| later > now) else {
                return Some((number, over));
            };
            session.due = later;
            self.due.remove(&(due, number));
            self.due.insert((later, number));
        }
    }
}
