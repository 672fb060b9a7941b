//! Messages to and from one server: datagrams as they are, or those of a session.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant as Time;

use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::ClientError;
use super::session::{Credentials, Session, SessionError};

/// No datagram is larger.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;

/// A socket of its own, and the session over it if there is to be one.
#[derive(Debug)]
pub(super) struct Channel {
    socket: UdpSocket,
    pub(super) to: SocketAddr,
    input: Vec<u8>,
    /// Of a server that is spoken to over coaps.
    credentials: Option<Arc<Credentials>>,
    /// Begun with the first request, and again when the server has ended it.
    session: Option<Session>,
}

impl Channel {
    pub(super) async fn open(to: SocketAddr, credentials: Option<Arc<Credentials>>) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Socket { to, source };
        let any: SocketAddr =
            if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
        let socket = UdpSocket::bind(any).await.map_err(failed)?;
        socket.connect(to).await.map_err(failed)?;
        Ok(Self { socket, to, input: vec![0; DATAGRAM_BYTES_MAX], credentials, session: None })
    }

    /// Makes ready for a request: what came before is of earlier ones, and over coaps there has to be a session.
    pub(super) async fn ready(&mut self, until: Instant) -> Result<(), ClientError> {
        let Some(credentials) = self.credentials.clone() else {
            self.forget_the_past();
            return Ok(());
        };
        self.catch_up();
        if self.session.as_ref().is_some_and(Session::is_open) {
            return Ok(());
        }
        self.session = None;
        let made = self.handshake(&credentials, until).await;
        if made.is_err() {
            self.session = None;
        }
        made
    }

    /// Sends a message.
    pub(super) async fn send(&mut self, message: &[u8]) -> Result<(), ClientError> {
        let Some(session) = &mut self.session else { return self.send_datagram(message).await };
        let sealed = session.seal(message);
        let datagrams = sealed.map_err(|source| ClientError::Session { to: self.to, source })?;
        self.send_all(&datagrams).await
    }

    /// Waits for the next message.
    pub(super) async fn receive(&mut self) -> Result<&[u8], ClientError> {
        let (to, failed) = (self.to, socket_failed(self.to));
        let Some(session) = &mut self.session else {
            let len = self.socket.recv(&mut self.input).await.map_err(failed)?;
            return Ok(&self.input[..len]);
        };
        let message = loop {
            if let Some(message) = session.next_message() {
                break message;
            }
            if session.has_ended() {
                return Err(ClientError::Session { to, source: SessionError::Ended });
            }
            let len = self.socket.recv(&mut self.input).await.map_err(failed)?;
            let received = session.receive(&self.input[..len], Time::now());
            // Flights of the handshake that the server has not heard.
            for datagram in received.map_err(|source| ClientError::Session { to, source })? {
                self.socket.send(&datagram).await.map_err(failed)?;
            }
        };
        self.input[..message.len()].copy_from_slice(&message);
        Ok(&self.input[..message.len()])
    }

    /// Makes the socket readable by nothing but what comes from now on: what came before is of earlier requests, and a look for more of it
    /// would be a system call for each request. When something new comes, all that is there is read.
    fn forget_the_past(&self) {
        let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        self.socket.try_io(Interest::READABLE, nothing).ok();
    }

    /// As [`forget_the_past`](Self::forget_the_past), where what came may have ended the session.
    fn catch_up(&mut self) {
        let Some(session) = &mut self.session else { return self.forget_the_past() };
        while let Ok(len) = self.socket.try_recv(&mut self.input) {
            if session.receive(&self.input[..len], Time::now()).is_err() {
                self.session = None;
                return;
            }
        }
        session.forget_messages();
    }

    async fn handshake(&mut self, credentials: &Arc<Credentials>, until: Instant) -> Result<(), ClientError> {
        let to = self.to;
        let failed = |source| ClientError::Session { to, source };
        let began = Instant::now();
        let (session, mut datagrams) = Session::begin(credentials, Time::now()).map_err(failed)?;
        let session = self.session.insert(session);
        loop {
            for datagram in &datagrams {
                self.socket.send(datagram).await.map_err(socket_failed(to))?;
            }
            if session.is_open() {
                return Ok(());
            }
            if session.has_ended() {
                return Err(failed(SessionError::Ended));
            }
            let look = session.due().map_or(until, |due| until.min(due.into()));
            datagrams = match timeout_at(look, self.socket.recv(&mut self.input)).await {
                Ok(received) => {
                    let len = received.map_err(socket_failed(to))?;
                    session.receive(&self.input[..len], Time::now()).map_err(failed)?
                }
                Err(_) => {
                    let again = if look == until { None } else { session.tick(Time::now()).map_err(failed)? };
                    let silence = || match session.unfinished() {
                        Some(source) => failed(source),
                        None => ClientError::NoAnswer { to, after: began.elapsed() },
                    };
                    again.ok_or_else(silence)?
                }
            };
        }
    }

    async fn send_all(&self, datagrams: &[Vec<u8>]) -> Result<(), ClientError> {
        for datagram in datagrams {
            self.send_datagram(datagram).await?;
        }
        Ok(())
    }

    async fn send_datagram(&self, datagram: &[u8]) -> Result<(), ClientError> {
        self.socket.send(datagram).await.map(drop).map_err(socket_failed(self.to))
    }
}

fn socket_failed(to: SocketAddr) -> impl Fn(io::Error) -> ClientError + Copy {
    move |source| ClientError::Socket { to, source }
}

impl Drop for Channel {
    /// Tells the server, which else keeps the session for as long as it keeps idle ones. There is no waiting for it here.
    fn drop(&mut self) {
        if let Some(session) = self.session.as_mut().filter(|session| session.is_open()) {
            for datagram in session.close() {
                self.socket.try_send(&datagram).ok();
            }
        }
    }
}
