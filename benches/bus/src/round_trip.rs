//! Round trips of two processes that block while they wait.
//!
//! ```text
//!   caller                         answerer
//!   ──────                         ────────
//!   began ── payload ────────────▶ in hand: one way = now − stamp
//!   sleep                          looks at a byte of each page
//!   ended ◀──────────── payload ── answers as many bytes
//! ```
//!
//! Each slice forks its two processes, makes new resources, warms them up and measures; the parent sleeps meanwhile.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sandbar_bus::clock::now_ns;

use crate::pinning::Placement;
use crate::process::Process;
use crate::shared::{SharedMemory, stamp};

/// A slice takes well under a second.
const SLICE_MAX: Duration = Duration::from_secs(20);

/// The side that asks.
pub(crate) trait Caller {
    /// Hands a stamped payload over and returns once the answer is in hand, and looked at.
    fn round_trip(&mut self, payload: &[u8]);
}

/// The side that answers.
pub(crate) trait Answerer {
    /// Waits until a payload is in hand; when it was sent.
    fn receive(&mut self) -> u64;
    /// Looks at the payload, and answers with another.
    fn answer(&mut self, payload: &[u8]);
}

/// A way to hand payloads over, made before its two processes are.
///
/// Each side is lent out for as long as it is needed, so that what it is made of can live on the stack.
pub(crate) trait Transport {
    /// In the asking process.
    fn ask(&self, asking: &mut dyn FnMut(&mut dyn Caller));
    /// In the answering process.
    fn serve(&self, serving: &mut dyn FnMut(&mut dyn Answerer));
}

/// How much a slice measures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amount {
    pub(crate) payload_bytes: usize,
    /// Round trips that are not measured: enough to use each buffer of the bus's size class once.
    pub(crate) warm_up: usize,
    pub(crate) count: usize,
}

/// What a slice measured, in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    pub(crate) round_trip: Vec<u64>,
    pub(crate) one_way: Vec<u64>,
}

/// What the two processes of a slice share.
struct Notes {
    memory: SharedMemory,
    amount: Amount,
}

impl Notes {
    /// Until both sides are set up.
    fn ready(&self) {
        self.memory.lines()[0].meet(2);
    }

    /// Until both sides are through, so that neither takes away what the other still uses.
    fn done(&self) {
        self.memory.lines()[1].meet(2);
    }

    fn note(&self, column: usize, turn: usize, ns: u64) {
        if let Some(turn) = turn.checked_sub(self.amount.warm_up) {
            self.memory.numbers()[column * self.amount.count + turn].store(ns, Ordering::Relaxed);
        }
    }

    fn column(&self, column: usize) -> Vec<u64> {
        let column = self.memory.numbers().chunks_exact(self.amount.count).nth(column).unwrap();
        column.iter().map(|ns| ns.load(Ordering::Relaxed)).collect()
    }

    fn turns(&self) -> std::ops::Range<usize> {
        0..self.amount.warm_up + self.amount.count
    }
}

const ROUND_TRIP: usize = 0;
const ONE_WAY: usize = 1;

/// Measures a slice.
pub(crate) fn measure(what: &str, transport: &dyn Transport, placement: Placement, amount: Amount) -> Times {
    let notes = Notes { memory: SharedMemory::new(2, amount.count * 2, 0), amount };
    let answerer = Process::start(what, placement.processor(1), || {
        transport.serve(&mut |answerer| answer(answerer, &notes));
    });
    let caller = Process::start(what, placement.processor(0), || {
        transport.ask(&mut |caller| call(caller, &notes));
    });
    caller.wait(SLICE_MAX);
    answerer.wait(SLICE_MAX);
    Times { round_trip: notes.column(ROUND_TRIP), one_way: notes.column(ONE_WAY) }
}

fn call(caller: &mut dyn Caller, notes: &Notes) {
    let mut payload = vec![0xA5; notes.amount.payload_bytes];
    notes.ready();
    for turn in notes.turns() {
        let began = now_ns();
        stamp(&mut payload, began);
        caller.round_trip(&payload);
        notes.note(ROUND_TRIP, turn, now_ns() - began);
    }
    notes.done();
}

fn answer(answerer: &mut dyn Answerer, notes: &Notes) {
    let payload = vec![0x5A; notes.amount.payload_bytes];
    notes.ready();
    for turn in notes.turns() {
        let sent_ns = answerer.receive();
        notes.note(ONE_WAY, turn, now_ns().saturating_sub(sent_ns));
        answerer.answer(&payload);
    }
    notes.done();
}
