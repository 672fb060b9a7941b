//! The CoAP client against peers that do what the door of this crate never does: answer late, wrongly, or not at all.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use coap_lite::{CoapOption, MessageClass, MessageType, Packet, ResponseType};
use sandbar_proxy::client::{Client, ClientError, Method, PreparedRequest, Request, Response};
use tokio::net::UdpSocket;

const PATIENCE: Duration = Duration::from_secs(10);
const POST: Request<'static> = Request { method: Method::Post, path: "a/b", payload: b"x", content_format: None };

/// A server that does what a test says.
struct Peer {
    socket: UdpSocket,
    client: SocketAddr,
}

impl Peer {
    /// A peer, and a client of it.
    async fn with_client(patience: Duration) -> (Self, Client) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        (Self { socket, client: address }, Client::connect(address, patience).await.unwrap())
    }

    async fn receive(&mut self) -> Packet {
        let mut bytes = [0; 2048];
        let received = tokio::time::timeout(PATIENCE, self.socket.recv_from(&mut bytes)).await;
        let (len, from) = received.expect("a datagram").unwrap();
        self.client = from;
        Packet::from_bytes(&bytes[..len]).unwrap()
    }

    async fn send(&self, packet: &Packet) {
        self.socket.send_to(&packet.to_bytes().unwrap(), self.client).await.unwrap();
    }

    /// Receives a request and answers it with an acknowledgement of this code, option and payload.
    async fn answer(&mut self, code: ResponseType, options: &[(CoapOption, &[u8])], payload: &[u8]) -> Packet {
        let request = self.receive().await;
        self.send(&response(&request, code, options, payload)).await;
        request
    }
}

/// A piggy-backed response.
fn response(request: &Packet, code: ResponseType, options: &[(CoapOption, &[u8])], payload: &[u8]) -> Packet {
    let mut packet = Packet::new();
    packet.header.set_type(MessageType::Acknowledgement);
    packet.header.code = MessageClass::Response(code);
    packet.header.message_id = request.header.message_id;
    packet.set_token(request.get_token().to_vec());
    for (option, value) in options {
        packet.add_option(*option, value.to_vec());
    }
    packet.payload = payload.to_vec();
    packet
}

fn empty(kind: MessageType, message_id: u16) -> Packet {
    let mut packet = Packet::new();
    packet.header.set_type(kind);
    packet.header.code = MessageClass::Empty;
    packet.header.message_id = message_id;
    packet
}

/// Plays a request against a peer's part.
async fn play(
    request: &Request<'_>,
    patience: Duration,
    part: impl AsyncFnOnce(Peer),
) -> Result<Response, ClientError> {
    let (peer, mut client) = Peer::with_client(patience).await;
    let (response, ()) = tokio::join!(client.request(request), part(peer));
    response
}

#[tokio::test]
async fn a_lost_request_is_sent_again_as_it_was() {
    let part = async |mut peer: Peer| {
        let lost = peer.receive().await;
        let again = peer.answer(ResponseType::Changed, &[], b"late").await;
        assert_eq!(lost.to_bytes().unwrap(), again.to_bytes().unwrap());
    };
    assert_eq!(play(&POST, PATIENCE, part).await.unwrap().payload, b"late");
}

#[tokio::test]
async fn a_separate_response_is_waited_for_and_acknowledged() {
    let part = async |mut peer: Peer| {
        let request = peer.receive().await;
        peer.send(&empty(MessageType::Acknowledgement, request.header.message_id)).await;
        peer.send(&empty(MessageType::Acknowledgement, request.header.message_id)).await;
        // Longer than the first retransmission would take.
        tokio::time::sleep(Duration::from_millis(3200)).await;
        let mut separate = response(&request, ResponseType::Changed, &[], b"slow");
        separate.header.set_type(MessageType::Confirmable);
        separate.header.message_id = 77;
        peer.send(&separate).await;
        let next = peer.receive().await;
        assert_eq!((next.header.get_type(), next.header.message_id), (MessageType::Acknowledgement, 77), "no repeat");
    };
    assert_eq!(play(&POST, PATIENCE, part).await.unwrap().payload, b"slow");
}

#[tokio::test]
async fn what_answers_somebody_else_is_passed_over() {
    let part = async |mut peer: Peer| {
        let request = peer.receive().await;
        let mut wrong = response(&request, ResponseType::Changed, &[], b"another's");
        wrong.set_token(b"else".to_vec());
        peer.send(&wrong).await;
        let mut wrong = response(&request, ResponseType::Changed, &[], b"of another message");
        wrong.header.message_id = request.header.message_id.wrapping_add(1);
        peer.send(&wrong).await;
        peer.socket.send_to(b"\xff no CoAP", peer.client).await.unwrap();
        // One whose acknowledgement was lost must be acknowledged, or it never ends.
        let mut earlier = response(&request, ResponseType::Changed, &[], b"of an earlier request");
        earlier.header.set_type(MessageType::Confirmable);
        earlier.header.message_id = 99;
        earlier.set_token(b"old".to_vec());
        peer.send(&earlier).await;
        assert_eq!(peer.receive().await.header.message_id, 99);
        peer.send(&response(&request, ResponseType::Changed, &[], b"ours")).await;
    };
    assert_eq!(play(&POST, PATIENCE, part).await.unwrap().payload, b"ours");
}

#[tokio::test]
async fn a_rejected_message_and_silence_are_errors_in_time() {
    let rejects = async |mut peer: Peer| {
        let request = peer.receive().await;
        peer.send(&empty(MessageType::Reset, request.header.message_id)).await;
    };
    assert!(matches!(play(&POST, PATIENCE, rejects).await, Err(ClientError::Reset { .. })));
    let began = std::time::Instant::now();
    let acknowledges = async |mut peer: Peer| {
        let request = peer.receive().await;
        peer.send(&empty(MessageType::Acknowledgement, request.header.message_id)).await;
    };
    let silence = play(&POST, Duration::from_millis(100), acknowledges).await;
    assert!(matches!(silence, Err(ClientError::NoAnswer { .. })));
    assert!(began.elapsed() < PATIENCE);
}

#[tokio::test]
async fn an_upload_goes_on_in_the_smaller_blocks_that_the_server_asks_for() {
    let payload: Vec<u8> = (0..3000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let request = Request { payload: &payload, ..POST };
    let part = async |mut peer: Peer| {
        // Block 0 of 1,024 bytes, answered with size exponent 4: 256 bytes from now on.
        let first = peer.answer(ResponseType::Continue, &[(CoapOption::Block1, &[0x0C])], b"").await;
        assert_eq!(first.get_first_option(CoapOption::Block1), Some(&vec![0x0E]));
        assert_eq!(first.get_first_option(CoapOption::Size1), Some(&vec![0x0B, 0xB8]));
        let mut got = first.payload;
        loop {
            let block = peer.receive().await;
            let value = block.get_first_option(CoapOption::Block1).unwrap();
            let bits = value.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
            assert_eq!((bits >> 4) * 256, got.len());
            assert_eq!(bits & 7, 4);
            got.extend(&block.payload);
            let more = bits & 8 != 0;
            let code = if more { ResponseType::Continue } else { ResponseType::Changed };
            peer.send(&response(&block, code, &[(CoapOption::Block1, value)], b"")).await;
            if !more {
                break;
            }
        }
        assert_eq!(got.len(), 3000);
    };
    assert_eq!(play(&request, PATIENCE, part).await.unwrap().code, (2, 4));
}

#[tokio::test]
async fn a_refused_upload_ends_with_the_refusal() {
    let payload = [0; 5000];
    let request = Request { payload: &payload, ..POST };
    let part = async |mut peer: Peer| {
        let options: [(CoapOption, &[u8]); 2] = [(CoapOption::Size1, &[0x08, 0x00]), (CoapOption::MaxAge, &[])];
        peer.answer(ResponseType::RequestEntityTooLarge, &options, b"no").await;
    };
    let refused = play(&request, PATIENCE, part).await.unwrap();
    assert_eq!((refused.code, refused.size1, refused.max_age), ((4, 13), Some(2048), Some(Duration::ZERO)));
}

#[tokio::test]
async fn a_download_follows_the_servers_block_size() {
    let part = async |mut peer: Peer| {
        for (number, value) in [0x08, 0x18, 0x20].into_iter().enumerate() {
            let request = peer.answer(ResponseType::Content, &[(CoapOption::Block2, &[value])], &[value; 16]).await;
            let asked = request.get_first_option(CoapOption::Block2);
            assert_eq!(asked.cloned(), (number > 0).then(|| vec![value & 0xF7]));
        }
    };
    assert_eq!(play(&POST, PATIENCE, part).await.unwrap().payload.len(), 48);
}

#[tokio::test]
async fn blocks_that_do_not_fit_together_are_an_error() {
    type Block<'a> = (&'a [u8], &'a [u8], usize);
    let cases: [(&str, &[Block<'_>]); 5] = [
        ("size exponent 7", &[(&[0x0F], b"e", 2048)]),
        ("a block that is not the first", &[(&[0x18], b"e", 16)]),
        ("a block that is not full", &[(&[0x08], b"e", 15)]),
        ("a gap", &[(&[0x08], b"e", 16), (&[0x20], b"e", 16)]),
        ("a part of another answer", &[(&[0x08], b"e", 16), (&[0x10], b"f", 16)]),
    ];
    for (name, blocks) in cases {
        let part = async |mut peer: Peer| {
            for (block, etag, bytes) in blocks {
                let options = [(CoapOption::Block2, *block), (CoapOption::ETag, *etag)];
                let request = peer.receive().await;
                let packet = response(&request, ResponseType::Content, &options, &vec![0; *bytes]);
                peer.socket.send_to(&packet.to_bytes_unlimited().unwrap(), peer.client).await.unwrap();
            }
        };
        let error = play(&POST, PATIENCE, part).await.unwrap_err();
        assert!(matches!(error, ClientError::Blocks), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_download_that_the_server_cannot_go_on_with_ends_with_its_reason() {
    let part = async |mut peer: Peer| {
        peer.answer(ResponseType::Content, &[(CoapOption::Block2, &[0x08])], &[0; 16]).await;
        peer.answer(ResponseType::RequestEntityIncomplete, &[], b"forgotten").await;
    };
    let response = play(&POST, PATIENCE, part).await.unwrap();
    assert_eq!((response.code, response.payload), ((4, 8), b"forgotten".to_vec()));
}

#[tokio::test]
async fn an_endless_answer_is_cut_off_by_the_clients_patience() {
    let part = async |mut peer: Peer| {
        let mut request = peer.receive().await;
        for number in 0_u32.. {
            let block = (number << 4 | 8).to_be_bytes();
            let zeros = block.iter().take_while(|byte| **byte == 0).count();
            let options = [(CoapOption::Block2, &block[zeros..])];
            peer.send(&response(&request, ResponseType::Content, &options, &[0; 16])).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
            let Ok(next) = tokio::time::timeout(Duration::from_millis(500), peer.receive()).await else { return };
            request = next;
        }
    };
    let endless = play(&POST, Duration::from_millis(200), part).await;
    assert!(matches!(endless, Err(ClientError::NoAnswer { .. })), "{endless:?}");
}

#[tokio::test]
async fn no_client_begins_where_another_began() {
    let mut tokens = std::collections::HashSet::new();
    for _ in 0..20 {
        let part = async |mut peer: Peer| {
            let request = peer.answer(ResponseType::Changed, &[], b"").await;
            tokens.insert(request.get_token().to_vec());
        };
        play(&POST, PATIENCE, part).await.unwrap();
    }
    assert_eq!(tokens.len(), 20, "a server takes a token and message id that it remembers for a repeat");
}

/// The first one's answer is there before the second request is sent, and the reactor has heard of it.
#[tokio::test]
async fn a_request_that_is_not_confirmable_is_sent_once_and_what_came_late_is_not_the_next_ones_answer() {
    let (mut peer, mut client) = Peer::with_client(Duration::from_secs(2)).await;
    let request = PreparedRequest::new(&POST).unwrap().not_confirmable().unwrap();
    assert!(matches!(client.send(&request).await, Err(ClientError::NoAnswer { .. })));
    let first = peer.receive().await;
    assert_eq!(first.header.get_type(), MessageType::NonConfirmable);
    let answer = |request: &Packet, payload: &[u8]| {
        let mut packet = response(request, ResponseType::Changed, &[], payload);
        packet.header.set_type(MessageType::NonConfirmable);
        packet
    };
    peer.send(&answer(&first, b"late")).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let part = async {
        let second = peer.receive().await;
        assert_ne!(second.header.message_id, first.header.message_id, "no repeat");
        peer.send(&answer(&second, b"ours")).await;
    };
    let (response, ()) = tokio::join!(client.send(&request), part);
    assert_eq!((response.unwrap().payload, client.messages()), (b"ours".to_vec(), 2));
}

const ECHO: u16 = 252;

fn echo_of(packet: &Packet) -> Option<Vec<u8>> {
    packet.get_first_option(CoapOption::from(ECHO)).cloned()
}

#[tokio::test]
async fn a_request_that_is_challenged_is_sent_again_once_and_later_ones_carry_the_answer() {
    let (mut peer, mut client) = Peer::with_client(PATIENCE).await;
    let echo = CoapOption::from(ECHO);
    let part = async {
        let first = peer.answer(ResponseType::Unauthorized, &[(echo, b"cookie")], b"").await;
        let again = peer.answer(ResponseType::Changed, &[], b"done").await;
        assert_eq!((echo_of(&first), echo_of(&again)), (None, Some(b"cookie".to_vec())));
        assert_ne!(first.header.message_id, again.header.message_id, "else it would be a repeat of the first");
        assert_ne!(first.get_token(), again.get_token());
        assert_eq!((&first.payload, first.header.code), (&again.payload, again.header.code));
        let others: Vec<_> = again.options().filter(|(number, _)| **number != ECHO).collect();
        assert_eq!(others, first.options().collect::<Vec<_>>(), "the same request");
        // What an answer gives is for the next request as well (RFC 9175, 2.3).
        let later = peer.answer(ResponseType::Changed, &[(echo, b"newer")], b"").await;
        assert_eq!(echo_of(&later), Some(b"cookie".to_vec()));
        let latest = peer.answer(ResponseType::Changed, &[], b"").await;
        assert_eq!(echo_of(&latest), Some(b"newer".to_vec()));
    };
    let calls = async {
        let mut codes = Vec::new();
        for _ in 0..3 {
            codes.push(client.request(&POST).await.unwrap().code);
        }
        codes
    };
    assert_eq!(tokio::join!(calls, part).0, [(2, 4); 3]);
}

#[tokio::test]
async fn who_challenges_for_ever_is_asked_twice() {
    let part = async |mut peer: Peer| {
        for cookie in [&b"one"[..], b"two"] {
            peer.answer(ResponseType::Unauthorized, &[(CoapOption::from(ECHO), cookie)], b"no").await;
        }
        let mut bytes = [0; 64];
        let more = tokio::time::timeout(Duration::from_millis(50), peer.socket.recv_from(&mut bytes)).await;
        assert!(more.is_err(), "a third request");
    };
    let response = play(&POST, PATIENCE, part).await.unwrap();
    assert_eq!((response.code, response.payload), ((4, 1), b"no".to_vec()));
}

#[tokio::test]
async fn a_refusal_without_an_echo_or_with_none_that_could_be_given_back_is_the_answer() {
    for options in [&[][..], &[(CoapOption::from(ECHO), &b""[..])], &[(CoapOption::from(ECHO), &[1; 41])]] {
        let part = async |mut peer: Peer| {
            peer.answer(ResponseType::Unauthorized, options, b"who?").await;
        };
        assert_eq!(play(&POST, PATIENCE, part).await.unwrap().code, (4, 1));
    }
}

/// The server asks in the middle of an upload, as one does that has forgotten the address meanwhile.
#[tokio::test]
async fn a_block_that_is_challenged_is_sent_again_and_the_upload_goes_on() {
    let request = Request { payload: &[7; 2000], ..POST };
    let part = async |mut peer: Peer| {
        peer.answer(ResponseType::Continue, &[(CoapOption::Block1, &[0x0E])], b"").await;
        let second = peer.answer(ResponseType::Unauthorized, &[(CoapOption::from(ECHO), b"cookie")], b"").await;
        let again = peer.answer(ResponseType::Changed, &[(CoapOption::Block1, &[0x16])], b"all").await;
        assert_eq!(second.payload, again.payload);
        assert_eq!(second.get_option(CoapOption::Block1), again.get_option(CoapOption::Block1));
        assert_eq!(echo_of(&again), Some(b"cookie".to_vec()));
    };
    assert_eq!(play(&request, PATIENCE, part).await.unwrap().payload, b"all");
}
