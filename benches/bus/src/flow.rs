//! Streams of messages from so many producers to so many consumers, each a process of its own.
//!
//! All of them run until they are killed. The bench reads the consumers' counts twice, a window apart, and sleeps in between.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sandbar_bus::clock::now_ns;

use crate::pinning::Placement;
use crate::process::Process;
use crate::shared::SharedMemory;

/// Time in which a stream comes up to speed.
const WARM_UP: Duration = Duration::from_millis(40);
/// Time in which messages are counted.
const WINDOW: Duration = Duration::from_millis(120);
/// How long nobody may have received anything before that is an error, in nanoseconds.
const PATIENCE_NS: u64 = 5_000_000_000;

/// Something that messages flow through.
pub(crate) trait Flow {
    /// Sends this payload again and again.
    fn produce(&self, producer: usize, payload: &[u8]) -> !;
    /// Takes messages, and says so of each.
    fn consume(&self, consumer: usize, received: &dyn Fn()) -> !;
}

/// How many processes send, and how many take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shape {
    pub(crate) producers: usize,
    pub(crate) consumers: usize,
}

/// The shapes that are measured.
pub(crate) const SHAPES: [Shape; 4] = [
    Shape { producers: 1, consumers: 1 },
    Shape { producers: 8, consumers: 1 },
    Shape { producers: 1, consumers: 8 },
    Shape { producers: 8, consumers: 8 },
];

/// Messages a second.
pub(crate) fn measure(what: &str, flow: &dyn Flow, placement: Placement, shape: Shape, message_bytes: usize) -> f64 {
    let counts = SharedMemory::new(shape.consumers, 0, 0);
    let mut processes = Vec::new();
    for consumer in 0..shape.consumers {
        let count = &counts.lines()[consumer].count;
        processes.push(Process::start(what, placement.processor(1), || {
            flow.consume(consumer, &|| count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed))
        }));
    }
    for producer in 0..shape.producers {
        let payload = vec![0xA5; message_bytes];
        processes.push(Process::start(what, placement.processor(0), || flow.produce(producer, &payload)));
    }
    let received = || counts.lines().iter().map(|line| line.count.load(Ordering::Relaxed)).sum::<u64>();
    std::thread::sleep(WARM_UP);
    let (before, began) = (received(), now_ns());
    std::thread::sleep(WINDOW);
    // On a machine that is busy with other things nobody may have had his turn within the window.
    let patience = now_ns() + PATIENCE_NS;
    while received() == before && now_ns() < patience {
        std::thread::sleep(WINDOW);
    }
    let (after, ended) = (received(), now_ns());
    processes.iter_mut().for_each(Process::must_live);
    assert!(after > before, "{what}: no message has come through for seconds");
    (after - before) as f64 * 1e9 / (ended - began) as f64
}
