//! What is said of requests and answers beside their payload: functions are told, and say themselves.

use crate::support::bundle;
use crate::support::coap::Client;
use crate::support::host::Host;

const PYTHON: &str = "\
def tell(event, context):
    return f'{context.method} {context.path} {context.query} {context.accept} {context.content_format}'

def first(event, context):
    context.set_code('4.04')  # counts for nothing: the output is not the answer
    return event

def last(event, context):
    context.set_code('2.01')
    context.set_max_age(30)
    context.set_etag(b'\\x01\\x02')
    context.set_location('/lamps/1?x=2')
    return f'{context.method} {context.path}'

def unchanged(event, context):
    context.set_code('2.03')
    return event

def wrong(event, context):
    for setter, value in ((context.set_code, '2.31'), (context.set_code, 'x'), (context.set_etag, b''), (context.set_max_age, -1)):
        try:
            setter(value)
        except ValueError as error:
            context.log(error)
        else:
            return 'taken'
    return 'refused'
";

const SHELL: &str =
    "#!/bin/sh\nprintf '%s %s %s %s' \"$SANDBAR_METHOD\" \"$SANDBAR_PATH\" \"$SANDBAR_QUERY\" \"$SANDBAR_ACCEPT\"\n";

fn deploy(host: &Host) {
    let folder = host.folder().join("said");
    let mut manifest = bundle::python_manifest("said", &["tell", "first", "last", "unchanged", "wrong"]);
    manifest.push_str("\n[functions.shell]\nruntime = \"executable\"\ncode = \"shell.sh\"\n");
    let manifest = manifest.replace("[functions.first]\n", "[functions.first]\nnext = \"last\"\n");
    bundle::write(&folder, &[("sandbar.toml", &manifest), ("functions.py", PYTHON), ("shell.sh", SHELL)]);
    host.deploy(&folder);
}

// Methods and options, by their numbers in RFC 7252 and RFC 8132.
const GET: u8 = 1;
const PUT: u8 = 3;
const FETCH: u8 = 5;
const ETAG: u16 = 4;
const LOCATION_PATH: u16 = 8;
const CONTENT_FORMAT: u16 = 12;
const MAX_AGE: u16 = 14;
const URI_QUERY: u16 = 15;
const ACCEPT: u16 = 17;
const LOCATION_QUERY: u16 = 20;

#[test]
fn functions_are_told_of_the_request_over_coap_and_http() {
    let Some(host) = Host::start() else { return };
    deploy(&host);
    let mut client = Client::new(host.coap);
    let options: [(u16, &[u8]); 4] =
        [(CONTENT_FORMAT, &[50]), (URI_QUERY, b"on=1"), (URI_QUERY, b"by=a&b"), (ACCEPT, &[0])];
    let told = client.ask(FETCH, "said/tell/living room/lamp", &options, b"").unwrap();
    assert_eq!((told.code().as_str(), told.text().as_str()), ("2.05", "FETCH living%20room/lamp on=1&by=a%26b 0 50"));
    let told = host.http("DELETE", "/said/tell/a%2Fb/c?x=y", Some("application/cbor"), b"");
    assert_eq!((told.status, told.text().as_str()), (200, "DELETE a%2Fb/c x=y None 60"));
    let told = host.http("PATCH", "/said/shell/a?x", None, b"");
    assert_eq!((told.status, told.text().as_str()), (200, "PATCH a x "));
    assert_eq!(host.call("said/tell", b"").done(), "POST   None None");
    let long = format!("/said/tell?{}", "x".repeat(3000));
    let refused = host.http("POST", &long, None, b"");
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(refused.text().contains("2048 at most"), "{}", refused.text());
}

#[test]
fn functions_say_what_their_answer_is() {
    let Some(host) = Host::start() else { return };
    deploy(&host);
    let mut client = Client::new(host.coap);
    let made = client.ask(PUT, "said/first/of/all", &[], b"").unwrap();
    assert_eq!((made.code().as_str(), made.text().as_str()), ("2.01", "PUT of/all"));
    assert_eq!(made.values(ETAG), [[1, 2]]);
    assert_eq!(made.values(MAX_AGE), [[30]]);
    assert_eq!(made.values(LOCATION_PATH), [&b"lamps"[..], b"1"]);
    assert_eq!(made.values(LOCATION_QUERY), [b"x=2"]);
    let made = host.http("POST", "/said/first", None, b"");
    assert_eq!(made.status, 201);
    for (name, value) in [("location", "/lamps/1?x=2"), ("etag", "\"0102\""), ("cache-control", "max-age=30")] {
        assert_eq!(made.header(name), Some(value), "{name}");
    }
    // The event as the answer, and yet something to say of it.
    let valid = client.ask(GET, "said/unchanged", &[], b"").unwrap();
    assert_eq!(valid.code(), "2.03");
    assert_eq!(host.http("POST", "/said/unchanged", None, b"x").status, 304);
    assert_eq!(host.call("said/wrong", b"").done(), "refused");
}
