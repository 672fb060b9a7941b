//! The cases of the ETSI CoAP plugtests (TD_COAP), by their names, against the door with an echo behind it.
//!
//! Functions are not resources: what states a precondition is answered 4.12 (CORE_22, 23). Left out is what has no like here: validation by
//! ETag (CORE_21). Observing (OBS) is in `observe`. That functions give locations
//! (CORE_18, 19) is shown end to end. A network that loses (CORE_15, 16) is in `loss`.

use std::time::Duration;

use coap_lite::{CoapOption, MessageType, Packet, RequestType};
use sandbar_proxy::coap::CoapConfig;

use crate::client::{Client, Door, block, block_of, code, non, request, text, uint, with};
use crate::echo::pattern;

async fn door() -> (Door, Client) {
    let door = Door::open(CoapConfig { acknowledge_after: Duration::from_millis(50), ..CoapConfig::default() });
    let client = door.client().await;
    (door, client)
}

/// Asks, and checks code, token and type of the answer; `ask` looks at the latter two.
async fn answers(method: RequestType, confirmable: bool, expected: &str) {
    let (door, mut client) = door().await;
    let packet = request(method, "/test", b"payload");
    let answer = client.ask(if confirmable { packet } else { non(packet) }).await;
    assert_eq!(code(&answer), expected);
    door.close().await;
}

#[tokio::test]
async fn td_coap_core_01_get_con() {
    answers(RequestType::Get, true, "2.05").await;
}

#[tokio::test]
async fn td_coap_core_02_delete_con() {
    answers(RequestType::Delete, true, "2.02").await;
}

#[tokio::test]
async fn td_coap_core_03_put_con() {
    answers(RequestType::Put, true, "2.04").await;
}

#[tokio::test]
async fn td_coap_core_04_post_con() {
    answers(RequestType::Post, true, "2.04").await;
}

#[tokio::test]
async fn td_coap_core_05_get_non() {
    answers(RequestType::Get, false, "2.05").await;
}

#[tokio::test]
async fn td_coap_core_06_delete_non() {
    answers(RequestType::Delete, false, "2.02").await;
}

#[tokio::test]
async fn td_coap_core_07_put_non() {
    answers(RequestType::Put, false, "2.04").await;
}

#[tokio::test]
async fn td_coap_core_08_post_non() {
    answers(RequestType::Post, false, "2.04").await;
}

/// A slow call: an empty acknowledgement, then an answer of its own, which is acknowledged and not sent again.
async fn answers_separately(token: &[u8]) {
    let (door, mut client) = door().await;
    let mut packet = client.numbered(request(RequestType::Get, "/test/sleep", b"150"));
    packet.set_token(token.to_vec());
    client.send(&packet).await;
    let [high, low] = packet.header.message_id.to_be_bytes();
    assert_eq!(client.receive_bytes().await, [0x60, 0, high, low]);
    let answer = client.receive().await;
    assert_eq!((answer.header.get_type(), code(&answer)), (MessageType::Confirmable, "2.05".into()));
    assert_eq!(answer.get_token(), token);
    let [high, low] = answer.header.message_id.to_be_bytes();
    client.send_bytes(&[0x60, 0, high, low]).await;
    client.hears_nothing(100).await;
    door.close().await;
}

#[tokio::test]
async fn td_coap_core_09_separate_response() {
    answers_separately(b"").await;
}

/// An answer that carries exactly this token.
async fn gives_the_token_back(token: &[u8]) {
    let (door, mut client) = door().await;
    let mut packet = client.numbered(request(RequestType::Get, "/test", b""));
    packet.set_token(token.to_vec());
    client.send(&packet).await;
    assert_eq!(client.receive().await.get_token(), token);
    door.close().await;
}

#[tokio::test]
async fn td_coap_core_10_token() {
    gives_the_token_back(b"12345678").await;
}

#[tokio::test]
async fn td_coap_core_11_token_with_separate_response() {
    answers_separately(b"12345678").await;
}

#[tokio::test]
async fn td_coap_core_12_no_token() {
    gives_the_token_back(b"").await;
}

#[tokio::test]
async fn td_coap_core_13_several_path_segments() {
    let (door, mut client) = door().await;
    assert_eq!(code(&client.ask(request(RequestType::Get, "/test/echo", b"")).await), "2.05");
    assert_eq!(code(&client.ask(request(RequestType::Get, "/test/echo/more", b"")).await), "2.05");
    door.close().await;
}

#[tokio::test]
async fn td_coap_core_14_several_query_items() {
    let (door, mut client) = door().await;
    let packet = with(with(request(RequestType::Get, "/test", b""), 15, b"first=1"), 15, b"second=2");
    assert_eq!(code(&client.ask(packet).await), "2.05");
    door.close().await;
}

#[tokio::test]
async fn td_coap_core_17_separate_response_to_non() {
    let (door, mut client) = door().await;
    let answer = client.ask(non(request(RequestType::Get, "/test/sleep", b"150"))).await;
    assert_eq!(code(&answer), "2.05");
    client.hears_nothing(100).await;
    door.close().await;
}

#[tokio::test]
async fn td_coap_core_20_accept() {
    let (door, mut client) = door().await;
    for (accept, expected) in [(0, "2.05"), (50, "4.06")] {
        let packet = with(with(request(RequestType::Get, "/test", b"x"), 12, &[]), 17, &[accept]);
        assert_eq!(code(&client.ask(packet).await), expected);
    }
    door.close().await;
}

#[tokio::test]
async fn td_coap_core_22_if_match() {
    let (door, mut client) = door().await;
    assert_eq!(code(&client.ask(with(request(RequestType::Put, "/test", b"x"), 1, b"tag")).await), "4.12");
    door.close().await;
}

#[tokio::test]
async fn td_coap_core_23_if_none_match() {
    let (door, mut client) = door().await;
    assert_eq!(code(&client.ask(with(request(RequestType::Put, "/test", b"x"), 5, b"")).await), "4.12");
    door.close().await;
}

/// What discovery lists under a filter.
async fn listed(filter: Option<&str>) -> String {
    let (door, mut client) = door().await;
    let core = request(RequestType::Get, "/.well-known/core", b"");
    let answer = client.ask(filter.map_or(core.clone(), |filter| with(core, 15, filter.as_bytes()))).await;
    assert_eq!((code(&answer), uint(&answer, CoapOption::ContentFormat)), ("2.05".into(), Some(40)));
    door.close().await;
    text(&answer)
}

#[tokio::test]
async fn td_coap_link_01_discovery() {
    let all = listed(None).await;
    assert!(all.starts_with("</.well-known/core>;ct=40") && all.contains("</test/echo>"), "{all}");
}

#[tokio::test]
async fn td_coap_link_02_filter_by_resource_type() {
    assert_eq!(listed(Some("rt=sandbar.application")).await, "</test>;rt=\"sandbar.application\";obs");
}

#[tokio::test]
async fn td_coap_link_03_filter_by_empty_prefix() {
    let typed = listed(Some("rt=*")).await;
    assert!(!typed.contains("well-known") && typed.contains("</test/big>") && typed.contains("</test>"), "{typed}");
}

#[tokio::test]
async fn td_coap_link_04_filter_by_one_of_several_types() {
    assert!(!listed(Some("rt=sandbar.function")).await.contains("sandbar.application"));
}

#[tokio::test]
async fn td_coap_link_05_filter_by_interface_description() {
    // Functions describe no interface, nor a size: such a filter passes nothing, whatever it asks for.
    for filter in ["if=sandbar.function", "if=*", "sz=*"] {
        assert_eq!(listed(Some(filter)).await, "", "{filter}");
    }
}

#[tokio::test]
async fn td_coap_link_06_filter_by_prefix() {
    assert!(listed(Some("rt=sandbar.f*")).await.contains("</test/echo>"));
}

#[tokio::test]
async fn td_coap_link_07_filter_by_an_attribute_nothing_has() {
    assert_eq!(listed(Some("foo=*")).await, "");
}

#[tokio::test]
async fn td_coap_link_08_filter_by_path() {
    assert_eq!(listed(Some("href=/test/echo")).await, "</test/echo>;rt=\"sandbar.function\";obs");
}

#[tokio::test]
async fn td_coap_link_09_link_descriptions_lead_to_link_descriptions() {
    let described = listed(Some("ct=40")).await;
    let paths = described.split(',').filter_map(|link| link.strip_prefix('<')?.split_once('>')).map(|(path, _)| path);
    let (door, mut client) = door().await;
    let mut found = Vec::new();
    for path in paths {
        let answer = client.ask(request(RequestType::Get, path, b"")).await;
        assert_eq!((code(&answer), uint(&answer, CoapOption::ContentFormat)), ("2.05".into(), Some(40)), "{path}");
        found.push(text(&answer));
    }
    assert_eq!(found, [listed(None).await], "there is one list, and it leads to all there is");
    door.close().await;
}

#[tokio::test]
async fn several_filters_pass_what_each_of_them_passes() {
    let (door, mut client) = door().await;
    let core = request(RequestType::Get, "/.well-known/core", b"");
    for (filters, expected) in [
        (["rt=sandbar.*", "href=/test/e*"], "</test/echo>;rt=\"sandbar.function\""),
        (["rt=sandbar.application", "href=/test*"], "</test>;rt=\"sandbar.application\""),
        (["rt=sandbar.function", "ct=40"], ""),
    ] {
        let asked = filters.iter().fold(core.clone(), |packet, filter| with(packet, 15, filter.as_bytes()));
        assert_eq!(text(&client.ask(asked).await), expected, "{filters:?}");
    }
    door.close().await;
}

/// Gets 2,000 bytes, the first block as asked for or in the door's own size.
async fn gets_in_blocks(asked: Option<u32>) {
    let (door, mut client) = door().await;
    let packet = request(RequestType::Post, "/test/big", b"2000");
    let packet = asked.map_or(packet.clone(), |exponent| with(packet, 23, &block(0, false, exponent)));
    let first = client.ask(packet).await;
    assert_eq!(block_of(&first, CoapOption::Block2), (0, true, asked.unwrap_or(6)));
    assert_eq!(client.download("/test/big", first).await, pattern(2000));
    assert_eq!(door.echo.runs(), 1);
    door.close().await;
}

#[tokio::test]
async fn td_coap_block_01_get_with_early_negotiation() {
    gets_in_blocks(Some(2)).await;
}

#[tokio::test]
async fn td_coap_block_02_get_with_late_negotiation() {
    let (door, mut client) = door().await;
    let first: Packet = client.ask(request(RequestType::Post, "/test/big", b"2000")).await;
    let mut payload = first.payload;
    // 64 bytes from here on: the first block was 16 of those.
    for number in 16..32 {
        let packet = with(request(RequestType::Post, "/test/big", b""), 23, &block(number, false, 2));
        payload.extend_from_slice(&client.ask(packet).await.payload);
    }
    assert_eq!(payload, pattern(2000));
    assert_eq!(door.echo.runs(), 1);
    door.close().await;
}

/// Sends 300 bytes in blocks of 64, and looks for them in the answer.
async fn sends_in_blocks(method: RequestType) {
    let (door, mut client) = door().await;
    let payload = pattern(300);
    for (number, bytes) in (0..).zip(payload.chunks(64)) {
        let last = number == 4;
        let answer = client.ask(with(request(method, "/test", bytes), 27, &block(number, !last, 2))).await;
        assert_eq!(block_of(&answer, CoapOption::Block1), (number, !last, 2));
        assert_eq!(code(&answer), if last { "2.04" } else { "2.31" });
        assert!(!last || answer.payload == payload);
    }
    assert_eq!(door.echo.runs(), 1);
    door.close().await;
}

#[tokio::test]
async fn td_coap_block_03_put_in_blocks() {
    sends_in_blocks(RequestType::Put).await;
}

#[tokio::test]
async fn td_coap_block_04_post_in_blocks() {
    sends_in_blocks(RequestType::Post).await;
}

#[tokio::test]
async fn td_coap_block_05_post_in_blocks_answered_in_blocks() {
    let (door, mut client) = door().await;
    let first = client.upload("/test", &pattern(3000), 6).await;
    assert_eq!(client.download("/test", first).await, pattern(3000));
    assert_eq!(door.echo.runs(), 1);
    door.close().await;
}

#[tokio::test]
async fn td_coap_block_06_get_with_early_negotiation_of_sixteen_bytes() {
    gets_in_blocks(Some(0)).await;
}
