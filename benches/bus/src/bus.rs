//! The application bus, as the bench uses it. No other module of the bench calls it, its clock and futexes aside.

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;

use sandbar_bus::clock::now_ns;
use sandbar_bus::{
    Actor, Address, Bus, Catalogue, Destination, Envelope, Function, Geometry, Layout, Segment, Taken, Verdict,
};

use crate::flow::{Flow, Shape};
use crate::round_trip::{Answerer, Caller, Transport};
use crate::shared::{stamp_of, touch};

const FUNCTION: usize = 0;
const PATIENCE_NS: u64 = 10_000_000_000;
/// The largest payload of the segments measured here, in bytes.
const PAYLOAD_BYTES_MAX: usize = 2 << 20;

/// A bus with one function, as an application of that size has it.
#[derive(Debug)]
pub(crate) struct ApplicationBus {
    bus: Bus,
    memory: OwnedFd,
}

/// An instance slot, and which of its instances has it.
#[derive(Clone, Copy, Debug)]
struct Slot {
    index: usize,
    generation: u32,
}

impl ApplicationBus {
    pub(crate) fn new() -> Self {
        let layout = Layout::new(Geometry::usual(1, 32, PAYLOAD_BYTES_MAX)).unwrap();
        let function = Function {
            name: "measured".to_owned(),
            timeout_ns: PATIENCE_NS,
            next: Vec::new(),
            ready: sandbar_bus::Ready::exactly(1),
            content_format: None,
        };
        let catalogue =
            Catalogue { application: "bench".to_owned(), functions: vec![function], ..Catalogue::default() };
        let (segment, memory) = Segment::create(layout, &catalogue).unwrap();
        // No message goes out to an agent here.
        let nobody = OpenOptions::new().write(true).open("/dev/null").unwrap().into();
        Self { bus: Bus::new(segment, nobody), memory }
    }

    fn reserve(&self) -> Slot {
        let (index, generation) = self.bus.reserve_slot(FUNCTION).unwrap();
        Slot { index, generation }
    }

    /// Sends a request; false when there is no message or no place for it.
    fn send(&self, actor: Actor, payload: &[u8], envelope: &Envelope) -> bool {
        let to = Destination::Function(FUNCTION);
        let Some(mut draft) = self.bus.draft(actor, to, payload.len()) else { return false };
        draft.write(payload);
        draft.send(to, envelope).is_ok()
    }

    /// Memory that the segment has of the system, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let stat = nix::sys::stat::fstat(&self.memory).unwrap();
        u64::try_from(stat.st_blocks).unwrap() * 512
    }

    /// Sends `burst` messages of this length, then takes them all.
    pub(crate) fn pass(&self, payload: &[u8], burst: usize) {
        for _ in 0..burst {
            assert!(
                self.send(Actor::AGENT, payload, &request(now_ns(), Address::Log)),
                "no room for {} bytes",
                payload.len()
            );
        }
        let take = || self.bus.take(Actor::instance(0), Destination::Function(FUNCTION));
        let mut arrived = 0;
        while let Some(taken) = take() {
            touch(taken.bytes());
            arrived += 1;
        }
        assert_eq!(arrived, burst);
    }

    /// What the supervisor does when the application is idle.
    pub(crate) fn give_memory_back(&self) {
        self.bus.give_memory_back();
    }

    /// Payload bytes of each size class, and how many messages of it the function can have at a time.
    pub(crate) fn classes(&self) -> Vec<(usize, usize)> {
        let layout = self.bus.layout();
        let Geometry { assured, common, queue_capacity, .. } = layout.geometry;
        let counts = assured.iter().zip(common).map(|(assured, common)| (assured + common).min(queue_capacity));
        counts.enumerate().map(|(class, count)| (layout.class_bytes(class), count)).collect()
    }
}

fn request(sent_ns: u64, reply_to: Address) -> Envelope {
    Envelope {
        call: 1,
        deadline_ns: sent_ns + PATIENCE_NS,
        sent_ns,
        reply_to,
        content_format: None,
        verdict: None,
        function: FUNCTION,
        traced: false,
        hops: 0,
    }
}

/// A call from one instance to another function's, as `context.call` makes it.
#[derive(Debug)]
pub(crate) struct Calls {
    bus: ApplicationBus,
    caller: Slot,
    answerer: Slot,
}

struct Asking<'a>(&'a Calls);

struct Serving<'a> {
    calls: &'a Calls,
    request: Option<Taken<'a>>,
}

impl Calls {
    pub(crate) fn new() -> Self {
        let bus = ApplicationBus::new();
        let (caller, answerer) = (bus.reserve(), bus.reserve());
        Self { bus, caller, answerer }
    }
}

impl Transport for Calls {
    fn ask(&self, asking: &mut dyn FnMut(&mut dyn Caller)) {
        asking(&mut Asking(self));
    }

    fn serve(&self, serving: &mut dyn FnMut(&mut dyn Answerer)) {
        serving(&mut Serving { calls: self, request: None });
    }
}

impl Caller for Asking<'_> {
    fn round_trip(&mut self, payload: &[u8]) {
        let Calls { bus, caller: Slot { index, generation }, .. } = self.0;
        let reply_to = Address::Instance { slot: *index, generation: *generation };
        // A call reads the clock once, for its envelope. Here the time of sending is the stamp, which was read before the payload
        // was copied, as it is for every peer.
        let read = request(now_ns(), reply_to);
        let envelope = Envelope { sent_ns: stamp_of(payload), ..read };
        assert!(bus.send(Actor::instance(*index), payload, &envelope), "overloaded");
        let reply = bus.bus.wait_for_reply(*index, *generation, envelope.deadline_ns);
        let reply = reply.expect("an answer within the deadline");
        assert_eq!(reply.envelope().verdict, Some(Verdict::Done));
        touch(reply.bytes());
    }
}

impl Answerer for Serving<'_> {
    fn receive(&mut self) -> u64 {
        let request = self.calls.bus.bus.wait_for_call(self.calls.answerer.index, FUNCTION);
        let request = request.expect("nobody is dismissed");
        let sent_ns = request.envelope().sent_ns;
        self.request = Some(request);
        sent_ns
    }

    fn answer(&mut self, payload: &[u8]) {
        let Calls { bus, answerer, .. } = self.calls;
        let request = self.request.take().expect("a request was received");
        touch(request.bytes());
        let envelope = Envelope { sent_ns: now_ns(), verdict: Some(Verdict::Done), ..request.envelope() };
        let to = bus.bus.way_back(envelope.reply_to).expect("a caller that waits");
        let mut draft = bus.bus.draft(Actor::instance(answerer.index), to, payload.len()).expect("a free message");
        draft.write(payload);
        assert!(request.answer_with(draft, to, &envelope).is_ok(), "the mailbox is full");
    }
}

/// One function's queue, with producers and consumers in slots of their own.
#[derive(Debug)]
pub(crate) struct FunctionQueue {
    bus: ApplicationBus,
    consumers: Vec<Slot>,
    producers: Vec<Slot>,
}

impl FunctionQueue {
    pub(crate) fn new(shape: Shape) -> Self {
        let bus = ApplicationBus::new();
        let consumers = (0..shape.consumers).map(|_| bus.reserve()).collect();
        let producers = (0..shape.producers).map(|_| bus.reserve()).collect();
        Self { bus, consumers, producers }
    }

    /// Sends once, giving its turn to others while the bus is full. On one core, many producers that do so keep much of the
    /// processor from their consumers: that is a part of what is measured.
    pub(crate) fn send(&self, producer: usize, payload: &[u8]) {
        let actor = Actor::instance(self.producers[producer].index);
        while !self.bus.send(actor, payload, &request(now_ns(), Address::Log)) {
            std::thread::yield_now();
        }
    }

    /// Takes one message: its payload is looked at by `look`, where it lies.
    pub(crate) fn take(&self, consumer: usize, look: impl FnOnce(&[u8])) {
        let taken = self.bus.bus.wait_for_call(self.consumers[consumer].index, FUNCTION).expect("nobody is dismissed");
        look(taken.bytes());
    }
}

impl Flow for FunctionQueue {
    fn produce(&self, producer: usize, payload: &[u8]) -> ! {
        loop {
            self.send(producer, payload);
        }
    }

    fn consume(&self, consumer: usize, received: &dyn Fn()) -> ! {
        loop {
            self.take(consumer, |payload| {
                touch(payload);
            });
            received();
        }
    }
}
