//! A door on a free port, and a client that says exactly what a test wants said.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use coap_lite::{CoapOption, MessageClass, MessageType, Packet, RequestType};
use sandbar_proxy::coap::{CoapConfig, CoapCounters, CoapDoor};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::echo::Echo;

/// Longer than anything here takes, unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Where the next client begins to count its requests.
static BEGUN: AtomicU32 = AtomicU32::new(1000);

/// A serving door.
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) echo: Echo,
    pub(crate) counters: Arc<CoapCounters>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Door {
    pub(crate) fn open(config: CoapConfig) -> Self {
        Self::open_at("127.0.0.1:0", config)
    }

    pub(crate) fn open_at(address: &str, config: CoapConfig) -> Self {
        let echo = Echo::default();
        let door = CoapDoor::bind(address.parse().unwrap(), echo.clone(), config).unwrap();
        let (address, counters) = (door.local_addr(), door.counters());
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(door.serve(async {
            stopped.await.ok();
        }));
        Self { address, echo, counters, stop, serving }
    }

    pub(crate) async fn close(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.serving).await.unwrap().unwrap();
    }

    pub(crate) async fn client(&self) -> Client {
        Client::to(self.address).await
    }
}

/// One peer of the door.
pub(crate) struct Client {
    socket: UdpSocket,
    /// Requests sent. The token is all of it, the message id its lower half.
    sent: u32,
}

/// A request, confirmable unless changed.
pub(crate) fn request(method: RequestType, path: &str, payload: &[u8]) -> Packet {
    let mut packet = Packet::new();
    packet.header.set_type(MessageType::Confirmable);
    packet.header.code = MessageClass::Request(method);
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        packet.add_option(CoapOption::UriPath, segment.as_bytes().to_vec());
    }
    packet.payload = payload.to_vec();
    packet
}

/// The same, non-confirmable.
pub(crate) fn non(mut packet: Packet) -> Packet {
    packet.header.set_type(MessageType::NonConfirmable);
    packet
}

/// With another option.
pub(crate) fn with(mut packet: Packet, option: u16, value: &[u8]) -> Packet {
    packet.add_option(CoapOption::from(option), value.to_vec());
    packet
}

/// A block option's value.
pub(crate) fn block(number: u32, more: bool, exponent: u32) -> Vec<u8> {
    let bits = number << 4 | u32::from(more) << 3 | exponent;
    let bytes = bits.to_be_bytes();
    let zeros = bits.leading_zeros() as usize / 8;
    bytes[zeros..].to_vec()
}

/// The number, more-flag and size exponent of a block option.
pub(crate) fn block_of(packet: &Packet, option: CoapOption) -> (u32, bool, u32) {
    let value = packet.get_first_option(option).expect("a block option");
    let bits = value.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
    (bits >> 4, bits & 8 != 0, bits & 7)
}

pub(crate) fn code(packet: &Packet) -> String {
    packet.header.get_code()
}

pub(crate) fn text(packet: &Packet) -> String {
    String::from_utf8(packet.payload.clone()).unwrap()
}

pub(crate) fn uint(packet: &Packet, option: CoapOption) -> Option<u32> {
    let value = packet.get_first_option(option)?;
    Some(value.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

impl Client {
    pub(crate) async fn to(door: SocketAddr) -> Self {
        let local: SocketAddr =
            if door.is_ipv4() { ([127, 0, 0, 1], 0).into() } else { (std::net::Ipv6Addr::LOCALHOST, 0).into() };
        let socket = UdpSocket::bind(local).await.unwrap();
        socket.connect(door).await.unwrap();
        // Far from those of the last that had this port, for which the door may still have an answer.
        Self { socket, sent: BEGUN.fetch_add(4099, Ordering::Relaxed) }
    }

    pub(crate) async fn send_bytes(&self, bytes: &[u8]) {
        self.socket.send(bytes).await.unwrap();
    }

    pub(crate) async fn send(&self, packet: &Packet) {
        self.send_bytes(&packet.to_bytes_unlimited().unwrap()).await;
    }

    pub(crate) async fn receive_bytes(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65_536];
        let length = tokio::time::timeout(PATIENCE, self.socket.recv(&mut buffer)).await.expect("an answer").unwrap();
        buffer.truncate(length);
        buffer
    }

    /// The next datagram, if one comes in time.
    pub(crate) async fn receive_within(&self, wait: Duration) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 2048];
        let length = tokio::time::timeout(wait, self.socket.recv(&mut buffer)).await.ok()?.ok()?;
        buffer.truncate(length);
        Some(buffer)
    }

    pub(crate) async fn receive(&self) -> Packet {
        Packet::from_bytes(&self.receive_bytes().await).unwrap()
    }

    /// Nothing comes for a while.
    pub(crate) async fn hears_nothing(&self, wait_ms: u64) {
        let mut buffer = [0; 2048];
        let wait = Duration::from_millis(wait_ms);
        let received = tokio::time::timeout(wait, self.socket.recv(&mut buffer)).await;
        assert!(received.is_err(), "{received:?}: {:02x?}", &buffer[..32]);
    }

    /// The packet with a message id and token nobody used yet.
    pub(crate) fn numbered(&mut self, mut packet: Packet) -> Packet {
        self.sent += 1;
        let [.., high, low] = self.sent.to_be_bytes();
        packet.header.message_id = u16::from_be_bytes([high, low]);
        packet.set_token(self.sent.to_be_bytes().to_vec());
        packet
    }

    /// Sends a request and receives its answer, which has to come by itself.
    pub(crate) async fn ask(&mut self, packet: Packet) -> Packet {
        let packet = self.numbered(packet);
        self.send(&packet).await;
        let answer = self.receive().await;
        assert_eq!(answer.get_token(), packet.get_token());
        if packet.header.get_type() == MessageType::Confirmable {
            assert_eq!(answer.header.get_type(), MessageType::Acknowledgement);
            assert_eq!(answer.header.message_id, packet.header.message_id);
        } else {
            assert_eq!(answer.header.get_type(), MessageType::NonConfirmable);
        }
        answer
    }

    /// Sends a payload in blocks, and gives the answer to the last.
    pub(crate) async fn upload(&mut self, path: &str, payload: &[u8], exponent: u32) -> Packet {
        let size = 16 << exponent;
        let count = payload.len().div_ceil(size).max(1);
        for (number, bytes) in (0..).zip(payload.chunks(size)) {
            let more = number as usize + 1 < count;
            let value = block(number, more, exponent);
            let packet = request(RequestType::Post, path, bytes);
            let answer = self.ask(with(packet, 27, &value)).await;
            assert_eq!(block_of(&answer, CoapOption::Block1), (number, more, exponent));
            if !more || code(&answer) != "2.31" {
                return answer;
            }
        }
        unreachable!("the last block ends the upload");
    }

    /// Asks for the rest of an answer whose first block is there, and gives the whole payload.
    pub(crate) async fn download(&mut self, path: &str, first: Packet) -> Vec<u8> {
        let etag = first.get_first_option(CoapOption::ETag).cloned();
        let mut payload = first.payload.clone();
        let (_, mut more, exponent) = block_of(&first, CoapOption::Block2);
        for number in 1.. {
            if !more {
                break;
            }
            let packet = request(RequestType::Post, path, &[]);
            let next = self.ask(with(packet, 23, &block(number, false, exponent))).await;
            let place = block_of(&next, CoapOption::Block2);
            assert_eq!((place.0, place.2), (number, exponent));
            assert_eq!(next.get_first_option(CoapOption::ETag).cloned(), etag);
            payload.extend_from_slice(&next.payload);
            more = place.1;
        }
        payload
    }
}
