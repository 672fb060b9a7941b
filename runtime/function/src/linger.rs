//! After its call: an instance lingers, instead of ending at once before those who have something to do.
//!
//! The end of a process and the fork of another in its place take longer than a hop, cannot be interrupted for most of their time, and would
//! run on the very processor that whoever was woken is to run on. A lower priority would not do: it counts within a control group only, and
//! there it lets dead instances pile up while calls keep coming.
//!
//! ```text
//!  f0 ──▶ f1 ──▶ f2 ──▶ … ──▶ fn ──▶ answer
//!   asleep until the chain ends       │ asleep for a moment, rings for the others, ends
//!   ◀─────────────────────────────────┘
//! ```
//!
//! Nobody lingers while calls wait for its place. Those of a long chain hold memory together; beyond their share of the application's they
//! end along the way.

use std::time::Duration;

use sandbar_bus::Bus;
use sandbar_bus::slot::InstanceSlot;

use crate::process;

/// For so long an instance lingers that has answered.
const MOMENT: Duration = Duration::from_micros(500);
/// For so long at a time one does that has handed its call on: as most chains take, and less if the application has few slots, as it holds
/// one of them.
const CHAIN: Duration = Duration::from_millis(4);
const CHAIN_A_SLOT: Duration = Duration::from_micros(30);
/// So often at most, while chains are on their way.
const TIMES: u32 = 6;

/// An instance that has nothing left to do but to end.
#[derive(Debug)]
pub(crate) struct Lingering<'bus> {
    bus: &'bus Bus,
    slot: &'bus InstanceSlot,
    function_index: usize,
}

impl<'bus> Lingering<'bus> {
    pub(crate) fn new(bus: &'bus Bus, slot: usize, function_index: usize) -> Self {
        Self { bus, slot: &bus.slots()[slot], function_index }
    }

    /// The chain ends here, and whoever waits for its answer is to run now.
    pub(crate) fn after_an_answer(&self) {
        self.slot.finish();
        if self.is_wanted() {
            process::step_back();
        } else {
            process::sleep(MOMENT);
        }
        self.bus.chain_ended().ring();
    }

    /// The next function's instance is to run now, and all after it. Before this one came so many others.
    pub(crate) fn after_a_hop(&self, hops: u32) {
        self.slot.finish();
        if self.is_wanted() {
            process::step_back();
        } else if self.fits(hops as usize + 1) {
            self.await_the_end();
        } else {
            process::sleep(MOMENT);
        }
    }

    /// Returns when the process is to end.
    pub(crate) fn last(&self) {
        self.slot.finish();
        for _ in 1..TIMES {
            match self.bus.lingering_while_serving() {
                Some(lingering) if !self.is_wanted() && self.fits(lingering) => self.await_the_end(),
                Some(_) | None => return,
            }
        }
    }

    fn is_wanted(&self) -> bool {
        self.bus.waiting(self.function_index) > 0
    }

    /// Whether so many hold no more memory than they may, if all are as this one: each page that was its own has cost it a fault.
    fn fits(&self, lingering: usize) -> bool {
        process::faults().saturating_mul(lingering as u64) <= self.bus.lingering_pages_max()
    }

    fn await_the_end(&self) {
        let ended = self.bus.chain_ended();
        let slots = u32::try_from(self.bus.slots().len()).unwrap_or(u32::MAX);
        ended.sleep(ended.listen(), 0, Some(CHAIN_A_SLOT.saturating_mul(slots).min(CHAIN)));
    }
}
