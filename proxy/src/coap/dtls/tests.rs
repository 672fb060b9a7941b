mod client;
mod hostile;

use std::sync::Arc;
use std::time::Duration;

use self::client::{Client, Under, keys};
use super::*;

fn limits() -> DtlsConfig {
    DtlsConfig::default()
}

#[test]
fn a_client_with_a_key_says_something_and_is_answered() {
    let mut under = Under::new(limits());
    let mut client = Client::new(1, "sensor");
    let session = under.connect(&mut client).unwrap();
    assert_eq!(under.says(&mut client, b"hello"), [(session, "sensor".to_owned(), b"hello".to_vec())]);
    under.answer(&mut client, session, b"welcome");
    assert_eq!(client.heard(), [b"welcome".to_vec()]);
    let counters = &under.counters;
    assert_eq!((counters.cookies_sent.get(), counters.handshakes_begun.get()), (1, 1));
    assert_eq!((counters.handshakes_done.get(), counters.handshakes_failed.get()), (1, 0));
    assert_eq!(counters.records_dropped.get(), 0);
}

#[test]
fn another_key_and_an_unknown_identity_are_told_the_same() {
    let mut under = Under::new(limits());
    let mut wrong = Client::with_key(1, "sensor", b"fedcba9876543210");
    let mut unknown = Client::with_key(2, "nobody", b"fedcba9876543210");
    assert!(under.connect(&mut wrong).is_none() && under.connect(&mut unknown).is_none());
    assert_eq!(wrong.refused(), unknown.refused());
    assert!(wrong.refused().is_some_and(|why| why.contains("51")), "{:?}", wrong.refused());
    assert_eq!(under.counters.handshakes_failed.get(), 2);
    assert_eq!((under.dtls.handshakes.len(), under.dtls.sessions.len()), (0, 0));
}

#[test]
fn nothing_is_kept_of_an_address_that_is_not_verified_and_it_is_sent_no_more_than_it_sent() {
    let mut under = Under::new(limits());
    for port in 1..=1000 {
        let mut client = Client::new(port, "sensor");
        for hello in client.sent() {
            let arrival = under.dtls.receive(&client.endpoint, &hello, under.now);
            assert!(arrival.transmits.iter().map(|transmit| transmit.bytes.len()).sum::<usize>() <= hello.len());
        }
    }
    assert_eq!(under.counters.cookies_sent.get(), 1000);
    assert_eq!((under.dtls.handshakes.len(), under.counters.handshakes_begun.get()), (0, 0));
    assert_eq!(under.dtls.next_deadline(), None);
}

#[test]
fn a_cookie_is_good_for_its_address_and_its_time_alone() {
    let mut under = Under::new(limits());
    let mut client = Client::new(1, "sensor");
    let hello = under.hello_with_cookie(&mut client);
    let elsewhere = Client::new(2, "sensor").endpoint;
    assert!(under.dtls.receive(&elsewhere, &hello, under.now).transmits.is_empty());
    assert_eq!(under.dtls.handshakes.len(), 0);
    under.now += Duration::from_secs(121);
    assert!(under.dtls.receive(&client.endpoint, &hello, under.now).transmits.is_empty());
    assert_eq!(under.dtls.handshakes.len(), 0);

    let mut client = Client::new(3, "sensor");
    let hello = under.hello_with_cookie(&mut client);
    under.now += Duration::from_secs(59);
    assert_eq!(under.dtls.receive(&client.endpoint, &hello, under.now).transmits.len(), 1);
    assert_eq!(under.dtls.handshakes.len(), 1);
}

#[test]
fn a_lost_flight_is_sent_again_and_a_repeated_hello_begins_nothing() {
    let mut under = Under::new(limits());
    let mut client = Client::new(1, "sensor");
    let hello = under.hello_with_cookie(&mut client);
    let first = under.dtls.receive(&client.endpoint, &hello, under.now);
    assert_eq!(first.transmits.len(), 1);
    under.now += Duration::from_secs(2);
    let mut again = Vec::new();
    under.dtls.tick(under.now, &mut again);
    assert_eq!(again.len(), 1, "the flight again");
    under.dtls.receive(&client.endpoint, &hello, under.now);
    assert_eq!(under.counters.handshakes_begun.get(), 1);
    for transmit in again {
        client.receive(&transmit.bytes);
    }
    assert!(under.settle(&mut client).is_some());
    // The network repeats it after all is done: the session stays.
    assert!(under.dtls.receive(&client.endpoint, &hello, under.now).transmits.is_empty());
    assert_eq!(under.counters.handshakes_begun.get(), 1);
    assert_eq!(under.says(&mut client, b"still").len(), 1);
}

#[test]
fn a_client_that_had_to_repeat_its_hello_sees_numbers_go_up() {
    let mut under = Under::new(limits());
    let mut client = Client::new(1, "sensor");
    let first = client.sent();
    client.wait(Duration::from_secs(2));
    let again = client.sent();
    assert_eq!(again.len(), 1, "the hello again");
    under.dtls.receive(&client.endpoint, &first[0], under.now);
    let asked = under.dtls.receive(&client.endpoint, &again[0], under.now);
    let number = |datagram: &[u8]| hello::first_record(datagram).unwrap().sequence;
    assert_eq!(number(&asked.transmits[0].bytes), number(&again[0]));
    client.receive(&asked.transmits[0].bytes);
    let with_cookie = client.sent();
    let flight = under.dtls.receive(&client.endpoint, &with_cookie[0], under.now);
    assert_eq!(number(&flight.transmits[0].bytes), number(&with_cookie[0]));
    client.receive(&flight.transmits[0].bytes);
    assert!(under.settle(&mut client).is_some());
}

#[test]
fn a_handshake_ends_when_its_time_is_over() {
    let mut under = Under::new(limits());
    let mut client = Client::new(1, "sensor");
    let hello = under.hello_with_cookie(&mut client);
    under.dtls.receive(&client.endpoint, &hello, under.now);
    let end = under.now + limits().handshake_time_max;
    let mut sent = 0;
    while let Some(due) = under.dtls.next_deadline() {
        assert!(due <= end);
        let mut out = Vec::new();
        under.dtls.tick(due, &mut out);
        sent += out.len();
    }
    assert!((2..=4).contains(&sent), "{sent} repetitions");
    assert_eq!((under.dtls.handshakes.len(), under.counters.handshakes_failed.get()), (0, 1));
}

#[test]
fn handshakes_are_bounded_for_each_address_and_in_all_and_slow_ones_give_way() {
    let few = DtlsConfig { handshakes_max: 4, handshakes_per_address_max: 3, ..limits() };
    let mut under = Under::new(few.clone());
    let half_open = |under: &mut Under, host: u8, port: u16| {
        let mut client = Client::at([127, 0, 0, host], port, "sensor");
        let hello = under.hello_with_cookie(&mut client);
        under.dtls.receive(&client.endpoint, &hello, under.now);
    };
    let counted = |under: &Under| {
        let counters = &under.counters;
        assert!(under.dtls.handshakes.len() <= 4);
        (counters.handshakes_begun.get(), counters.handshakes_failed.get(), counters.handshakes_refused.get())
    };
    for port in 1..=5 {
        half_open(&mut under, 1, port);
    }
    assert_eq!(counted(&under), (3, 0, 2), "three for one address");
    half_open(&mut under, 2, 1);
    half_open(&mut under, 3, 1);
    assert_eq!(counted(&under), (5, 1, 2), "the greediest gave way to one that had none");
    half_open(&mut under, 4, 1);
    assert_eq!(counted(&under), (6, 2, 2));
    half_open(&mut under, 5, 1);
    half_open(&mut under, 1, 9);
    assert_eq!(counted(&under), (6, 2, 4), "all have one, and none is slow");
    under.now += few.handshake_yields_after + Duration::from_millis(1);
    half_open(&mut under, 5, 1);
    assert_eq!(counted(&under), (7, 3, 4), "a slow one gave way");
}

#[test]
fn a_new_handshake_takes_a_sessions_place_only_when_it_is_complete() {
    let mut under = Under::new(limits());
    let mut before = Client::new(1, "sensor");
    let old = under.connect(&mut before).unwrap();
    let mut after = Client::new(1, "sensor");
    let hello = under.hello_with_cookie(&mut after);
    let flight = under.dtls.receive(&after.endpoint, &hello, under.now);
    assert_eq!(under.says(&mut before, b"still here")[0].0, old);
    for transmit in flight.transmits {
        after.receive(&transmit.bytes);
    }
    let new = under.settle(&mut after).unwrap();
    assert_ne!(new, old);
    assert_eq!(under.dtls.sessions.len(), 1);
    assert_eq!(under.dtls.take_ended(), [Endpoint { session: Some(old), ..before.endpoint }]);
    assert_eq!(under.says(&mut after, b"I am new")[0].0, new);
    assert!(under.says(&mut before, b"and I was").is_empty());
    // What is still to be said to the old one goes nowhere.
    let to = Endpoint { session: Some(old), ..before.endpoint };
    assert!(under.dtls.seal(&Transmit { to, bytes: b"late"[..].into() }).is_empty());
}

#[test]
fn an_abandoned_new_handshake_leaves_the_session_as_it_was() {
    let mut under = Under::new(limits());
    let mut client = Client::new(1, "sensor");
    under.connect(&mut client).unwrap();
    for _ in 0..3 {
        let mut other = Client::with_key(1, "sensor", b"fedcba9876543210");
        assert!(under.connect(&mut other).is_none());
    }
    assert_eq!(under.says(&mut client, b"mine").len(), 1);
}

#[test]
fn a_client_that_says_goodbye_is_answered_and_forgotten() {
    let mut under = Under::new(limits());
    let mut client = Client::new(1, "sensor");
    under.connect(&mut client).unwrap();
    client.close();
    for datagram in client.sent() {
        let arrival = under.dtls.receive(&client.endpoint, &datagram, under.now);
        assert_eq!((arrival.transmits.len(), arrival.messages.len()), (1, 0));
    }
    assert_eq!((under.dtls.sessions.len(), under.counters.sessions_ended.get()), (0, 1));
}

#[test]
fn idle_sessions_are_closed_and_used_ones_are_not() {
    let mut under = Under::new(limits());
    let (mut idle, mut used) = (Client::new(1, "sensor"), Client::new(2, "sensor"));
    under.connect(&mut idle).unwrap();
    under.connect(&mut used).unwrap();
    under.now += limits().session_idle_max / 2;
    used.wait(limits().session_idle_max / 2);
    assert_eq!(under.says(&mut used, b"x").len(), 1);
    under.now += limits().session_idle_max / 2;
    let mut out = Vec::new();
    under.dtls.tick(under.now, &mut out);
    assert_eq!((out.len(), under.dtls.sessions.len()), (1, 1));
    assert_eq!(out[0].to, idle.endpoint);
    idle.receive(&out[0].bytes);
    assert!(idle.closed());
    assert_eq!(under.counters.sessions_expired.get(), 1);
    assert_eq!(under.says(&mut used, b"y").len(), 1);
}

#[test]
fn a_session_that_is_used_all_the_time_ends_when_its_life_is_over_and_a_new_one_begins() {
    let short = DtlsConfig { session_life_max: limits().session_idle_max * 5 / 2, ..limits() };
    let mut under = Under::new(short.clone());
    let mut client = Client::new(1, "sensor");
    let first = under.connect(&mut client).unwrap();
    let end = under.now + short.session_life_max;
    for _ in 0..4 {
        under.now += short.session_idle_max / 2;
        client.wait(short.session_idle_max / 2);
        under.dtls.tick(under.now, &mut Vec::new());
        assert_eq!(under.says(&mut client, b"x").len(), 1);
    }
    under.now = end - Duration::from_millis(1);
    let mut out = Vec::new();
    under.dtls.tick(under.now, &mut out);
    assert_eq!((out.len(), under.dtls.next_deadline()), (0, Some(end)), "not before its time, and then");
    assert_eq!(under.says(&mut client, b"used to the last").len(), 1);
    under.now = end;
    under.dtls.tick(under.now, &mut out);
    assert_eq!((out.len(), under.dtls.sessions.len()), (1, 0));
    client.receive(&out[0].bytes);
    assert!(client.closed(), "its client is told");
    assert_eq!(under.dtls.take_ended(), [Endpoint { session: Some(first), ..client.endpoint }]);
    let counters = Arc::clone(&under.counters);
    assert_eq!((counters.sessions_outlived.get(), counters.sessions_expired.get()), (1, 0));
    let second = under.connect(&mut Client::new(1, "sensor")).unwrap();
    assert_ne!(second, first);
    under.now += short.session_idle_max;
    under.dtls.tick(under.now, &mut Vec::new());
    assert_eq!((counters.sessions_outlived.get(), counters.sessions_expired.get()), (1, 1), "idle as before");
    assert_eq!(counters.sessions_ended.get(), 2);
}

#[test]
fn sessions_are_bounded_for_each_identity_and_in_all() {
    let few = DtlsConfig { sessions_max: 3, sessions_per_identity_max: 2, ..limits() };
    let mut under = Under::new(few.clone());
    let mut sensors: Vec<Client> = (1..=3).map(|port| Client::new(port, "sensor")).collect();
    for sensor in &mut sensors {
        under.connect(sensor).unwrap();
        under.now += Duration::from_millis(1);
    }
    assert_eq!(under.dtls.sessions.len(), 2);
    assert!(under.says(&mut sensors[0], b"x").is_empty(), "the least recently used one went");
    assert_eq!(under.says(&mut sensors[1], b"x").len(), 1);
    let mut others: Vec<Client> = (11..=12).map(|port| Client::new(port, "other")).collect();
    assert!(under.connect(&mut others[0]).is_some());
    assert!(under.connect(&mut others[1]).is_none(), "there is no room");
    assert_eq!(under.counters.handshakes_refused.get(), 1);
    under.now += few.session_yields_after + Duration::from_millis(1);
    assert!(under.connect(&mut Client::new(13, "other")).is_some(), "an idle one gave way");
    assert_eq!(under.dtls.sessions.len(), 3);
}

#[test]
fn other_keys_end_the_sessions_of_those_that_have_none_any_more() {
    let mut under = Under::new(limits());
    let (mut stays, mut goes) = (Client::new(1, "sensor"), Client::new(2, "other"));
    under.connect(&mut stays).unwrap();
    under.connect(&mut goes).unwrap();
    let changed = "[identities.sensor]\nkey = \"0123456789abcdef\"\ngrants = [\"new\"]\n\
                   [identities.other]\nkey = \"another key than before\"\ngrants = [\"*\"]\n";
    let mut out = Vec::new();
    under.dtls.replace_keys(Arc::new(Keys::parse(changed).unwrap()), &mut out);
    assert_eq!(out.len(), 1);
    goes.receive(&out[0].bytes);
    assert!(goes.closed() && !stays.closed());
    let said = under.heard(&mut stays, b"x");
    assert!(said[0].1.may_call("new", None) && !said[0].1.may_call("test", None));
    assert!(under.connect(&mut Client::new(3, "other")).is_none());
}

#[test]
fn a_key_that_is_taken_away_during_a_handshake_opens_nothing() {
    let mut under = Under::new(limits());
    let mut client = Client::new(1, "sensor");
    let hello = under.hello_with_cookie(&mut client);
    for transmit in under.dtls.receive(&client.endpoint, &hello, under.now).transmits {
        client.receive(&transmit.bytes);
    }
    under.dtls.replace_keys(Arc::new(Keys::default()), &mut Vec::new());
    assert!(under.settle(&mut client).is_none());
    assert_eq!(under.dtls.sessions.len(), 0);
}

#[test]
fn all_is_forgotten_in_the_end() {
    let mut under = Under::new(limits());
    let mut clients: Vec<Client> = (1..=20).map(|port| Client::new(port, "sensor")).collect();
    for client in &mut clients {
        under.connect(client).unwrap();
    }
    let mut out = Vec::new();
    under.dtls.close_all(&mut out);
    assert_eq!(out.len(), 20);
    assert_eq!((under.dtls.sessions.len(), under.dtls.next_deadline()), (0, None));
    assert_eq!(keys().len(), 2);
}

#[test]
fn handshakes_come_about_however_the_network_loses_repeats_and_turns_about() {
    let mut under = Under::new(DtlsConfig { handshakes_per_address_max: 512, ..limits() });
    let mut draw = fastrand::Rng::with_seed(hostile::first_seed());
    let mut connected = 0;
    for port in 1..=60 {
        let mut client = Client::new(port, "sensor");
        // Datagrams on their way: to the client, or from it.
        let mut on_the_way: Vec<(bool, Vec<u8>)> = Vec::new();
        for _ in 0..150 {
            on_the_way.extend(client.sent().into_iter().map(|datagram| (false, datagram)));
            for (to_client, datagram) in std::mem::take(&mut on_the_way) {
                match draw.u8(0..10) {
                    0 => continue,
                    2 => on_the_way.push((to_client, datagram.clone())),
                    3 => {
                        on_the_way.push((to_client, datagram));
                        continue;
                    }
                    _ => {}
                }
                if to_client {
                    client.receive(&datagram);
                } else {
                    let arrival = under.dtls.receive(&client.endpoint, &datagram, under.now);
                    on_the_way.extend(arrival.transmits.into_iter().map(|transmit| (true, transmit.bytes.to_vec())));
                }
            }
            if client.connected() || client.refused().is_some() {
                break;
            }
            under.now += Duration::from_millis(100);
            client.wait(Duration::from_millis(100));
            let mut out = Vec::new();
            under.dtls.tick(under.now, &mut out);
            let own = out.into_iter().filter(|transmit| transmit.to == client.endpoint);
            on_the_way.extend(own.map(|transmit| (true, transmit.bytes.to_vec())));
        }
        connected += usize::from(client.connected());
        if client.connected() {
            assert_eq!(under.says(&mut client, b"here").len(), 1);
        }
    }
    assert!(connected >= 56, "{connected} of 60 within fifteen seconds, with a tenth of all datagrams lost");
}
