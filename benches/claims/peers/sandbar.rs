//! Sandbar itself, in the same turns: a native function and one in Python, each on a host of its own.

use super::{Peer, Rate, Runs, Skipped, Way};
use crate::stage::{Host, Place};

pub(crate) const NATIVE: &str = "Sandbar, native";
const LIMITS: &str = "[limits]\nmemory = \"128MiB\"\nprocesses = 128\npayload = \"64KiB\"";
const HANDLE: &str = "def handle(event, context):\n    return event\n";
const ISOLATION: &str = "process, forked ahead";

pub(crate) fn peers() -> Vec<(String, Result<Peer, Skipped>)> {
    let [http, coap, python] = [(); 3].map(|()| host());
    http.deploy_chain("echo", 1, LIMITS);
    coap.deploy_chain("echo", 1, LIMITS);
    python.deploy_python("echo", 1, LIMITS, HANDLE);
    let peer = |name: &str, rate, url: String, host| {
        (name.to_owned(), Ok(Peer::new(name, ISOLATION, rate, Way::Served(url, Runs::Sandbar(host)))))
    };
    vec![
        peer(NATIVE, Rate::Most, format!("http://{}/echo", http.http), http),
        peer(&format!("{NATIVE}, over CoAP"), Rate::Most, format!("coap://{}/echo", coap.coap), coap),
        peer("Sandbar, Python", Rate::Found, format!("http://{}/echo", python.http), python),
    ]
}

/// It refuses no call, as none of the others does.
fn host() -> Host {
    Host::start(Place::First, &["--delay-max", "never"])
}
