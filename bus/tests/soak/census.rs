//! Who has what: read off the segment when nothing moves any more.

use std::os::unix::fs::FileExt;

use sandbar_bus::Destination;

use crate::application::Application;
use crate::chart::Chart;

const KINDS: [&str; 5] = ["Free", "Draft", "Sending", "Forwarding", "Serving"];

/// The state words of all messages.
fn states(application: &Application) -> Vec<u64> {
    let chart = Chart::of(application.bus.layout().geometry);
    let read = |index: usize| {
        let mut word = [0; 8];
        application.segment.read_exact_at(&mut word, chart.message(index) as u64).unwrap();
        u64::from_ne_bytes(word)
    };
    (0..chart.geometry.messages()).map(read).collect()
}

/// How many messages are free.
pub(crate) fn free_messages(application: &Application) -> usize {
    states(application).iter().filter(|word| *word >> 60 == 0).count()
}

/// Entries in all queues, as far as a queue tells.
pub(crate) fn queued(application: &Application) -> Vec<(Destination, u64)> {
    let chart = Chart::of(application.bus.layout().geometry);
    let geometry = chart.geometry;
    let functions = (0..geometry.functions).map(Destination::Function);
    let queues = functions.chain([Destination::Out]).chain((0..geometry.slots).map(Destination::Mailbox));
    let index = |queue: usize, at: usize| {
        let mut word = [0; 8];
        application.segment.read_exact_at(&mut word, (chart.queues + queue * 192 + at) as u64).unwrap();
        u64::from_ne_bytes(word)
    };
    queues.enumerate().map(|(queue, name)| (name, index(queue, 64).wrapping_sub(index(queue, 0)))).collect()
}

/// All of it, for one who wants to know why nothing moves.
pub(crate) fn dump(application: &Application) -> String {
    let bus = &application.bus;
    let slots = bus.slots().iter().enumerate().map(|(slot, entry)| format!("slot {slot}: {:?}", entry.state()));
    let queues = queued(application).into_iter().map(|(queue, entries)| format!("{queue:?}: {entries} entries"));
    let functions = 0..bus.layout().geometry.functions;
    let waiters = functions.map(|f| format!("function {f}: {} instances wait", bus.idle_instances(f)));
    let owned = states(application).into_iter().enumerate().filter(|(_, word)| word >> 60 != 0);
    let messages = owned.map(|(index, word)| {
        let kind = KINDS.get((word >> 60) as usize).unwrap_or(&"no such kind");
        let (queue, actor, generation) = (word >> 46 & 0x3FFF, word >> 32 & 0x3FFF, word & 0xFFFF_FFFF);
        format!("message {index}: {kind}, queue {queue}, actor {actor:#x}, generation {generation}")
    });
    slots.chain(queues).chain(waiters).chain(messages).collect::<Vec<_>>().join("\n")
}
