//! The cases of the ETSI CoAP plugtests (TD_COAP), by their names, against the door with an echo behind it.
//!
//! Functions are not resources: what states a precondition is answered 4.12 (CORE_22, 23). Observing (OBS) is in `observe`. The network that
//! loses (CORE_15, 16) loses here each datagram of an exchange in turn; one that loses at random is in `loss`.

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

/// The client sends again what it heard no answer to: whichever datagram was lost, one call and one answer are what comes of it.
#[tokio::test]
async fn td_coap_core_15_get_with_loss() {
    let (door, mut client) = door().await;
    let packet = client.numbered(request(RequestType::Get, "/test", b"x"));
    // The answer is lost, twice. To lose the request is to send it later.
    client.send(&packet).await;
    let lost = client.receive_bytes().await;
    client.send(&packet).await;
    assert_eq!(client.receive_bytes().await, lost);
    client.send(&packet).await;
    let answer = client.receive().await;
    assert_eq!((code(&answer), answer.header.get_type()), ("2.05".into(), MessageType::Acknowledgement));
    assert_eq!((answer.header.message_id, answer.get_token()), (packet.header.message_id, packet.get_token()));
    assert_eq!(door.echo.runs(), 1);
    door.close().await;
}

#[tokio::test]
async fn td_coap_core_16_separate_response_with_loss() {
    let door = Door::open(CoapConfig {
        acknowledge_after: Duration::from_millis(50),
        acknowledgement_timeout: Duration::from_millis(100),
        ..CoapConfig::default()
    });
    let mut client = door.client().await;
    let packet = client.numbered(request(RequestType::Get, "/test/sleep", b"1000"));
    let [high, low] = packet.header.message_id.to_be_bytes();
    client.send(&packet).await;
    // The acknowledgement is lost: the request comes again, and so does it.
    assert_eq!(client.receive_bytes().await, [0x60, 0, high, low]);
    client.send(&packet).await;
    assert_eq!(client.receive_bytes().await, [0x60, 0, high, low]);
    // The answer is lost: it comes again by itself.
    let lost = client.receive_bytes().await;
    let answer = client.receive_bytes().await;
    assert_eq!(answer, lost);
    let packet_of = Packet::from_bytes(&answer).unwrap();
    assert_eq!((code(&packet_of), packet_of.header.get_type()), ("2.05".into(), MessageType::Confirmable));
    assert_eq!(packet_of.get_token(), packet.get_token());
    // Its acknowledgement is lost: it comes once more, and ends when one gets through.
    assert_eq!(client.receive_bytes().await, answer);
    client.send_bytes(&[0x60, 0, answer[2], answer[3]]).await;
    assert_eq!(door.echo.runs(), 1);
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

/// The values of an option, as text.
fn texts(packet: &Packet, option: CoapOption) -> Vec<String> {
    let values = packet.get_option(option).into_iter().flatten();
    values.map(|value| String::from_utf8(value.clone()).unwrap()).collect()
}

#[tokio::test]
async fn td_coap_core_18_post_with_location_path() {
    let (door, mut client) = door().await;
    let made = client.ask(request(RequestType::Post, "/test/make/location1/location2/location3", b"x")).await;
    assert_eq!(code(&made), "2.01");
    assert_eq!(texts(&made, CoapOption::LocationPath), ["location1", "location2", "location3"]);
    door.close().await;
}

#[tokio::test]
async fn td_coap_core_19_post_with_location_query() {
    let (door, mut client) = door().await;
    let packet = with(with(request(RequestType::Post, "/test/make", b"x"), 15, b"first=1"), 15, b"second=2");
    let made = client.ask(packet).await;
    assert_eq!(code(&made), "2.01");
    assert_eq!(texts(&made, CoapOption::LocationQuery), ["first=1", "second=2"]);
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

/// Short content, whose tag the function gives, and content in blocks, which the door tags itself where it has none.
#[tokio::test]
async fn td_coap_core_21_etag() {
    let (door, mut client) = door().await;
    let get = || request(RequestType::Get, "/test/keep", b"");
    client.ask(request(RequestType::Put, "/test/keep", b"first")).await;
    let content = client.ask(get()).await;
    let tag = content.get_first_option(CoapOption::ETag).unwrap().clone();
    assert_eq!((code(&content), text(&content)), ("2.05".into(), "first".into()));
    let valid = client.ask(with(with(get(), 4, b"other"), 4, &tag)).await;
    assert_eq!((code(&valid), valid.payload.len()), ("2.03".into(), 0));
    assert_eq!(valid.get_first_option(CoapOption::ETag), Some(&tag));
    client.ask(request(RequestType::Put, "/test/keep", b"second")).await;
    let content = client.ask(with(get(), 4, &tag)).await;
    assert_eq!((code(&content), text(&content)), ("2.05".into(), "second".into()));
    assert_ne!(content.get_first_option(CoapOption::ETag), Some(&tag));
    door.close().await;
}

#[tokio::test]
async fn td_coap_core_21_etag_of_content_in_blocks() {
    let (door, mut client) = door().await;
    let get = |length: &[u8]| request(RequestType::Get, "/test/big", length);
    let first = client.ask(get(b"2000")).await;
    let tag = first.get_first_option(CoapOption::ETag).unwrap().clone();
    let valid = client.ask(with(get(b"2000"), 4, &tag)).await;
    assert_eq!((code(&valid), valid.payload.len()), ("2.03".into(), 0));
    // Other content has another tag, and its later blocks are asked for without one.
    let first = client.ask(with(get(b"1500"), 4, &tag)).await;
    assert_eq!((code(&first), first.payload.len()), ("2.05".into(), 1024));
    let second = client.ask(with(get(b""), 23, &block(1, false, 6))).await;
    assert_eq!(second.payload, pattern(1500)[1024..]);
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
        (["rt=sandbar.*", "href=/test/e*"], "</test/echo>;rt=\"sandbar.function\";obs"),
        (["rt=sandbar.application", "href=/test*"], "</test>;rt=\"sandbar.application\";obs"),
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
