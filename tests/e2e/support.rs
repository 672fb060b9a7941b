//! What the tests stand on: private hosts, clients, and what the kernel says of processes. Where each module lies is said, as more
//! than one test includes this file.

#[path = "support/accepted.rs"]
pub(crate) mod accepted;
#[path = "support/bundle.rs"]
pub(crate) mod bundle;
#[path = "support/clients.rs"]
pub(crate) mod clients;
#[path = "support/coap.rs"]
pub(crate) mod coap;
#[path = "support/display.rs"]
pub(crate) mod display;
#[path = "support/host.rs"]
pub(crate) mod host;
#[path = "support/http.rs"]
pub(crate) mod http;
#[path = "support/image.rs"]
pub(crate) mod image;
#[path = "support/process.rs"]
pub(crate) mod process;
#[path = "support/program.rs"]
pub(crate) mod program;
#[path = "support/remains.rs"]
pub(crate) mod remains;
#[path = "support/secure.rs"]
pub(crate) mod secure;

use std::io::Write;
use std::time::{Duration, Instant};

/// How long the tests wait for what must happen: far longer than it takes, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Says, past the test harness that swallows what passing tests print, that a test did not run. Where all must run (the
/// variable `SANDBAR_TESTS_MUST_RUN` is set), that is a failure.
pub(crate) fn skipped(reason: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(std::env::var_os("SANDBAR_TESTS_MUST_RUN").is_none(), "{name} cannot run: {reason}");
    std::io::stderr().write_all(format!("SKIPPED {name}: {reason}\n").as_bytes()).unwrap();
}

/// Looks again and again until there is something to see.
pub(crate) fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, look)
}

/// As [`until`], for at most this long.
pub(crate) fn until_within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
