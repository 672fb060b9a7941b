//! Slow calls keep no fast one waiting, however many there are.

use crate::support::coap::Client;
use crate::support::host::Host;
use crate::support::{PATIENCE, bundle, until};

const SLOW: usize = 10;
const FAST: usize = 30;

/// A slow call takes a second, and goes on until the test says that it is over: what the fast ones are answered before is not the clock's
/// to decide.
const FUNCTIONS: &str = r#"
import os, time

def slow(event, context):
    context.log(f"slow {event.decode()} has begun")
    time.sleep(1)
    while not os.path.exists("/tmp/over"):
        time.sleep(0.01)
    return event

def fast(event, context):
    return event
"#;

const MANIFEST: &str = r#"
name = "mixed"
entry = "slow"

[functions.slow]
runtime = "python3"
code = "functions.py"
handler = "slow"
timeout = "60s"

[functions.fast]
runtime = "python3"
code = "functions.py"
handler = "fast"
"#;

fn start() -> Option<Host> {
    let host = Host::start()?;
    let folder = host.folder().join("mixed");
    bundle::write(&folder, &[("sandbar.toml", MANIFEST), ("functions.py", FUNCTIONS)]);
    host.deploy(&folder);
    Some(host)
}

/// Begins slow calls, each from the next of these peers in turn, and waits until all are served; gives each one's peer and token.
fn begin(host: &Host, peers: &mut [Client]) -> Vec<(usize, Vec<u8>)> {
    let number = peers.len();
    let begun =
        (0..SLOW).map(|call| (call % number, peers[call % number].begin("mixed/slow", call.to_string().as_bytes())));
    let begun: Vec<_> = begun.collect();
    for call in 0..SLOW {
        host.logged("mixed/slow", &format!("slow {call} has begun"));
    }
    begun
}

/// Calls that the CoAP door has begun, and those that the application has answered.
fn counted(host: &Host) -> (u64, u64) {
    let status = host.manage("GET", "/v1/host", b"").json();
    let door = status["doors"].as_array().unwrap().iter().find(|door| door["protocol"] == "coap").unwrap().clone();
    (door["counters"]["calls"].as_u64().unwrap(), host.applications()[0]["calls"].as_u64().unwrap())
}

/// Makes fast calls, from each of these peers in turn, one after the other.
fn call_fast<'a>(peers: impl Iterator<Item = &'a mut Client>, calls: usize) {
    for peer in peers {
        for call in 0..calls {
            let answer = peer.post("mixed/fast", call.to_string().as_bytes()).expect("an answer");
            assert_eq!((answer.code(), answer.text()), ("2.04".to_owned(), call.to_string()));
        }
    }
}

/// Says that the slow calls are over, and takes their answers: one each, none of which came before.
fn finish(host: &Host, peers: &[Client], begun: &[(usize, Vec<u8>)]) {
    let pid = host.first_process("mixed").pid;
    std::fs::write(format!("/proc/{pid}/root/tmp/over"), b"").unwrap();
    for (number, peer) in peers.iter().enumerate() {
        let mut waiting: Vec<_> = begun.iter().filter(|(of, _)| *of == number).map(|(_, token)| token).collect();
        while !waiting.is_empty() {
            let answer = peer.next_answer(PATIENCE).expect("an answer to each slow call");
            let before = waiting.len();
            waiting.retain(|token| **token != answer.token);
            // A repeated answer, whose acknowledgement crossed with it, takes none away.
            assert!(before - waiting.len() <= 1);
            assert_eq!(answer.code(), "2.04");
        }
    }
}

#[test]
fn ten_slow_calls_of_a_peer_keep_neither_its_own_fast_ones_waiting_nor_anothers() {
    let Some(host) = start() else { return };
    let mut peers = [Client::new(host.coap)];
    let begun = begin(&host, &mut peers);
    call_fast(peers.iter_mut(), FAST);
    call_fast(std::iter::once(&mut Client::new(host.coap)), FAST);
    let fast = 2 * FAST as u64;
    assert_eq!(counted(&host), (SLOW as u64 + fast, fast), "all slow ones are still under way");
    finish(&host, &peers, &begun);
    until("all calls are counted", || (counted(&host).1 == SLOW as u64 + fast).then_some(()));
}

#[test]
fn slow_calls_of_ten_peers_keep_no_fast_one_waiting() {
    let Some(host) = start() else { return };
    let mut peers: Vec<_> = (0..SLOW).map(|_| Client::new(host.coap)).collect();
    let begun = begin(&host, &mut peers);
    call_fast(peers.iter_mut(), FAST / SLOW);
    call_fast(std::iter::once(&mut Client::new(host.coap)), FAST);
    let fast = 2 * FAST as u64;
    assert_eq!(counted(&host), (SLOW as u64 + fast, fast), "all slow ones are still under way");
    finish(&host, &peers, &begun);
    until("all calls are counted", || (counted(&host).1 == SLOW as u64 + fast).then_some(()));
}
