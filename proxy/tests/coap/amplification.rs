//! Little is sent to who has not shown that its address is its own (RFC 9175).

use coap_lite::{CoapOption, MessageType, RequestType};
use sandbar_proxy::coap::{CoapConfig, CoapVerify};

use crate::client::{Door, block, code, non, request, with};

const ECHO: u16 = 252;

fn wary() -> CoapConfig {
    CoapConfig { verify: CoapVerify::Always, ..CoapConfig::default() }
}

#[tokio::test]
async fn nothing_runs_for_a_peer_before_it_has_given_its_cookie_back() {
    let door = Door::open(wary());
    let mut client = door.client().await;
    let post = request(RequestType::Post, "/test/big", b"1000");
    for packet in [post.clone(), non(post.clone())] {
        let refused = client.ask(packet).await;
        assert_eq!(code(&refused), "4.01");
    }
    assert_eq!(door.echo.runs(), 0);
    let refused = client.ask(post.clone()).await;
    let cookie = refused.get_first_option(CoapOption::from(ECHO)).unwrap().clone();
    let forged: Vec<u8> = cookie.iter().map(|byte| byte ^ 1).collect();
    assert_eq!(code(&client.ask(with(post.clone(), ECHO, &forged)).await), "4.01");
    let answer = client.ask(with(post.clone(), ECHO, &cookie)).await;
    assert_eq!((code(&answer), answer.payload.len()), ("2.04".into(), 1000));
    assert_eq!(code(&client.ask(post).await), "2.04", "its address is known now");
    assert_eq!((door.counters.challenged.get(), door.counters.verified.get()), (4, 1));
    assert_eq!(door.echo.runs(), 2);
    door.close().await;
}

#[tokio::test]
async fn an_unknown_address_is_sent_at_most_three_times_what_it_sent() {
    let door = Door::open(wary());
    let mut client = door.client().await;
    let packets = [
        request(RequestType::Get, "/.well-known/core", b""),
        request(RequestType::Post, "/test", b""),
        request(RequestType::Get, "/a", b""),
        request(RequestType::Get, "/", b""),
        request(RequestType::Delete, "/test", b""),
        with(request(RequestType::Get, "/a", b""), 2051, b""),
        with(request(RequestType::Get, "/test", b""), 23, &block(1, false, 6)),
        with(request(RequestType::Put, "/test", &[0; 16]), 27, &block(0, true, 0)),
        with(request(RequestType::Put, "/test", &[0; 16]), 27, &block(0, true, 7)),
    ];
    for packet in packets {
        for mut packet in [packet.clone(), non(packet)] {
            packet.header.message_id = client.numbered(packet.clone()).header.message_id;
            packet.set_token(Vec::new());
            let sent = packet.to_bytes_unlimited().unwrap();
            client.send_bytes(&sent).await;
            let silent = packet.header.get_type() == MessageType::NonConfirmable
                && packet.get_option(CoapOption::from(2051)).is_some();
            if !silent {
                let received = client.receive_bytes().await;
                assert!(received.len() <= 3 * sent.len(), "{packet:?}: {received:02x?}");
            }
        }
    }
    assert_eq!(door.echo.runs(), 0);
    door.close().await;
}

#[tokio::test]
async fn an_upload_begins_with_the_cookie() {
    let door = Door::open(wary());
    let mut client = door.client().await;
    let part = |number, more| with(request(RequestType::Put, "/test", &[1; 64]), 27, &block(number, more, 2));
    let refused = client.ask(part(0, true)).await;
    let cookie = refused.get_first_option(CoapOption::from(ECHO)).unwrap().clone();
    assert_eq!(code(&client.ask(with(part(0, true), ECHO, &cookie)).await), "2.31");
    assert_eq!(code(&client.ask(part(1, false)).await), "2.04");
    door.close().await;
}

#[tokio::test]
async fn who_wants_no_answer_need_not_show_where_it_is() {
    let door = Door::open(wary());
    let mut client = door.client().await;
    let quiet = with(request(RequestType::Post, "/test/big", b"1000"), 258, &[0b1_1010]);
    let packet = client.numbered(non(quiet));
    client.send(&packet).await;
    client.hears_nothing(100).await;
    assert_eq!(door.echo.runs(), 1);
    door.close().await;
}

#[tokio::test]
async fn near_peers_are_not_asked_where_public_ones_are() {
    let door = Door::open(CoapConfig { verify: CoapVerify::Public, ..CoapConfig::default() });
    let mut client = door.client().await;
    assert_eq!(code(&client.ask(request(RequestType::Post, "/test", b"x")).await), "2.04");
    door.close().await;
}
