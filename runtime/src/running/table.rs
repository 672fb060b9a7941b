//! The table of calls under way in one sandbox: the agent's own knowledge, which nothing that comes out of the sandbox changes but
//! by ending a call.

use std::collections::{HashMap, VecDeque};

use tokio::sync::oneshot;

use super::overload::Overload;
use super::silence::Silence;
use crate::call::{Answer, Hop};

/// Ended calls whose origin is still known, for requests of functions that run on after the answer was given.
const ENDED_MAX: usize = 1024;

/// A call under way.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) answer: oneshot::Sender<Answer>,
    /// The function that was called.
    pub(super) function: usize,
    pub(super) began_ns: u64,
    pub(super) deadline_ns: u64,
    /// How many calls from one application into another led to this one.
    pub(super) depth: u32,
    pub(super) hops: Vec<Hop>,
    pub(super) traced: bool,
}

/// Where a request of a function comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Origin {
    /// How many calls from one application into another led to the one it is made in.
    pub(super) depth: u32,
    /// When that one must be over; `None` if it is over, or was never a caller's.
    pub(super) deadline_ns: Option<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Calls {
    pending: HashMap<u64, Pending>,
    /// Calls that came from other applications and have ended, oldest first, with their depth.
    ended: VecDeque<(u64, u32)>,
    pub(super) silence: Silence,
    pub(super) overload: Overload,
    /// When the table is looked through next for calls whose time is over; `None`: not before one is entered.
    looked_at_ns: Option<u64>,
}

impl Calls {
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Enters a call. True if the table has to be looked through earlier than was known.
    ///
    /// What is known is not put off when a call ends: with calls of like deadlines, the clock is set once for all of them.
    pub(super) fn insert(&mut self, call: u64, pending: Pending) -> bool {
        let deadline_ns = pending.deadline_ns;
        self.pending.insert(call, pending);
        let earlier = self.looked_at_ns.is_none_or(|at_ns| deadline_ns < at_ns);
        if earlier {
            self.looked_at_ns = Some(deadline_ns);
        }
        earlier
    }

    /// Takes out the calls whose time is over, and tells when to look again.
    pub(super) fn take_overdue(&mut self, now_ns: u64) -> (Vec<(u64, Pending)>, Option<u64>) {
        let mut overdue = Vec::new();
        if self.looked_at_ns.is_some_and(|at_ns| at_ns <= now_ns) {
            let over = |(call, pending): (&u64, &Pending)| (pending.deadline_ns <= now_ns).then_some(*call);
            let calls: Vec<u64> = self.pending.iter().filter_map(over).collect();
            overdue.extend(calls.into_iter().filter_map(|call| Some((call, self.remove(call)?))));
            self.looked_at_ns = self.pending.values().map(|pending| pending.deadline_ns).min();
        }
        (overdue, self.looked_at_ns)
    }

    pub(super) fn get_mut(&mut self, call: u64) -> Option<&mut Pending> {
        self.pending.get_mut(&call)
    }

    pub(super) fn remove(&mut self, call: u64) -> Option<Pending> {
        let pending = self.pending.remove(&call)?;
        if pending.depth > 0 {
            if self.ended.len() == ENDED_MAX {
                self.ended.pop_front();
            }
            self.ended.push_back((call, pending.depth));
        }
        Some(pending)
    }

    /// Where a request comes from that claims to be part of this call. One that was made up counts as a call of the application's own:
    /// it could make such a call at any time.
    pub(super) fn origin(&self, call: u64) -> Origin {
        if let Some(pending) = self.pending.get(&call) {
            return Origin { depth: pending.depth, deadline_ns: Some(pending.deadline_ns) };
        }
        let ended = self.ended.iter().rev().find(|(ended, _)| *ended == call);
        Origin { depth: ended.map_or(0, |(_, depth)| *depth), deadline_ns: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(depth: u32) -> Pending {
        let (answer, _) = oneshot::channel();
        Pending { answer, function: 0, began_ns: 0, deadline_ns: 9, depth, hops: Vec::new(), traced: false }
    }

    fn until(deadline_ns: u64) -> Pending {
        Pending { deadline_ns, ..pending(0) }
    }

    #[test]
    fn the_clock_is_set_for_the_first_deadline_and_not_put_off() {
        let mut calls = Calls::default();
        assert!(calls.insert(1, until(100)));
        for call in 2..50 {
            assert!(!calls.insert(call, until(100 + call)), "later");
            calls.remove(call);
        }
        calls.remove(1);
        assert!(!calls.insert(50, until(150)), "it is looked at 100 anyhow");
        assert!(calls.insert(51, until(20)));
        assert!(calls.take_overdue(19).0.is_empty());
        let (overdue, next) = calls.take_overdue(20);
        assert_eq!((overdue.len(), overdue[0].0, next), (1, 51, Some(150)));
    }

    #[test]
    fn every_call_is_taken_out_at_its_deadline() {
        let mut calls = Calls::default();
        for call in 0..1000 {
            calls.insert(call, until(1000 + call * 37 % 1000));
        }
        let mut next = Some(1000);
        let mut taken = 0;
        while let Some(now) = next {
            let overdue;
            (overdue, next) = calls.take_overdue(now);
            assert!(!overdue.is_empty() && overdue.iter().all(|(_, pending)| pending.deadline_ns == now));
            taken += overdue.len();
        }
        assert_eq!(taken, 1000);
        assert!(calls.is_empty() && calls.insert(1, until(5000)), "with none left, it is set anew");
    }

    #[test]
    fn where_a_request_comes_from_is_known_beyond_the_end_of_its_call() {
        let mut calls = Calls::default();
        calls.insert(1, pending(3));
        assert_eq!(calls.origin(1), Origin { depth: 3, deadline_ns: Some(9) });
        assert!(calls.remove(1).is_some() && calls.is_empty());
        assert_eq!(calls.origin(1), Origin { depth: 3, deadline_ns: None });
        assert_eq!(calls.origin(2), Origin::default());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut calls = Calls::default();
        for call in 0..2 * ENDED_MAX as u64 {
            calls.insert(call, pending(1));
            calls.remove(call);
        }
        assert_eq!(calls.ended.len(), ENDED_MAX);
        assert_eq!(calls.origin(0).depth, 0);
        assert_eq!(calls.origin(2 * ENDED_MAX as u64 - 1).depth, 1);
    }
}
