//! The client of the crate itself, against the door.

use std::time::Duration;

use sandbar_proxy::client::{Client, Method, Request};
use sandbar_proxy::coap::{CoapConfig, CoapVerify};

use crate::client::Door;
use crate::echo::{PAYLOAD_BYTES_MAX, pattern};

async fn connect(door: &Door) -> Client {
    Client::connect(door.address, Duration::from_secs(10)).await.unwrap()
}

fn post<'a>(path: &'a str, payload: &'a [u8]) -> Request<'a> {
    Request { method: Method::Post, path, payload, content_format: Some(42) }
}

#[tokio::test]
async fn payloads_of_every_length_come_back() {
    let door = Door::open(CoapConfig::default());
    let mut client = connect(&door).await;
    for len in [0, 1, 1023, 1024, 1025, 2048, 300_000] {
        let payload = pattern(len);
        let response = client.request(&post("test", &payload)).await.unwrap();
        assert_eq!((response.code, response.payload == payload), ((2, 4), true), "{len} bytes");
        assert_eq!(response.content_format, Some(42));
    }
    assert_eq!(door.echo.runs(), 7, "one run each, however many blocks");
    door.close().await;
}

#[tokio::test]
async fn every_method_is_answered_by_its_code() {
    let door = Door::open(CoapConfig::default());
    let mut client = connect(&door).await;
    for (method, code) in [
        (Method::Get, (2, 5)),
        (Method::Fetch, (2, 5)),
        (Method::Post, (2, 4)),
        (Method::Put, (2, 4)),
        (Method::Delete, (2, 2)),
    ] {
        let response = client.request(&Request { method, ..post("test", b"") }).await.unwrap();
        assert_eq!(response.code, code, "{method:?}");
    }
    door.close().await;
}

#[tokio::test]
async fn a_slow_call_is_answered_in_a_message_of_its_own() {
    let door = Door::open(CoapConfig { acknowledge_after: Duration::from_millis(20), ..CoapConfig::default() });
    let mut client = connect(&door).await;
    for _ in 0..2 {
        let response = client.request(&post("test/sleep", b"100")).await.unwrap();
        assert_eq!((response.code, response.payload.as_slice()), ((2, 4), &b"100"[..]));
    }
    assert_eq!(door.echo.runs(), 2);
    door.close().await;
}

#[tokio::test]
async fn a_refusal_is_an_answer_and_says_what_would_do() {
    let door = Door::open(CoapConfig::default());
    let mut client = connect(&door).await;
    assert_eq!(client.request(&post("nothing/of/this/name", b"")).await.unwrap().code, (4, 4));
    let overloaded = client.request(&post("test/overloaded", b"")).await.unwrap();
    assert_eq!((overloaded.code, overloaded.max_age), ((5, 3), Some(Duration::from_secs(7))));
    let too_large = client.request(&post("test", &vec![0; PAYLOAD_BYTES_MAX + 1])).await.unwrap();
    assert_eq!((too_large.code, too_large.size1), ((4, 13), Some(PAYLOAD_BYTES_MAX)));
    door.close().await;
}

#[tokio::test]
async fn silence_ends_in_an_error() {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut client = Client::connect(silent.local_addr().unwrap(), Duration::from_millis(50)).await.unwrap();
    let error = client.request(&post("a", b"")).await.unwrap_err();
    assert!(error.to_string().contains("no answer"), "{error}");
}

#[tokio::test]
async fn a_door_that_wants_addresses_shown_is_shown_ours() {
    let door = Door::open(CoapConfig { verify: CoapVerify::Always, ..CoapConfig::default() });
    let mut client = connect(&door).await;
    for len in [0, 64, 5000] {
        let payload = pattern(len);
        let response = client.request(&post("test", &payload)).await.unwrap();
        assert_eq!((response.code, response.payload == payload), ((2, 4), true), "{len} bytes");
    }
    let mut another = connect(&door).await;
    assert_eq!(another.request(&post("test", b"x")).await.unwrap().code, (2, 4));
    assert_eq!(
        (door.counters.challenged.get(), door.counters.verified.get()),
        (1, 1),
        "the address is known from then on"
    );
    door.close().await;
}

/// The address is forgotten at once: each request has to show it, and each has what the door gave for the first.
#[tokio::test]
async fn what_a_door_gave_is_shown_with_every_later_request() {
    let config = CoapConfig { verify: CoapVerify::Always, verified_lifetime: Duration::ZERO, ..CoapConfig::default() };
    let door = Door::open(config);
    let mut client = connect(&door).await;
    for payload in [pattern(10), pattern(3000), pattern(10)] {
        assert_eq!(client.request(&post("test", &payload)).await.unwrap().payload, payload);
    }
    assert_eq!(door.counters.challenged.get(), 1);
    assert!(door.counters.verified.get() >= 7, "each block too: {}", door.counters.verified.get());
    door.close().await;
}
