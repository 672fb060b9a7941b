//! The pool of messages: claiming a free one, and giving it back.
//!
//! There is no list of free messages: a free message is one whose state says so, and to claim it is one compare-and-swap
//! of its state. So nothing can be lost between the list and its user when that user is killed.
//!
//! A claim looks first among the messages its party has to itself, lowest first, so that an application with little to do
//! touches few pages; then among those that all share, from the one that was given back last.
//!
//! This module never maps memory: it takes layout, headers and hints by reference.

use std::ops::Range;

use crate::atomic::{AtomicU32, Ordering};
use crate::layout::{CLASSES, Layout};
use crate::message::{Actor, Kind, MessageHeader, Scribbled, State, Stay};
use crate::properties::PROPERTIES_BYTES_MAX;

/// A view of a segment's messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool<'a> {
    layout: &'a Layout,
    headers: &'a [MessageHeader],
    /// For each class, which of its common messages to look at first.
    hints: &'a [AtomicU32; CLASSES],
}

impl<'a> Pool<'a> {
    pub(crate) fn new(layout: &'a Layout, headers: &'a [MessageHeader], hints: &'a [AtomicU32; CLASSES]) -> Self {
        debug_assert_eq!(headers.len(), layout.geometry.messages());
        Self { layout, headers, hints }
    }

    /// Claims a free message with room for `len` bytes, properties and payload, of the smallest class that has one.
    ///
    /// # Errors
    /// When a message was found in a state that does not exist.
    pub(crate) fn claim(&self, actor: Actor, party: usize, len: usize) -> Result<Option<Stay>, Scribbled> {
        if len > self.layout.geometry.payload_bytes_max + PROPERTIES_BYTES_MAX {
            return Ok(None);
        }
        for class in (0..CLASSES).filter(|class| len <= self.layout.class_bytes(*class)) {
            let own = self.claim_among(actor, self.layout.assured_of(class, party), 0)?;
            let stay = match own {
                Some(stay) => Some(stay),
                None => {
                    let hint = self.hints[class].load(Ordering::Relaxed) as usize;
                    self.claim_among(actor, self.layout.common_of(class), hint)?
                }
            };
            if stay.is_some() {
                return Ok(stay);
            }
        }
        Ok(None)
    }

    /// Claims the first free message of a range, beginning at the `from`-th.
    fn claim_among(&self, actor: Actor, range: Range<usize>, from: usize) -> Result<Option<Stay>, Scribbled> {
        let count = range.len();
        for step in 0..count {
            let index = range.start + from.wrapping_add(step) % count;
            let header = &self.headers[index];
            let state = header.state().ok_or(Scribbled)?;
            if state.kind != Kind::Free {
                continue;
            }
            if let Some(stay) = claim_one(header, index, state, actor) {
                return Ok(Some(stay));
            }
        }
        Ok(None)
    }

    /// Claims this very message, if it is free.
    pub(crate) fn claim_at(&self, index: usize, actor: Actor) -> Option<Stay> {
        let free = self.headers[index].state().filter(|state| state.kind == Kind::Free)?;
        claim_one(&self.headers[index], index, free, actor)
    }

    /// The owner gives a message back that it holds as `kind`.
    pub(crate) fn free(&self, stay: Stay, actor: Actor, kind: Kind) {
        let Stay { index, generation } = stay;
        let free = State { kind: Kind::Free, queue: 0, actor: Actor::AGENT, generation };
        if self.headers[index].change(stay, actor, kind, |_| free).is_none() {
            return;
        }
        let (class, _) = self.layout.class_of(index);
        let common = self.layout.common_of(class);
        if common.contains(&index) {
            let place = u32::try_from(index - common.start).unwrap_or(0);
            self.hints[class].store(place, Ordering::Relaxed);
        }
    }
}

/// The compare-and-swap that makes a message its claimer's. Only one of several that try succeeds.
fn claim_one(header: &MessageHeader, index: usize, free: State, actor: Actor) -> Option<Stay> {
    let generation = free.generation.wrapping_add(1);
    let draft = State { kind: Kind::Draft, queue: 0, actor, generation };
    header.swap_state(free, draft).then_some(Stay { index, generation })
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::layout::Geometry;

    const GEOMETRY: Geometry = Geometry {
        functions: 2,
        targets: 0,
        slots: 1,
        queue_capacity: 2,
        payload_bytes_max: 1 << 20,
        assured: [2, 1, 0, 1],
        common: [3, 0, 1, 0],
    };

    fn with_pool(test: impl FnOnce(&Pool<'_>, &Layout)) {
        let layout = Layout::new(GEOMETRY).unwrap();
        let headers: Vec<_> = (0..GEOMETRY.messages()).map(|_| MessageHeader::default()).collect();
        let hints = Default::default();
        test(&Pool::new(&layout, &headers, &hints), &layout);
    }

    fn claim_all(pool: &Pool<'_>, party: usize, len: usize) -> Vec<Stay> {
        std::iter::from_fn(|| pool.claim(Actor::AGENT, party, len).unwrap()).collect()
    }

    #[test]
    fn a_flood_to_one_function_leaves_the_others_what_is_theirs() {
        with_pool(|pool, _| {
            let flood = claim_all(pool, 0, 10);
            // Its own of all classes, and all common ones: 2 + 1 + 0 + 1 and 3 + 0 + 1 + 0.
            assert_eq!(flood.len(), 8);
            for party in [1, 2] {
                assert_eq!(claim_all(pool, party, 10).len(), 4, "party {party}");
            }
            pool.free(flood[0], Actor::AGENT, Kind::Draft);
            assert_eq!(claim_all(pool, 1, 10).len(), 0, "what is given back to function 0 is not function 1's");
            assert_eq!(claim_all(pool, 0, 10).len(), 1);
        });
    }

    #[test]
    fn a_message_has_room_for_what_was_asked() {
        with_pool(|pool, layout| {
            for len in [0, 1 << 10, (1 << 10) + 1, 17 << 10, 257 << 10, 1 << 20, (1 << 20) + PROPERTIES_BYTES_MAX] {
                let stay = pool.claim(Actor::AGENT, 1, len).unwrap().unwrap();
                let (class, _) = layout.class_of(stay.index);
                assert!(layout.class_bytes(class) >= len);
                pool.free(stay, Actor::AGENT, Kind::Draft);
            }
            assert_eq!(pool.claim(Actor::AGENT, 1, (1 << 20) + PROPERTIES_BYTES_MAX + 1), Ok(None));
        });
    }

    #[test]
    fn what_was_given_back_last_is_claimed_first_among_the_common_ones() {
        with_pool(|pool, layout| {
            let all = claim_all(pool, 0, 10);
            let common = layout.common_of(0);
            let second = all.iter().find(|stay| stay.index == common.start + 1).unwrap();
            pool.free(*second, Actor::AGENT, Kind::Draft);
            let again = pool.claim(Actor::AGENT, 0, 10).unwrap().unwrap();
            assert_eq!((again.index, again.generation), (second.index, second.generation + 1));
        });
    }

    #[test]
    fn what_is_no_longer_held_cannot_be_given_back() {
        with_pool(|pool, _| {
            let stay = pool.claim(Actor::instance(0), 0, 1).unwrap().unwrap();
            for (actor, kind) in [(Actor::instance(1), Kind::Draft), (Actor::instance(0), Kind::Serving)] {
                pool.free(stay, actor, kind);
                assert_eq!(pool.headers[stay.index].state().unwrap().kind, Kind::Draft);
            }
            pool.free(stay, Actor::instance(0), Kind::Draft);
            let next = pool.claim(Actor::instance(0), 0, 1).unwrap().unwrap();
            assert_eq!(next.index, stay.index);
            // As by the second of two that came of a fork.
            pool.free(stay, Actor::instance(0), Kind::Draft);
            assert_eq!(pool.headers[next.index].state().unwrap().kind, Kind::Draft);
        });
    }

    #[test]
    fn a_state_that_does_not_exist_is_told() {
        with_pool(|pool, _| {
            pool.headers[0].state.store(u64::MAX, Ordering::Relaxed);
            assert_eq!(pool.claim(Actor::AGENT, 0, 1), Err(Scribbled));
        });
    }
}

#[cfg(test)]
#[cfg(loom)]
mod model {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::layout::Geometry;

    /// Two who claim and give back at the same time never hold the same message.
    #[test]
    fn a_message_is_claimed_by_one() {
        let geometry = Geometry {
            functions: 1,
            targets: 0,
            slots: 1,
            queue_capacity: 1,
            payload_bytes_max: 1,
            assured: [0, 0, 0, 0],
            common: [1, 0, 0, 1],
        };
        loom::model(move || {
            let layout = Layout::new(geometry).unwrap();
            let headers: Vec<_> = (0..2).map(|_| MessageHeader::default()).collect();
            let hints = std::array::from_fn(|_| AtomicU32::new(0));
            let shared = Arc::new((layout, headers, hints));
            let holders = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
            let work = |shared: &(Layout, Vec<MessageHeader>, [AtomicU32; CLASSES]), holders: &[AtomicU32; 2], slot| {
                let pool = Pool::new(&shared.0, &shared.1, &shared.2);
                let stay = pool.claim(Actor::instance(slot), 0, 1).unwrap().expect("there are as many as claimers");
                assert_eq!(holders[stay.index].fetch_add(1, Ordering::Relaxed), 0, "two hold one message");
                holders[stay.index].fetch_sub(1, Ordering::Relaxed);
                pool.free(stay, Actor::instance(slot), Kind::Draft);
            };
            let other = {
                let (shared, holders) = (Arc::clone(&shared), Arc::clone(&holders));
                thread::spawn(move || work(&shared, &holders, 1))
            };
            work(&shared, &holders, 0);
            other.join().unwrap();
        });
    }
}
