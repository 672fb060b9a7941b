//! What observers of a CoAP door take, and that it is given back when they vanish without a word. A process of its own: it looks at its
//! memory.
//!
//! `SANDBAR_SOAK` makes them a hundred thousand.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail loudly, and what this prints is a figure")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbar_proxy::coap::{CoapConfig, CoapCounters, CoapDoor};
use sandbar_proxy::{ServedApplication, Service};
use sandbar_runtime::outputs::{Output, Outputs};
use sandbar_runtime::{Answer, AnswerProperties, Origin, Outcome, Request};
use tokio::sync::oneshot;

const OBSERVERS: u32 = 3000;
const OBSERVERS_SOAK: u32 = 100_000;
/// What one observer may take with its peer and its request, in bytes. It takes 950; where others have come and gone, what the allocator keeps of
/// their notifications comes on top.
const OBSERVER_BYTES_MAX: usize = 2048;
const PATIENCE: Duration = Duration::from_secs(120);

/// One function, which nobody calls.
#[derive(Clone, Debug)]
struct One(Arc<Outputs>);

impl Service for One {
    fn find(&self, _: Origin, _: &str, _: Option<&str>) -> Result<(), Box<Answer>> {
        Ok(())
    }

    fn observable(&self, _: &str, _: Option<&str>) -> bool {
        true
    }

    async fn call(&self, _: Request) -> Answer {
        Answer::refused(Outcome::Failed, "to observe is not to call")
    }

    fn payload_bytes_max(&self) -> usize {
        1 << 20
    }

    fn outputs(&self) -> Arc<Outputs> {
        Arc::clone(&self.0)
    }

    fn applications(&self, _: Origin) -> Vec<ServedApplication> {
        Vec::new()
    }
}

/// This process's own memory, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let fields: Vec<usize> = statm.split_whitespace().map(|field| field.parse().unwrap()).collect();
    (fields[1] - fields[2]) * 4096
}

/// A peer with an address of its own begins to observe, and is gone.
fn observe_and_vanish(door: SocketAddr, number: u32) {
    let [_, a, b, c] = number.to_be_bytes();
    let socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::new(127, 64 + a, b, c), 0))).unwrap();
    socket.connect(door).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // NON GET with a token of one byte, Observe: 0, Uri-Path "a" and "f".
    socket.send(&[0x51, 1, a, c, 7, 0x60, 0x51, b'a', 0x01, b'f']).unwrap();
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer).unwrap();
    // Observe is the first option, of up to three bytes.
    let told = (answer[1], answer[4], answer[5] >> 4);
    assert_eq!(told, (0x45, 7, 6), "2.05 with Observe: {:02x?}", &answer[..length]);
}

/// Waits until so many observations have ended, and nothing is watched.
fn until_gone(counters: &CoapCounters, outputs: &Outputs, total: u64) {
    let start = Instant::now();
    while counters.observers_unreachable.get() < total || outputs.is_watched() {
        assert!(start.elapsed() < PATIENCE, "{:?}", counters.list());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until no request is remembered any more.
fn until_forgotten(counters: &CoapCounters, total: u64) {
    let start = Instant::now();
    while counters.exchanges_expired.get() < total {
        assert!(start.elapsed() < PATIENCE, "{:?}", counters.list());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn observers_take_little_and_leave_nothing_when_they_vanish() {
    let many = if std::env::var_os("SANDBAR_SOAK").is_some() { OBSERVERS_SOAK } else { OBSERVERS };
    let service = One(Arc::default());
    let outputs = service.outputs();
    let config = CoapConfig {
        observers_max: many as usize,
        peers_max: 2 * many as usize,
        non_confirmable_lifetime: Duration::from_secs(1),
        acknowledgement_timeout: Duration::from_millis(20),
        ..CoapConfig::default()
    };
    let (opened, door) = std::sync::mpsc::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let door = CoapDoor::bind("127.0.0.1:0".parse().unwrap(), service, config).unwrap();
            opened.send((door.local_addr(), door.counters())).unwrap();
            door.serve(async { stopped.await.unwrap_or(()) }).await;
        });
    });
    let (address, counters) = door.recv_timeout(PATIENCE).unwrap();
    let before = resident();
    let mut first: Option<usize> = None;
    for round in 1..=4_u64 {
        for number in 0..many {
            observe_and_vanish(address, number);
        }
        let total = round * u64::from(many);
        assert_eq!((counters.observers_registered.get(), counters.observers_refused.get()), (total, 0));
        until_forgotten(&counters, total);
        let each = resident().saturating_sub(before) / many as usize;
        println!("round {round}: {each} bytes an observer");
        assert!(each < OBSERVER_BYTES_MAX, "{each} bytes an observer");
        if let Some(first) = first {
            assert!(each < first + first / 4, "what they took is not used again: {first} bytes, then {each}");
        }
        // What notifications take at once is in memory from the first time on.
        first = (round > 1).then(|| first.unwrap_or(each));
        let output = Output { payload: "x".into(), content_format: None, properties: AnswerProperties::default() };
        outputs.publish("a", "f", false, &output);
        until_gone(&counters, &outputs, total);
        assert_eq!(counters.notifications_confirmable.get(), total);
    }
    let left = resident().saturating_sub(before) / many as usize;
    println!("afterwards: {left} bytes an observer");
    assert!(left < OBSERVER_BYTES_MAX, "{left} bytes of each stay");
    stop.send(()).unwrap();
    serving.join().unwrap();
}
