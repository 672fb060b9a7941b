//! Payloads of 1 MiB: bytes a second through the bus, beside bare copies by the same process in the same moments.
//!
//! A producer takes turns: a batch of messages through the function's queue, as many copies into plain shared memory that has as
//! many buffers as the bus rotates through, as many into one buffer that stays in the cache. The consumer takes each message and
//! looks at its length, first and last byte: it reads in place. So each way costs the writer's one copy; a bus that
//! copied once more would reach half of the copies' rate at most.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sandbar_bus::clock::now_ns;

use crate::bus::FunctionQueue;
use crate::flow::Shape;
use crate::pinning::Placement;
use crate::process::Process;
use crate::shared::SharedMemory;

pub(crate) const PAYLOAD_BYTES: usize = 1 << 20;
/// Buffers of the bus's size class for such payloads.
const BUFFERS: usize = 16;
/// Messages in a batch: the bus has as many buffers, so that a batch never waits for one if the consumer keeps up.
const BATCH: usize = 16;
const TURNS: usize = 10;
const SLICE_MAX: Duration = Duration::from_secs(20);

/// Bytes a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    pub(crate) bus: f64,
    pub(crate) copies: f64,
    pub(crate) copies_in_cache: f64,
}

const BUS: usize = 0;
const COPIES: usize = 1;
const COPIES_IN_CACHE: usize = 2;
const WAYS: usize = 3;

/// Measures a slice: the rates of each turn, so that a turn in which the host was elsewhere is one of many.
pub(crate) fn measure(placement: Placement) -> Vec<Rates> {
    let what = "payloads of 1 MiB";
    let queue = FunctionQueue::new(Shape { producers: 1, consumers: 1 });
    let plain = SharedMemory::new(0, WAYS * TURNS, BUFFERS * PAYLOAD_BYTES);
    let _consumer = Process::start(what, placement.processor(1), || {
        loop {
            queue.take(0, |payload| {
                std::hint::black_box((payload.len(), payload.first(), payload.last()));
            });
        }
    });
    let producer = Process::start(what, placement.processor(0), || produce(&queue, &plain));
    producer.wait(SLICE_MAX);
    let rates = plain.numbers().chunks_exact(WAYS).map(|turn| {
        let rate = |way: usize| (BATCH * PAYLOAD_BYTES) as f64 * 1e9 / turn[way].load(Ordering::Relaxed) as f64;
        Rates { bus: rate(BUS), copies: rate(COPIES), copies_in_cache: rate(COPIES_IN_CACHE) }
    });
    rates.collect()
}

fn produce(queue: &FunctionQueue, plain: &SharedMemory) {
    let payload = vec![0xA5; PAYLOAD_BYTES];
    let batch = |way: usize| {
        let began = now_ns();
        for message in 0..BATCH {
            match way {
                BUS => queue.send(0, &payload),
                COPIES => plain.write(message % BUFFERS * PAYLOAD_BYTES, &payload),
                _ => plain.write(0, &payload),
            }
        }
        now_ns() - began
    };
    for turn in 0..=TURNS {
        for way in [BUS, COPIES, COPIES_IN_CACHE] {
            let ns = batch(way);
            // The first turn has the page faults.
            if let Some(turn) = turn.checked_sub(1) {
                plain.numbers()[turn * WAYS + way].store(ns, Ordering::Relaxed);
            }
        }
    }
}
