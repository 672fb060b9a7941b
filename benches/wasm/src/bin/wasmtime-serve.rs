//! `wasmtime serve`, from the crate that the command itself is made of: it takes what follows `wasmtime serve`.

use clap::Parser;
use wasmtime_cli::commands::ServeCommand;

fn main() -> wasmtime::Result<()> {
    ServeCommand::parse().execute()
}
