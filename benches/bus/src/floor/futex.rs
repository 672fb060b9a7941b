//! Bare futexes: a shared buffer for each direction, a word to sleep on, and nothing else.

use std::sync::atomic::Ordering;

use sandbar_bus::futex;

use crate::flow::Flow;
use crate::round_trip::{Answerer, Caller, Transport};
use crate::shared::{SharedMemory, stamp_of, touch};

const REQUEST: usize = 0;
const ANSWER: usize = 1;

/// The floor of a round trip: one copy into shared memory and one wake-up each way.
#[derive(Debug)]
pub(crate) struct Futex {
    memory: SharedMemory,
    payload_bytes: usize,
}

struct Side<'a> {
    shared: &'a Futex,
    turn: u32,
}

impl Futex {
    pub(crate) fn new(payload_bytes: usize) -> Self {
        Self { memory: SharedMemory::new(2, 0, 2 * payload_bytes), payload_bytes }
    }

    fn payload(&self, direction: usize) -> &[u8] {
        self.memory.read(direction * self.payload_bytes, self.payload_bytes)
    }

    fn send(&self, direction: usize, payload: &[u8]) {
        self.memory.write(direction * self.payload_bytes, payload);
        self.memory.lines()[direction].pass();
    }
}

impl Transport for Futex {
    fn ask(&self, asking: &mut dyn FnMut(&mut dyn Caller)) {
        asking(&mut Side { shared: self, turn: 0 });
    }

    fn serve(&self, serving: &mut dyn FnMut(&mut dyn Answerer)) {
        serving(&mut Side { shared: self, turn: 0 });
    }
}

impl Side<'_> {
    fn wait(&mut self, direction: usize) {
        self.shared.memory.lines()[direction].wait_past(self.turn);
        self.turn = self.turn.wrapping_add(1);
    }
}

impl Caller for Side<'_> {
    fn round_trip(&mut self, payload: &[u8]) {
        self.shared.send(REQUEST, payload);
        self.wait(ANSWER);
        touch(self.shared.payload(ANSWER));
    }
}

impl Answerer for Side<'_> {
    fn receive(&mut self) -> u64 {
        self.wait(REQUEST);
        stamp_of(self.shared.payload(REQUEST))
    }

    fn answer(&mut self, payload: &[u8]) {
        touch(self.shared.payload(REQUEST));
        self.shared.send(ANSWER, payload);
    }
}

/// The floor of a stream from one producer to one consumer: a ring of places, and one wake-up a message.
#[derive(Debug)]
pub(crate) struct Ring {
    memory: SharedMemory,
    message_bytes: usize,
}

/// As many as a function's queue usually has.
const PLACES: u32 = 256;
const TAIL: usize = 0;
const HEAD: usize = 1;

impl Ring {
    pub(crate) fn new(message_bytes: usize) -> Self {
        Self { memory: SharedMemory::new(2, 0, PLACES as usize * message_bytes), message_bytes }
    }

    fn place(&self, position: u32) -> usize {
        (position % PLACES) as usize * self.message_bytes
    }
}

impl Flow for Ring {
    fn produce(&self, _producer: usize, payload: &[u8]) -> ! {
        let [tail, head] = [TAIL, HEAD].map(|line| &self.memory.lines()[line].word);
        loop {
            let position = tail.load(Ordering::Relaxed);
            while position.wrapping_sub(head.load(Ordering::Acquire)) == PLACES {
                std::thread::yield_now();
            }
            self.memory.write(self.place(position), payload);
            tail.store(position.wrapping_add(1), Ordering::SeqCst);
            futex::wake(tail);
        }
    }

    fn consume(&self, _consumer: usize, received: &dyn Fn()) -> ! {
        let [tail, head] = [TAIL, HEAD].map(|line| &self.memory.lines()[line].word);
        loop {
            let position = head.load(Ordering::Relaxed);
            while tail.load(Ordering::SeqCst) == position {
                futex::wait(tail, position, None);
            }
            touch(self.memory.read(self.place(position), self.message_bytes));
            head.store(position.wrapping_add(1), Ordering::Release);
            received();
        }
    }
}
