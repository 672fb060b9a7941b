//! The HTTP door, driven over TCP: one test for each duty.

mod calls;
mod client;
#[path = "../coap/echo.rs"]
mod echo;
mod limits;
