//! What is too large, too slow or too much.

use std::time::Duration;

use sandbar_proxy::http::HttpConfig;

use crate::client::Door;
use crate::echo::PAYLOAD_BYTES_MAX;

#[tokio::test]
async fn too_large_a_payload_is_refused_before_it_is_read() {
    let door = Door::open(HttpConfig::default());
    let mut connection = door.connect().await;
    let head = format!("POST /test HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", PAYLOAD_BYTES_MAX + 1);
    connection.send(head.as_bytes()).await;
    let refused = connection.receive().await;
    assert_eq!(refused.status, 413);
    assert_eq!(refused.text(), format!("a payload may have {PAYLOAD_BYTES_MAX} bytes\n"));
    assert_eq!(refused.header("connection"), Some("close"));
    connection.ends().await;
    assert_eq!(door.echo.runs(), 0);
    door.close().await;
}

#[tokio::test]
async fn too_large_a_payload_is_refused_while_it_streams() {
    let door = Door::open(HttpConfig::default());
    let mut connection = door.connect().await;
    connection.send(b"POST /test HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = vec![0; 1 << 20];
    for _ in 0..16 {
        connection.send(b"100000\r\n").await;
        connection.send(&chunk).await;
        connection.send(b"\r\n").await;
    }
    connection.send(b"1\r\nx\r\n").await;
    assert_eq!(connection.receive().await.status, 413);
    assert_eq!(door.echo.runs(), 0);
    door.close().await;
}

#[tokio::test]
async fn bodies_of_all_requests_together_are_bounded() {
    let door = Door::open(HttpConfig { body_bytes_in_flight_max: 1000, ..HttpConfig::default() });
    let mut first = door.connect().await;
    first.send(b"POST /test HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 900\r\n\r\n").await;
    assert_eq!(first.receive().await.status, 100, "its body is being read");
    first.send(&[b'x'; 899]).await;
    let refused = door.ask_until(503, "POST", "/test", &[b'x'; 200]).await;
    assert_eq!(refused.header("retry-after"), Some("1"));
    first.send(b"x").await;
    assert_eq!(first.receive().await.status, 200);
    door.ask_until(200, "POST", "/test", &[b'x'; 200]).await;
    door.close().await;
}

#[tokio::test]
async fn slow_heads_and_bodies_and_idle_connections_end() {
    let door = Door::open(HttpConfig {
        header_time_max: Duration::from_millis(500),
        body_time_max: Duration::from_millis(500),
        ..HttpConfig::default()
    });
    let mut slow_head = door.connect().await;
    slow_head.send(b"POST /test HT").await;
    let mut silent = door.connect().await;
    let mut idle = door.connect().await;
    assert_eq!(idle.ask("GET", "/test", "", b"").await.status, 200);
    let mut slow_body = door.connect().await;
    slow_body.send(b"POST /test HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx").await;
    assert_eq!(slow_body.receive().await.status, 408);
    // Within the test's patience: if not for these limits, half a minute would be waited for.
    for connection in [&mut slow_head, &mut silent, &mut idle] {
        connection.ends().await;
    }
    assert_eq!(door.echo.runs(), 1);
    door.close().await;
}

#[tokio::test]
async fn large_heads_are_refused() {
    let door = Door::open(HttpConfig::default());
    let mut connection = door.connect().await;
    let head = format!("GET /test HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    connection.send(head.as_bytes()).await;
    assert_eq!(connection.receive().await.status, 431);
    door.close().await;
}

#[tokio::test]
async fn calls_are_bounded_per_client() {
    let door = Door::open(HttpConfig { calls_in_flight_per_peer_max: 2, ..HttpConfig::default() });
    let mut running = Vec::new();
    for _ in 0..2 {
        let mut connection = door.connect().await;
        connection.send_request("POST", "/test/sleep", "", b"2000").await;
        running.push(connection);
    }
    door.runs(2).await;
    let refused = door.ask("POST", "/test", b"x").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.header("sandbar-outcome"), Some("overloaded"));
    for connection in &mut running {
        assert_eq!(connection.receive().await.status, 200);
    }
    door.ask_until(200, "POST", "/test", b"x").await;
    assert_eq!(door.echo.runs(), 3);
    door.close().await;
}

#[tokio::test]
async fn connections_are_bounded() {
    let door = Door::open(HttpConfig { connections_max: 2, ..HttpConfig::default() });
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut connection = door.connect().await;
        assert_eq!(connection.ask("GET", "/test", "", b"").await.status, 200);
        open.push(connection);
    }
    let mut third = door.connect().await;
    assert_eq!(third.receive().await.status, 503);
    third.ends().await;
    drop(open);
    door.ask_until(200, "GET", "/test", b"").await;
    door.close().await;
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_place() {
    let door = Door::open(HttpConfig { calls_in_flight_max: 1, ..HttpConfig::default() });
    let mut gone = door.connect().await;
    gone.send_request("POST", "/test/sleep", "", b"60000").await;
    door.runs(1).await;
    assert_eq!(door.ask("POST", "/test", b"x").await.status, 503);
    drop(gone);
    door.ask_until(200, "POST", "/test", b"x").await;
    door.close().await;
}

#[tokio::test]
async fn what_is_no_http_ends_the_connection_alone() {
    let door = Door::open(HttpConfig::default());
    for bytes in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"hello there\r\n\r\n", b"GET\r\n\r\n"] {
        let mut connection = door.connect().await;
        connection.send(bytes).await;
        assert_eq!(connection.receive().await.status, 400);
        connection.ends().await;
    }
    assert_eq!(door.ask("GET", "/test", b"").await.status, 200);
    door.close().await;
}
