//! The secure CoAP door, over the wire: sessions of many clients, and what nobody honest sends; and the crate's own client, there
//! and with libcoap's server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

mod client;
mod hello;
mod hostile;
mod libcoap;
mod our_client;
mod sessions;
