//! Google's functions-framework for Python, behind gunicorn with one worker, as it starts it: threads that serve call after call.

use std::fs;
use std::path::Path;

use super::server::Server;
use super::{Peer, Rate, Runs, Skipped, Way};
use crate::stage::{Place, free_port};

const NAME: &str = "functions-framework, Python";
const FUNCTION: &str = "\
import functions_framework

@functions_framework.http
def echo(request):
    return request.get_data()
";

pub(crate) fn peer(folder: &Path) -> (String, Result<Peer, Skipped>) {
    (NAME.to_owned(), start(folder))
}

fn start(folder: &Path) -> Result<Peer, Skipped> {
    // Put there by `scripts/setup.sh bench`.
    let framework = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-venv/bin/functions-framework");
    if !framework.exists() {
        return Err("functions-framework is not installed: run `sh scripts/setup.sh bench`".to_owned().into());
    }
    let source = folder.join("echo.py");
    fs::write(&source, FUNCTION).unwrap();
    let address = free_port("tcp");
    let port = address.rsplit_once(':').map_or("", |(_, port)| port);
    let mut command = Place::First.command(framework);
    command.args(["--target", "echo", "--host", "127.0.0.1", "--port", port]).arg("--source").arg(&source);
    command.current_dir(folder).env("WORKERS", "1").env("PYTHONDONTWRITEBYTECODE", "1");
    let server = Server::start(command, "functions-framework", &address, folder)?;
    Ok(Peer::new(NAME, "none", Rate::Found, Way::Served(format!("http://{address}/"), Runs::Ours(server))))
}
