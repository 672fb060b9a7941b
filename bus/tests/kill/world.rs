//! An application bus with everybody who uses it: the process that is traced, and others who go on.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use sandbar_bus::clock::now_ns;
use sandbar_bus::{
    Actor, Address, AgentSide, Bus, Catalogue, Destination, Envelope, Function, Geometry, Layout, Segment, Taken,
    Verdict,
};

use crate::trace::{PATIENCE, is_asleep};

pub(crate) const GEOMETRY: Geometry = Geometry {
    functions: 2,
    targets: 0,
    slots: 4,
    queue_capacity: CAPACITY,
    payload_bytes_max: 1 << 10,
    assured: [1, 0, 0, 0],
    common: [5, 0, 0, 1],
};
pub(crate) const CAPACITY: usize = 4;
/// The two functions' queues.
pub(crate) const F: Destination = Destination::Function(0);
pub(crate) const G: Destination = Destination::Function(1);
/// The slot of the process that is traced, or whose death is swept.
pub(crate) const SUBJECT: usize = 0;
/// The slot of those who go on beside it.
pub(crate) const OTHER: usize = 1;
/// The slot of one that waits.
pub(crate) const COMPANY: usize = 2;
/// The slot of those who come afterwards.
pub(crate) const FRESH: usize = 3;

/// The call that the traced process sends or serves.
pub(crate) const CALL: u64 = 1;
/// A call that the traced process makes while it serves the first.
pub(crate) const INNER: u64 = 2;

/// What came of a call: its verdict, and its payload.
pub(crate) type Answer = (Option<Verdict>, Vec<u8>);

/// See the module.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) bus: Bus,
    agent: AgentSide,
    pub(crate) fd: OwnedFd,
    /// Calls that were accepted for certain, and must be answered once each.
    pub(crate) accepted: Mutex<Vec<u64>>,
    pub(crate) answers: Mutex<BTreeMap<u64, Vec<Answer>>>,
    next_call: Mutex<u64>,
    /// The traced process was dismissed while it waited for a call.
    pub(crate) dismissed: AtomicBool,
}

/// One that waits, in a thread of its own: for a call, which it answers, or for the reply to the call.
#[derive(Debug)]
pub(crate) struct Company {
    pub(crate) waits_for_call: bool,
    id: Arc<AtomicI32>,
    thread: JoinHandle<()>,
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        let function = |name: &str| Function {
            name: name.to_owned(),
            timeout_ns: 1_000_000_000,
            next: Vec::new(),
            ready: sandbar_bus::Ready::exactly(1),
            content_format: None,
        };
        let functions = vec![function("f"), function("g")];
        let catalogue = Catalogue { functions, ..Catalogue::default() };
        let (segment, fd) = Segment::create(Layout::new(GEOMETRY).unwrap(), &catalogue).unwrap();
        let bus = Bus::attach(fd.as_fd(), event()).unwrap();
        for slot in 0..GEOMETRY.slots {
            assert_eq!(bus.reserve_slot(0), Some((slot, 0)));
        }
        let agent = AgentSide::new(segment, event());
        let (accepted, answers) = Default::default();
        Arc::new(Self {
            bus,
            agent,
            fd,
            accepted,
            answers,
            next_call: Mutex::new(100),
            dismissed: AtomicBool::new(false),
        })
    }

    /// The agent hands a call to a function; false when there is no room.
    pub(crate) fn post(&self, call: u64, to: usize, reply_to: Address) -> bool {
        let posted = self.agent.post(b"request", &Envelope { reply_to, ..request(call, to) }).is_ok();
        if posted {
            self.accepted.lock().unwrap().push(call);
        }
        posted
    }

    /// As the traced process does when it is the agent.
    pub(crate) fn post_unheard(&self, call: u64) {
        let _refused = self.agent.post(b"request", &request(call, 0));
    }

    /// Hands over the call or, if that was sent before, another; false when there is no room.
    pub(crate) fn post_call(&self) -> bool {
        let sent_before = self.accepted.lock().unwrap().contains(&CALL);
        if sent_before { self.post_another(0).is_some() } else { self.post(CALL, 0, Address::Caller) }
    }

    /// Hands over a call like no other; which, if there was room.
    pub(crate) fn post_another(&self, to: usize) -> Option<u64> {
        let call = {
            let mut next = self.next_call.lock().unwrap();
            *next += 1;
            *next
        };
        self.post(call, to, Address::Caller).then_some(call)
    }

    /// The agent hands a reply to an instance.
    pub(crate) fn reply(&self, call: u64, slot: usize, generation: u32) {
        let reply_to = Address::Instance { slot, generation };
        let envelope = Envelope { reply_to, verdict: Some(Verdict::Done), ..request(call, 0) };
        self.agent.reply(b"reply", &envelope).unwrap();
    }

    pub(crate) fn note(&self, call: u64, verdict: Option<Verdict>, payload: &[u8]) {
        self.answers.lock().unwrap().entry(call).or_default().push((verdict, payload.to_vec()));
    }

    /// The agent takes all that has come out.
    pub(crate) fn collect(&self) {
        while let Some(received) = self.agent.take().unwrap() {
            self.note(received.envelope.call, received.envelope.verdict, &received.payload);
        }
    }

    /// Serves, as an instance in this slot, all calls that wait for a function: which, in their order.
    pub(crate) fn serve_all(&self, slot: usize, function: usize) -> Vec<u64> {
        let mut served = Vec::new();
        while let Some(taken) = self.bus.take(Actor::instance(slot), Destination::Function(function)) {
            served.push(taken.envelope().call);
            self.serve(slot, taken, if function == 0 { "f" } else { "g" });
            self.collect();
        }
        served
    }

    /// Answers a call with its payload behind a mark that tells who did.
    pub(crate) fn serve(&self, slot: usize, taken: Taken<'_>, mark: &str) {
        self.bus.slots()[slot].serve(now_ns(), u64::MAX);
        let was = taken.envelope();
        assert_eq!(was.verdict, None, "a request");
        let Some(to) = self.bus.way_back(was.reply_to) else { return };
        let output = [mark.as_bytes(), b":", taken.bytes()].concat();
        let mut draft = self.bus.draft(Actor::instance(slot), to, output.len()).expect("a message for an answer");
        draft.write(&output);
        let done = Envelope { verdict: Some(Verdict::Done), ..was };
        assert!(taken.answer_with(draft, to, &done).is_ok(), "an answer finds room");
    }

    /// Others use the same queues, and all they do succeeds: whatever lies in them is served, and then up to `count` messages in a
    /// row through each function's queue.
    pub(crate) fn traffic(&self, count: usize, alone: bool) {
        for function in [0, 1] {
            self.serve_all(OTHER, function);
        }
        for function in [0, 1] {
            let sent: Vec<u64> = (0..count).map(|_| self.post_another(function).expect("room for others")).collect();
            if count == CAPACITY && alone {
                assert_eq!(self.post_another(function), None, "a full queue");
            }
            let served = self.serve_all(OTHER, function);
            assert!(!alone || served == sent, "others sent {sent:?} and took {served:?}");
        }
    }

    pub(crate) fn generation(&self, slot: usize) -> u32 {
        self.bus.slots()[slot].state().unwrap().generation
    }

    /// One that waits for a call of the first function, asleep.
    pub(crate) fn waits_for_call(self: &Arc<Self>) -> Company {
        self.company(true, |world| {
            let taken = world.bus.wait_for_call(COMPANY, 0).expect("a call");
            world.serve(COMPANY, taken, "f");
        })
    }

    /// One that waits for the reply to the call, asleep.
    pub(crate) fn waits_for_reply(self: &Arc<Self>) -> Company {
        self.bus.slots()[COMPANY].ready();
        self.bus.slots()[COMPANY].serve(now_ns(), u64::MAX);
        self.company(false, |world| {
            let generation = world.generation(COMPANY);
            let reply = world.bus.wait_for_reply(COMPANY, generation, now_ns() + 60_000_000_000).expect("a reply");
            let envelope = reply.envelope();
            world.note(envelope.call, envelope.verdict, reply.bytes());
        })
    }

    fn company(self: &Arc<Self>, waits_for_call: bool, waits: impl FnOnce(&Self) + Send + 'static) -> Company {
        let id = Arc::new(AtomicI32::new(0));
        let (world, its) = (Arc::clone(self), Arc::clone(&id));
        let thread = std::thread::spawn(move || {
            its.store(nix::unistd::gettid().as_raw(), Ordering::Relaxed);
            waits(&world);
        });
        let company = Company { waits_for_call, id, thread };
        let since = Instant::now();
        while !company.sleeps() {
            assert!(since.elapsed() < PATIENCE, "the company does not fall asleep");
            std::thread::yield_now();
        }
        company
    }
}

impl Company {
    /// Whether it is done.
    pub(crate) fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until it is done, which it must be.
    pub(crate) fn must_end(self) {
        let since = Instant::now();
        while !self.is_done() {
            assert!(since.elapsed() < PATIENCE, "one that waits sleeps beside its message");
            std::thread::yield_now();
        }
        self.thread.join().expect("it found nothing wrong");
    }

    pub(crate) fn sleeps(&self) -> bool {
        is_asleep(&format!("/proc/self/task/{}", self.id.load(Ordering::Relaxed)))
    }
}

pub(crate) fn request(call: u64, function: usize) -> Envelope {
    Envelope {
        call,
        deadline_ns: u64::MAX,
        sent_ns: 0,
        reply_to: Address::Caller,
        content_format: None,
        verdict: None,
        function,
        traced: false,
        hops: 0,
    }
}

fn event() -> OwnedFd {
    std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap().into()
}
