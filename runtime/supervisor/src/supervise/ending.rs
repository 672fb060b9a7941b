//! What stands between the death of an instance and the next use of its slot: everything that ran as its user is dead and reaped, its
//! temporary files are deleted, and the bus is swept.
//!
//! ```text
//!   instance reaped ──▶ Dying ── nothing runs as its user, its files are deleted ──▶ swept, slot free
//!                         │ ▲
//!                         └─┘ killed again, at each turn of the loop
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sandbar_bus::Verdict;
use sandbar_bus::clock::now_ns;

use super::Supervisor;
use crate::identity::{instance_id, kill_user};
use crate::reaping::End;

/// How soon the supervisor looks again after an instance whose processes have not all died. Each death wakes it besides.
const DYING_AGAIN: Duration = Duration::from_millis(2);

/// An instance that is dead, with what is left of it.
#[derive(Debug)]
pub(super) struct Dying {
    slot: usize,
    /// `None` if it was not seen to end.
    end: Option<End>,
    function: Option<usize>,
    /// Whether it had left processes behind.
    left_processes: bool,
}

impl Supervisor {
    /// The process of an instance has ended.
    pub(super) fn instance_ended(&mut self, slot: usize, end: End) {
        self.begin_burial(slot, Some(end));
    }

    /// An instance is found to be gone whose process had another id than its slot said.
    pub(super) fn instance_vanished(&mut self, slot: usize) {
        self.begin_burial(slot, None);
    }

    fn begin_burial(&mut self, slot: usize, end: Option<End>) {
        let function = self.bus.slots()[slot].state().map(|state| state.function);
        self.dying.push(Dying { slot, end, function, left_processes: false });
    }

    /// Whether the slot's instance is dead already, whatever the slot says.
    pub(super) fn is_dying(&self, slot: usize) -> bool {
        self.dying.iter().any(|dying| dying.slot == slot)
    }

    /// When [`bury`](Self::bury) is to be called again at the latest.
    pub(super) fn dying_timeout(&self) -> Option<Duration> {
        (!self.dying.is_empty()).then(|| DYING_AGAIN.max(self.temporary.pause()))
    }

    /// Ends an instance that waits for a call of a function; false if it does not, or a call has been faster.
    pub(super) fn dismiss(&mut self, function: usize, slot: usize) -> bool {
        // From then on it takes no call, wherever it stands: nothing ends with it.
        let dismissed = self.bus.dismiss(function, slot);
        if dismissed {
            kill_user(instance_id(slot));
            self.dismissed.insert(slot);
        }
        dismissed
    }

    /// Frees the slots of those dead instances of which nothing is left.
    pub(super) fn bury(&mut self) {
        if self.dying.is_empty() {
            return;
        }
        // What is killed here is seen to be gone at the next turn, once it has been reaped.
        let (alive, dead): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.dying).into_iter().partition(|dying| kill_user(instance_id(dying.slot)));
        self.dying = alive.into_iter().map(|dying| Dying { left_processes: true, ..dying }).collect();
        let users: BTreeSet<u32> = dead.iter().map(|dead| instance_id(dead.slot)).collect();
        if self.temporary.delete_of(&users) {
            dead.into_iter().for_each(|dead| self.free(dead));
        } else {
            self.dying.extend(dead);
        }
    }

    /// Nothing is left of an instance: the call it died in is answered, and its slot free.
    fn free(&mut self, dead: Dying) {
        let Dying { slot, end, function, left_processes } = dead;
        let served = !self.dismissed.remove(&slot);
        if served {
            // A call that came and went between two looks would else not be seen.
            self.is_busy(Instant::now());
        }
        if left_processes || end != Some(End::Exited(0)) {
            self.bus.slots()[slot].disbelieve();
        }
        let (verdict, diagnostic) = match self.overdue.remove(&slot) {
            Some(ms) => {
                (Verdict::DeadlinePassed, format!("the function was stopped at its deadline, {ms} ms after it began"))
            }
            None => match end.and_then(|end| self.out_of_memory(end, function)) {
                Some(diagnostic) => (Verdict::OutOfMemory, diagnostic),
                None => {
                    let how = end.map_or_else(|| "hid its end".to_owned(), |end| end.to_string());
                    (Verdict::Crashed, format!("the function's instance {how} without answering"))
                }
            },
        };
        self.bus.sweep(slot, verdict, &diagnostic);
        let functions = self.functions.len();
        if let Some(function) = function.filter(|function| *function < functions) {
            self.served[function] += u64::from(served);
            self.audit.served[function] += u64::from(served);
            self.bus.worker_bell(function).ring();
        }
        // A slot has come free: whoever has messages and nobody to take them may have waited for it.
        for other in (0..functions).filter(|other| Some(*other) != function) {
            if self.bus.waiting(other) > 0 && self.bus.idle_instances(other) == 0 {
                self.bus.worker_bell(other).ring();
            }
        }
    }

    /// What is to be said of a process of a function that the kernel has killed for want of memory.
    pub(super) fn out_of_memory(&self, end: End, function: Option<usize>) -> Option<String> {
        let limit = &self.functions.get(function?)?.memory_limit;
        (end.by_sigkill() && self.outlets.memory_kills(function?).take_one()).then(|| format!("out of memory: {limit}"))
    }

    /// Kills every instance whose time is over; what remains to be done is done when it is reaped.
    pub(super) fn enforce_deadlines(&mut self) {
        let now = now_ns();
        for (index, slot) in self.bus.slots().iter().enumerate() {
            let over = slot.deadline_ns().is_some_and(|deadline| deadline <= now);
            // Killed as the user that it is: what its slot says of its process is its own word.
            let due = over && !self.overdue.contains_key(&index) && !self.is_dying(index);
            if due && kill_user(instance_id(index)) {
                self.overdue.insert(index, slot.ran_for_ms(now));
            }
        }
    }
}

/// Slots whose instance was killed for its deadline, with the milliseconds it had.
pub(super) type Overdue = BTreeMap<usize, u64>;
