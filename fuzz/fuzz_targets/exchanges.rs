//! Any datagrams of four peers, any time between them, any ends of calls: the whole door without its socket.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| sandbar_proxy::coap::fuzz::exchanges(bytes));
