//! Clients that behave.

use std::time::Duration;

use sandbar_proxy::coap::DtlsConfig;

use crate::client::{Client, Door};

#[test]
fn hundreds_of_sessions_are_served_side_by_side() {
    let door = Door::open(DtlsConfig::default());
    let mut clients: Vec<Client> = (0..300).map(|number| Client::connected(door.address, number)).collect();
    assert_eq!(door.sessions(), 300);
    for round in 0..3 {
        let asked: Vec<u16> = clients.iter_mut().map(|client| client.post(format!("abc{round}").as_bytes())).collect();
        for (client, id) in clients.iter_mut().zip(asked) {
            let answer = client.answer(id);
            assert_eq!(answer.header.get_code(), "2.04");
            assert_eq!(answer.payload, format!("{round}cba").as_bytes());
        }
    }
    assert_eq!(door.counters.calls.get(), 900);
    clients.into_iter().for_each(Client::goodbye);
    Client::connected(door.address, 0).call(b"x");
    assert_eq!((door.sessions(), door.counters.records_dropped.get()), (1, 0));
}

#[test]
fn message_ids_of_one_session_are_nobody_elses() {
    let door = Door::open(DtlsConfig::default());
    let (mut one, mut two) = (Client::connected(door.address, 1), Client::connected(door.address, 1));
    assert_eq!(one.call(b"ab").payload, b"ba");
    assert_eq!(two.call(b"cd").payload, b"dc", "not what the first session was answered");
    assert_eq!(door.counters.repeated.get(), 0);
}

#[test]
fn a_door_that_closes_says_goodbye() {
    let door = Door::open(DtlsConfig::default());
    let mut client = Client::connected(door.address, 1);
    drop(door);
    client.until(|client| client.closed);
}

#[test]
fn an_idle_session_is_closed_in_time() {
    let door = Door::open(DtlsConfig { session_idle_max: Duration::from_millis(300), ..DtlsConfig::default() });
    let mut client = Client::connected(door.address, 1);
    client.call(b"x");
    client.until(|client| client.closed);
    assert_eq!(door.sessions(), 0);
    Client::connected(door.address, 1).call(b"x");
}

#[test]
fn a_session_ends_when_its_key_is_taken_away() {
    let door = Door::open(DtlsConfig::default());
    let mut client = Client::connected(door.address, 1);
    client.call(b"x");
    door.end_all_sessions();
    client.until(|client| client.closed);
    Client::connected(door.address, 1).call(b"x");
}
