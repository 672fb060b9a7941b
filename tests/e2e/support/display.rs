//! A display that observes, by clients that nobody here wrote.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::host::Host;
use super::{clients, until};

/// A client that observes, in a process of its own, which is ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Display {
    client: Child,
    shows: PathBuf,
}

impl Display {
    pub(crate) fn begin(host: &Host, client: &mut Command, name: &str) -> Self {
        let shows = host.folder().join(name);
        let out = File::create(&shows).unwrap();
        let err = out.try_clone().unwrap();
        let before = registered(host);
        let client = client.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap();
        let display = Self { client, shows };
        until(&format!("{name} observes"), || (registered(host) > before).then_some(()));
        display
    }

    /// All that it has shown.
    pub(crate) fn shown(&self) -> String {
        fs::read_to_string(&self.shows).unwrap()
    }

    /// Waits until it shows a text.
    pub(crate) fn shows(&self, text: &str) {
        let shown = std::cell::RefCell::new(String::new());
        let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until("it is shown", || {
                *shown.borrow_mut() = self.shown();
                shown.borrow().contains(text).then_some(())
            });
        }));
        assert!(seen.is_ok(), "{text:?} is not shown: {}", shown.borrow());
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.client.kill().unwrap();
        self.client.wait().unwrap();
    }
}

/// A counter of all doors together.
pub(crate) fn counted(host: &Host, name: &str) -> u64 {
    let doors = host.manage("GET", "/v1/host", b"").json()["doors"].clone();
    doors.as_array().unwrap().iter().filter_map(|door| door["counters"][name].as_u64()).sum()
}

/// Observations that were ever begun.
pub(crate) fn registered(host: &Host) -> u64 {
    counted(host, "observers_registered")
}

/// libcoap's client, to observe for a minute.
pub(crate) fn libcoap(host: &Host, path: &str) -> Option<Command> {
    let mut client = clients::coap_client()?;
    // Written as it comes, each on a line.
    client.args(["-s", "60", "-w", "-v", "6", &host.coap_uri(path)]);
    Some(client)
}

/// aiocoap as programs use it: its client of version 0.4.17 gives an observation up with the first answer.
const AIOCOAP: &str = r#"
import asyncio, sys
from aiocoap import Context, GET, Message

async def main():
    context = await Context.create_client_context()
    request = context.request(Message(code=GET, uri=sys.argv[1], observe=0))
    print((await request.response).payload.decode(), flush=True)
    async for notification in request.observation:
        print(notification.payload.decode(), flush=True)

asyncio.run(main())
"#;

/// A program that observes with aiocoap, and prints each payload on a line; a test without the library is skipped.
pub(crate) fn aiocoap(uri: &str) -> Option<Command> {
    let client = clients::aiocoap_client()?;
    // The interpreter that has the library: the one beside its client.
    let mut command = Command::new(Path::new(client.get_program()).with_file_name("python3"));
    command.args(["-c", AIOCOAP, uri]);
    Some(command)
}
