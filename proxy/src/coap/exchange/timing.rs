//! What the exchange layer has to do later, ordered by time.
//!
//! Most entries are not taken out early: whoever takes one when it is due looks whether it still means anything. Acknowledgements are,
//! as far as those before them allow: nearly all calls are answered long before, and each would else make the door wake for nothing.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use super::peer::ExchangeId;

/// Exchanges are forgotten up to this much late, all that are due at once.
const EXPIRY_STEP: Duration = Duration::from_secs(1);

/// An answer of ours to be sent again unless it has been acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Resend {
    pub(super) due: Instant,
    pub(super) peer: u32,
    pub(super) message_id: u16,
}

/// An exchange to be forgotten. There may be a million: the time is in whole seconds since the door was opened.
#[derive(Clone, Copy, Debug)]
struct Expiry {
    due_s: u32,
    id: ExchangeId,
}

#[derive(Debug)]
pub(super) struct Timing {
    opened: Instant,
    /// All waits are alike, so the order of noting is the order of time; so in the next two.
    acknowledgements: VecDeque<(Instant, ExchangeId)>,
    confirmable: VecDeque<Expiry>,
    non_confirmable: VecDeque<Expiry>,
    resends: BinaryHeap<Reverse<Resend>>,
}

impl Timing {
    pub(super) fn new(opened: Instant) -> Self {
        Self {
            opened,
            acknowledgements: VecDeque::new(),
            confirmable: VecDeque::new(),
            non_confirmable: VecDeque::new(),
            resends: BinaryHeap::new(),
        }
    }

    pub(super) fn acknowledge(&mut self, due: Instant, id: ExchangeId) {
        self.acknowledgements.push_back((due, id));
    }

    pub(super) fn resend(&mut self, resend: Resend) {
        self.resends.push(Reverse(resend));
    }

    pub(super) fn expire(&mut self, due: Instant, confirmable: bool, id: ExchangeId) {
        let since = due.saturating_duration_since(self.opened);
        let due_s = u32::try_from((since + EXPIRY_STEP).as_secs()).unwrap_or(u32::MAX);
        self.queue(confirmable).push_back(Expiry { due_s, id });
    }

    fn queue(&mut self, confirmable: bool) -> &mut VecDeque<Expiry> {
        if confirmable { &mut self.confirmable } else { &mut self.non_confirmable }
    }

    pub(super) fn next_acknowledgement(&mut self, now: Instant) -> Option<ExchangeId> {
        let (due, _) = self.acknowledgements.front()?;
        if *due > now {
            return None;
        }
        self.acknowledgements.pop_front().map(|(_, id)| id)
    }

    /// Takes out the first acknowledgements, as long as they are of no use any more.
    pub(super) fn drop_acknowledgements(&mut self, mut of_use: impl FnMut(ExchangeId) -> bool) {
        while self.acknowledgements.front().is_some_and(|(_, id)| !of_use(*id)) {
            self.acknowledgements.pop_front();
        }
    }

    pub(super) fn next_resend(&mut self, now: Instant) -> Option<Resend> {
        let Reverse(first) = self.resends.peek()?;
        if first.due > now {
            return None;
        }
        self.resends.pop().map(|Reverse(resend)| resend)
    }

    /// The next exchange whose time is over, and whether it was confirmable.
    pub(super) fn next_expired(&mut self, now: Instant) -> Option<(ExchangeId, bool)> {
        let now_s = now.saturating_duration_since(self.opened).as_secs();
        for confirmable in [true, false] {
            let queue = self.queue(confirmable);
            if queue.front().is_some_and(|expiry| u64::from(expiry.due_s) <= now_s) {
                return queue.pop_front().map(|expiry| (expiry.id, confirmable));
            }
            if queue.is_empty() && queue.capacity() > 1024 {
                queue.shrink_to_fit();
            }
        }
        None
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let expiry = |queue: &VecDeque<Expiry>| {
            queue.front().map(|expiry| self.opened + Duration::from_secs(expiry.due_s.into()))
        };
        [
            self.acknowledgements.front().map(|(due, _)| *due),
            self.resends.peek().map(|Reverse(resend)| resend.due),
            expiry(&self.confirmable),
            expiry(&self.non_confirmable),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}
