//! CoAP clients that nobody here wrote: libcoap's `coap-client` and aiocoap.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::program::{self, Finished};
use super::{PATIENCE, skipped};

/// libcoap's client, under the names that distributions give it.
const COAP_CLIENTS: [&str; 4] = ["coap-client", "coap-client-notls", "coap-client-openssl", "coap-client-gnutls"];

/// The client of libcoap, ready for more arguments; a test without it is skipped.
pub(crate) fn coap_client() -> Option<Command> {
    let found = program::find(&COAP_CLIENTS);
    if found.is_none() {
        skipped("there is no coap-client (Debian: libcoap3-bin)");
    }
    found.map(Command::new)
}

/// libcoap's clients for coaps, each on a TLS library of its own; a test without any is skipped.
pub(crate) fn coaps_clients() -> Vec<PathBuf> {
    let found: Vec<PathBuf> = ["coap-client-openssl", "coap-client-gnutls"]
        .into_iter()
        .filter_map(|name| {
            let path = program::find(&[name]);
            if path.is_none() {
                skipped(&format!("there is no {name} (Debian: libcoap3-bin)"));
            }
            path
        })
        .collect();
    found
}

/// aiocoap's client, ready for more arguments; a test without it is skipped.
pub(crate) fn aiocoap_client() -> Option<Command> {
    let places = [std::env::var_os("SANDBAR_TEST_VENV").map(PathBuf::from), Some(target_directory().join("venv"))];
    let in_a_venv =
        places.into_iter().flatten().map(|venv| venv.join("bin/aiocoap-client")).find(|path| path.is_file());
    let found = in_a_venv.or_else(|| program::find(&["aiocoap-client"]));
    if found.is_none() {
        skipped("there is no aiocoap-client (PyPI: aiocoap; looked for in $SANDBAR_TEST_VENV, target/venv and PATH)");
    }
    found.map(Command::new)
}

/// Where cargo builds.
pub(crate) fn target_directory() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // A relative one is relative to where cargo runs, which is the root.
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |directory| root.join(directory))
}

/// What libcoap's client got.
#[derive(Debug)]
pub(crate) struct Got {
    /// Such as `2.04`.
    pub(crate) code: String,
    /// The answer as the client describes it, options and all.
    pub(crate) shown: String,
    pub(crate) payload: Vec<u8>,
}

/// Runs libcoap's client, prepared with method and payload, and reads what it got.
#[track_caller]
pub(crate) fn got(client: &mut Command, folder: &Path, uri: &str) -> Got {
    let output = folder.join(format!("answer-{:?}", std::thread::current().id()));
    std::fs::write(&output, b"").unwrap();
    // The verbosity at which it shows each message on one line.
    client.args(["-v", "6", "-B", "20", "-o"]).arg(&output).arg(uri);
    let finished = program::run(client, PATIENCE + PATIENCE);
    let payload = std::fs::read(&output).unwrap();
    std::fs::remove_file(&output).unwrap();
    let Finished { stderr, .. } = &finished;
    let shown = finished.text() + stderr;
    let last = shown.lines().rev().find_map(|line| {
        let code = line.split(" c:").nth(1)?.split(' ').next()?;
        let is_answer = code.len() == 4 && code.as_bytes()[1] == b'.' && code != "0.00";
        is_answer.then(|| (code.to_owned(), line.to_owned()))
    });
    let (code, shown) = last.unwrap_or_else(|| panic!("no answer: {shown}"));
    Got { code, shown, payload }
}
