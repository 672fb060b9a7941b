//! Each kind of nonsense that no honest process can have written is told as what it is. One kind is not staged here: "the queue
//! out has no end" takes a process that changes a message's state between two neighbouring instructions of the agent, more
//! than a thousand times in a row.

use std::os::unix::fs::FileExt;

use sandbar_bus::Geometry;
use sandbar_bus::agent::{Corrupt, PostError};
use sandbar_bus::properties::PROPERTIES_BYTES_MAX;

use crate::GEOMETRY;
use crate::application::{Application, F, deaf, request};
use crate::chart::{Chart, cell_word, state_word};

const SENDING: u64 = 2;
const SERVING: u64 = 4;
const OUT: usize = GEOMETRY.functions;

/// A segment with one entry in the queue out: a message, and what its header says.
struct Forgery {
    application: Application,
    chart: Chart,
    message: usize,
}

impl Forgery {
    /// Message `message` is being sent out, and says that it is done.
    fn of(message: usize, geometry: Geometry) -> Self {
        let forgery = Self { application: Application::new(geometry, 0, &deaf()), chart: Chart::of(geometry), message };
        let (first_cell, _) = forgery.chart.cells_of(OUT);
        forgery.put(first_cell, cell_word(0, 0, message));
        forgery.say(0, state_word(SENDING, OUT, 0, 0));
        forgery.say(56, 1 << 32);
        forgery
    }

    fn put(&self, at: usize, word: u64) {
        self.application.segment.write_all_at(&word.to_ne_bytes(), at as u64).unwrap();
    }

    /// A word of the message's header.
    fn say(&self, field: usize, word: u64) {
        if self.message < self.chart.geometry.messages() {
            self.put(self.chart.message(self.message) + field, word);
        }
    }

    fn taken(&self) -> Result<Option<usize>, Corrupt> {
        Ok(self.application.agent.take()?.map(|received| received.payload.len()))
    }
}

#[test]
fn a_forged_answer_is_taken_when_nothing_is_wrong_with_it() {
    let forgery = Forgery::of(0, GEOMETRY);
    forgery.say(48, 3);
    assert_eq!(forgery.taken(), Ok(Some(3)));
    assert_eq!(forgery.taken(), Ok(None));
}

#[test]
fn an_entry_that_names_no_message() {
    for message in [GEOMETRY.messages(), GEOMETRY.messages() + 1, 0xFFFE] {
        let why = "an entry of the queue out names a message that does not exist";
        assert_eq!(Forgery::of(message, GEOMETRY).taken(), Err(Corrupt(why)));
    }
}

#[test]
fn a_state_that_does_not_exist() {
    for kind in 5..16 {
        let forgery = Forgery::of(0, GEOMETRY);
        forgery.say(0, state_word(kind, OUT, 0, 0));
        let corrupt = Corrupt("a message is in a state that does not exist");
        assert_eq!(forgery.taken(), Err(corrupt));
        assert_eq!(forgery.application.agent.post(b"", &request(1, F)), Err(PostError::Corrupt(corrupt)));
    }
}

#[test]
fn an_entry_whose_message_was_not_sent_out() {
    let words = [
        state_word(0, OUT, 0, 0),
        state_word(1, OUT, 0, 0),
        state_word(SERVING, OUT, 0, 0),
        state_word(SENDING, OUT, 0, 1),
        state_word(SENDING, F, 0, 0),
        state_word(SENDING, OUT + 1, 0, 0),
        state_word(SENDING, 0x3FFF, 0, 0),
    ];
    for word in words {
        let forgery = Forgery::of(0, GEOMETRY);
        forgery.say(0, word);
        let why = "an entry of the queue out names a message that was not sent there";
        assert_eq!(forgery.taken(), Err(Corrupt(why)), "{word:#x}");
    }
}

#[test]
fn a_verdict_that_does_not_exist() {
    for verdict in [11, 12, 1 << 31, u64::from(u32::MAX)] {
        let forgery = Forgery::of(0, GEOMETRY);
        forgery.say(56, verdict << 32);
        assert_eq!(forgery.taken(), Err(Corrupt("a message has a verdict that does not exist")), "{verdict}");
    }
}

#[test]
fn more_properties_than_a_message_may_have() {
    let (small, large) = (0, GEOMETRY.messages() - 1);
    let max = PROPERTIES_BYTES_MAX as u64;
    for (message, len, is_right) in [
        (small, 1024, true),
        (small, 1025, false),
        (large, max, true),
        (large, max + 1, false),
        (large, u64::from(u32::MAX), false),
    ] {
        let forgery = Forgery::of(message, GEOMETRY);
        forgery.say(72, len << 32);
        assert_eq!(forgery.taken().is_ok(), is_right, "message {message}, {len} bytes");
    }
}

#[test]
fn a_payload_beyond_its_buffer_or_the_limit() {
    let max = GEOMETRY.payload_bytes_max as u64;
    // The first message has the smallest buffer, the last one the largest, which is larger than the limit.
    let (small, large) = (0, GEOMETRY.messages() - 1);
    let whole_pages = (max + PROPERTIES_BYTES_MAX as u64).next_multiple_of(4096);
    assert!(whole_pages > max);
    for (message, start, len, is_right) in [
        (small, 0, 1024, true),
        (small, 0, 1025, false),
        (small, 1024, 0, true),
        (small, 1, 1024, false),
        (small, 1025, 0, false),
        (small, u64::from(u32::MAX), u64::from(u32::MAX), false),
        (large, 0, max, true),
        (large, whole_pages - max, max, true),
        (large, whole_pages - max + 1, max, false),
        (large, 0, max + 1, false),
        (large, 0, whole_pages, false),
    ] {
        let forgery = Forgery::of(message, GEOMETRY);
        forgery.say(48, start << 32 | len);
        let expected = match is_right {
            true => Ok(Some(usize::try_from(len).unwrap())),
            false => Err(Corrupt("a payload reaches beyond its buffer")),
        };
        assert_eq!(forgery.taken(), expected, "message {message}, {len} bytes from {start}");
    }
}
