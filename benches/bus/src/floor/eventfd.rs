//! Event counters: a shared buffer for each direction, and an eventfd to wake its reader.

use std::os::fd::AsFd;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{read_all, write_all};
use crate::round_trip::{Answerer, Caller, Transport};
use crate::shared::{SharedMemory, stamp_of, touch};

const REQUEST: usize = 0;
const ANSWER: usize = 1;

/// Shared memory with eventfds.
#[derive(Debug)]
pub(crate) struct Eventfds {
    memory: SharedMemory,
    payload_bytes: usize,
    events: [EventFd; 2],
}

struct Side<'a>(&'a Eventfds);

impl Eventfds {
    pub(crate) fn new(payload_bytes: usize) -> Self {
        let events = [(); 2].map(|()| EventFd::from_flags(EfdFlags::EFD_CLOEXEC).unwrap());
        Self { memory: SharedMemory::new(0, 0, 2 * payload_bytes), payload_bytes, events }
    }

    fn payload(&self, direction: usize) -> &[u8] {
        self.memory.read(direction * self.payload_bytes, self.payload_bytes)
    }

    fn send(&self, direction: usize, payload: &[u8]) {
        self.memory.write(direction * self.payload_bytes, payload);
        write_all(self.events[direction].as_fd(), &1u64.to_ne_bytes());
    }

    fn wait(&self, direction: usize) {
        read_all(self.events[direction].as_fd(), &mut [0; 8]);
    }
}

impl Transport for Eventfds {
    fn ask(&self, asking: &mut dyn FnMut(&mut dyn Caller)) {
        asking(&mut Side(self));
    }

    fn serve(&self, serving: &mut dyn FnMut(&mut dyn Answerer)) {
        serving(&mut Side(self));
    }
}

impl Caller for Side<'_> {
    fn round_trip(&mut self, payload: &[u8]) {
        self.0.send(REQUEST, payload);
        self.0.wait(ANSWER);
        touch(self.0.payload(ANSWER));
    }
}

impl Answerer for Side<'_> {
    fn receive(&mut self) -> u64 {
        self.0.wait(REQUEST);
        stamp_of(self.0.payload(REQUEST))
    }

    fn answer(&mut self, payload: &[u8]) {
        touch(self.0.payload(REQUEST));
        self.0.send(ANSWER, payload);
    }
}
