//! What a hostile process writes where: noise and, more to the point, words that could be true.

use sandbar_bus::layout::SLOTS_MAX;

use crate::chart::{Chart, MESSAGE_BYTES, QUEUE_BYTES, SLOT_BYTES, cell_word, state_word};
use crate::random::Random;

/// A word, and its offset in the segment.
pub(crate) type Lie = (usize, u64);

const AGENT: u64 = 0x3FFF;
const SUPERVISOR: u64 = 0x3FFE;
/// Offsets in the header, a message, a slot, a function and a queue, as the crate asserts them.
const SLEEPERS: usize = 192;
const HINTS: usize = 256;
const REPLY_TO: usize = 32;
const RESULT: usize = 40;
const LEN_AND_START: usize = 48;
const FORMAT_AND_VERDICT: usize = 56;
const FUNCTION_AND_FLAGS: usize = 64;
const BELL_AND_PID: usize = 24;
const FUNCTION_BYTES: usize = 128;
const WORKER_BELL: usize = 8;
const TAIL: usize = 64;
const WAITERS: usize = 128;

/// Who lies: `read` is what stands at an offset now.
pub(crate) struct Liar<'a, R: Fn(usize) -> u64> {
    pub(crate) chart: &'a Chart,
    pub(crate) random: &'a mut Random,
    pub(crate) read: R,
}

impl<R: Fn(usize) -> u64> Liar<'_, R> {
    /// One lie, or several that go together, in the order in which they are to be written.
    pub(crate) fn lie(&mut self) -> Vec<Lie> {
        match self.below(16) {
            0 => vec![self.noise()],
            1 => vec![(self.below(self.chart.payloads / 8) * 8, u64::MAX)],
            2 => vec![self.slot_state()],
            3 => vec![self.bell()],
            4 => vec![self.index()],
            5 => vec![self.waiters()],
            6 | 7 => vec![self.cell()],
            8 | 9 => vec![self.state()],
            10 => vec![self.extent()],
            11 => vec![self.verdict()],
            12 => vec![self.address()],
            13 => vec![self.sleepers()],
            _ => self.forged_answer(),
        }
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.random.below(end as u64)).unwrap()
    }

    fn word(&mut self) -> u64 {
        match self.below(5) {
            0 => 0,
            1 => u64::MAX,
            2 => self.random.below(64),
            3 => self.random.next() & 0x7000_0000_FFFF_FFFF,
            _ => self.random.next(),
        }
    }

    fn noise(&mut self) -> Lie {
        (self.below(self.chart.payloads / 8) * 8, self.word())
    }

    fn slot_state(&mut self) -> Lie {
        let at = self.chart.slots + self.below(self.chart.geometry.slots) * SLOT_BYTES;
        let functions = self.chart.geometry.functions as u64;
        let function = if self.below(2) == 0 { self.random.below(functions + 2) } else { self.random.below(256) };
        (at, self.random.below(6) << 56 | function << 32 | self.random.below(4))
    }

    fn bell(&mut self) -> Lie {
        let at = match self.below(2) {
            0 => self.chart.slots + self.below(self.chart.geometry.slots) * SLOT_BYTES + BELL_AND_PID,
            _ => self.chart.functions + self.below(self.chart.geometry.functions) * FUNCTION_BYTES + WORKER_BELL,
        };
        (at, self.word())
    }

    /// A head or a tail: a little or far ahead, or behind.
    fn index(&mut self) -> Lie {
        let tail = self.below(2);
        let at = self.chart.queues + self.below(self.chart.geometry.queues()) * QUEUE_BYTES + tail * TAIL;
        let was = (self.read)(at);
        let word = match self.below(5) {
            0 => was.wrapping_add(self.random.below(70)),
            1 => was.wrapping_sub(self.random.below(70)),
            2 => was.wrapping_add(1 << (30 + self.random.below(10))),
            _ => self.word(),
        };
        (at, word)
    }

    fn waiters(&mut self) -> Lie {
        let word = self.below(SLOTS_MAX / 64) * 8;
        (self.chart.queues + self.below(self.chart.geometry.queues()) * QUEUE_BYTES + WAITERS + word, self.word())
    }

    /// A cell in a lap that may be right, naming a message that may exist.
    fn cell(&mut self) -> Lie {
        let queue = self.below(self.chart.geometry.queues());
        let (first, count) = self.chart.cells_of(queue);
        let head = (self.read)(self.chart.queues + queue * QUEUE_BYTES);
        let ahead = self.random.below(4);
        let position = head.wrapping_add(ahead);
        let place = usize::try_from(position % count as u64).unwrap();
        let lap = ((position / count as u64) & 0xFFFF_FFFF) as u32;
        let lap = lap.wrapping_add([0, 0, 0, 1, 2, u32::MAX][self.below(6)]);
        let message = self.below(self.chart.geometry.messages() + 3);
        let generation = match self.below(4) {
            0 => 0xFFFF,
            _ => self.generation(message.min(self.chart.geometry.messages() - 1)),
        };
        let word = if self.below(8) == 0 { u64::from(lap) << 32 } else { cell_word(lap, generation, message) };
        (first + 8 * place, word)
    }

    /// The generation that the message has now.
    fn generation(&self, message: usize) -> u32 {
        ((self.read)(self.chart.message(message)) & 0xFFFF_FFFF) as u32
    }

    /// Every kind, those that do not exist too, with every queue and every owner.
    fn state(&mut self) -> Lie {
        let message = self.below(self.chart.geometry.messages());
        let kind = [0, 0, 1, 2, 2, 3, 4, 5, 15][self.below(9)];
        let queue = self.below(self.chart.geometry.queues() + 2);
        let actor = match self.below(4) {
            0 => AGENT,
            1 => SUPERVISOR,
            2 => self.random.next() & 0x3FFF,
            _ => self.random.below(self.chart.geometry.slots as u64),
        };
        let generation = self.generation(message).wrapping_add([0, 0, 0, 1, u32::MAX][self.below(5)]);
        (self.chart.message(message), state_word(kind, queue, actor, generation))
    }

    /// A length and a start, at what a buffer holds and beyond.
    fn extent(&mut self) -> Lie {
        let message = self.below(self.chart.geometry.messages());
        let max = self.chart.geometry.payload_bytes_max as u64;
        let edges = [0, 1, 1024, 1025, 16 << 10, 256 << 10, max - 1, max, max + 1, 1 << 31, u64::from(u32::MAX)];
        let (len, start) = (edges[self.below(edges.len())], edges[self.below(edges.len())]);
        let start = if self.below(2) == 0 { 0 } else { start };
        (self.chart.message(message) + LEN_AND_START, start << 32 | len)
    }

    fn verdict(&mut self) -> Lie {
        let message = self.chart.message(self.below(self.chart.geometry.messages()));
        let (low, high) = (self.word() & 0xFFFF_FFFF, self.random.below(12));
        match self.below(2) {
            0 => (message + FORMAT_AND_VERDICT, high << 32 | low),
            _ => (message + FUNCTION_AND_FLAGS, self.word()),
        }
    }

    /// Where a result goes, and which message it is in.
    fn address(&mut self) -> Lie {
        let message = self.chart.message(self.below(self.chart.geometry.messages()));
        let slot = self.random.below(self.chart.geometry.slots as u64 + 2);
        match self.below(2) {
            0 => (message + REPLY_TO, self.random.below(4) << 60 | slot << 32 | self.random.below(3)),
            _ => {
                let result = self.below(self.chart.geometry.messages() + 2);
                let known = result.min(self.chart.geometry.messages() - 1);
                (message + RESULT, (result as u64 + 1) << 32 | u64::from(self.generation(known)))
            }
        }
    }

    fn sleepers(&mut self) -> Lie {
        match self.below(2) {
            0 => (SLEEPERS, self.word()),
            _ => (HINTS + 8 * self.below(2), self.word()),
        }
    }

    /// A message to the agent as an honest process would send it, but for what it says.
    fn forged_answer(&mut self) -> Vec<Lie> {
        let queue = self.chart.geometry.functions;
        let message = self.below(self.chart.geometry.messages());
        let generation = self.generation(message);
        let head = (self.read)(self.chart.queues + queue * QUEUE_BYTES);
        let (first, count) = self.chart.cells_of(queue);
        let place = usize::try_from(head % count as u64).unwrap();
        let lap = ((head / count as u64) & 0xFFFF_FFFF) as u32;
        let (_, extent) = self.extent();
        let len = if self.below(4) == 0 { extent } else { self.random.below(1025) };
        let verdict = if self.below(4) == 0 { self.random.below(12) } else { 1 };
        let at = self.chart.message(message);
        vec![
            (at + LEN_AND_START, len),
            (at + FORMAT_AND_VERDICT, verdict << 32),
            (at, state_word(2, queue, self.random.below(4), generation)),
            (first + 8 * place, cell_word(lap, generation, message)),
        ]
    }
}

/// What makes the control part of a segment, but for its first pages, that of one that was just made.
pub(crate) fn amends(chart: &Chart) -> impl Iterator<Item = Lie> {
    (chart.slots / 8..(chart.messages + chart.geometry.messages() * MESSAGE_BYTES) / 8).map(|word| (word * 8, 0))
}
