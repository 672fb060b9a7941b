//! The HTTP door, driven over TCP: one test for each duty.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod calls;
mod client;
#[path = "../coap/echo.rs"]
mod echo;
mod limits;
