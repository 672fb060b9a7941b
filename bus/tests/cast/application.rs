//! An application's bus, as each side holds it: the agent, and the processes of the sandbox.
#![allow(dead_code, reason = "a test target uses its own part of it")]

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use sandbar_bus::clock::now_ns;
use sandbar_bus::{Address, AgentSide, Bus, Catalogue, Envelope, Function, Geometry, Layout, Segment};

/// The function whose output goes on to [`G`].
pub(crate) const F: usize = 0;
/// The function whose output is the answer.
pub(crate) const G: usize = 1;

/// A bus of two functions, "f" and then "g".
#[derive(Debug)]
pub(crate) struct Application {
    /// As a process of the sandbox holds it; one that is forked has it too.
    pub(crate) bus: Bus,
    /// As the agent holds it.
    pub(crate) agent: AgentSide,
    /// The segment, as a file.
    pub(crate) segment: File,
}

impl Application {
    /// `event` wakes the agent.
    pub(crate) fn new(geometry: Geometry, spin_ns: u64, event: &OwnedFd) -> Self {
        let function = |name: &str, next: &[usize]| Function {
            name: name.to_owned(),
            timeout_ns: 1_000_000_000,
            next: next.to_vec(),
            ready: sandbar_bus::Ready::exactly(1),
            content_format: None,
        };
        let catalogue = Catalogue {
            application: "test".to_owned(),
            functions: vec![function("f", &[G]), function("g", &[])],
            targets: Vec::new(),
            spin_ns,
            lingering_bytes_max: 1 << 20,
        };
        let (segment, fd) = Segment::create(Layout::new(geometry).unwrap(), &catalogue).unwrap();
        let bus = Bus::attach(fd.as_fd(), event.try_clone().unwrap()).unwrap();
        Self { bus, agent: AgentSide::new(segment, event.try_clone().unwrap()), segment: File::from(fd) }
    }
}

/// An event that nobody waits for.
pub(crate) fn deaf() -> OwnedFd {
    std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap().into()
}

/// A request of a caller outside.
pub(crate) fn request(call: u64, function: usize) -> Envelope {
    Envelope {
        call,
        deadline_ns: now_ns() + 60_000_000_000,
        sent_ns: now_ns(),
        reply_to: Address::Caller,
        content_format: None,
        verdict: None,
        function,
        traced: false,
        hops: 0,
    }
}
