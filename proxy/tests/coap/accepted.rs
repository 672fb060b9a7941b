//! Calls that are accepted and made later: asked for, asked after, and observed to their end.

use std::time::{Duration, Instant};

use coap_lite::{CoapOption, MessageType, Packet, RequestType};
use sandbar_proxy::coap::CoapConfig;
use sandbar_runtime::Ticket;

use crate::client::{Client, Door, PATIENCE, block, block_of, code, non, request, text, uint, with};
use crate::echo::pattern;
use crate::observe::{is_observed, observations, observe};

const NOT_ENDED: &str = r#"{"outcome":"accepted"}"#;

/// A request for a call that is to be made later.
fn later(path: &str, payload: &[u8]) -> Packet {
    with(request(RequestType::Post, path, payload), 15, b"async")
}

/// Where a call is that was accepted, and its ticket.
fn location(answer: &Packet) -> (String, Ticket) {
    assert_eq!((code(answer).as_str(), answer.payload.len()), ("2.01", 0));
    let path = answer.get_option(CoapOption::LocationPath).unwrap();
    let path: Vec<_> = path.iter().map(|segment| std::str::from_utf8(segment).unwrap()).collect();
    let [application, calls, ticket] = path[..] else { panic!("{path:?}") };
    assert_eq!((application, calls), ("test", ".calls"));
    (format!("/{}", path.join("/")), ticket.parse().unwrap())
}

async fn look(client: &mut Client, location: &str) -> Packet {
    client.ask(request(RequestType::Get, location, b"")).await
}

/// A call that was accepted, one that observes it, and another that does not.
struct Accepted {
    door: Door,
    observer: Client,
    other: Client,
    location: String,
    ticket: Ticket,
    token: Vec<u8>,
}

impl Accepted {
    /// What is called, with what; with which options it is observed.
    async fn observed(path: &str, payload: &[u8], options: &[(u16, &[u8])]) -> Self {
        let door = Door::open(CoapConfig::default());
        let (mut observer, mut other) = (door.client().await, door.client().await);
        let (location, ticket) = location(&other.ask(later(path, payload)).await);
        let asked = options.iter().fold(observe(&location), |packet, (option, value)| with(packet, *option, value));
        let answer = observer.ask(asked).await;
        assert_eq!((code(&answer).as_str(), is_observed(&answer)), ("2.05", true));
        // Asked to begin anew in a second, it would be asked like one that does not observe.
        assert_eq!(uint(&answer, CoapOption::MaxAge), None);
        assert!(door.echo.is_watched());
        let token = answer.get_token().to_vec();
        Self { door, observer, other, location, ticket, token }
    }

    /// What ends the observation: confirmable, under its token, without Observe. Acknowledged; afterwards nothing is observed.
    async fn last(&self) -> Packet {
        let last = self.observer.receive().await;
        assert_eq!((last.get_token(), is_observed(&last)), (self.token.as_slice(), false));
        assert_eq!(last.header.get_type(), MessageType::Confirmable);
        let [high, low] = last.header.message_id.to_be_bytes();
        self.observer.send_bytes(&[0x60, 0, high, low]).await;
        self.is_over().await;
        last
    }

    async fn is_over(&self) {
        let start = Instant::now();
        while observations(&self.door.counters) > 0 || self.door.echo.is_watched() {
            assert!(start.elapsed() < PATIENCE, "{:?}", self.door.counters.list());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test]
async fn a_call_is_accepted_and_its_answer_is_found_where_it_was_said() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    for packet in [later("/test/echo", b"payload"), non(later("/test/echo", b"payload"))] {
        let runs = door.echo.runs();
        let (location, ticket) = location(&client.ask(with(packet, 12, &[0])).await);
        let pending = look(&mut client, &location).await;
        assert_eq!((code(&pending), text(&pending)), ("2.05".into(), NOT_ENDED.into()));
        assert_eq!(
            (uint(&pending, CoapOption::ContentFormat), uint(&pending, CoapOption::MaxAge)),
            (Some(50), Some(1))
        );
        assert_eq!((pending.get_first_option(CoapOption::ETag), door.echo.runs()), (None, runs));
        door.echo.make(ticket).await;
        let answer = look(&mut client, &location).await;
        assert_eq!((code(&answer), text(&answer)), ("2.05".into(), "payload".into()));
        assert_eq!((uint(&answer, CoapOption::ContentFormat), uint(&answer, CoapOption::MaxAge)), (Some(0), Some(0)));
        let etag = answer.get_first_option(CoapOption::ETag).cloned().unwrap();
        let held = with(request(RequestType::Get, &location, b""), 4, &etag);
        assert_eq!(code(&client.ask(held).await), "2.03");
        assert_eq!(door.echo.runs(), runs + 1, "to ask for the answer is no call");
    }
    let listed = text(&client.ask(request(RequestType::Get, "/.well-known/core", b"")).await);
    assert!(!listed.contains(".calls"), "who was not given a location is not told of it: {listed}");
    door.close().await;
}

#[tokio::test]
async fn any_method_asks_for_a_call_to_be_accepted_and_no_other_query_does() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    for method in [RequestType::Get, RequestType::Put, RequestType::Delete, RequestType::Fetch] {
        location(&client.ask(with(request(method, "/test", b""), 15, b"async")).await);
    }
    assert_eq!((door.echo.accepted_calls(), door.echo.runs()), (4, 0));
    assert_eq!(code(&client.ask(with(request(RequestType::Get, "/test", b""), 15, b"async=1")).await), "2.05");
    let refused = client.ask(later("/test/nothing", b"")).await;
    assert_eq!((code(&refused), door.echo.accepted_calls(), door.echo.runs()), ("4.04".into(), 4, 1));
    door.close().await;
}

#[tokio::test]
async fn a_repeated_request_is_accepted_once() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    let packet = client.numbered(later("/test", b"x"));
    let mut answers = Vec::new();
    for _ in 0..3 {
        client.send(&packet).await;
        answers.push(client.receive_bytes().await);
    }
    assert_eq!((&answers[1], &answers[2]), (&answers[0], &answers[0]));
    location(&Packet::from_bytes(&answers[0]).unwrap());
    assert_eq!(door.echo.accepted_calls(), 1);
    door.close().await;
}

#[tokio::test]
async fn a_payload_in_blocks_is_accepted_whole_and_its_answer_comes_in_blocks() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    let payload = pattern(2500);
    let mut answer = None;
    for (number, bytes) in (0..).zip(payload.chunks(1024)) {
        let more = number < 2;
        let packet = with(later("/test", bytes), 27, &block(number, more, 6));
        let told = client.ask(packet).await;
        assert_eq!(code(&told), if more { "2.31" } else { "2.01" });
        answer = Some(told);
    }
    let (location, ticket) = location(&answer.unwrap());
    door.echo.make(ticket).await;
    let mut whole = Vec::new();
    for number in 0..3 {
        let get = with(request(RequestType::Get, &location, b""), 23, &block(number, false, 6));
        let part = client.ask(get).await;
        assert_eq!(part.get_first_option(CoapOption::ETag).map(Vec::as_slice), Some(&b"kept"[..]));
        whole.extend(part.payload);
    }
    assert_eq!((whole, door.echo.accepted_calls(), door.echo.runs()), (payload, 1, 1));
    door.close().await;
}

#[tokio::test]
async fn a_call_is_accepted_without_a_word_for_who_wants_none() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    let packet = client.numbered(non(with(later("/test", b"x"), 258, &[0b1_1010])));
    client.send(&packet).await;
    // What is answered next was asked for later.
    assert_eq!(code(&client.ask(request(RequestType::Get, "/test", b"")).await), "2.05");
    assert_eq!(door.echo.accepted_calls(), 1);
    door.close().await;
}

#[tokio::test]
async fn how_a_call_ended_has_its_code_and_what_is_no_call_is_not_found() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    let (location, ticket) = location(&client.ask(later("/test/fail", b"")).await);
    for method in [RequestType::Post, RequestType::Put, RequestType::Delete, RequestType::Fetch] {
        assert_eq!(code(&client.ask(request(method, &location, b"")).await), "4.05");
    }
    door.echo.make(ticket).await;
    let failed = look(&mut client, &location).await;
    assert_eq!((code(&failed), text(&failed)), ("5.00".into(), "ValueError: it broke".into()));
    door.echo.forget(ticket);
    let nowhere = [location.as_str(), "/test/.calls", "/test/.calls/1", &format!("{location}/x"), "/test/.calls/x"];
    for path in nowhere {
        assert_eq!(code(&look(&mut client, path).await), "4.04", "{path}");
    }
    door.close().await;
}

#[tokio::test]
async fn a_format_is_asked_for_of_the_answer_not_of_a_call_that_has_not_ended() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    let (location, ticket) = location(&client.ask(with(later("/test", b"x"), 12, &[0])).await);
    let cbor = with(request(RequestType::Get, &location, b""), 17, &[60]);
    let pending = client.ask(cbor.clone()).await;
    assert_eq!(
        (code(&pending), pending.payload.len(), uint(&pending, CoapOption::MaxAge)),
        ("2.05".into(), 0, Some(1))
    );
    assert_eq!(uint(&pending, CoapOption::ContentFormat), None);
    door.echo.make(ticket).await;
    assert_eq!(code(&client.ask(cbor).await), "4.06");
    door.close().await;
}

#[tokio::test]
async fn who_observes_a_call_is_sent_its_answer_and_nothing_more() {
    let mut accepted = Accepted::observed("/test/echo", b"answer", &[]).await;
    // Of the function's other outputs it hears nothing.
    assert_eq!(code(&accepted.other.ask(request(RequestType::Post, "/test/echo", b"x")).await), "2.04");
    accepted.observer.hears_nothing(50).await;
    accepted.door.echo.make(accepted.ticket).await;
    let last = accepted.last().await;
    assert_eq!((code(&last), text(&last)), ("2.05".into(), "answer".into()));
    assert_eq!(last.get_first_option(CoapOption::ETag).map(Vec::as_slice), Some(&b"kept"[..]));
    assert_eq!(accepted.door.counters.observers_answered.get(), 1);
    let again = accepted.observer.ask(observe(&accepted.location)).await;
    assert_eq!((code(&again), text(&again), is_observed(&again)), ("2.05".into(), "answer".into(), false));
    accepted.door.echo.forget(accepted.ticket);
    accepted.observer.hears_nothing(50).await;
    accepted.door.close().await;
}

#[tokio::test]
async fn a_call_that_fails_is_given_up_or_forgotten_is_told_to_all_who_observe_it() {
    for (path, ends, expected) in [("/test/fail", true, "5.00"), ("/test", false, "4.04")] {
        let mut accepted = Accepted::observed(path, b"", &[]).await;
        assert!(is_observed(&accepted.other.ask(observe(&accepted.location)).await));
        if ends {
            accepted.door.echo.make(accepted.ticket).await;
        } else {
            accepted.door.echo.forget(accepted.ticket);
        }
        assert_eq!(code(&accepted.last().await), expected);
        let other = accepted.other.receive().await;
        assert_eq!((code(&other).as_str(), is_observed(&other)), (expected, false));
        accepted.door.close().await;
    }
}

#[tokio::test]
async fn a_long_answer_to_who_observes_comes_in_blocks_of_which_the_rest_is_asked_for() {
    for exponent in [6, 4] {
        let asked = block(0, false, exponent);
        let mut accepted = Accepted::observed("/test/big", b"2500", &[(23, &asked)]).await;
        accepted.door.echo.make(accepted.ticket).await;
        let first = accepted.last().await;
        assert_eq!(block_of(&first, CoapOption::Block2), (0, true, exponent));
        let (mut payload, mut more) = (first.payload.clone(), true);
        for number in 1.. {
            if !more {
                break;
            }
            let get = request(RequestType::Get, &accepted.location, b"");
            let next = accepted.observer.ask(with(get, 23, &block(number, false, exponent))).await;
            assert_eq!(next.get_first_option(CoapOption::ETag), first.get_first_option(CoapOption::ETag));
            payload.extend_from_slice(&next.payload);
            more = block_of(&next, CoapOption::Block2).1;
        }
        assert_eq!((payload, accepted.door.echo.runs()), (pattern(2500), 1));
        accepted.door.close().await;
    }
}

#[tokio::test]
async fn a_call_that_ends_while_somebody_begins_to_observe_it_is_told_of() {
    let door = Door::open(CoapConfig::default());
    let mut client = door.client().await;
    let (location, _) = location(&client.ask(later("/test", b"")).await);
    door.echo.end_when_looked_at();
    // The call ends after it was looked up, and before anything is watched: of that nobody hears.
    let begun = client.ask(observe(&location)).await;
    assert_eq!((is_observed(&begun), text(&begun)), (true, NOT_ENDED.into()));
    let last = client.receive().await;
    assert_eq!((last.get_token(), is_observed(&last)), (begun.get_token(), false));
    assert_eq!((code(&last), text(&last)), ("2.05".into(), "at once".into()));
    door.close().await;
}

#[tokio::test]
async fn who_observes_a_call_no_more_is_not_told_of_its_end() {
    let mut accepted = Accepted::observed("/test", b"x", &[]).await;
    let mut stop = accepted.observer.numbered(with(request(RequestType::Get, &accepted.location, b""), 6, &[1]));
    stop.set_token(accepted.token.clone());
    accepted.observer.send(&stop).await;
    let answer = accepted.observer.receive().await;
    assert_eq!((code(&answer), text(&answer), is_observed(&answer)), ("2.05".into(), NOT_ENDED.into(), false));
    accepted.is_over().await;
    accepted.door.echo.make(accepted.ticket).await;
    accepted.observer.hears_nothing(50).await;
    assert_eq!(accepted.door.counters.observers_cancelled.get(), 1);
    accepted.door.close().await;
}

#[tokio::test]
async fn an_observation_of_a_call_ends_with_its_application_and_with_the_leave_to_call_it_and_with_nothing_else() {
    for (path, expected) in [("/test/private", "4.04"), ("/test/echo", "4.03")] {
        let mut accepted = Accepted::observed(path, b"x", &[]).await;
        // What a function gives out may be observed no more, which is not what is observed here.
        accepted.door.echo.seal();
        assert!(is_observed(&accepted.other.ask(observe(&accepted.location)).await));
        accepted.observer.hears_nothing(50).await;
        if expected == "4.04" {
            accepted.door.echo.remove()
        } else {
            accepted.door.echo.close()
        }
        let (last, other) = (accepted.last().await, accepted.other.receive().await);
        assert_eq!((code(&last).as_str(), code(&other).as_str()), (expected, expected));
        assert_eq!(code(&look(&mut accepted.door.client().await, &accepted.location).await), expected);
        accepted.door.close().await;
    }
}
