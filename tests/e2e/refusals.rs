//! Calls and datagrams that are refused before anything runs.

use std::time::Duration;

use crate::support::clients::{self, got};
use crate::support::coap::Client;
use crate::support::host::Host;

/// The limit of the example `failures`, in bytes.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;

#[test]
fn what_is_not_there_is_not_found() {
    let Some(host) = Host::start() else { return };
    host.deploy_example("failures");
    let mut client = Client::new(host.coap);
    for (path, said) in [
        ("unheard-of", "no application \"unheard-of\""),
        ("failures/unheard-of", "no function \"unheard-of\""),
        ("unheard-of/echo", "no application \"unheard-of\""),
    ] {
        let over_coap = client.post(path, b"x").unwrap();
        assert_eq!(over_coap.code(), "4.04", "{path}: {}", over_coap.text());
        assert!(over_coap.text().contains(said), "{path}: {}", over_coap.text());
        let over_http = host.http("POST", &format!("/{path}"), None, b"x");
        assert_eq!(over_http.status, 404, "{path}: {}", over_http.text());
        assert!(over_http.text().contains(said), "{path}: {}", over_http.text());
    }
    assert_eq!(host.http("OPTIONS", "/failures", None, b"").status, 405);
}

#[test]
fn a_payload_that_is_too_large_is_refused_with_the_limit() {
    let Some(host) = Host::start() else { return };
    host.deploy_example("failures");
    let too_large = vec![b'x'; PAYLOAD_BYTES_MAX + 1];
    let over_http = host.http("POST", "/failures/echo", None, &too_large);
    assert_eq!(over_http.status, 413, "{}", over_http.text());
    let path = host.folder().join("too-large");
    std::fs::write(&path, &too_large).unwrap();
    let invoked = host.sandbar(&["invoke", "failures/echo", "--file", path.to_str().unwrap()]);
    assert_eq!(invoked.code, Some(6), "{}", invoked.stderr);
    assert!(invoked.stderr.contains("at most 1048576 bytes"), "{}", invoked.stderr);
    let Some(mut client) = clients::coap_client() else { return };
    let client = client.args(["-m", "post", "-b", "1024", "-f", path.to_str().unwrap()]);
    let over_coap = got(client, host.folder(), &host.coap_uri("failures/echo"));
    assert_eq!(over_coap.code, "4.13", "{}", over_coap.shown);
    assert!(over_coap.shown.contains(&format!("Size1:{PAYLOAD_BYTES_MAX}")), "{}", over_coap.shown);
    // One byte less is taken.
    assert_eq!(host.http("POST", "/failures/echo", None, &too_large[1..]).body.len(), PAYLOAD_BYTES_MAX);
}

/// Datagrams that are no CoAP requests, with why not.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let from_here = |head: &[u8], more: &[u8]| [head, more].concat();
    let post = [0x40, 0x02, 0x10, 0x01];
    vec![
        ("nothing", vec![]),
        ("half a header", vec![0x40, 0x02, 0x10]),
        ("another version", vec![0x80, 0x02, 0x10, 0x02]),
        ("version 0", vec![0x00, 0x02, 0x10, 0x03]),
        ("a token longer than tokens are", vec![0x49, 0x02, 0x10, 0x04, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("a token of reserved length", vec![0x4F, 0x02, 0x10, 0x05]),
        ("a token that is cut off", vec![0x48, 0x02, 0x10, 0x06, 1, 2, 3]),
        ("an option of reserved delta", from_here(&post, &[0xF1, 0x61])),
        ("an option of reserved length", from_here(&post, &[0xBF, 0x61])),
        ("an option that is cut off", from_here(&post, &[0xB8, 0x61, 0x62])),
        ("an extended delta that is cut off", from_here(&post, &[0xE1, 0x01])),
        ("an option number beyond all", from_here(&post, &[0xE1, 0xFF, 0xFF, 0x61, 0xE1, 0xFF, 0xFF, 0x61])),
        ("a payload marker and no payload", from_here(&post, &[0xB1, 0x61, 0xFF])),
        ("an empty message with a tail", vec![0x40, 0x00, 0x10, 0x07, 0xFF, 0x61]),
        ("a code of a reserved class", vec![0x40, 0x21, 0x10, 0x08]),
        ("a method that is none", vec![0x40, 0x1F, 0x10, 0x09]),
        ("an answer nobody asked for", vec![0x60, 0x44, 0x10, 0x0A]),
        ("a reset of nothing", vec![0x70, 0x00, 0x10, 0x0B]),
        ("a critical option nobody knows", from_here(&post, &[0xB1, 0x61, 0xD0, 0xF0])),
        ("all ones", vec![0xFF; 1200]),
        ("more than a datagram of CoAP", [&post[..], &[0xFF], &vec![0x61; 60_000]].concat()),
        ("a path of 60 kB", from_here(&post, &[&[0xBE, 0xE8, 0x00][..], &vec![0x61; 60_000]].concat())),
        ("a block of a size that there is not", from_here(&post, &[0xB1, 0x61, 0xD1, 0x03, 0x0F])),
    ]
}

#[test]
fn malformed_datagrams_are_rejected_and_the_door_answers_on() {
    let Some(host) = Host::start() else { return };
    host.deploy_example("chain");
    let descriptors = host.agent().descriptors();
    let mut honest = Client::new(host.coap);
    for (what, datagram) in malformed() {
        let client = Client::new(host.coap);
        client.send(&datagram);
        assert_eq!(honest.post("chain", b"x").unwrap().text(), "x>first>second>third", "after {what}");
        // It came in before the honest call, whose answer is here: its own would be too.
        if let Some(answer) = client.receive(Duration::from_millis(20)) {
            assert!(answer.is_reset() || answer.code().starts_with('4'), "{what} is answered with {answer:?}");
        }
    }
    assert!(host.agent().descriptors() <= descriptors + 1, "each was forgotten");
}

#[test]
fn truncations_of_a_good_request_are_rejected_or_mean_less() {
    let Some(host) = Host::start() else { return };
    host.deploy_example("chain");
    let whole = b"\x44\x02\x20\x00abcd\xB5chain\x05third\x10\xFFpayload";
    let mut honest = Client::new(host.coap);
    for length in 0..whole.len() {
        let client = Client::new(host.coap);
        client.send(&whole[..length]);
        if let Some(answer) = client.receive(Duration::from_millis(30)) {
            let fine = answer.is_reset() || answer.code().starts_with(['2', '4']);
            assert!(fine, "{length} bytes of it are answered with {answer:?}");
        }
    }
    assert_eq!(honest.post("chain", b"x").unwrap().text(), "x>first>second>third");
}

#[test]
fn http_that_is_none_is_refused_and_the_door_answers_on() {
    let Some(host) = Host::start() else { return };
    host.deploy_example("chain");
    for bytes in
        [&b"\0\0\0\0\r\n\r\n"[..], b"POST /chain\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", &[b'a'; 70_000], b"\r\n\r\n\r\n"]
    {
        use std::io::{Read, Write};
        let mut connection = std::net::TcpStream::connect(host.http).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let _refused_early = connection.write_all(bytes);
        connection.shutdown(std::net::Shutdown::Write).ok();
        let mut answer = Vec::new();
        let _reset = connection.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"), "{answer}");
        assert_eq!(host.http("POST", "/chain", None, b"x").text(), "x>first>second>third");
    }
}
