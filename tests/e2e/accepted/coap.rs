//! Devices have calls accepted, ask for their answers, and observe them.

use crate::support::accepted::{NOTING, id_of};
use crate::support::clients::{self, coaps_clients};
use crate::support::display::{self, Display};
use crate::support::host::Host;
use crate::support::secure::Secure;
use crate::support::until;

/// Code of the method POST.
pub(super) const POST: u8 = 2;
/// The part of a query (Uri-Query) by which a call is accepted.
pub(super) const ASYNC: (u16, &[u8]) = (15, b"async");

const NOT_ENDED: &[u8] = b"{\"outcome\":\"accepted\"}";

/// The path that an answer's Location-Path options name, as libcoap's client shows them.
fn location(shown: &str) -> String {
    let segments = shown.split("Location-Path:").skip(1);
    segments.map(|segment| segment.split([',', ' ']).next().unwrap()).collect::<Vec<_>>().join("/")
}

#[test]
fn libcoap_has_a_call_accepted_and_observes_its_answer() {
    let Some(host) = Host::start() else { return };
    host.deploy_patient("den", &["hold"], NOTING);
    let get = |path: &str, more: &[&str]| {
        clients::got(clients::coap_client()?.args(more), host.folder(), &host.coap_uri(path)).into()
    };
    let Some::<clients::Got>(answer) = get("den?async", &["-m", "post", "-e", "x"]) else { return };
    assert_eq!((answer.code.as_str(), answer.payload.as_slice()), ("2.01", &b""[..]), "{}", answer.shown);
    let path = location(&answer.shown);
    assert_eq!(path.strip_prefix("den/.calls/").unwrap().len(), 32, "{}", answer.shown);
    let pending = get(&path, &["-m", "get"]).unwrap();
    assert_eq!((pending.code.as_str(), pending.payload.as_slice()), ("2.05", NOT_ENDED), "{}", pending.shown);
    let mut client = display::libcoap(&host, &path).unwrap();
    let display = Display::begin(&host, &mut client, "libcoap");
    display.shows("{\"outcome\":\"accepted\"}");
    host.end_the_wait("den");
    let made = format!("{} x", id_of(&path));
    display.shows(&made);
    until("there is nothing more to observe", || (display::counted(&host, "observers_answered") == 1).then_some(()));
    // Who asks later has the same, and a request to observe what has ended is answered at once.
    for more in [&["-m", "get"][..], &["-m", "get", "-s", "1"]] {
        let ended = get(&path, more).unwrap();
        assert_eq!((ended.code.as_str(), ended.payload.as_slice()), ("2.05", made.as_bytes()), "{}", ended.shown);
        assert!(ended.shown.contains("ETag:"), "{}", ended.shown);
    }
    for (path, method, code) in [
        (path.as_str(), "post", "4.05"),
        (&path[..path.len() - 1], "get", "4.04"),
        (&path.replacen("den", "other", 1), "get", "4.04"),
    ] {
        assert_eq!(get(path, &["-m", method]).unwrap().code, code, "{path}");
    }
}

#[test]
fn aiocoap_observes_the_answer_as_well() {
    let Some(host) = Host::start() else { return };
    host.deploy_patient("den", &["hold"], NOTING);
    let accepted = host.accept("/den", "x");
    let Some(mut client) = display::aiocoap(&host.coap_uri(&accepted[1..])) else { return };
    let display = Display::begin(&host, &mut client, "aiocoap");
    display.shows("{\"outcome\":\"accepted\"}");
    host.end_the_wait("den");
    display.shows(&format!("{} x", id_of(&accepted)));
}

#[test]
fn an_answer_is_for_those_who_may_call_the_function() {
    let Some(secure) = Secure::start(&[]) else { return };
    let host = &secure.host;
    host.deploy_patient("den", &["hold", "note"], NOTING);
    let granted = secure.enroll("granted", &["den/note"]);
    let stranger = secure.enroll("stranger", &["den/hold", "other"]);
    for client in coaps_clients() {
        let post = ["-m", "post", "-e", "x"];
        let answer = secure.get(&client, "granted", &granted, "den/note?async", &post);
        assert_eq!(answer.code, "2.01", "{}", answer.shown);
        let path = location(&answer.shown);
        let get = |identity, key, path: &str| secure.get(&client, identity, key, path, &["-m", "get"]);
        let answer = until("the call has ended", || {
            let answer = get("granted", &granted, &path);
            (answer.payload != NOT_ENDED).then_some(answer)
        });
        assert_eq!((answer.code.as_str(), answer.payload), ("2.05", format!("{} x", id_of(&path)).into_bytes()));
        for more in [&["-m", "get"][..], &["-m", "get", "-s", "1"]] {
            let refused = secure.get(&client, "stranger", &stranger, &path, more);
            assert_eq!(refused.code, "4.03", "{}", refused.shown);
            assert!(!refused.payload.ends_with(b" x"), "{}", refused.shown);
        }
        assert_eq!(secure.get(&client, "stranger", &stranger, "den/note?async", &post).code, "4.03");
        let guessed = format!("den/.calls/{}", "0".repeat(32));
        assert_eq!(get("granted", &granted, &guessed).code, "4.04");
    }
    // Nothing was accepted of those who were refused.
    assert_eq!(host.accepted(&[]).len(), coaps_clients().len());
}
