//! An HTTP server that answers each request with its body, from a WebAssembly instance made for it and gone after it: what `wasmtime serve`
//! does, without the part that maps HTTP to the component's interfaces. That part would make it slower, so that this is the harder peer.
//!
//! `wasm-server ADDRESS` prints a line when it listens, and serves until it is killed.

use std::convert::Infallible;
use std::error::Error;
use std::io::Write;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, InstancePre, Linker, Module, PoolingAllocationConfig, Store,
};

/// Copies its input to where its output is expected, so that it has touched both.
const ECHO: &str = r#"
(module
  (memory (export "memory") 2)
  (func (export "handle") (param $len i32) (result i32)
    (memory.copy (i32.const 65536) (i32.const 0) (local.get $len))
    (local.get $len)))
"#;
const OUTPUT_AT: usize = 65536;
const INPUT_BYTES_MAX: usize = 65536;

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("give an address to listen on")?;
    let mut config = Config::new();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(PoolingAllocationConfig::default()));
    let engine = Engine::new(&config)?;
    let prepared = Linker::<()>::new(&engine).instantiate_pre(&Module::new(&engine, ECHO)?)?;
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(serve(&address, prepared))
}

async fn serve(address: &str, prepared: InstancePre<()>) -> Result<(), Box<dyn Error>> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    writeln!(std::io::stdout(), "listening")?;
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let prepared = prepared.clone();
                let respond = service_fn(move |request| respond(prepared.clone(), request));
                tokio::task::spawn_local(http1::Builder::new().serve_connection(TokioIo::new(stream), respond));
            }
        })
        .await
}

async fn respond(prepared: InstancePre<()>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let answered = match request.into_body().collect().await {
        Ok(body) => echo(&prepared, &body.to_bytes()),
        Err(error) => Err(error.into()),
    };
    Ok(match answered {
        Ok(output) => Response::new(Full::new(output)),
        Err(error) => {
            let mut response = Response::new(Full::new(error.to_string().into()));
            *response.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    })
}

fn echo(prepared: &InstancePre<()>, input: &[u8]) -> Result<Bytes, Box<dyn Error>> {
    if input.len() > INPUT_BYTES_MAX {
        return Err("too long".into());
    }
    let mut store = Store::new(prepared.module().engine(), ());
    let instance = prepared.instantiate(&mut store)?;
    let memory = instance.get_memory(&mut store, "memory").ok_or("no memory")?;
    memory.write(&mut store, 0, input)?;
    let handle = instance.get_typed_func::<i32, i32>(&mut store, "handle")?;
    let len = usize::try_from(handle.call(&mut store, i32::try_from(input.len())?)?)?;
    let output = memory.data(&store).get(OUTPUT_AT..OUTPUT_AT + len).ok_or("beyond its memory")?;
    Ok(Bytes::copy_from_slice(output))
}
