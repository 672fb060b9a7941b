//! The format of messages, and the options that are or are not understood.

use coap_lite::{CoapOption, RequestType};
use sandbar_proxy::coap::CoapConfig;

use crate::client::{Door, code, non, request, text, uint, with};

#[tokio::test]
async fn a_ping_is_answered_by_a_reset() {
    let door = Door::open(CoapConfig::default());
    let client = door.client().await;
    client.send_bytes(&[0x40, 0, 0x12, 0x34]).await;
    assert_eq!(client.receive_bytes().await, [0x70, 0, 0x12, 0x34]);
    assert_eq!(door.counters.pings.get(), 1);
    door.close().await;
}

#[tokio::test]
async fn malformed_messages_are_reset_if_confirmable_and_ignored_otherwise() {
    let door = Door::open(CoapConfig::default());
    let client = door.client().await;
    let malformed: &[&[u8]] = &[
        &[0x49, 0x01, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9], // token of 9 bytes
        &[0x48, 0x01, 0, 1, 1],                         // token cut short
        &[0x40, 0x01, 0, 1, 0xff],                      // marker without payload
        &[0x40, 0x01, 0, 1, 0xf1, 0],                   // option delta 15
        &[0x40, 0x01, 0, 1, 0x1f, 0],                   // option length 15
        &[0x40, 0x01, 0, 1, 0xb4, b'a'],                // option cut short
        &[0x40, 0x00, 0, 1, 0],                         // an empty message with something in it
        &[0x40, 0x45, 0, 1],                            // a response nobody waits for
        &[0x40, 0xe0, 0, 1],                            // a reserved code
    ];
    for datagram in malformed {
        client.send_bytes(datagram).await;
        assert_eq!(client.receive_bytes().await, [0x70, 0, 0, 1]);
        let mut not_confirmable = datagram.to_vec();
        not_confirmable[0] |= 0x10;
        client.send_bytes(&not_confirmable).await;
    }
    // Each reserved length of a token, with as many bytes as it says.
    for length in 9..=15 {
        let datagram = [&[0x40 | length, 0x01, 0, 1][..], &vec![0; length.into()]].concat();
        client.send_bytes(&datagram).await;
        assert_eq!(client.receive_bytes().await, [0x70, 0, 0, 1]);
    }
    for datagram in [&[][..], &[0x40], &[0x80, 1, 0, 1], &[0x00, 1, 0, 1], &[0xc0, 0, 0, 1]] {
        client.send_bytes(datagram).await;
    }
    client.hears_nothing(100).await;
    assert_eq!(door.counters.malformed.get(), 2 * 9 + 7 + 5);
    assert_eq!(door.echo.runs(), 0);
    door.close().await;
}

#[tokio::test]
async fn unknown_critical_options_are_refused_by_number() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    let packet = with(request(RequestType::Post, "/test", b"x"), 2051, b"?");
    let refused = client.ask(packet.clone()).await;
    assert_eq!(code(&refused), "4.02");
    assert_eq!(text(&refused), "option 2051 is not understood");
    assert_eq!(uint(&refused, CoapOption::MaxAge), Some(0));
    let packet = client.numbered(non(packet));
    client.send(&packet).await;
    client.hears_nothing(100).await;
    let repeated = with(request(RequestType::Post, "/test", b"x"), 17, &[0]);
    let refused = client.ask(with(repeated, 17, &[0])).await;
    assert_eq!((code(&refused), text(&refused)), ("4.02".into(), "option 17 is not understood".into()));
    let elective = with(request(RequestType::Post, "/test", b"x"), 2050, b"?");
    assert_eq!(code(&client.ask(elective).await), "2.04");
    for (method, path, payload) in [
        (RequestType::Post, "/test", &b""[..]),
        (RequestType::Get, "/test/echo/more", b""),
        (RequestType::Fetch, "/test", b"x"),
        (RequestType::Get, "/.well-known/core", b""),
    ] {
        let tolerated = client.ask(with(request(method, path, payload), 6, &[])).await;
        assert!(code(&tolerated).starts_with("2.0"), "{path}");
        assert!(tolerated.get_first_option(CoapOption::Observe).is_none(), "{path}");
    }
    assert_eq!(door.echo.runs(), 4);
    door.close().await;
}

#[tokio::test]
async fn what_a_front_door_does_not_do_is_said() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    let post = |path| request(RequestType::Post, path, b"x");
    let cases = [
        (with(post("/test"), 35, b"coap://elsewhere/"), "5.05"),
        (with(post("/test"), 39, b"http"), "5.05"),
        (with(post("/test"), 11, &[0xc3, 0x28]), "4.00"),
        (with(post("/test"), 27, &[0x07]), "4.00"),
        (with(post("/test"), 23, &[0x07]), "4.00"),
        (with(post("/test"), 5, b""), "4.12"),
        (with(post("/test"), 1, b"tag"), "4.12"),
        (post("/"), "4.04"),
        (post("/nobody"), "4.04"),
        (post("/test/nothing"), "4.04"),
        (post("/test/.."), "4.04"),
        (post("/.well-known/core"), "4.05"),
        (request(RequestType::Delete, "/.well-known/core", b""), "4.05"),
        (with(post("/test"), 15, &[0xc3, 0x28]), "4.00"),
    ];
    for (packet, expected) in cases {
        let refused = client.ask(packet.clone()).await;
        assert_eq!(code(&refused), expected, "{packet:?}");
        assert_eq!(uint(&refused, CoapOption::MaxAge), Some(0));
        assert!(!refused.payload.is_empty());
        let refused = client.ask(non(packet)).await;
        assert_eq!(code(&refused), expected);
    }
    assert_eq!(door.echo.runs(), 0);
    door.close().await;
}
