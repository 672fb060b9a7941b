//! The client of the crate itself, against the door.

use std::time::Duration;

use sandbar_proxy::client::{Call, Client};
use sandbar_proxy::coap::CoapConfig;

use crate::client::Door;

async fn connect(door: &Door) -> Client {
    Client::connect(door.address, Duration::from_secs(10)).await.unwrap()
}

#[tokio::test]
async fn payloads_of_every_length_come_back() {
    let door = Door::open(CoapConfig::default());
    let mut client = connect(&door).await;
    for len in [0, 1, 1023, 1024, 1025, 2048, 300_000] {
        let payload: Vec<u8> = (0..len).map(|n: u32| n.to_le_bytes()[0]).collect();
        let call = Call { path: "test", payload: &payload, content_format: Some(42) };
        let response = client.post(&call).await.unwrap();
        assert_eq!((response.code, response.payload == payload), ((2, 4), true), "{len} bytes");
    }
    door.close().await;
}

#[tokio::test]
async fn a_refusal_is_an_answer() {
    let door = Door::open(CoapConfig::default());
    let mut client = connect(&door).await;
    let call = Call { path: "nothing/of/this/name", payload: b"", content_format: None };
    assert_eq!(client.post(&call).await.unwrap().code, (4, 4));
    door.close().await;
}

#[tokio::test]
async fn silence_ends_in_an_error() {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut client = Client::connect(silent.local_addr().unwrap(), Duration::from_millis(50)).await.unwrap();
    let error = client.post(&Call { path: "a", payload: b"", content_format: None }).await.unwrap_err();
    assert!(error.to_string().contains("no answer"), "{error}");
}
