//! What the CoAP door costs by itself: a built-in echo behind it, deduplication on, beside libcoap's server and a bare loop.
//!
//! ```text
//!   load (this process) ── UDP over loopback ──┬── the door
//!                                              ├── libcoap: `libcoap.c`, compiled here
//!                                              └── bare: a tokio loop with coap-lite's codec, which keeps nothing
//! ```
//! Each server is a process of its own on a processor of its own (`processors`), and is measured in turns with the others: a confirmable POST of 64 bytes, echoed; one peer with
//! one request in flight, 50 peers with one each, 50 with 16 each. Nothing is sent again: what is not answered counts as lost.
//!
//! Then what a peer takes at rest: the door's memory before and after 10,000 peers that made one call each, all still remembered.
//!
//! libcoap's part needs a C compiler and `libcoap3-dev`. Prints tables and writes `target/bench/coap.json`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic,
    clippy::exit,
    reason = "a bench prints, and ends at any error"
)]

mod goals;
mod load;
mod processors;
mod rest;
mod servers;

use std::path::Path;
use std::time::Duration;

use self::load::{Load, Run};
use self::servers::Server;

/// Each server is measured so often, in turns.
const ROUNDS: usize = 5;
const DURATION: Duration = Duration::from_millis(1500);
const WARM_UP: Duration = Duration::from_millis(200);
const LOADS: [Load; 3] = [Load { peers: 1, window: 1 }, Load { peers: 50, window: 1 }, Load { peers: 50, window: 16 }];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--serve") {
        servers::serve(&arguments[at + 1]);
        return;
    }
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let kinds = servers::kinds();
    let rounds = if quick { 1 } else { ROUNDS };
    let mut runs: Vec<Vec<Vec<Run>>> = vec![vec![Vec::new(); LOADS.len()]; kinds.len()];
    for _ in 0..rounds {
        for (at, load) in LOADS.iter().enumerate() {
            for (kind, runs) in kinds.iter().zip(&mut runs) {
                let server = Server::start(kind);
                load::run(server.address, *load, WARM_UP);
                runs[at].push(load::run(server.address, *load, DURATION));
            }
        }
    }
    let state = rest::bytes_per_peer();
    let found = goals::Found { kinds, runs, bytes_per_peer: state };
    found.print();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("coap.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&found.json()).unwrap()).unwrap();
    println!("written to {}", path.display());
}
