//! The CoAP door, driven over UDP: one test for each duty. `README.md` lists the duties, and the tests that show them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says aloud what it skips"
)]

mod accepted;
mod amplification;
mod blockwise;
mod calls;
mod client;
mod draw;
mod duties;
mod echo;
mod exchanges;
mod groups;
mod loss;
mod messages;
mod network;
mod observe;
mod our_client;
mod plugtest;
mod relay;
