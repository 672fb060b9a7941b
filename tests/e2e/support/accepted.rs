//! Calls that are accepted: how one is asked for over HTTP, and what became of it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::host::Host;
use super::{PATIENCE, bundle, http, until_within};

/// The header by which a caller says that it does not wait (RFC 7240).
pub(crate) const RESPOND_ASYNC: (&str, &str) = ("Prefer", "respond-async");

/// How long many calls may take.
pub(crate) const ALL_MAX: Duration = PATIENCE.saturating_mul(3);

/// Functions that answer with the id of their call and the payload: `note` at once, `hold` when the test says that it is over.
pub(crate) const NOTING: &str = r#"
import os, time

def note(event, context):
    context.log(f"made {context.call_id}")
    return f"{context.call_id} {event.decode()}"

def hold(event, context):
    context.log(f"made {context.call_id}")
    while not os.path.exists("/tmp/over"):
        time.sleep(0.01)
    return f"{context.call_id} {event.decode()}"
"#;

/// Posts a call that is not waited for; an error if nobody answers.
pub(crate) fn ask(door: SocketAddr, path: &str, header: (&str, &str), payload: &[u8]) -> io::Result<http::Response> {
    let connection = TcpStream::connect(door)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    http::ask(connection, "POST", path, &[header], payload)
}

/// The id of the call with this location.
pub(crate) fn id_of(location: &str) -> &str {
    let ticket = location.rsplit('/').next().unwrap();
    assert_eq!(ticket.len(), 32, "{location}");
    &ticket[..16]
}

/// All that a location says of a call that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) etag: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) body: String,
}

impl From<http::Response> for Told {
    fn from(response: http::Response) -> Self {
        let header = |name| response.header(name).map(str::to_owned);
        Self {
            status: response.status,
            etag: header("etag"),
            content_type: header("content-type"),
            body: response.text(),
        }
    }
}

impl Host {
    /// Deploys an application of Python functions that may take a minute.
    #[track_caller]
    pub(crate) fn deploy_patient(&self, name: &str, functions: &[&str], code: &str) {
        let folder = self.folder().join(name);
        let manifest = bundle::python_manifest(name, functions).replace("runtime", "timeout = \"60s\"\nruntime");
        bundle::write(&folder, &[("sandbar.toml", &manifest), ("functions.py", code)]);
        self.deploy(&folder);
    }

    /// Has a call accepted, which must go well, and gives its location.
    #[track_caller]
    pub(crate) fn accept(&self, path: &str, payload: &str) -> String {
        let response = ask(self.http, path, RESPOND_ASYNC, payload.as_bytes()).unwrap();
        assert_eq!(response.status, 202, "{}", response.text());
        response.header("location").unwrap().to_owned()
    }

    /// What a location tells now.
    pub(crate) fn told(&self, location: &str) -> Told {
        self.http("GET", location, None, b"").into()
    }

    /// What a location tells once its call has ended.
    #[track_caller]
    pub(crate) fn told_at_the_end(&self, location: &str) -> Told {
        until_within(ALL_MAX, &format!("the call at {location} has ended"), || {
            let told = self.told(location);
            (told.status != 202).then_some(told)
        })
    }

    /// The call at a location has been made, under its own id, with this payload.
    #[track_caller]
    pub(crate) fn assert_made(&self, location: &str, payload: &str) -> Told {
        let told = self.told_at_the_end(location);
        assert_eq!((told.status, told.body.as_str()), (200, format!("{} {payload}", id_of(location)).as_str()));
        told
    }

    /// Accepted calls, as `sandbar calls list` tells of them.
    #[track_caller]
    pub(crate) fn accepted(&self, more: &[&str]) -> Vec<Value> {
        let listed = self.sandbar(&[&["calls", "list", "--json"], more].concat()).well();
        serde_json::from_slice(&listed.stdout).unwrap()
    }

    /// Lets the functions of an application go on that wait until it is over.
    #[track_caller]
    pub(crate) fn end_the_wait(&self, application: &str) {
        let pid = self.first_process(application).pid;
        fs::write(format!("/proc/{pid}/root/tmp/over"), b"").unwrap();
    }

    /// How often each call was made, by its id: as the application's log has it, which lacks what was on its way when the agent was killed.
    #[track_caller]
    pub(crate) fn times_made(&self, application: &str) -> BTreeMap<String, usize> {
        let mut times = BTreeMap::new();
        for line in self.sandbar(&["logs", application]).well().text().lines() {
            if let Some((_, id)) = line.split_once("made ") {
                *times.entry(id.to_owned()).or_insert(0) += 1;
            }
        }
        times
    }
}
