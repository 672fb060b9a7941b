//! Observing (RFC 7641), over the wire: the cases of the ETSI CoAP plugtests by their names (TD_COAP_OBS), and what they leave out.
//!
//! What is observed is a function; what changes it is a call of it.

use std::time::Duration;

use coap_lite::{CoapOption, MessageType, Packet, RequestType};
use sandbar_proxy::coap::{CoapConfig, CoapCounters};

use crate::client::{Client, Door, block, block_of, code, non, request, text, uint, with};
use crate::echo::pattern;

/// A GET that begins to observe.
pub(crate) fn observe(path: &str) -> Packet {
    with(request(RequestType::Get, path, b""), 6, &[])
}

pub(crate) fn is_observed(packet: &Packet) -> bool {
    packet.get_first_option(CoapOption::Observe).is_some()
}

/// How many observations a door has, by what it counts.
pub(crate) fn observations(counters: &CoapCounters) -> u64 {
    let ended = [
        &counters.observers_cancelled,
        &counters.observers_rejected,
        &counters.observers_unreachable,
        &counters.observers_gone,
        &counters.observers_answered,
        &counters.observers_ended,
    ];
    counters.observers_registered.get() - ended.into_iter().map(sandbar_proxy::coap::Counter::get).sum::<u64>()
}

/// A client that observes, and another that calls.
struct Watch {
    door: Door,
    observer: Client,
    caller: Client,
    token: Vec<u8>,
}

impl Watch {
    async fn begin(registration: Packet, config: CoapConfig) -> Self {
        let door = Door::open(config);
        let (mut observer, caller) = (door.client().await, door.client().await);
        let answer = observer.ask(registration).await;
        assert_eq!((code(&answer).as_str(), answer.payload.len()), ("2.05", 0));
        assert!(is_observed(&answer));
        assert_eq!(door.echo.runs(), 0, "to observe a function is not to call it");
        Self { token: answer.get_token().to_vec(), door, observer, caller }
    }

    async fn usual() -> Self {
        Self::begin(observe("/test"), CoapConfig::default()).await
    }

    async fn call(&mut self, payload: &[u8]) {
        assert_eq!(code(&self.caller.ask(request(RequestType::Put, "/test", payload)).await), "2.04");
    }

    async fn acknowledge(&self, notification: &Packet) {
        let [high, low] = notification.header.message_id.to_be_bytes();
        self.observer.send_bytes(&[0x60, 0, high, low]).await;
    }

    /// The next notification, acknowledged if it has to be.
    async fn next(&self) -> Packet {
        let notification = self.observer.receive().await;
        assert_eq!(notification.get_token(), self.token);
        if notification.header.get_type() == MessageType::Confirmable {
            self.acknowledge(&notification).await;
        }
        notification
    }

    /// Waits until the door has no observation any more, and watches nothing.
    async fn is_over(&self) {
        let start = std::time::Instant::now();
        while observations(&self.door.counters) > 0 || self.door.echo.is_watched() {
            assert!(start.elapsed() < Duration::from_secs(20), "{:?}", self.door.counters.list());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test]
async fn td_coap_obs_01_con_notifications() {
    let mut watch =
        Watch::begin(observe("/test"), CoapConfig { observe_confirm_every: 1, ..CoapConfig::default() }).await;
    let mut last = 0;
    for number in 1..=5_u8 {
        watch.call(&[number]).await;
        let notification = watch.next().await;
        assert_eq!((notification.header.get_type(), code(&notification)), (MessageType::Confirmable, "2.05".into()));
        assert_eq!(notification.payload, [number]);
        let sequence = uint(&notification, CoapOption::Observe).unwrap();
        assert!(sequence < 1 << 24 && (number == 1 || sequence.wrapping_sub(last) & 0xFF_FFFF < 1 << 23));
        last = sequence;
    }
    watch.door.close().await;
}

#[tokio::test]
async fn td_coap_obs_02_non_notifications() {
    let mut watch = Watch::begin(non(observe("/test")), CoapConfig::default()).await;
    for number in 1..=5_u8 {
        watch.call(&[number]).await;
        let notification = watch.next().await;
        // The first finds out how long the way is.
        let expected = if number == 1 { MessageType::Confirmable } else { MessageType::NonConfirmable };
        assert_eq!((notification.header.get_type(), notification.payload), (expected, vec![number]));
    }
    assert_eq!(watch.door.counters.notifications.get(), 5);
    assert_eq!(watch.door.counters.notifications_confirmable.get(), 1);
    watch.door.close().await;
}

/// Sends a request with the token of the observation, and looks at its answer.
async fn ends_with(packet: Packet, expected: &str) {
    let mut watch = Watch::usual().await;
    watch.call(b"1").await;
    watch.next().await;
    let runs = watch.door.echo.runs();
    let mut packet = watch.observer.numbered(packet);
    packet.set_token(watch.token.clone());
    watch.observer.send(&packet).await;
    let answer = watch.observer.receive().await;
    assert!(!is_observed(&answer));
    assert_eq!((code(&answer).as_str(), answer.get_token()), (expected, watch.token.as_slice()));
    watch.is_over().await;
    assert_eq!(watch.door.counters.observers_cancelled.get(), 1);
    let called = packet.get_first_option(CoapOption::Observe).is_none();
    assert_eq!(watch.door.echo.runs() - runs, u64::from(called));
    watch.call(b"2").await;
    watch.observer.hears_nothing(100).await;
    watch.door.close().await;
}

#[tokio::test]
async fn td_coap_obs_03_stopped_by_the_observer() {
    ends_with(with(request(RequestType::Get, "/test", b""), 6, &[1]), "2.05").await;
}

#[tokio::test]
async fn a_token_used_for_something_else_ends_what_it_observed() {
    ends_with(request(RequestType::Get, "/test", b"x"), "2.05").await;
    ends_with(request(RequestType::Post, "/test/echo", b"x"), "2.04").await;
}

/// The observer learns from Max-Age when to ask again: the usual 60 s, as no option says otherwise.
#[tokio::test]
async fn td_coap_obs_04_max_age_tells_the_observer_when_to_ask_again() {
    let mut watch = Watch::usual().await;
    watch.call(b"1").await;
    assert_eq!(uint(&watch.next().await, CoapOption::MaxAge), None);
    let mut again = watch.observer.numbered(observe("/test"));
    again.set_token(watch.token.clone());
    watch.observer.send(&again).await;
    let answer = watch.observer.receive().await;
    assert_eq!((is_observed(&answer), text(&answer).as_str()), (true, "1"), "the state as it is");
    assert_eq!((observations(&watch.door.counters), watch.door.counters.observers_renewed.get()), (1, 1));
    watch.call(b"2").await;
    assert_eq!(watch.next().await.payload, b"2");
    watch.observer.hears_nothing(50).await;
    watch.door.close().await;
}

#[tokio::test]
async fn td_coap_obs_05_an_observer_that_is_gone_is_found() {
    let quick = CoapConfig { acknowledgement_timeout: Duration::from_millis(20), ..CoapConfig::default() };
    let mut watch = Watch::begin(observe("/test"), quick).await;
    watch.call(b"1").await;
    let first = watch.observer.receive().await;
    assert_eq!(first.header.get_type(), MessageType::Confirmable);
    for _ in 0..4 {
        assert_eq!(watch.observer.receive().await, first, "sent again");
    }
    watch.is_over().await;
    assert_eq!(watch.door.counters.observers_unreachable.get(), 1);
    watch.door.close().await;
}

#[tokio::test]
async fn td_coap_obs_06_an_observer_rejects_a_notification() {
    for confirmed_before in [false, true] {
        let mut watch = Watch::usual().await;
        if confirmed_before {
            watch.call(b"1").await;
            watch.next().await;
        }
        watch.call(b"2").await;
        let [high, low] = watch.observer.receive().await.header.message_id.to_be_bytes();
        watch.observer.send_bytes(&[0x70, 0, high, low]).await;
        watch.is_over().await;
        assert_eq!(watch.door.counters.observers_rejected.get(), 1);
        watch.call(b"3").await;
        watch.observer.hears_nothing(100).await;
        watch.door.close().await;
    }
}

#[tokio::test]
async fn td_coap_obs_07_what_is_observed_is_deleted() {
    let watch = Watch::usual().await;
    watch.door.echo.remove();
    let last = watch.next().await;
    assert_eq!((code(&last).as_str(), is_observed(&last)), ("4.04", false));
    assert_eq!(last.header.get_type(), MessageType::Confirmable);
    watch.is_over().await;
    watch.door.close().await;
}

#[tokio::test]
async fn td_coap_obs_08_the_content_format_changes() {
    let mut watch = Watch::usual().await;
    for (format, expected) in [(0, "2.05"), (0, "2.05"), (50, "4.06")] {
        let put = with(request(RequestType::Put, "/test", b"x"), 12, &[format]);
        assert_eq!(code(&watch.caller.ask(put).await), "2.04");
        let notification = watch.next().await;
        assert_eq!((code(&notification).as_str(), is_observed(&notification)), (expected, expected == "2.05"));
    }
    watch.is_over().await;
    watch.door.close().await;
}

#[tokio::test]
async fn td_coap_obs_09_what_is_observed_is_updated() {
    let mut watch = Watch::usual().await;
    let mut other = watch.door.client().await;
    watch.call(b"1").await;
    assert_eq!(watch.next().await.payload, b"1");
    // Any method of anybody's, the observer's own among them.
    assert_eq!(code(&other.ask(request(RequestType::Delete, "/test", b"2")).await), "2.02");
    assert_eq!((code(&watch.next().await), observations(&watch.door.counters)), ("2.05".into(), 1));
    watch.door.close().await;
}

#[tokio::test]
async fn td_coap_obs_10_a_get_does_not_end_an_observation() {
    let mut watch = Watch::usual().await;
    let packet = watch.observer.numbered(request(RequestType::Get, "/test", b"1"));
    watch.observer.send(&packet).await;
    let (one, two) = (watch.observer.receive().await, watch.observer.receive().await);
    let (answer, notification) = if one.get_token() == watch.token { (two, one) } else { (one, two) };
    assert_eq!((answer.get_token(), is_observed(&answer)), (packet.get_token(), false));
    assert_eq!((notification.get_token(), is_observed(&notification)), (watch.token.as_slice(), true));
    watch.acknowledge(&notification).await;
    watch.call(b"2").await;
    assert_eq!(watch.next().await.payload, b"2");
    watch.door.close().await;
}

#[tokio::test]
async fn an_observer_that_is_slow_gets_the_newest_state_only() {
    let mut watch = Watch::usual().await;
    watch.call(b"1").await;
    let first = watch.observer.receive().await;
    assert_eq!((first.header.get_type(), text(&first).as_str()), (MessageType::Confirmable, "1"));
    for number in 2..=9_u8 {
        watch.call(&[b'0' + number]).await;
    }
    watch.observer.hears_nothing(50).await;
    assert_eq!(watch.door.counters.notifications.get(), 1);
    watch.acknowledge(&first).await;
    let mut sent = 2;
    // On a machine that is busy, not all calls may have been told of by now.
    while text(&watch.next().await) != "9" {
        sent += 1;
    }
    assert_eq!(watch.door.counters.notifications_superseded.get(), 9 - sent);
    watch.door.close().await;
}

#[tokio::test]
async fn a_notification_that_is_sent_again_shows_the_newest_state() {
    let quick = CoapConfig { acknowledgement_timeout: Duration::from_millis(100), ..CoapConfig::default() };
    let mut watch = Watch::begin(observe("/test"), quick).await;
    watch.call(b"1").await;
    let first = watch.observer.receive().await;
    watch.call(b"2").await;
    let mut again = watch.observer.receive().await;
    // On a machine that is busy, the first may be sent again before the second call was made.
    while again.header.message_id == first.header.message_id {
        again = watch.observer.receive().await;
    }
    assert_eq!((again.header.get_type(), text(&again).as_str()), (MessageType::Confirmable, "2"));
    let sequence = |packet| uint(packet, CoapOption::Observe).unwrap();
    assert!(sequence(&again).wrapping_sub(sequence(&first)) & 0xFF_FFFF < 1 << 23);
    watch.acknowledge(&again).await;
    watch.call(b"3").await;
    assert_eq!(text(&watch.next().await), "3");
    watch.door.close().await;
}

#[tokio::test]
async fn a_large_state_comes_in_blocks_of_which_the_rest_is_asked_for() {
    for exponent in [6, 4] {
        let asked = with(observe("/test/big"), 23, &block(0, false, exponent));
        let mut watch = Watch::begin(asked, CoapConfig::default()).await;
        for (runs, length) in [(1, 2500), (2, 3000)] {
            let call =
                with(request(RequestType::Post, "/test/big", length.to_string().as_bytes()), 23, &block(0, false, 0));
            assert_eq!(code(&watch.caller.ask(call).await), "2.04");
            let first = watch.next().await;
            assert_eq!(block_of(&first, CoapOption::Block2), (0, true, exponent));
            assert!(is_observed(&first));
            let (mut payload, mut more, etag) = (first.payload.clone(), true, first.get_first_option(CoapOption::ETag));
            for number in 1.. {
                if !more {
                    break;
                }
                let get = with(request(RequestType::Get, "/test/big", b""), 23, &block(number, false, exponent));
                let next = watch.observer.ask(get).await;
                assert!(!is_observed(&next) && etag.is_some() && next.get_first_option(CoapOption::ETag) == etag);
                payload.extend_from_slice(&next.payload);
                more = block_of(&next, CoapOption::Block2).1;
            }
            assert_eq!((payload, watch.door.echo.runs()), (pattern(length), runs));
        }
        watch.door.close().await;
    }
}

#[tokio::test]
async fn fetch_observes_as_get_does() {
    let mut watch = Watch::begin(with(request(RequestType::Fetch, "/test", b""), 6, &[]), CoapConfig::default()).await;
    watch.call(b"1").await;
    let notification = watch.next().await;
    assert_eq!((code(&notification), text(&notification)), ("2.05".into(), "1".into()));
    watch.door.close().await;
}

#[tokio::test]
async fn observers_beyond_the_limits_are_answered_and_counted() {
    let door = Door::open(CoapConfig { observers_max: 3, observers_per_peer_max: 2, ..CoapConfig::default() });
    let mut clients = [door.client().await, door.client().await];
    let mut observed = Vec::new();
    for at in [0, 0, 0, 1, 1] {
        let answer = clients[at].ask(observe("/test")).await;
        assert_eq!(code(&answer), "2.05");
        observed.push(is_observed(&answer));
    }
    assert_eq!(observed, [true, true, false, true, false]);
    assert_eq!((door.counters.observers_refused.get(), door.echo.runs()), (2, 0));
    door.close().await;
}

#[tokio::test]
async fn what_is_not_there_is_not_observed() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    let answer = client.ask(observe("/elsewhere")).await;
    assert_eq!((code(&answer), is_observed(&answer), door.echo.is_watched()), ("4.04".into(), false, false));
    let mut watch = Watch::usual().await;
    let failed = watch.caller.ask(request(RequestType::Post, "/test/fail", b"x")).await;
    assert_eq!(code(&failed), "5.00");
    watch.observer.hears_nothing(50).await;
    watch.door.close().await;
    door.close().await;
}

#[tokio::test]
async fn what_may_not_be_observed_is_called_and_answered_without_the_option() {
    let door = Door::open(CoapConfig::default());
    let (mut client, mut caller) = (door.client().await, door.client().await);
    let answer = client.ask(observe("/test/private")).await;
    assert_eq!((code(&answer), is_observed(&answer)), ("2.05".into(), false));
    assert_eq!((door.echo.runs(), door.echo.is_watched()), (1, false), "it was a call as any other");
    assert_eq!(code(&caller.ask(request(RequestType::Put, "/test/private", b"for its caller")).await), "2.04");
    client.hears_nothing(50).await;
    let listed = text(&client.ask(request(RequestType::Get, "/.well-known/core", b"")).await);
    let link = listed.split(',').find(|link| link.starts_with("</test/private>")).unwrap();
    assert!(!link.contains("obs") && listed.contains("</test/echo>;rt=\"sandbar.function\";obs"), "{listed}");
    door.close().await;
}

#[tokio::test]
async fn an_observation_ends_when_its_function_may_be_observed_no_more() {
    let watch = Watch::usual().await;
    watch.door.echo.seal();
    let last = watch.observer.receive().await;
    assert_eq!((code(&last), last.get_token(), is_observed(&last)), ("4.03".into(), watch.token.as_slice(), false));
    watch.is_over().await;
    watch.door.close().await;
}

#[tokio::test]
async fn a_door_that_closes_says_so() {
    let watch = Watch::usual().await;
    watch.door.close().await;
    let last = watch.observer.receive().await;
    assert_eq!((code(&last), last.get_token(), is_observed(&last)), ("5.03".into(), watch.token.as_slice(), false));
}
