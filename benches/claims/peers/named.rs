//! Servers that run already: `--peer NAME=URL`, as often as wanted. They are called as they are, and are not ours to place or to end.

use std::sync::Mutex;

use super::{Peer, Rate, Runs, Skipped, Way};

/// Their names and URLs, in the order in which they were typed.
static NAMED: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// Takes what was typed.
pub(crate) fn name(text: &str) -> Result<(), String> {
    match text.split_once('=') {
        Some((name, url))
            if !name.is_empty() && ["http://", "coap://"].iter().any(|scheme| url.starts_with(scheme)) =>
        {
            NAMED.lock().unwrap().push((name.to_owned(), url.to_owned()));
            Ok(())
        }
        _ => Err(format!("--peer `{text}`: give NAME=http://HOST[:PORT]/PATH or NAME=coap://HOST[:PORT]/PATH")),
    }
}

pub(crate) fn peers() -> Vec<(String, Result<Peer, Skipped>)> {
    let peer = |(name, url): &(String, String)| {
        let way = Way::Served(url.clone(), Runs::Already);
        (name.clone(), Ok(Peer::new(name, "as it runs", Rate::Found, way)))
    };
    NAMED.lock().unwrap().iter().map(peer).collect()
}
