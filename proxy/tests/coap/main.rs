//! The CoAP door, driven over UDP: one test for each duty.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says aloud what it skips"
)]

mod abuse;
mod amplification;
mod blockwise;
mod calls;
mod client;
mod draw;
mod echo;
mod exchanges;
mod loss;
mod messages;
mod mutations;
mod our_client;
mod plugtest;
mod relay;
