//! Payloads in blocks of every size, as libcoap and aiocoap cut them: up, down, and both ways in one call.

use std::path::PathBuf;
use std::process::Command;

use crate::support::clients::{self, Got, got};
use crate::support::host::Host;
use crate::support::{PATIENCE, program};

const CODE: &str = "\
import hashlib

def echo(event, context):
    return event

def digest(event, context):
    return hashlib.sha256(event).hexdigest()

def make(event, context):
    return bytes(at * 7 % 251 for at in range(int(context.query)))
";

/// The payload's length: of no whole number of blocks of any size.
const LENGTH: usize = 3001;

/// Every size a block may have (RFC 7959, section 2.2), in bytes.
const SIZES: [usize; 7] = [16, 32, 64, 128, 256, 512, 1024];

fn payload() -> Vec<u8> {
    (0..LENGTH).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
}

/// Deploys the functions; gives a file with the payload.
fn deploy(host: &Host) -> PathBuf {
    host.deploy_python("blocks", &["echo", "digest", "make"], CODE);
    let path = host.folder().join("payload");
    std::fs::write(&path, payload()).unwrap();
    path
}

fn digest(file: &PathBuf) -> String {
    let sums = program::run(Command::new("sha256sum").arg(file), PATIENCE).well().text();
    sums.split(' ').next().unwrap().to_owned()
}

/// Requests and calls that the CoAP door has counted.
fn counted(host: &Host) -> (usize, usize) {
    let counted = host.sandbar(&["counts"]).well().text();
    let times = |name: &str| {
        // What was never counted is not told.
        let line = counted.lines().find(|line| line.split_whitespace().nth(1) == Some(name));
        line.map_or(0, |line| line.split_whitespace().nth(2).unwrap().parse().unwrap())
    };
    (times("requests"), times("calls"))
}

/// Has libcoap's client make one call, in blocks of one size: gives its answer, and how many requests it took.
#[track_caller]
fn coap_client(host: &Host, arguments: &[&str], size: usize, path: &str) -> (Got, usize) {
    let before = counted(host);
    let mut client = clients::coap_client().unwrap();
    client.args(arguments).args(["-b", &size.to_string()]);
    let answer = got(&mut client, host.folder(), &host.coap_uri(path));
    let after = counted(host);
    assert_eq!(after.1 - before.1, 1, "one call, in blocks of {size}: {}", answer.shown);
    (answer, after.0 - before.0)
}

/// Up, down and both ways, in blocks of every size.
fn in_blocks_of_every_size(how: &[&str]) {
    let Some(_) = clients::coap_client() else { return };
    let Some(host) = Host::start() else { return };
    let file = deploy(&host);
    let (path, sum) = (file.to_str().unwrap(), digest(&file));
    let post = [how, &["-m", "post", "-f", path]].concat();
    for size in SIZES {
        let blocks = LENGTH.div_ceil(size);
        let (up, requests) = coap_client(&host, &post, size, "blocks/digest");
        assert_eq!((up.code.as_str(), String::from_utf8_lossy(&up.payload)), ("2.04", sum.as_str().into()));
        assert!(requests >= blocks, "{requests} requests for {blocks} blocks up");
        let get = [how, &["-m", "get"]].concat();
        let (down, requests) = coap_client(&host, &get, size, &format!("blocks/make?{LENGTH}"));
        assert_eq!(down.code, "2.05", "{}", down.shown);
        assert!(down.payload == payload(), "{} bytes in blocks of {size}", down.payload.len());
        assert!(requests >= blocks, "{requests} requests for {blocks} blocks down");
        let (both, _) = coap_client(&host, &post, size, "blocks/echo");
        assert_eq!(both.code, "2.04", "{}", both.shown);
        assert!(both.payload == payload(), "{} bytes both ways in blocks of {size}", both.payload.len());
    }
}

#[test]
fn coap_client_sends_and_fetches_blocks_of_every_size() {
    in_blocks_of_every_size(&[]);
}

#[test]
fn coap_client_sends_and_fetches_non_confirmable_blocks_of_every_size() {
    in_blocks_of_every_size(&["-N"]);
}

#[test]
fn aiocoap_sends_and_fetches_blocks() {
    let Some(_) = clients::aiocoap_client() else { return };
    let Some(host) = Host::start() else { return };
    let file = deploy(&host);
    let ask = |arguments: &[&str], path: &str| {
        let mut client = clients::aiocoap_client().unwrap();
        client.args(["--no-color", "--quiet"]).args(arguments).arg(host.coap_uri(path));
        program::run(&mut client, PATIENCE * 2).well().stdout
    };
    let at_file = format!("@{}", file.display());
    for exponent in ["0", "2", "5", "6"] {
        let before = counted(&host);
        let post = ["-m", "POST", "--payload-initial-szx", exponent, "--payload", &at_file];
        assert_eq!(String::from_utf8_lossy(&ask(&post, "blocks/digest")).trim_end(), digest(&file));
        assert!(ask(&post, "blocks/echo").starts_with(&payload()));
        let after = counted(&host);
        assert_eq!(after.1 - before.1, 2);
        assert!(after.0 - before.0 >= 2 * LENGTH.div_ceil(16 << exponent.parse::<u32>().unwrap()));
    }
    let before = counted(&host);
    assert!(ask(&["-m", "GET"], &format!("blocks/make?{LENGTH}")).starts_with(&payload()));
    let after = counted(&host);
    assert_eq!(after.1 - before.1, 1);
    assert!(after.0 - before.0 >= LENGTH.div_ceil(1024));
}
