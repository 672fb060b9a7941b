//! The client of the crate itself, against the secure door.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sandbar_proxy::client::{Client, ClientError, Credentials, Method, Request, SessionError};
use sandbar_proxy::coap::DtlsConfig;
use sandbar_proxy::keys::Keys;
use tokio::net::UdpSocket;

use crate::client::{Door, PATIENCE};

/// Who has this name and this key.
pub(crate) fn credentials(name: &str, key: &str) -> Arc<Credentials> {
    let keys = Keys::parse(&format!("[identities.{name}]\nkey = \"{key}\"\n")).unwrap();
    Arc::new(Credentials::new(keys.get(name.as_bytes()).unwrap()).unwrap())
}

async fn connect(to: SocketAddr, patience: Duration) -> Client {
    Client::connect_secure(to, credentials("client-0", "0123456789abcdef"), patience).await.unwrap()
}

fn post<'a>(path: &'a str, payload: &'a [u8]) -> Request<'a> {
    Request { method: Method::Post, path, payload, content_format: None }
}

/// Bytes that are others at each place.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ at >> 8).to_le_bytes()[0]).collect()
}

fn wait_until(what: &str, so: impl Fn() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[tokio::test]
async fn payloads_of_every_length_pass_both_ways_over_one_session_which_is_closed_with_its_client() {
    let door = Door::open(DtlsConfig::default());
    let mut client = connect(door.address, PATIENCE).await;
    assert_eq!(door.sessions(), 0, "the first request opens it");
    for len in [0, 1, 1024, 1025, 50_000] {
        let mut payload = pattern(len);
        let response = client.request(&post("echo", &payload)).await.unwrap();
        payload.reverse();
        assert_eq!((response.code, response.payload == payload), ((2, 4), true), "{len} bytes");
    }
    assert_eq!((door.sessions(), door.counters.handshakes_done.get()), (1, 1));
    assert_eq!(door.counters.records_dropped.get(), 0);
    drop(client);
    wait_until("the session is closed", || door.sessions() == 0);
}

#[tokio::test]
async fn what_was_not_granted_is_an_answer() {
    let door = Door::open(DtlsConfig::default());
    let mut client = connect(door.address, PATIENCE).await;
    assert_eq!(client.request(&post("another", b"x")).await.unwrap().code, (4, 3));
}

#[tokio::test]
async fn another_key_and_an_unknown_identity_are_told_as_what_they_may_be() {
    let door = Door::open(DtlsConfig::default());
    for (name, key) in [("client-1", "another key than its"), ("nobody", "0123456789abcdef")] {
        let mut client = Client::connect_secure(door.address, credentials(name, key), PATIENCE).await.unwrap();
        let error = client.request(&post("echo", b"x")).await.unwrap_err();
        let ClientError::Session { source: SessionError::Refused { identity }, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(identity, name);
        assert!(!format!("{error:?} {error}").contains(key));
    }
    assert_eq!((door.sessions(), door.counters.handshakes_failed.get()), (0, 2));
}

#[tokio::test]
async fn who_does_not_answer_a_handshake_is_waited_for_as_long_as_for_an_answer() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut client = connect(silent.local_addr().unwrap(), Duration::from_millis(50)).await;
    for _ in 0..2 {
        let error = client.request(&post("echo", b"x")).await.unwrap_err();
        assert!(matches!(error, ClientError::NoAnswer { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn what_is_no_dtls_is_an_error_or_silence_but_no_answer() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut client = connect(server.local_addr().unwrap(), Duration::from_millis(300)).await;
    let garbage = async {
        let mut bytes = [0; 2048];
        let (len, from) = server.recv_from(&mut bytes).await.unwrap();
        // No record, its own message, and its own message cut.
        for answer in [&b"\x60\x45\x00\x00"[..], &bytes[..len], &bytes[..len / 2]] {
            server.send_to(answer, from).await.unwrap();
        }
    };
    let request = post("echo", b"x");
    let (answered, ()) = tokio::join!(client.request(&request), garbage);
    assert!(matches!(answered, Err(ClientError::NoAnswer { .. } | ClientError::Session { .. })), "{answered:?}");
}

#[tokio::test]
async fn a_server_that_refuses_all_that_is_offered_is_told_by_that() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut client = connect(server.local_addr().unwrap(), PATIENCE).await;
    let refuse = async {
        let mut bytes = [0; 2048];
        let (_, from) = server.recv_from(&mut bytes).await.unwrap();
        // A fatal alert, handshake_failure.
        server.send_to(b"\x15\xfe\xfd\0\0\0\0\0\0\0\0\0\x02\x02\x28", from).await.unwrap();
    };
    let request = post("echo", b"x");
    let (refused, ()) = tokio::join!(client.request(&request), refuse);
    let nothing = |error| matches!(error, ClientError::Session { source: SessionError::NothingInCommon, .. });
    assert!(refused.is_err_and(nothing));
}

#[tokio::test]
async fn a_session_that_the_server_has_ended_is_followed_by_another() {
    let door = Door::open(DtlsConfig::default());
    let mut client = connect(door.address, PATIENCE).await;
    for _ in 0..3 {
        assert_eq!(client.request(&post("echo", b"ab")).await.unwrap().payload, b"ba");
        door.end_all_sessions();
        // The door's goodbye is on its way when the session is gone; a request that crosses with it is told so.
        let start = Instant::now();
        while let Err(error) = client.request(&post("echo", b"ab")).await {
            let ended = matches!(error, ClientError::Session { source: SessionError::Ended, .. });
            assert!(ended && start.elapsed() < PATIENCE, "{error:?}");
        }
    }
}

/// Carries datagrams between a client and a server, all but one.
struct Relay {
    address: SocketAddr,
    carried: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Relay {
    async fn without(lost: usize, server: SocketAddr) -> Self {
        let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        back.connect(server).await.unwrap();
        let address = front.local_addr().unwrap();
        let carried = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&carried);
        let task = tokio::spawn(async move {
            let (mut there, mut here) = ([0; 2048], [0; 2048]);
            let mut client = None;
            loop {
                tokio::select! {
                    Ok((len, from)) = front.recv_from(&mut there) => {
                        client = Some(from);
                        if count.fetch_add(1, Ordering::Relaxed) != lost {
                            back.send(&there[..len]).await.unwrap();
                        }
                    }
                    Ok(len) = back.recv(&mut here) => {
                        if count.fetch_add(1, Ordering::Relaxed) != lost {
                            front.send_to(&here[..len], client.unwrap()).await.unwrap();
                        }
                    }
                }
            }
        });
        Self { address, carried, task }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A handshake and a call of two blocks each way are some dozen datagrams. One of them is lost, another one for each client.
#[tokio::test]
async fn whichever_datagram_is_lost_is_sent_again() {
    const LOST_MAX: usize = 12;
    let door = Door::open(DtlsConfig::default());
    let address = door.address;
    let calls = (0..LOST_MAX).map(|lost| async move {
        let relay = Relay::without(lost, address).await;
        let mut client = connect(relay.address, Duration::from_secs(60)).await;
        let mut payload = pattern(1500);
        let response = client.request(&post("echo", &payload)).await;
        payload.reverse();
        assert_eq!(response.unwrap_or_else(|error| panic!("datagram {lost} lost: {error:?}")).payload, payload);
        // Without loss: hello, request for a cookie, hello, the server's flight, ours, its last; and eight of the call.
        let carried = relay.carried.load(Ordering::Relaxed);
        assert!(carried > LOST_MAX, "datagram {lost} was lost of {carried}");
    });
    futures_util::future::join_all(calls).await;
    assert_eq!(door.counters.handshakes_done.get(), LOST_MAX as u64);
}
