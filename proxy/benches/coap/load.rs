//! The load: peers with so many requests in flight each, from one thread that waits for all of them at once.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// How long answers are waited for after the last request.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
const PAYLOAD: [u8; 64] = [b'x'; 64];
/// `POST /test`.
const OPTIONS: [u8; 5] = [0xb4, b't', b'e', b's', b't'];
/// Where the token is, and where the payload in an answer of the usual length.
const TOKEN: std::ops::Range<usize> = 4..8;

/// How much is asked at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) peers: usize,
    /// Requests in flight of each peer.
    pub(crate) window: usize,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) answered: u64,
    pub(crate) lost: u64,
    /// Answers that were no echo.
    pub(crate) wrong: u64,
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// One peer: a socket, and when each of its requests in flight was sent.
struct Peer {
    socket: UdpSocket,
    message_id: u16,
    /// By window slot: the request's serial number and its time; `None` if the slot is free.
    in_flight: Vec<Option<(u16, Instant)>>,
    datagram: Vec<u8>,
    /// Slots whose request found no room in the send buffer.
    held_up: VecDeque<usize>,
}

impl Peer {
    fn new(to: SocketAddr, window: usize, first_id: u16) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(to).unwrap();
        socket.set_nonblocking(true).unwrap();
        let datagram = [&[0x44, 0x02, 0, 0, 0, 0, 0, 0][..], &OPTIONS, &[0xff], &PAYLOAD].concat();
        Self { socket, message_id: first_id, in_flight: vec![None; window], datagram, held_up: VecDeque::new() }
    }

    /// Sends the next request of a slot.
    fn ask(&mut self, slot: usize) {
        self.message_id = self.message_id.wrapping_add(1);
        let id = self.message_id;
        let token = u32::try_from(slot).unwrap() << 16 | u32::from(id);
        self.datagram[2..4].copy_from_slice(&id.to_be_bytes());
        self.datagram[TOKEN].copy_from_slice(&token.to_be_bytes());
        let now = Instant::now();
        match self.socket.send(&self.datagram) {
            Ok(_) => self.in_flight[slot] = Some((id, now)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => self.held_up.push_back(slot),
            Err(error) => panic!("sending: {error}"),
        }
    }

    /// The slot that an answer belongs to, and how long it took.
    fn answer(&mut self, datagram: &[u8]) -> Option<(usize, Duration)> {
        let token = u32::from_be_bytes(datagram.get(TOKEN)?.try_into().unwrap());
        let [high, _, ..] = token.to_be_bytes();
        let slot = usize::from(high) << 8 | (token >> 16 & 0xff) as usize;
        let id = u16::try_from(token & 0xffff).unwrap();
        let (_, sent) = self.in_flight.get_mut(slot)?.take_if(|(sent_id, _)| *sent_id == id)?;
        Some((slot, sent.elapsed()))
    }
}

/// Whether an answer is 2.04 with what was sent.
fn is_echo(datagram: &[u8]) -> bool {
    datagram.get(1) == Some(&0x44) && datagram.ends_with(&PAYLOAD)
}

/// Keeps all windows full for a time, then waits for the last answers.
pub(crate) fn run(to: SocketAddr, load: Load, duration: Duration) -> Run {
    // Each run begins with other message ids, so that none is used twice by chance of a port given again.
    let mut peers: Vec<Peer> = (0..load.peers).map(|_| Peer::new(to, load.window, fastrand::u16(..))).collect();
    let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
    for (number, peer) in (0..).zip(&peers) {
        epoll.add(peer.socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, number)).unwrap();
    }
    let start = Instant::now();
    for peer in &mut peers {
        for slot in 0..load.window {
            peer.ask(slot);
        }
    }
    let (mut latencies, mut wrong, mut in_time) = (Vec::new(), 0, 0_u64);
    let mut events = [EpollEvent::empty(); 64];
    let mut bytes = [0; 2048];
    while start.elapsed() < duration + LAST_ANSWERS {
        let count = epoll.wait(&mut events, EpollTimeout::from(10_u8)).unwrap();
        let sending = start.elapsed() < duration;
        for event in &events[..count] {
            let peer = &mut peers[usize::try_from(event.data()).unwrap()];
            for _ in 0..load.window {
                let Ok(length) = peer.socket.recv(&mut bytes) else { break };
                let Some((slot, took)) = peer.answer(&bytes[..length]) else { continue };
                wrong += u64::from(!is_echo(&bytes[..length]));
                latencies.push(took);
                if sending {
                    in_time += 1;
                    peer.ask(slot);
                }
            }
            while let Some(slot) = peer.held_up.pop_front() {
                peer.ask(slot);
            }
        }
        if !sending && peers.iter().all(|peer| peer.in_flight.iter().all(Option::is_none)) {
            break;
        }
    }
    let lost = peers.iter().flat_map(|peer| &peer.in_flight).flatten().count() as u64;
    figures(latencies, lost, wrong, in_time, duration)
}

#[allow(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
fn figures(mut latencies: Vec<Duration>, lost: u64, wrong: u64, in_time: u64, duration: Duration) -> Run {
    latencies.sort_unstable();
    let percentile = |percent: usize| {
        let at = (latencies.len() * percent / 100).min(latencies.len().saturating_sub(1));
        latencies.get(at).map_or(f64::NAN, |took| took.as_secs_f64() * 1e6)
    };
    Run {
        answered: latencies.len() as u64,
        lost,
        wrong,
        per_second: in_time as f64 / duration.as_secs_f64(),
        p50_us: percentile(50),
        p99_us: percentile(99),
    }
}
