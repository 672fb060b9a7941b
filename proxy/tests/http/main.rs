//! The HTTP door, driven over TCP: one test for each duty.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod accepted;
mod calls;
mod client;
#[path = "../coap/echo.rs"]
#[allow(dead_code, reason = "shared with the test coap")]
mod echo;
mod limits;
