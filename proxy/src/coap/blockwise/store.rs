//! Values of block-wise transfers, kept by key under limits of count and bytes, overall and per peer.
//!
//! Every use makes a value the youngest. What has not been used for `idle_max` is dropped; what has not been used
//! for `yields_after` gives way when room is needed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::Key;
use crate::coap::config::TransferLimits;
use crate::coap::datagram::Endpoint;

/// What an entry takes beside its key and value, in bytes.
const ENTRY_BYTES: usize = 256;

/// There is no room, and nothing that may give way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Which values may give way to a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Yield {
    /// Those that are likely to have been abandoned.
    Stale,
    /// The oldest, whatever its age.
    Oldest,
}

#[derive(Debug)]
pub(super) struct Store<V> {
    limits: TransferLimits,
    entries: HashMap<Arc<Key>, Entry<V>>,
    /// Keys by last use, oldest first.
    by_use: BTreeMap<u64, Arc<Key>>,
    holdings: HashMap<Endpoint, Holding>,
    bytes: usize,
    uses: u64,
    dropped: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    bytes: usize,
    last_use: u64,
    used_at: Instant,
}

/// What one peer holds.
#[derive(Debug, Default)]
struct Holding {
    bytes: usize,
    uses: BTreeSet<u64>,
}

impl<V> Store<V> {
    pub(super) fn new(limits: TransferLimits) -> Self {
        Self {
            limits,
            entries: HashMap::new(),
            by_use: BTreeMap::new(),
            holdings: HashMap::new(),
            bytes: 0,
            uses: 0,
            dropped: 0,
        }
    }

    /// Whether nothing is held.
    #[cfg(any(test, feature = "fuzz"))]
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0 && self.entries.is_empty() && self.by_use.is_empty() && self.holdings.is_empty()
    }

    /// Values dropped so far because they were abandoned or gave way.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Looks at a value without using it.
    pub(super) fn peek(&self, key: &Key) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// Uses a value.
    pub(super) fn get_mut(&mut self, key: &Key, now: Instant) -> Option<&mut V> {
        let (key, _) = self.entries.get_key_value(key)?;
        let key = Arc::clone(key);
        self.uses += 1;
        let entry = self.entries.get_mut(&key)?;
        let holding = self.holdings.entry(key.peer).or_default();
        holding.uses.remove(&entry.last_use);
        holding.uses.insert(self.uses);
        self.by_use.remove(&entry.last_use);
        self.by_use.insert(self.uses, key);
        entry.last_use = self.uses;
        entry.used_at = now;
        Some(&mut entry.value)
    }

    /// Takes a value out.
    pub(super) fn remove(&mut self, key: &Key) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.by_use.remove(&entry.last_use);
        self.bytes -= entry.bytes;
        if let Some(holding) = self.holdings.get_mut(&key.peer) {
            holding.bytes -= entry.bytes;
            holding.uses.remove(&entry.last_use);
            if holding.uses.is_empty() {
                self.holdings.remove(&key.peer);
            }
        }
        Some(entry.value)
    }

    /// Puts a value of `payload_bytes` in, in place of one with the same key.
    pub(super) fn insert(
        &mut self,
        key: &Key,
        value: V,
        payload_bytes: usize,
        may_go: Yield,
        now: Instant,
    ) -> Result<(), Full> {
        self.remove(key);
        let bytes = ENTRY_BYTES + key.request.len() + payload_bytes;
        self.make_room(&key.peer, 1, bytes, may_go, now)?;
        let key = Arc::new(key.clone());
        self.uses += 1;
        self.bytes += bytes;
        let holding = self.holdings.entry(key.peer).or_default();
        holding.bytes += bytes;
        holding.uses.insert(self.uses);
        self.by_use.insert(self.uses, Arc::clone(&key));
        let entry = Entry { value, bytes, last_use: self.uses, used_at: now };
        self.entries.insert(key, entry);
        Ok(())
    }

    /// Counts `more` payload bytes to a value. If they do not fit the value stays as it is.
    pub(super) fn grow(&mut self, key: &Key, more: usize, now: Instant) -> Result<(), Full> {
        if more == 0 {
            return Ok(());
        }
        // The youngest goes last: the value itself has just been used.
        self.make_room(&key.peer, 0, more, Yield::Stale, now)?;
        let entry = self.entries.get_mut(key).ok_or(Full)?;
        entry.bytes += more;
        self.bytes += more;
        if let Some(holding) = self.holdings.get_mut(&key.peer) {
            holding.bytes += more;
        }
        Ok(())
    }

    /// Drops what has been abandoned.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(oldest) = self.oldest() {
            if self.age_reached(&oldest, self.limits.idle_max, now) {
                self.drop_value(&oldest);
            } else {
                break;
            }
        }
    }

    /// Drops all of a peer.
    pub(super) fn forget(&mut self, peer: &Endpoint) {
        while let Some(oldest) = self.oldest_of(peer) {
            self.drop_value(&oldest);
        }
    }

    /// When [`Self::expire`] will have something to drop.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let oldest = self.oldest()?;
        let entry = self.entries.get(&oldest)?;
        Some(entry.used_at + self.limits.idle_max)
    }

    fn oldest(&self) -> Option<Arc<Key>> {
        self.by_use.first_key_value().map(|(_, key)| Arc::clone(key))
    }

    fn oldest_of(&self, peer: &Endpoint) -> Option<Arc<Key>> {
        let last_use = self.holdings.get(peer)?.uses.first()?;
        self.by_use.get(last_use).map(Arc::clone)
    }

    fn age_reached(&self, key: &Key, age: std::time::Duration, now: Instant) -> bool {
        self.entries.get(key).is_some_and(|entry| now.saturating_duration_since(entry.used_at) >= age)
    }

    fn drop_value(&mut self, key: &Key) {
        if self.remove(key).is_some() {
            self.dropped += 1;
        }
    }

    fn make_room(
        &mut self,
        peer: &Endpoint,
        entries: usize,
        bytes: usize,
        may_go: Yield,
        now: Instant,
    ) -> Result<(), Full> {
        if bytes > self.limits.bytes_max || bytes > self.limits.bytes_per_peer_max {
            return Err(Full);
        }
        loop {
            let peer_is_full = self.holdings.get(peer).is_some_and(|holding| {
                holding.uses.len() + entries > self.limits.transfers_per_peer_max
                    || holding.bytes + bytes > self.limits.bytes_per_peer_max
            });
            let all_is_full =
                self.entries.len() + entries > self.limits.transfers_max || self.bytes + bytes > self.limits.bytes_max;
            let oldest = match (peer_is_full, all_is_full) {
                (false, false) => return Ok(()),
                (true, _) => self.oldest_of(peer),
                (false, true) => self.oldest(),
            };
            let oldest = oldest.ok_or(Full)?;
            if may_go == Yield::Stale && !self.age_reached(&oldest, self.limits.yields_after, now) {
                return Err(Full);
            }
            self.drop_value(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::key;
    use super::*;

    fn store(transfers_max: usize, per_peer_max: usize, bytes_max: usize) -> Store<u32> {
        Store::new(TransferLimits {
            transfers_max,
            transfers_per_peer_max: per_peer_max,
            bytes_max,
            bytes_per_peer_max: bytes_max / 2,
            idle_max: Duration::from_secs(60),
            yields_after: Duration::from_secs(5),
        })
    }

    fn assert_empty(store: &Store<u32>) {
        assert_eq!(store.bytes, 0);
        assert!(store.entries.is_empty() && store.by_use.is_empty() && store.holdings.is_empty());
    }

    #[test]
    fn removing_gives_all_room_back() {
        let now = Instant::now();
        let mut store = store(8, 8, 10_000);
        store.insert(&key(1, "a"), 1, 100, Yield::Stale, now).unwrap();
        store.insert(&key(1, "a"), 2, 300, Yield::Stale, now).unwrap();
        store.grow(&key(1, "a"), 500, now).unwrap();
        assert_eq!(store.bytes, ENTRY_BYTES + 1 + 800);
        assert_eq!(store.get_mut(&key(1, "a"), now), Some(&mut 2));
        assert_eq!(store.remove(&key(1, "a")), Some(2));
        assert_eq!(store.remove(&key(1, "a")), None);
        assert_empty(&store);
    }

    #[test]
    fn a_peer_cannot_take_the_room_of_others() {
        let now = Instant::now();
        let mut store = store(8, 2, 10_000);
        store.insert(&key(1, "a"), 1, 0, Yield::Stale, now).unwrap();
        store.insert(&key(1, "b"), 1, 0, Yield::Stale, now).unwrap();
        assert_eq!(store.insert(&key(1, "c"), 1, 0, Yield::Stale, now), Err(Full));
        store.insert(&key(2, "c"), 1, 0, Yield::Stale, now).unwrap();
        assert_eq!(store.grow(&key(2, "c"), 5000, now), Err(Full));
        store.grow(&key(2, "c"), 4000, now).unwrap();
    }

    #[test]
    fn stale_values_give_way_oldest_first() {
        let start = Instant::now();
        let later = start + Duration::from_secs(5);
        let mut store = store(2, 2, 10_000);
        store.insert(&key(1, "a"), 1, 0, Yield::Stale, start).unwrap();
        store.insert(&key(2, "b"), 2, 0, Yield::Stale, start).unwrap();
        assert_eq!(store.insert(&key(3, "c"), 3, 0, Yield::Stale, start), Err(Full));
        store.get_mut(&key(1, "a"), later).unwrap();
        store.insert(&key(3, "c"), 3, 0, Yield::Stale, later).unwrap();
        assert_eq!(store.peek(&key(2, "b")), None);
        assert_eq!(store.insert(&key(4, "d"), 4, 0, Yield::Stale, later), Err(Full));
        store.insert(&key(4, "d"), 4, 0, Yield::Oldest, later).unwrap();
        assert_eq!(store.peek(&key(1, "a")), None);
        assert_eq!(store.dropped(), 2);
    }

    #[test]
    fn a_peer_that_has_gone_leaves_nothing() {
        let now = Instant::now();
        let mut store = store(8, 8, 10_000);
        for name in ["a", "b", "c"] {
            store.insert(&key(1, name), 1, 100, Yield::Stale, now).unwrap();
        }
        store.insert(&key(2, "a"), 2, 100, Yield::Stale, now).unwrap();
        store.forget(&key(1, "a").peer);
        assert_eq!((store.entries.len(), store.peek(&key(2, "a")), store.dropped()), (1, Some(&2), 3));
        store.forget(&key(2, "a").peer);
        assert_empty(&store);
    }

    #[test]
    fn abandoned_values_expire() {
        let start = Instant::now();
        let mut store = store(8, 8, 10_000);
        store.insert(&key(1, "a"), 1, 0, Yield::Stale, start).unwrap();
        let deadline = store.next_deadline().unwrap();
        store.expire(deadline - Duration::from_millis(1));
        assert!(store.peek(&key(1, "a")).is_some());
        store.expire(deadline);
        assert_empty(&store);
        assert_eq!(store.next_deadline(), None);
    }
}
