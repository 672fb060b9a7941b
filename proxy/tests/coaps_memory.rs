//! What sessions of the secure CoAP door take, and that it is given back. A process of its own: it looks at its memory.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail loudly, and what this prints is a figure")]

#[path = "coaps/client.rs"]
#[allow(dead_code, reason = "shared with the test coaps")]
mod client;

use sandbar_proxy::coap::DtlsConfig;

use self::client::{Client, Door};

const SESSIONS: usize = 800;
/// What one session may take with all that belongs to it, in bytes. It takes 7.8 KB.
const SESSION_BYTES_MAX: usize = 10 * 1024;

/// This process's own memory, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let fields: Vec<usize> = statm.split_whitespace().map(|field| field.parse().unwrap()).collect();
    (fields[1] - fields[2]) * 4096
}

#[test]
fn a_session_takes_little_and_leaves_nothing() {
    let door = Door::open(DtlsConfig::default());
    // What is made once is made before.
    for number in 0..64 {
        Client::connected(door.address, number).goodbye();
    }
    let before = resident();
    let mut first = None;
    for round in 1..=3 {
        // Of the clients their ports alone stay, so that nearly all that comes is the sessions'.
        let ports: Vec<_> = (0..SESSIONS).map(|number| Client::connected(door.address, number).socket).collect();
        assert_eq!(door.sessions(), u64::try_from(SESSIONS).unwrap());
        let each = resident().saturating_sub(before) / SESSIONS;
        println!("round {round}: {each} bytes a session");
        assert!(each < SESSION_BYTES_MAX, "{each} bytes a session");
        let first = *first.get_or_insert(each);
        assert!(each < first + first / 4, "what sessions took is not used again: {first} bytes a session, then {each}");
        drop(ports);
        door.end_all_sessions();
    }
}
