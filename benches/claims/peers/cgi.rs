//! A process for each request, started by the web server: lighttpd's CGI, which forks and runs the function's program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::server::Server;
use super::{Peer, Rate, Runs, Skipped, Way, function, installed};
use crate::stage::{Place, free_port};

const NAME: &str = "lighttpd, CGI";

pub(crate) fn peer(folder: &Path) -> (String, Result<Peer, Skipped>) {
    (NAME.to_owned(), start(folder))
}

fn start(folder: &Path) -> Result<Peer, Skipped> {
    let lighttpd = installed("lighttpd", "lighttpd")?;
    let root = folder.join("cgi");
    fs::create_dir_all(&root).unwrap();
    let program = root.join("echo.cgi");
    fs::copy(function()?, &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let address = free_port("tcp");
    let port = address.rsplit_once(':').map_or("", |(_, port)| port);
    let configuration = format!(
        "server.document-root = \"{}\"\nserver.bind = \"127.0.0.1\"\nserver.port = {port}\n\
         server.modules = (\"mod_cgi\")\ncgi.assign = (\".cgi\" => \"\")\n\
         server.max-keep-alive-requests = 10000\n",
        root.display()
    );
    let file = folder.join("lighttpd.conf");
    fs::write(&file, configuration).unwrap();
    let mut command = Place::First.command(lighttpd);
    command.arg("-D").arg("-f").arg(&file);
    let server = Server::start(command, "lighttpd", &address, folder)?;
    let url = format!("http://{address}/echo.cgi");
    Ok(Peer::new(NAME, "process, forked and executed", Rate::Found, Way::Served(url, Runs::Ours(server))))
}
