//! Payloads larger than a datagram, in both directions.

use std::time::Duration;

use coap_lite::{CoapOption, RequestType};
use sandbar_proxy::coap::{CoapConfig, TransferLimits};

use crate::client::{Door, block, block_of, code, request, uint, with};
use crate::echo::{PAYLOAD_BYTES_MAX, pattern};

async fn goes_through(length: usize, exponent: u32) {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    let payload = pattern(length);
    let first = client.upload("/test", &payload, exponent).await;
    assert_eq!(code(&first), "2.04");
    assert_eq!(uint(&first, CoapOption::Size2), u32::try_from(length).ok());
    assert!(client.download("/test", first).await == payload);
    assert_eq!(door.echo.runs(), 1);
    door.close().await;
}

#[tokio::test]
async fn a_megabyte_goes_through_in_the_largest_blocks() {
    goes_through(1_000_000, 6).await;
}

#[tokio::test]
async fn a_payload_of_the_largest_size_goes_through() {
    goes_through(PAYLOAD_BYTES_MAX, 6).await;
}

#[tokio::test]
async fn numbers_beyond_sixteen_bits_go_through_in_the_smallest_blocks() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    let length = 16 * 66_000;
    let first = client.upload("/test", &pattern(length), 0).await;
    assert_eq!(code(&first), "2.04");
    assert!(first.payload == pattern(1024));
    door.close().await;
}

#[tokio::test]
async fn a_large_answer_comes_in_the_blocks_asked_for() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    for exponent in 0..=6 {
        let packet = request(RequestType::Post, "/test/big", b"5000");
        let first = client.ask(with(packet, 23, &block(0, false, exponent))).await;
        assert_eq!(block_of(&first, CoapOption::Block2), (0, true, exponent));
        assert!(client.download("/test/big", first).await == pattern(5000));
    }
    let whole = client.ask(request(RequestType::Post, "/test/big", b"1024")).await;
    assert!(whole.get_first_option(CoapOption::Block2).is_none());
    assert!(whole.payload == pattern(1024));
    assert_eq!(door.echo.runs(), 8);
    door.close().await;
}

#[tokio::test]
async fn a_gap_is_refused_and_nothing_runs() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    let part = |number, more| with(request(RequestType::Put, "/test", &[1; 64]), 27, &block(number, more, 2));
    assert_eq!(code(&client.ask(part(0, true)).await), "2.31");
    assert_eq!(code(&client.ask(part(2, true)).await), "4.08");
    assert_eq!(code(&client.ask(part(2, false)).await), "4.08");
    assert_eq!(code(&client.ask(part(1, true)).await), "2.31");
    assert_eq!(code(&client.ask(part(1, true)).await), "2.31");
    assert_eq!(door.echo.runs(), 0);
    let whole = client.ask(part(2, false)).await;
    assert_eq!((code(&whole), whole.payload.len()), ("2.04".into(), 192));
    assert_eq!(code(&client.ask(part(2, false)).await), "4.08");
    assert_eq!(door.echo.runs(), 1);
    door.close().await;
}

#[tokio::test]
async fn an_upload_begun_again_has_no_old_tail() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    let part = |byte, number, more| with(request(RequestType::Put, "/test", &[byte; 64]), 27, &block(number, more, 2));
    for number in 0..4 {
        client.ask(part(1, number, true)).await;
    }
    client.ask(part(2, 0, true)).await;
    let whole = client.ask(part(2, 1, false)).await;
    assert_eq!(whole.payload, [2; 128]);
    door.close().await;
}

#[tokio::test]
async fn uploads_that_differ_by_query_or_tag_do_not_mix() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    let part = |option, value: &[u8], number, more| {
        let packet = request(RequestType::Put, "/test", &[value[0]; 64]);
        with(with(packet, option, value), 27, &block(number, more, 2))
    };
    let uploads: [(u16, &[u8]); 4] = [(15, b"a"), (15, b"b"), (292, b"c"), (292, b"d")];
    for (option, value) in uploads {
        assert_eq!(code(&client.ask(part(option, value, 0, true)).await), "2.31");
    }
    for (option, value) in uploads {
        let whole = client.ask(part(option, value, 1, false)).await;
        assert_eq!(whole.payload, [value[0]; 128]);
    }
    door.close().await;
}

#[tokio::test]
async fn payloads_beyond_the_limit_are_refused_early() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    let size = u32::try_from(PAYLOAD_BYTES_MAX).unwrap();
    let first = with(request(RequestType::Put, "/test", &[0; 1024]), 27, &block(0, true, 6));
    let announced = with(first, 60, &(size + 1).to_be_bytes());
    let far = with(request(RequestType::Put, "/test", &[0; 1024]), 27, &block(16_384, true, 6));
    for packet in [announced, far] {
        let refused = client.ask(packet).await;
        assert_eq!(code(&refused), "4.13");
        assert_eq!(uint(&refused, CoapOption::Size1), Some(size));
        assert_eq!(uint(&refused, CoapOption::MaxAge), Some(0));
    }
    let nowhere = with(request(RequestType::Put, "/nobody", &[0; 1024]), 27, &block(0, true, 6));
    assert_eq!(code(&client.ask(nowhere).await), "4.04");
    assert_eq!(door.echo.runs(), 0);
    door.close().await;
}

#[tokio::test]
async fn blocks_of_an_answer_that_is_not_kept_are_refused() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    let later = |number| with(request(RequestType::Post, "/test/big", &[]), 23, &block(number, false, 6));
    assert_eq!(code(&client.ask(later(1)).await), "4.08");
    client.ask(request(RequestType::Post, "/test/big", b"3000")).await;
    assert_eq!(code(&client.ask(later(2)).await), "2.04");
    assert_eq!(code(&client.ask(later(3)).await), "4.00");
    let mut stranger = door.client().await;
    assert_eq!(code(&stranger.ask(later(2)).await), "4.08");
    assert_eq!(door.echo.runs(), 1);
    door.close().await;
}

/// Begins one upload from each of 60 peers at a door that has room for 50, and gives the codes.
async fn begin_many(door: &Door) -> Vec<String> {
    // Each keeps its port until all have asked: a port that is given away again would be the same peer.
    let (mut codes, mut clients) = (Vec::new(), Vec::new());
    for _ in 0..60 {
        let mut client = door.client().await;
        let packet = with(request(RequestType::Put, "/test", &[0; 16]), 27, &block(0, true, 0));
        codes.push(code(&client.ask(packet).await));
        clients.push(client);
    }
    codes
}

fn room_for_fifty(yields_after: Duration) -> CoapConfig {
    CoapConfig {
        uploads: TransferLimits { transfers_max: 50, yields_after, ..TransferLimits::default() },
        ..CoapConfig::default()
    }
}

#[tokio::test]
async fn uploads_without_room_are_refused() {
    let door = Door::open(room_for_fifty(Duration::from_secs(3600)));
    let codes = begin_many(&door).await;
    assert!(codes[..50].iter().all(|code| code == "2.31"), "{codes:?}");
    assert!(codes[50..].iter().all(|code| code == "5.03"), "{codes:?}");
    door.close().await;
}

#[tokio::test]
async fn abandoned_uploads_give_way() {
    let door = Door::open(room_for_fifty(Duration::ZERO));
    let codes = begin_many(&door).await;
    assert!(codes.iter().all(|code| code == "2.31"), "{codes:?}");
    let mut client = door.client().await;
    let answer = client.upload("/test", &[7; 40], 0).await;
    assert_eq!((code(&answer), answer.payload), ("2.04".into(), vec![7; 40]));
    door.close().await;
}
