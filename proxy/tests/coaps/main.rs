//! The secure CoAP door, over the wire: sessions of many clients, and what nobody honest sends.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

mod client;
mod hello;
mod hostile;
mod sessions;
