//! Tells a service manager how far we are (the protocol of `sd_notify(3)`), if one asked for it.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The doors are open.
pub(crate) const READY: &str = "READY=1";
/// The end has begun.
pub(crate) const STOPPING: &str = "STOPPING=1";

/// Sends a state to the service manager. A manager that cannot be reached is logged and nothing worse.
pub(crate) fn notify(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(socket = ?socket, %error, "cannot notify the service manager");
    }
}

/// The socket is a path, or a name in the abstract name space with an `@` before it.
fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_manager_at_a_path_is_told() {
        let path = std::env::temp_dir().join(format!("sandbar-notify-{}", std::process::id()));
        let manager = UnixDatagram::bind(&path).unwrap();
        let sent = send(path.as_os_str(), READY);
        std::fs::remove_file(&path).unwrap();
        sent.unwrap();
        assert_eq!(received(&manager), "READY=1");
    }

    #[test]
    fn a_manager_in_the_abstract_name_space_is_told() {
        let name = format!("sandbar-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        send(OsStr::new(&format!("@{name}")), STOPPING).unwrap();
        assert_eq!(received(&manager), "STOPPING=1");
    }

    #[test]
    fn a_manager_that_is_gone_is_an_error() {
        assert!(send(OsStr::new("/nonexistent/notify"), READY).is_err());
    }
}
