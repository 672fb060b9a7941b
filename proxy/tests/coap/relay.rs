//! A network between a client and the door that loses, repeats, delays and so turns about what it carries; the same in every run, as far as
//! datagrams come in the same order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::draw::Draw;

/// Of a hundred datagrams, how many are lost.
const LOST: usize = 20;
/// Of a hundred datagrams, how many come twice.
const REPEATED: usize = 20;
/// A datagram takes less than this, and each another time: those sent within it overtake each other.
const DELAY_MICROS: usize = 12_000;

/// What became of datagrams.
#[derive(Debug, Default)]
pub(crate) struct Fates {
    pub(crate) lost: AtomicU64,
    pub(crate) repeated: AtomicU64,
    /// Delivered after one that was sent later, in the same direction.
    pub(crate) overtaken: AtomicU64,
}

/// The network, for one client. It ends with this.
pub(crate) struct Relay {
    /// Where the client sends.
    pub(crate) address: SocketAddr,
    pub(crate) fates: Arc<Fates>,
    carrying: JoinHandle<()>,
}

impl Relay {
    pub(crate) async fn to(door: SocketAddr, seed: u64) -> Self {
        let [outside, inside] =
            [UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap()];
        inside.connect(door).await.unwrap();
        let (address, fates) = (outside.local_addr().unwrap(), Arc::<Fates>::default());
        let way = Way { draw: Draw(seed), fates: Arc::clone(&fates), ..Way::default() };
        Self { address, fates, carrying: tokio::spawn(carry(outside, inside, way)) }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

/// Datagrams on their way, by when they arrive.
struct Way {
    draw: Draw,
    fates: Arc<Fates>,
    /// Datagrams that have been sent.
    sent: u64,
    /// By time of arrival and number: whether it goes to the door, and its bytes.
    queue: BTreeMap<(Instant, u64), (bool, Vec<u8>)>,
    /// The last number delivered to the client, and to the door.
    delivered: [u64; 2],
}

impl Default for Way {
    fn default() -> Self {
        Self { draw: Draw(1), fates: Arc::default(), sent: 0, queue: BTreeMap::new(), delivered: [0; 2] }
    }
}

impl Way {
    fn enter(&mut self, inwards: bool, bytes: &[u8]) {
        let fate = self.draw.below(100);
        let copies = if fate < LOST {
            self.fates.lost.fetch_add(1, Ordering::Relaxed);
            0
        } else if fate < LOST + REPEATED {
            self.fates.repeated.fetch_add(1, Ordering::Relaxed);
            2
        } else {
            1
        };
        for _ in 0..copies {
            let delay = Duration::from_micros(self.draw.below(DELAY_MICROS).try_into().unwrap());
            self.sent += 1;
            self.queue.insert((Instant::now() + delay, self.sent), (inwards, bytes.to_vec()));
        }
    }

    /// The next that has arrived.
    fn leave(&mut self) -> Option<(bool, Vec<u8>)> {
        let entry = self.queue.first_entry().filter(|entry| entry.key().0 <= Instant::now())?;
        let number = entry.key().1;
        let (inwards, bytes) = entry.remove();
        let last = &mut self.delivered[usize::from(inwards)];
        if number < *last {
            self.fates.overtaken.fetch_add(1, Ordering::Relaxed);
        }
        *last = number.max(*last);
        Some((inwards, bytes))
    }
}

async fn carry(outside: UdpSocket, inside: UdpSocket, mut way: Way) {
    let (mut client, mut from_client, mut from_door) = (None, vec![0; 2048], vec![0; 2048]);
    loop {
        // Not for ever, but longer than anything here.
        let due = way.queue.first_key_value().map_or(Instant::now() + Duration::from_secs(3600), |((due, _), _)| *due);
        tokio::select! {
            received = outside.recv_from(&mut from_client) => {
                let (length, from) = received.unwrap();
                client = Some(from);
                way.enter(true, &from_client[..length]);
            }
            received = inside.recv(&mut from_door) => way.enter(false, &from_door[..received.unwrap()]),
            () = tokio::time::sleep_until(due) => {}
        }
        while let Some((inwards, bytes)) = way.leave() {
            match client.filter(|_| !inwards) {
                Some(client) => outside.send_to(&bytes, client).await.map(|_| ()).unwrap(),
                None => inside.send(&bytes).await.map(|_| ()).unwrap(),
            }
        }
    }
}
