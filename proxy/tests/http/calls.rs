//! Calls and their outcomes, formats, keep-alive, and closing the door.

use std::time::Instant;

use sandbar_proxy::http::HttpConfig;

use crate::client::{Door, PATIENCE};
use crate::echo::{PAYLOAD_BYTES_MAX, pattern};

#[tokio::test]
async fn calls_echo_payload_and_format() {
    let door = Door::open(HttpConfig::default());
    let mut connection = door.connect().await;
    for method in ["GET", "POST", "PUT"] {
        for path in ["/test", "/test/echo", "/test?any=thing", "/%74est"] {
            let headers = "Content-Type: application/senml+json\r\n";
            let response = connection.ask(method, path, headers, b"payload").await;
            assert_eq!((response.status, response.text()), (200, "payload"));
            assert_eq!(response.header("content-type"), Some("application/senml+json"));
            assert_eq!(response.header("sandbar-outcome"), Some("done"));
            assert_eq!(response.header("sandbar-call").unwrap().len(), 16);
        }
    }
    let unknown = connection.ask("POST", "/test", "Content-Type: x/y\r\n", b"1").await;
    assert_eq!((unknown.status, unknown.header("content-type")), (200, None));
    let empty = connection.ask("GET", "/test", "", b"").await;
    assert_eq!((empty.status, empty.body.len()), (200, 0));
    door.close().await;
}

#[tokio::test]
async fn outcomes_have_their_statuses() {
    let door = Door::open(HttpConfig::default());
    let text = Some("text/plain; charset=utf-8");
    for (method, path, status, outcome) in [
        ("POST", "/", 404, "not-found"),
        ("POST", "/nobody", 404, "not-found"),
        ("POST", "/test/nothing", 404, "not-found"),
        ("POST", "/test/%ff", 400, "bad-request"),
        ("POST", "/test/fail", 500, "failed"),
        ("POST", "/test/overloaded", 503, "overloaded"),
    ] {
        let response = door.ask(method, path, b"x").await;
        assert_eq!(response.status, status, "{path}");
        assert_eq!(response.header("sandbar-outcome"), Some(outcome));
        assert_eq!(response.header("content-type"), text);
        assert!(response.text().ends_with('\n'));
    }
    let failed = door.ask("POST", "/test/fail", b"").await;
    assert_eq!(failed.text(), "ValueError: it broke\n");
    let overloaded = door.ask("POST", "/test/overloaded", b"").await;
    assert_eq!(overloaded.header("retry-after"), Some("7"));
    for method in ["OPTIONS", "FETCH", "TRACE"] {
        let refused = door.ask(method, "/test", b"").await;
        assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, POST, PUT, PATCH, DELETE")));
    }
    door.close().await;
}

#[tokio::test]
async fn the_largest_payload_goes_through_with_and_without_a_length() {
    let door = Door::open(HttpConfig::default());
    let payload = pattern(PAYLOAD_BYTES_MAX);
    assert!(door.ask("POST", "/test", &payload).await.body == payload);
    let mut connection = door.connect().await;
    connection.send(b"POST /test HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for chunk in payload.chunks(1 << 20) {
        connection.send(format!("{:x}\r\n", chunk.len()).as_bytes()).await;
        connection.send(chunk).await;
        connection.send(b"\r\n").await;
    }
    connection.send(b"0\r\n\r\n").await;
    assert!(connection.receive().await.body == payload);
    door.close().await;
}

#[tokio::test]
async fn slow_calls_do_not_delay_a_fast_one() {
    let door = Door::open(HttpConfig::default());
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut connection = door.connect().await;
        connection.send_request("POST", "/test/sleep", "", b"60000").await;
        slow.push(connection);
    }
    let start = Instant::now();
    let mut connection = door.connect().await;
    for _ in 0..100 {
        assert_eq!(connection.ask("POST", "/test", "", b"x").await.status, 200);
    }
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    door.close().await;
}

#[tokio::test]
async fn a_closing_door_ends_idle_connections_and_answers_what_runs() {
    // If the idle one were waited for, longer than the test's patience.
    let door = Door::open(HttpConfig { drain: 2 * PATIENCE, ..HttpConfig::default() });
    let mut idle = door.connect().await;
    assert_eq!(idle.ask("GET", "/test", "", b"").await.status, 200);
    let mut busy = door.connect().await;
    busy.send_request("POST", "/test/sleep", "", b"300").await;
    door.runs(2).await;
    let address = door.address;
    door.close().await;
    idle.ends().await;
    assert_eq!(busy.receive().await.text(), "300");
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
