//! Any datagram, as the message layer reads it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| sandbar_proxy::coap::fuzz::codec(bytes));
