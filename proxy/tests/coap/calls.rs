//! Calls and their outcomes, discovery, addresses, overload, and closing the door.

use std::time::{Duration, Instant};

use coap_lite::{CoapOption, MessageType, RequestType};
use sandbar_proxy::coap::CoapConfig;

use crate::client::{Client, Door, PATIENCE, code, non, request, text, uint, with};
use crate::echo::FUNCTIONS;

#[tokio::test]
async fn methods_that_read_get_content_and_others_changed() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    for (method, expected) in [
        (RequestType::Get, "2.05"),
        (RequestType::Fetch, "2.05"),
        (RequestType::Post, "2.04"),
        (RequestType::Put, "2.04"),
    ] {
        for path in ["/test", "/test/echo"] {
            let packet = with(request(method, path, b"payload"), 12, &[110]);
            for packet in [packet.clone(), non(packet)] {
                let answer = client.ask(packet).await;
                assert_eq!(code(&answer), expected);
                assert_eq!(answer.payload, b"payload");
                assert_eq!(uint(&answer, CoapOption::ContentFormat), Some(110));
            }
        }
    }
    let with_query = with(request(RequestType::Get, "/test", b""), 15, b"any=thing");
    assert_eq!(code(&client.ask(with_query).await), "2.05");
    door.close().await;
}

#[tokio::test]
async fn outcomes_have_their_codes() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    let failed = client.ask(request(RequestType::Post, "/test/fail", b"")).await;
    assert_eq!((code(&failed), text(&failed)), ("5.00".into(), "ValueError: it broke".into()));
    assert_eq!(uint(&failed, CoapOption::MaxAge), Some(0));
    assert_eq!(uint(&failed, CoapOption::ContentFormat), None);
    let overloaded = client.ask(request(RequestType::Post, "/test/overloaded", b"")).await;
    assert_eq!(code(&overloaded), "5.03");
    assert_eq!(uint(&overloaded, CoapOption::MaxAge), Some(7));
    let panicked = client.ask(request(RequestType::Post, "/test/panic", b"")).await;
    assert_eq!(code(&panicked), "5.00");
    assert_eq!(code(&client.ask(request(RequestType::Get, "/test", b"")).await), "2.05");
    door.close().await;
}

#[tokio::test]
async fn another_format_than_the_accepted_one_is_not_acceptable() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    let json = with(request(RequestType::Post, "/test", b"{}"), 12, &[50]);
    let wants_json = with(json.clone(), 17, &[50]);
    let wants_cbor = with(json, 17, &[60]);
    assert_eq!(code(&client.ask(wants_json).await), "2.04");
    assert_eq!(code(&client.ask(wants_cbor).await), "4.06");
    door.close().await;
}

#[tokio::test]
async fn discovery_lists_what_is_served() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    let core = request(RequestType::Get, "/.well-known/core", b"");
    let answer = client.ask(core.clone()).await;
    assert_eq!(code(&answer), "2.05");
    assert_eq!(uint(&answer, CoapOption::ContentFormat), Some(40));
    let listed = text(&answer);
    assert!(listed.contains("</test>;rt=\"sandbar.application\";obs"), "{listed}");
    for function in FUNCTIONS {
        let mark = if function == "private" { "" } else { ";obs" };
        let link = format!("</test/{function}>;rt=\"sandbar.function\"{mark}");
        assert!(listed.split(',').any(|listed| listed == link), "{listed}");
    }
    let filtered = client.ask(with(core.clone(), 15, b"href=/test/ec*")).await;
    assert_eq!(text(&filtered), "</test/echo>;rt=\"sandbar.function\";obs");
    let nothing = client.ask(with(core.clone(), 15, b"if=x")).await;
    assert_eq!((code(&nothing), nothing.payload.len()), ("2.05".into(), 0));
    let mut whole = client.ask(with(core.clone(), 23, &[0x02])).await;
    let mut payload = std::mem::take(&mut whole.payload);
    for number in 1..=(listed.len() / 64) {
        let next = with(core.clone(), 23, &[u8::try_from(number << 4 | 2).unwrap()]);
        payload.extend_from_slice(&client.ask(next).await.payload);
    }
    assert_eq!(payload, listed.as_bytes());
    assert_eq!(code(&client.ask(with(core, 17, &[60])).await), "4.06");
    assert_eq!(door.echo.runs(), 0);
    door.close().await;
}

#[tokio::test]
async fn unwanted_responses_are_not_sent() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    let quiet = with(request(RequestType::Post, "/test", b"x"), 258, &[0b1_1010]);
    let packet = client.numbered(quiet.clone());
    client.send(&packet).await;
    let [high, low] = packet.header.message_id.to_be_bytes();
    assert_eq!(client.receive_bytes().await, [0x60, 0, high, low]);
    let packet = client.numbered(non(quiet));
    client.send(&packet).await;
    client.hears_nothing(100).await;
    assert_eq!(door.echo.runs(), 2);
    let wants_errors = with(request(RequestType::Post, "/test/fail", b""), 258, &[0b10]);
    assert_eq!(code(&client.ask(non(wants_errors)).await), "5.00");
    door.close().await;
}

#[tokio::test]
async fn overload_is_refused_with_a_time_to_wait() {
    let door = Door::open(CoapConfig {
        calls_in_flight_max: 6,
        calls_in_flight_per_peer_max: 4,
        acknowledge_after: Duration::from_secs(60),
        ..CoapConfig::default()
    });
    let (mut first, mut second) = (door.client().await, door.client().await);
    for client in [&mut first, &mut second] {
        for _ in 0..5 {
            let packet = client.numbered(request(RequestType::Post, "/test/sleep", b"500"));
            client.send(&packet).await;
        }
    }
    for (client, done) in [(&first, 4), (&second, 2)] {
        let mut codes = Vec::new();
        for _ in 0..5 {
            let answer = client.receive().await;
            if code(&answer) == "5.03" {
                assert_eq!(uint(&answer, CoapOption::MaxAge), Some(1));
            }
            codes.push(code(&answer));
        }
        assert_eq!(codes.iter().filter(|code| *code == "2.04").count(), done, "{codes:?}");
        assert_eq!(codes.iter().filter(|code| *code == "5.03").count(), 5 - done);
    }
    assert_eq!(door.echo.runs(), 6);
    assert_eq!(door.counters.overloaded.get(), 4);
    door.close().await;
}

#[tokio::test]
async fn slow_calls_do_not_delay_a_fast_one() {
    let door = Door::open(CoapConfig::default());
    let mut slow = door.client().await;
    for _ in 0..100 {
        let packet = slow.numbered(request(RequestType::Post, "/test/sleep", b"60000"));
        slow.send(&packet).await;
    }
    let mut fast = door.client().await;
    let start = Instant::now();
    for _ in 0..100 {
        let answer = fast.ask(request(RequestType::Post, "/test", b"x")).await;
        assert_eq!(code(&answer), "2.04");
    }
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    door.close().await;
}

#[tokio::test]
async fn answers_leave_from_the_address_that_was_asked() {
    for (bound, asked) in [
        ("0.0.0.0:0", &["127.0.0.1", "127.0.0.2", "127.1.2.3"][..]),
        ("[::]:0", &["127.0.0.1", "127.0.0.2", "::1"]),
        ("[::1]:0", &["::1"]),
        ("127.0.0.3:0", &["127.0.0.3"]),
    ] {
        let door = Door::open_at(bound, CoapConfig::default());
        for address in asked {
            let address = (address.parse::<std::net::IpAddr>().unwrap(), door.address.port());
            // A connected socket hears the address it asked, and no other.
            let mut client = Client::to(address.into()).await;
            let answer = client.ask(request(RequestType::Post, "/test", b"x")).await;
            assert_eq!(code(&answer), "2.04", "{bound} {address:?}");
        }
        door.close().await;
    }
}

#[tokio::test]
async fn a_closing_door_answers_what_runs() {
    let door = Door::open(CoapConfig {
        acknowledge_after: Duration::from_secs(60),
        drain: Duration::from_secs(3),
        ..CoapConfig::default()
    });
    let mut client = door.client().await;
    for payload in [&b"300"[..], b"60000"] {
        let packet = client.numbered(request(RequestType::Post, "/test/sleep", payload));
        client.send(&packet).await;
    }
    while door.echo.runs() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    door.close().await;
    let ended = client.receive().await;
    assert_eq!((code(&ended), text(&ended)), ("2.04".into(), "300".into()));
    let given_up = client.receive().await;
    assert_eq!(given_up.header.get_type(), MessageType::Acknowledgement);
    assert_eq!(code(&given_up), "5.00");
}

#[tokio::test]
async fn a_peer_beyond_its_rate_is_told_when_to_come_again() {
    let door = Door::open(CoapConfig { rate_per_peer: 1, rate_burst: 2, ..CoapConfig::default() });
    let mut client = door.client().await;
    for expected in ["2.04", "2.04", "2.04", "4.29"] {
        let answer = client.ask(request(RequestType::Post, "/test", b"x")).await;
        assert_eq!(code(&answer), expected);
        if expected == "4.29" {
            assert_eq!(uint(&answer, CoapOption::MaxAge), Some(1));
        }
    }
    let mut other = door.client().await;
    assert_eq!(code(&other.ask(request(RequestType::Post, "/test", b"x")).await), "2.04");
    assert_eq!((door.echo.runs(), door.counters.rate_limited.get()), (4, 1));
    door.close().await;
}
