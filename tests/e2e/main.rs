//! End to end: the built command, driven from outside as its users drive it.
//!
//! Each test starts a host of its own, with a state, a socket and ports that no other has, and when it ends checks that
//! nothing of that host is left in the system. CoAP is spoken by clients that nobody here wrote, where they can do it.
//!
//! | module | what it shows |
//! |---|---|
//! | [`readings`] | a device's readings are answered over CoAP and HTTP |
//! | [`pictures`] | large payloads pass block by block |
//! | [`observing`] | displays that observe a function are told of what it gives out |
//! | [`accepted`] | calls that nobody waits for are made, and their answers kept |
//! | [`blocks`] | payloads in blocks of every size, by clients that nobody here wrote |
//! | [`paths`] | a call's path is told; each call has processes of its own |
//! | [`isolation`] | what a function can see and touch |
//! | [`wakeups`] | what one hop costs in system calls |
//! | [`lies`] | instances that write to the shared memory what is not so |
//! | [`limits`] | what functions may use, and what they leave |
//! | [`load`] | many clients at once |
//! | [`renewal`] | workers are renewed, and no call notices |
//! | [`templates`] | workers of Python functions are forked from one interpreter |
//! | [`kills`] | what dies comes back |
//! | [`misbehaviour`] | functions that go wrong harm nobody else |
//! | [`refusals`] | calls and datagrams that are refused |
//! | [`manifests`] | applications that are refused |
//! | [`coaps`] | devices with keys, and who may call |
//! | [`devices`] | `sandbar invoke` and `sandbar bench` as devices, over CoAP and coaps |
//! | [`slow`] | slow calls keep no fast one waiting |
//! | [`discovery`] | what there is to call is found, by clients that nobody here wrote, one host or all of a network asked |
//! | [`deployments`] | an application's life, from `init` to `remove` |
//! | [`rootfs`] | applications with a root file system of their own |
//! | [`images`] | applications whose root file system is an image |
//! | [`serving`] | the host agent's own life |
//!
//! They need root; what else is missing is said by the tests that are skipped for it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests fail loudly, and what they print is for people"
)]

mod accepted;
mod bench;
mod blocks;
mod coaps;
mod deployments;
mod described;
mod devices;
mod discovery;
mod images;
mod isolation;
mod kills;
mod lies;
mod limits;
mod load;
mod manifests;
mod misbehaviour;
mod observing;
mod paths;
mod pictures;
mod readings;
mod refusals;
mod renewal;
mod rest;
mod rootfs;
mod serving;
mod slow;
mod support;
mod templates;
mod wakeups;
