//! Loss, repetition and delay: every request runs once and is answered.

use std::time::{Duration, Instant};

use coap_lite::{MessageType, RequestType};
use sandbar_proxy::coap::CoapConfig;

use crate::client::{Door, PATIENCE, code, non, request};

/// Times of a door whose answers have to be repeated soon.
fn hurried() -> CoapConfig {
    CoapConfig {
        acknowledge_after: Duration::from_millis(50),
        acknowledgement_timeout: Duration::from_millis(100),
        ..CoapConfig::default()
    }
}

#[tokio::test]
async fn a_repeated_request_runs_once_and_gets_the_same_answer() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    let packet = client.numbered(request(RequestType::Post, "/test", b"x"));
    client.send(&packet).await;
    let first = client.receive_bytes().await;
    for _ in 0..20 {
        client.send(&packet).await;
        assert_eq!(client.receive_bytes().await, first);
    }
    assert_eq!(door.echo.runs(), 1);
    assert_eq!(door.counters.repeated.get(), 20);
    // The same message of another peer is another request.
    let other = door.client().await;
    other.send(&packet).await;
    other.receive().await;
    assert_eq!(door.echo.runs(), 2);
    door.close().await;
}

#[tokio::test]
async fn a_message_id_used_again_with_another_token_is_another_request() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    let mut packet = client.numbered(request(RequestType::Post, "/test", b"x"));
    for token in [b"a", b"b", b"c"] {
        packet.set_token(token.to_vec());
        client.send(&packet).await;
        assert_eq!(client.receive().await.get_token(), token);
    }
    assert_eq!(door.echo.runs(), 3);
    door.close().await;
}

#[tokio::test]
async fn repetitions_of_a_running_request_do_not_run() {
    let door = Door::open(hurried());
    let mut client = door.client().await;
    let packet = client.numbered(request(RequestType::Post, "/test/sleep", b"300"));
    for _ in 0..5 {
        client.send(&packet).await;
    }
    let [high, low] = packet.header.message_id.to_be_bytes();
    assert_eq!(client.receive_bytes().await, [0x60, 0, high, low]);
    client.send(&packet).await;
    assert_eq!(client.receive_bytes().await, [0x60, 0, high, low]);
    let answer = client.receive().await;
    assert_eq!(answer.header.get_type(), MessageType::Confirmable);
    assert_eq!(door.echo.runs(), 1);
    door.close().await;
}

#[tokio::test]
async fn a_repeated_non_confirmable_request_is_ignored() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    let packet = client.numbered(non(request(RequestType::Post, "/test", b"x")));
    for _ in 0..5 {
        client.send(&packet).await;
    }
    let answer = client.receive().await;
    assert_eq!(answer.header.get_type(), MessageType::NonConfirmable);
    client.hears_nothing(100).await;
    assert_eq!(door.echo.runs(), 1);
    door.close().await;
}

#[tokio::test]
async fn a_slow_non_confirmable_request_is_answered_late_and_alike() {
    let door = Door::open(hurried());
    let mut client = door.client().await;
    let packet = client.numbered(non(request(RequestType::Post, "/test/sleep", b"200")));
    client.send(&packet).await;
    let answer = client.receive().await;
    assert_eq!(answer.header.get_type(), MessageType::NonConfirmable);
    assert_eq!(answer.get_token(), packet.get_token());
    client.hears_nothing(300).await;
    door.close().await;
}

#[tokio::test]
async fn a_separate_answer_is_repeated_until_it_is_acknowledged() {
    let door = Door::open(hurried());
    let mut client = door.client().await;
    let packet = client.numbered(request(RequestType::Post, "/test/sleep", b"200"));
    client.send(&packet).await;
    assert_eq!(client.receive_bytes().await.len(), 4);
    let first = client.receive_bytes().await;
    let again = client.receive_bytes().await;
    let once_more = client.receive_bytes().await;
    assert_eq!((&first, &first), (&again, &once_more));
    assert_eq!(first[0] & 0xf0, 0x40);
    client.send_bytes(&[0x60, 0, first[2], first[3]]).await;
    client.hears_nothing(700).await;
    assert_eq!(door.counters.retransmitted.get(), 2);
    assert_eq!(door.counters.unacknowledged.get(), 0);
    assert_eq!(door.echo.runs(), 1);
    door.close().await;
}

#[tokio::test]
async fn a_reset_ends_a_separate_answer() {
    let door = Door::open(hurried());
    let mut client = door.client().await;
    let packet = client.numbered(request(RequestType::Post, "/test/sleep", b"100"));
    client.send(&packet).await;
    assert_eq!(client.receive_bytes().await.len(), 4);
    let answer = client.receive_bytes().await;
    client.send_bytes(&[0x70, 0, answer[2], answer[3]]).await;
    client.hears_nothing(500).await;
    assert_eq!(door.counters.rejected.get(), 1);
    door.close().await;
}

#[tokio::test]
async fn an_answer_nobody_acknowledges_is_given_up() {
    let door = Door::open(CoapConfig { acknowledgement_timeout: Duration::from_millis(10), ..hurried() });
    let mut client = door.client().await;
    let packet = client.numbered(request(RequestType::Post, "/test/sleep", b"100"));
    client.send(&packet).await;
    assert_eq!(client.receive_bytes().await.len(), 4);
    let first = client.receive_bytes().await;
    for _ in 0..4 {
        assert_eq!(client.receive_bytes().await, first);
    }
    client.hears_nothing(700).await;
    assert_eq!(door.counters.unacknowledged.get(), 1);
    door.close().await;
}

#[tokio::test]
async fn remembered_exchanges_are_forgotten_in_time() {
    let door = Door::open(CoapConfig { confirmable_lifetime: Duration::from_secs(1), ..CoapConfig::default() });
    let mut client = door.client().await;
    let packet = client.numbered(request(RequestType::Post, "/test", b"x"));
    client.send(&packet).await;
    client.receive().await;
    let start = Instant::now();
    while door.counters.exchanges_expired.get() == 0 {
        assert!(start.elapsed() < PATIENCE, "nothing was forgotten");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    client.send(&packet).await;
    client.receive().await;
    assert_eq!(door.echo.runs(), 2);
    door.close().await;
}

#[tokio::test]
async fn what_cannot_be_remembered_is_refused() {
    let door = Door::open(CoapConfig { exchanges_per_peer_max: 10, ..CoapConfig::default() });
    let mut client = door.client().await;
    let first = client.numbered(request(RequestType::Post, "/test", b"first"));
    client.send(&first).await;
    let remembered = client.receive_bytes().await;
    let mut refused = 0;
    for _ in 0..14 {
        let answer = client.ask(request(RequestType::Post, "/test", b"x")).await;
        refused += usize::from(code(&answer) == "5.03");
    }
    assert_eq!(refused, 5);
    assert_eq!(door.echo.runs(), 10);
    client.send(&first).await;
    assert_eq!(client.receive_bytes().await, remembered);
    door.close().await;
}
