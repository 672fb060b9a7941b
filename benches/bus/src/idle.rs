//! What a segment keeps of the host's memory when its application is idle.

use crate::bus::ApplicationBus;

/// Memory of a segment, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) fresh: u64,
    pub(crate) after_traffic: u64,
    pub(crate) idle: u64,
}

/// Messages sent in each size class, one after the other.
const MESSAGES: usize = 1024;

/// What is left after messages that passed one at a time.
pub(crate) fn after_trickle() -> Memory {
    after(|bus, payload, _class_messages| (0..MESSAGES).for_each(|_| bus.pass(payload, 1)))
}

/// What is left after bursts that filled the function's queue or used each message of a class at once.
pub(crate) fn after_bursts() -> Memory {
    after(|bus, payload, class_messages| {
        for _ in 0..2 {
            bus.pass(payload, class_messages.min(256));
        }
    })
}

fn after(traffic: impl Fn(&ApplicationBus, &[u8], usize)) -> Memory {
    let bus = ApplicationBus::new();
    let fresh = bus.resident_bytes();
    for (bytes, messages) in bus.classes() {
        traffic(&bus, &vec![0xA5; bytes], messages);
    }
    let after_traffic = bus.resident_bytes();
    bus.give_memory_back();
    Memory { fresh, after_traffic, idle: bus.resident_bytes() }
}
