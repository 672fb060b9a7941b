//! Pipes: one for each direction, as large as the system lets them be for the payload.

use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;

use super::{Bytes, read_all, write_all};
use crate::flow::Flow;
use crate::round_trip::{Answerer, Caller, Transport};

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    fn new(payload_bytes: usize) -> Self {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let larger = i32::try_from(payload_bytes).unwrap();
        if payload_bytes > 1 << 16 {
            // Refused, it has the size that pipes have; the measurement is then of that.
            fcntl(&write, FcntlArg::F_SETPIPE_SZ(larger)).ok();
        }
        Self { read, write }
    }
}

/// A pipe there and a pipe back.
#[derive(Debug)]
pub(crate) struct Pipes {
    request: Pipe,
    answer: Pipe,
    payload_bytes: usize,
}

impl Pipes {
    pub(crate) fn new(payload_bytes: usize) -> Self {
        Self { request: Pipe::new(payload_bytes), answer: Pipe::new(payload_bytes), payload_bytes }
    }
}

impl Transport for Pipes {
    fn ask(&self, asking: &mut dyn FnMut(&mut dyn Caller)) {
        let buffer = vec![0; self.payload_bytes];
        asking(&mut Bytes { input: self.answer.read.as_fd(), output: self.request.write.as_fd(), buffer });
    }

    fn serve(&self, serving: &mut dyn FnMut(&mut dyn Answerer)) {
        let buffer = vec![0; self.payload_bytes];
        serving(&mut Bytes { input: self.request.read.as_fd(), output: self.answer.write.as_fd(), buffer });
    }
}

/// One pipe for all producers and consumers: messages this short are written and read whole.
#[derive(Debug)]
pub(crate) struct Stream {
    pipe: Pipe,
    message_bytes: usize,
}

impl Stream {
    pub(crate) fn new(message_bytes: usize) -> Self {
        assert!(message_bytes <= libc::PIPE_BUF);
        Self { pipe: Pipe::new(message_bytes), message_bytes }
    }
}

impl Flow for Stream {
    fn produce(&self, _producer: usize, payload: &[u8]) -> ! {
        loop {
            write_all(self.pipe.write.as_fd(), payload);
        }
    }

    fn consume(&self, _consumer: usize, received: &dyn Fn()) -> ! {
        let mut buffer = vec![0; self.message_bytes];
        loop {
            read_all(self.pipe.read.as_fd(), &mut buffer);
            received();
        }
    }
}
