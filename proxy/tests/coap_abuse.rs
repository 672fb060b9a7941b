//! Abuse of the CoAP doors, after which they serve on and hold nothing for it. A process of its own: it looks at its memory.
//!
//! All of it happens again and again at the same doors. What is made once, and what tables and the C library keep for next time, is there
//! after the first rounds, now here, now there: the least that was resident after one of the first [`ROUNDS`] is what it may come back to
//! within [`TOLERANCE_BYTES`], after one of the next. What stays of one round is there three times by then.
//!
//! `SANDBAR_SOAK` makes it ten times as much.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking, says aloud what it skips, and prints figures"
)]
#![allow(dead_code, reason = "modules are shared with the tests coap and coaps")]

#[path = "coap/abuse.rs"]
mod abuse;
#[path = "coap/client.rs"]
mod client;
#[path = "coap/draw.rs"]
mod draw;
#[path = "coap/echo.rs"]
mod echo;
#[path = "coap/garbage.rs"]
mod garbage;
#[path = "coaps/hello.rs"]
mod hello;
#[path = "coaps/client.rs"]
mod secure;

use std::pin::Pin;
use std::time::{Duration, Instant};

use sandbar_proxy::coap::{CoapConfig, DtlsConfig};

use self::abuse::{forgetful, serves_on, times, wary};
use self::client::Door;

/// Rounds before the memory is taken for what it will be, and rounds it then has to come back.
const ROUNDS: usize = 3;
/// How much more may be resident; ten times as much in the long run. Hash tables keep their places, and how many they have by then is chance:
/// two megabytes from one round to another. What stays of three rounds would be more if it were three hundred bytes of each spoofed peer, or
/// one in three of the payloads that came in part.
const TOLERANCE_BYTES: usize = 4 * 1024 * 1024;
/// Longer than the doors here remember anything.
const FORGOTTEN_AFTER: Duration = Duration::from_millis(2500);

type Config = fn() -> CoapConfig;
type Round = for<'a> fn(&'a Door) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Each abuse, and the door it is tried on.
const ABUSES: [(&str, Config, Round); 9] = [
    ("largest datagrams", forgetful, |door| Box::pin(garbage::largest_datagrams(door))),
    ("mutated messages", forgetful, |door| Box::pin(garbage::mutated_messages(door))),
    ("options of every length", forgetful, |door| Box::pin(garbage::options_of_every_length(door))),
    ("port zero", forgetful, |door| Box::pin(garbage::port_zero(door))),
    ("spoofed senders", forgetful, |door| Box::pin(garbage::spoofed_senders(door))),
    ("spoofed senders who are asked where they are", wary, |door| Box::pin(garbage::spoofed_senders(door))),
    ("vanished clients", forgetful, |door| Box::pin(abuse::vanished_clients(door))),
    ("abandoned uploads", forgetful, |door| Box::pin(abuse::abandoned_uploads(door))),
    ("duplicates", CoapConfig::default, |door| Box::pin(abuse::duplicates(door))),
];

/// This process's own memory, in bytes, when what is free has been given back.
#[allow(unsafe_code, reason = "malloc_trim(3) has no wrapper")]
fn resident() -> usize {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time, by any thread.
    unsafe {
        nix::libc::malloc_trim(0);
    }
    // Exact, as `statm` is not: the kernel keeps counts of its own for each processor.
    let memory = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let anonymous = memory.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    anonymous.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

/// Handshakes that go no further than a genuine cookie, from many addresses.
fn half_open_handshakes(door: &secure::Door) {
    for address in 0..u8::try_from(times(20)).unwrap() {
        let socket = hello::socket([127, 0, 2, address], door.address);
        for random in 0..100 {
            let random = u64::from(address) << 32 | random;
            socket.send(&hello::hello(random, &hello::cookie(&socket, random))).unwrap();
        }
    }
    let mut client = secure::Client::connected(door.address, 1);
    assert_eq!(client.call(b"still").payload, b"llits");
    client.goodbye();
}

/// Everything once. Gives what is resident when the doors have forgotten it.
async fn round(doors: &[Door], secure: &secure::Door) -> usize {
    for ((name, _, abuse), door) in ABUSES.iter().zip(doors) {
        let start = Instant::now();
        abuse(door).await;
        serves_on(door).await;
        println!("{name}: {:.1} s, then {} KiB", start.elapsed().as_secs_f32(), resident() / 1024);
    }
    half_open_handshakes(secure);
    tokio::time::sleep(FORGOTTEN_AFTER).await;
    let left = resident();
    println!("half-open handshakes; then all is forgotten: {} KiB", left / 1024);
    left
}

#[tokio::test]
async fn doors_outlive_all_abuse_and_hold_nothing_for_it() {
    // A huge page comes and goes as the kernel likes.
    nix::sys::prctl::set_thp_disable(true).unwrap();
    let doors: Vec<Door> = ABUSES.iter().map(|(_, config, _)| Door::open(config())).collect();
    let limits = DtlsConfig { handshake_time_max: Duration::from_secs(1), ..DtlsConfig::default() };
    let secure = secure::Door::open(limits);
    let mut before = usize::MAX;
    for _ in 0..ROUNDS {
        before = before.min(round(&doors, &secure).await);
    }
    let tolerated = before + TOLERANCE_BYTES * usize::try_from(times(1)).unwrap();
    let mut after = Vec::new();
    while after.last().is_none_or(|left| *left > tolerated) {
        assert!(after.len() < ROUNDS, "{before} bytes before, {after:?} after");
        after.push(round(&doors, &secure).await);
    }
    for door in doors {
        serves_on(&door).await;
        door.close().await;
    }
}
