//! A pair of connected Unix sockets, of the stream kind, which takes payloads of any length.

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::Bytes;
use crate::round_trip::{Answerer, Caller, Transport};

/// Two sockets, an end for each side.
#[derive(Debug)]
pub(crate) struct UnixSocket {
    caller: OwnedFd,
    answerer: OwnedFd,
    payload_bytes: usize,
}

impl UnixSocket {
    pub(crate) fn new(payload_bytes: usize) -> Self {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (caller, answerer) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags).unwrap();
        Self { caller, answerer, payload_bytes }
    }
}

impl Transport for UnixSocket {
    fn ask(&self, asking: &mut dyn FnMut(&mut dyn Caller)) {
        let buffer = vec![0; self.payload_bytes];
        asking(&mut Bytes { input: self.caller.as_fd(), output: self.caller.as_fd(), buffer });
    }

    fn serve(&self, serving: &mut dyn FnMut(&mut dyn Answerer)) {
        let buffer = vec![0; self.payload_bytes];
        serving(&mut Bytes { input: self.answerer.as_fd(), output: self.answerer.as_fd(), buffer });
    }
}
