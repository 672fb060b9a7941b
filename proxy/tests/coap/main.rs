//! The CoAP door, driven over UDP: one test for each duty.

mod blockwise;
mod calls;
mod client;
mod echo;
mod exchanges;
mod messages;
mod mutations;
