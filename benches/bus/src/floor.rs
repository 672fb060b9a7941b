//! What the system itself can do: the floor under any bus, and its own means of handing bytes over.

pub(crate) mod eventfd;
pub(crate) mod futex;
pub(crate) mod pipe;
pub(crate) mod unix_socket;

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::unistd::{read, write};

/// Writes all of it, in as many turns as the system wants.
fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match write(fd, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EINTR) => {}
            Err(errno) => panic!("write: {errno}"),
        }
    }
}

/// Fills the buffer.
fn read_all(fd: BorrowedFd<'_>, mut buffer: &mut [u8]) {
    while !buffer.is_empty() {
        match read(fd, buffer) {
            Ok(0) => panic!("read: the other side is gone"),
            Ok(count) => buffer = &mut buffer[count..],
            Err(Errno::EINTR) => {}
            Err(errno) => panic!("read: {errno}"),
        }
    }
}

/// The sides of a round trip over two descriptors, one for each direction: the payload is copied in and copied out.
struct Bytes<In, Out> {
    input: In,
    output: Out,
    buffer: Vec<u8>,
}

impl<In: AsFd, Out: AsFd> crate::round_trip::Caller for Bytes<In, Out> {
    fn round_trip(&mut self, payload: &[u8]) {
        write_all(self.output.as_fd(), payload);
        read_all(self.input.as_fd(), &mut self.buffer);
    }
}

impl<In: AsFd, Out: AsFd> crate::round_trip::Answerer for Bytes<In, Out> {
    fn receive(&mut self) -> u64 {
        read_all(self.input.as_fd(), &mut self.buffer);
        crate::shared::stamp_of(&self.buffer)
    }

    fn answer(&mut self, payload: &[u8]) {
        write_all(self.output.as_fd(), payload);
    }
}
