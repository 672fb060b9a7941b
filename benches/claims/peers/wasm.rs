//! WebAssembly: a fresh instance for each request. `wasmtime serve` is the peer, with the component `benches/wasm/src/echo.wat`; the other
//! gives the same instances without mapping HTTP to a component's interfaces, and so tells how much of it that mapping is.

use std::path::Path;

use super::server::Server;
use super::{Peer, Rate, Runs, Skipped, WASMTIME, Way, built};
use crate::stage::{Place, free_port};

const COMPONENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/wasm/src/echo.wat");
const ISOLATION: &str = "WebAssembly instance";

pub(crate) fn peers(folder: &Path) -> Vec<(String, Result<Peer, Skipped>)> {
    let bare = "wasmtime behind a bare HTTP server";
    vec![(WASMTIME.to_owned(), serve(folder)), (bare.to_owned(), wasm_server(bare, folder))]
}

fn serve(folder: &Path) -> Result<Peer, Skipped> {
    let address = free_port("tcp");
    let mut command = Place::First.command(built("bench-wasm/release/wasmtime-serve")?);
    // What it does by default with a component of WASI 0.2.
    command.args(["--max-instance-reuse-count", "1", "--addr", &address, COMPONENT]);
    peer(WASMTIME, command, "wasmtime-serve", &address, folder)
}

fn wasm_server(name: &str, folder: &Path) -> Result<Peer, Skipped> {
    let address = free_port("tcp");
    let mut command = Place::First.command(built("bench-wasm/release/wasm-server")?);
    command.arg(&address);
    peer(name, command, "wasm-server", &address, folder)
}

fn peer(name: &str, command: std::process::Command, log: &str, address: &str, folder: &Path) -> Result<Peer, Skipped> {
    let server = Server::start(command, log, address, folder)?;
    Ok(Peer::new(name, ISOLATION, Rate::Most, Way::Served(format!("http://{address}/"), Runs::Ours(server))))
}
