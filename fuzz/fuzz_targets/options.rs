//! Any options, as a request has them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| sandbar_proxy::coap::fuzz::options(bytes));
