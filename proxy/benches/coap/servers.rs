//! The servers, each a process of its own that prints its port.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use coap_lite::{CoapRequest, MessageClass, Packet, ResponseType};
use nix::sys::socket::{setsockopt, sockopt};
use sandbar_proxy::coap::{CoapConfig, CoapDoor};
use sandbar_proxy::{ServedApplication, Service};
use sandbar_runtime::outputs::Outputs;
use sandbar_runtime::{Answer, Origin, Outcome, Request};

use crate::processors::start_apart;

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Door,
    Libcoap(PathBuf),
    Bare,
}

impl Kind {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Door => "door",
            Self::Libcoap(_) => "libcoap",
            Self::Bare => "bare loop",
        }
    }
}

/// All that can be measured here.
pub(crate) fn kinds() -> Vec<Kind> {
    let mut kinds = vec![Kind::Door];
    match libcoap() {
        Some(program) => kinds.push(Kind::Libcoap(program)),
        None => println!("SKIPPED: libcoap: no C compiler, or no libcoap3-dev"),
    }
    kinds.push(Kind::Bare);
    kinds
}

/// Compiles libcoap's echo.
fn libcoap() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = folder.join("../target/bench-libcoap");
    let source = folder.join("benches/coap/libcoap.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-Wall", "-o"]).arg(&program).arg(source).arg("-lcoap-3-notls");
    compiler.status().ok()?.success().then_some(program)
}

/// A server that runs.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Server {
    pub(crate) fn start(kind: &Kind) -> Self {
        let own = std::env::current_exe().unwrap();
        let mut command = match kind {
            Kind::Door => Command::new(own),
            Kind::Bare => Command::new(own),
            Kind::Libcoap(program) => Command::new(program),
        };
        command.args(["--serve", kind.name()]).stdout(Stdio::piped());
        let mut child = start_apart(&mut command);
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().parse().unwrap();
        Self { address, child }
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Be one of the servers. What serves is a task of the runtime, as in the command: the thread that waits for the runtime's end would have to be
/// woken by another for each datagram that finds it waiting.
pub(crate) fn serve(kind: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let serving = match kind {
        "door" => runtime.spawn(door()),
        _ => runtime.spawn(bare()),
    };
    runtime.block_on(serving).unwrap();
}

fn announce(address: SocketAddr) {
    println!("{address}");
    std::io::stdout().flush().unwrap();
}

async fn door() {
    // Room to remember every request of a run: a run asks faster than the default has memory for, over 247 s.
    let config = CoapConfig {
        exchanges_max: 64 << 20,
        exchange_bytes_max: 4 << 30,
        exchange_bytes_per_peer_max: 1 << 30,
        ..CoapConfig::default()
    };
    let door = CoapDoor::bind("127.0.0.1:0".parse().unwrap(), Echo, config).unwrap();
    announce(door.local_addr());
    door.serve(std::future::pending()).await;
}

/// Answers at once with what it is sent.
#[derive(Clone, Copy, Debug)]
struct Echo;

impl Service for Echo {
    fn find(&self, _: Origin, _: &str, _: Option<&str>) -> Result<(), Box<Answer>> {
        Ok(())
    }

    fn observable(&self, _: &str, _: Option<&str>) -> bool {
        true
    }

    async fn call(&self, request: Request) -> Answer {
        Answer { payload: request.payload, ..Answer::refused(Outcome::Done, "") }
    }

    fn payload_bytes_max(&self) -> usize {
        1 << 20
    }

    fn outputs(&self) -> Arc<Outputs> {
        Arc::default()
    }

    fn applications(&self, _: Origin) -> Vec<ServedApplication> {
        Vec::new()
    }
}

/// The least there is: one socket, one task, no memory of anything.
async fn bare() {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let receive_buffer_bytes = CoapConfig::default().receive_buffer_bytes;
    setsockopt(&socket, sockopt::RcvBufForce, &receive_buffer_bytes).unwrap();
    announce(socket.local_addr().unwrap());
    let mut bytes = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut bytes).await.unwrap();
        let packet = Packet::from_bytes(&bytes[..length]).unwrap();
        let request = CoapRequest::from_packet(packet, from);
        let Some(mut response) = request.response else { continue };
        response.message.header.code = MessageClass::Response(ResponseType::Changed);
        response.message.payload = request.message.payload;
        let answer = response.message.to_bytes().unwrap();
        socket.send_to(&answer, from).await.unwrap();
    }
}
