//! What there is to call is found: at a host, and by asking all hosts of a network (RFC 6690; RFC 7252, section 8).

use std::net::SocketAddr;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use crate::support::clients::{self, got};
use crate::support::host::Host;
use crate::support::{PATIENCE, program, skipped, until};

/// A filter, and how many links of the example `thermostat` pass it.
const FILTERS: [(&str, usize); 6] = [
    ("", 5),
    ("?rt=sandbar.application", 1),
    ("?rt=sandbar.*", 5),
    ("?href=/thermostat/a*", 3),
    ("?rt=sandbar.function&href=/thermostat/alarm", 1),
    ("?rt=nothing.has.it", 0),
];

/// The network of a group's test, one interface beside loopback. It has no address that the kernel makes: such a one is not to be used
/// before others have had a second or two to say that it is theirs, and would come to be in the midst of a test.
const NETWORK: [&str; 8] = [
    "link set lo up",
    "link add v0 type veth peer name v1",
    "link set v0 addrgenmode none",
    "link set v0 up",
    "link set v1 up",
    "addr add 10.9.0.1/24 dev v0",
    "route add 224.0.0.0/4 dev v0",
    "-6 addr add fe80::9/64 dev v0 nodad",
];

#[track_caller]
fn assert_lists(list: &[u8], links: usize, filter: &str) {
    let list = String::from_utf8_lossy(list);
    assert_eq!(list.matches("</thermostat").count(), links, "{filter}: {list}");
}

#[test]
fn coap_client_finds_what_there_is() {
    let Some(host) = Host::start() else { return };
    host.deploy_example("thermostat");
    for (filter, links) in FILTERS {
        let Some(mut client) = clients::coap_client() else { return };
        let uri = host.coap_uri(&format!(".well-known/core{filter}"));
        let answer = got(client.args(["-m", "get"]), host.folder(), &uri);
        assert_eq!(answer.code, "2.05", "{filter}: {}", answer.shown);
        assert_lists(&answer.payload, links, filter);
    }
}

#[test]
fn aiocoap_finds_what_there_is() {
    let Some(host) = Host::start() else { return };
    host.deploy_example("thermostat");
    for (filter, links) in FILTERS {
        let Some(mut client) = clients::aiocoap_client() else { return };
        let uri = host.coap_uri(&format!(".well-known/core{filter}"));
        let answer = program::run(client.args(["--no-pretty-print", &uri]), PATIENCE).well();
        assert_lists(&answer.stdout, links, filter);
    }
}

/// Where this thread, and what it starts, is alone with the network that it makes.
fn network() -> Option<()> {
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
        skipped(&format!("no network namespace: {errno}"));
        return None;
    }
    for arguments in NETWORK {
        let made = program::run(Command::new("ip").args(arguments.split(' ')), PATIENCE);
        if made.code != Some(0) {
            skipped(&format!("ip {arguments}: {}", made.stderr));
            return None;
        }
    }
    // A kernel that is busy finds out later; until then nothing that is sent to a group has a way.
    until("v0 is up", || {
        let shown = program::run(Command::new("ip").args(["-o", "link", "show", "v0"]), PATIENCE).well();
        String::from_utf8_lossy(&shown.stdout).contains(" state UP ").then_some(())
    });
    Some(())
}

fn in_a_network_of_its_own(test: impl FnOnce() + Send + 'static) {
    let alone = std::thread::Builder::new().name("in a network of its own".to_owned());
    if let Err(panicked) = alone.spawn(|| network().map(|()| test())).unwrap().join() {
        std::panic::resume_unwind(panicked);
    }
}

/// A host with a door that listens to groups, and the port of that door.
fn host_in_a_group(door: &str) -> Option<(Host, u16)> {
    let host = Host::start_with(&["--coap", door, "--coap-group", "v0", "--coap-leisure", "300ms"])?;
    host.deploy_example("thermostat");
    let doors = host.manage("GET", "/v1/host", b"").json();
    let mut addresses = doors["doors"].as_array().unwrap().iter().filter(|door| door["protocol"] == "coap");
    let address: SocketAddr = addresses.nth(1).unwrap()["address"].as_str().unwrap().parse().unwrap();
    Some((host, address.port()))
}

fn counted(host: &Host, name: &str) -> u64 {
    host.manage("GET", "/v1/host", b"").json()["doors"][1]["counters"][name].as_u64().unwrap()
}

#[test]
fn coap_client_asks_all_hosts_and_hears_those_that_have_something_to_tell() {
    in_a_network_of_its_own(|| {
        let Some((host, port)) = host_in_a_group("0.0.0.0:0") else { return };
        for (answers, filter, links) in [(1, "?rt=sandbar.application", 1), (1, "?rt=nothing.has.it", 0)] {
            let Some(mut client) = clients::coap_client() else { return };
            let uri = format!("coap://224.0.1.187:{port}/.well-known/core{filter}");
            // It listens to its end, as it cannot know how many answer.
            let heard = program::run(client.args(["-N", "-B", "3", "-m", "get", &uri]), PATIENCE);
            assert_lists(&heard.stdout, links, filter);
            assert_eq!(counted(&host, "group_answers"), answers, "{filter}");
        }
        assert_eq!((counted(&host, "group_requests"), counted(&host, "group_unmatched")), (2, 1));
    });
}

#[test]
fn aiocoap_asks_all_hosts_of_a_link() {
    in_a_network_of_its_own(|| {
        let Some((host, port)) = host_in_a_group("[::]:0") else { return };
        let Some(mut client) = clients::aiocoap_client() else { return };
        // It takes the zone as it is, not escaped as RFC 6874 has it.
        let uri = format!("coap://[ff02::fd%v0]:{port}/.well-known/core?rt=sandbar.application");
        let heard = program::run(client.args(["--non", "--no-pretty-print", &uri]), PATIENCE).well();
        assert_lists(&heard.stdout, 1, "by a group");
        assert_eq!(counted(&host, "group_answers"), 1);
    });
}

#[test]
fn a_group_that_no_door_can_be_asked_by_is_refused_at_the_start() {
    let Some(host) = Host::start() else { return };
    for (interface, why) in [("all", "open one with --coap"), ("nowhere0", "no network interface nowhere0")] {
        let mut serve = host.serve_command();
        let other = |name: &str| host.folder().join(format!("other-{name}"));
        serve.arg("--coap-group").arg(interface);
        let arguments: Vec<_> = serve.get_args().map(ToOwned::to_owned).collect();
        // Another state and socket: this host has its own.
        let mut second = Command::new(serve.get_program());
        let mut next = None;
        for argument in arguments {
            let replaced = next.take().map(|name: &str| other(name).into_os_string());
            next = match argument.to_str() {
                Some("--state") => Some("state"),
                Some("--socket") => Some("socket"),
                _ => None,
            };
            second.arg(replaced.unwrap_or(argument));
        }
        let ended = program::run(&mut second, PATIENCE);
        assert!(ended.code != Some(0) && ended.stderr.contains(why), "{interface}: {:?} {}", ended.code, ended.stderr);
    }
}
