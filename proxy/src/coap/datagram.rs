//! The datagram layer: a UDP socket that knows which local address each datagram was sent to.
//!
//! A socket bound to a wildcard address receives for every address of the host. An answer has to leave from
//! the address that was asked, or its client drops it (and a connected socket of the client never sees it); the
//! kernel tells that address, and takes it back, in a control message (`IP_PKTINFO`, `IPV6_PKTINFO`).
//!
//! The socket is watched for what comes in alone: the kernel tells of room in the send buffer after each datagram that was sent, and the
//! door would wake for each. Who finds no room, which is rare, has it watched for the time being.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{
    self, ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage, setsockopt, sockopt,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;

use super::group::GroupInterface;

/// The largest datagram UDP can carry.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Datagrams taken from the socket by one system call. With fewer than these it has told as well that there are no more.
const DATAGRAMS_AT_ONCE: usize = 16;

/// A peer, as one of our addresses sees it. Messages between the same two endpoints share their message ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Endpoint {
    /// The peer's address and port.
    pub(super) remote: SocketAddr,
    /// The address it asked; `None` when the socket is bound to one.
    pub(super) local: Option<LocalAddress>,
    /// The session it speaks in; `None` in the clear.
    pub(super) session: Option<SessionNumber>,
}

/// Numbers the sessions of a door, each once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SessionNumber(NonZeroU64);

impl Default for SessionNumber {
    fn default() -> Self {
        Self(NonZeroU64::MIN)
    }
}

impl SessionNumber {
    /// The number after this one.
    pub(super) fn next(self) -> Self {
        // There is no time for 2^64 handshakes.
        Self(self.0.saturating_add(1))
    }
}

/// One of our addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum LocalAddress {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address; the interface matters to link-local ones and is 0 for all others.
    V6(Ipv6Addr, u32),
}

/// A datagram to send.
#[derive(Clone, Debug)]
pub(super) struct Transmit {
    /// Where to, and from which address.
    pub(super) to: Endpoint,
    /// The whole datagram; shared with what is remembered of it.
    pub(super) bytes: Arc<[u8]>,
}

/// Why a door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is taken, not ours, or needs a privilege.
    #[error("cannot bind UDP {address}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The layer that protects what is said cannot be set up.
    #[error("cannot set up DTLS on {address}")]
    Dtls {
        /// The address asked for.
        address: SocketAddr,
        /// Why.
        source: super::dtls::DtlsError,
    },
    /// An interface on which groups were to be listened to is not there.
    #[error("there is no network interface {interface}")]
    NoInterface {
        /// As it was asked for.
        interface: GroupInterface,
    },
    /// A group cannot be listened to.
    #[error("cannot listen to the group {group} on {interface}")]
    Group {
        /// The group's address.
        group: IpAddr,
        /// The interface's name.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The bound socket could not be set up.
    #[error("cannot set up the UDP socket on {address}: {step}")]
    SetUp {
        /// The address asked for.
        address: SocketAddr,
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Room for the datagrams that are received at once. Memory that none has reached yet is not there.
#[derive(Debug)]
pub(super) struct ReceiveBuffer {
    bytes: Box<[u8]>,
    /// Those received: their lengths, and who sent them; `None` if nobody can be answered.
    received: Vec<(usize, Option<Endpoint>)>,
}

impl ReceiveBuffer {
    pub(super) fn new() -> Self {
        let bytes = vec![0; DATAGRAMS_AT_ONCE * DATAGRAM_BYTES_MAX].into_boxed_slice();
        Self { bytes, received: Vec::with_capacity(DATAGRAMS_AT_ONCE) }
    }

    /// What was received last.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = (Option<&Endpoint>, &[u8])> {
        let room = self.bytes.chunks_exact(DATAGRAM_BYTES_MAX);
        self.received.iter().zip(room).map(|((length, from), bytes)| (from.as_ref(), &bytes[..*length]))
    }
}

/// The door's socket.
#[derive(Debug)]
pub(super) struct DatagramSocket {
    socket: AsyncFd<OwnedFd>,
    /// Whose turn it is to wait for room in the send buffer.
    crowded: Mutex<()>,
    address: SocketAddr,
    /// Whether datagrams for several of our addresses arrive here.
    wildcard: bool,
}

impl DatagramSocket {
    /// Binds `address`. Has to be called within a tokio runtime.
    pub(super) fn bind(address: SocketAddr, receive_buffer_bytes: usize) -> Result<Self, BindError> {
        let failed = |step| move |source: io::Error| BindError::SetUp { address, step, source };
        let socket = UdpSocket::bind(address).map_err(|source| BindError::Bind { address, source })?;
        socket.set_nonblocking(true).map_err(failed("making it non-blocking"))?;
        let wildcard = address.ip().is_unspecified();
        if wildcard {
            match address.ip() {
                IpAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true),
                IpAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true),
            }
            .map_err(io::Error::from)
            .map_err(failed("asking for the destination of datagrams"))?;
        }
        widen(&socket, receive_buffer_bytes);
        let address = socket.local_addr().map_err(failed("reading the bound address"))?;
        let socket = sandbar_runtime::watch(socket.into()).map_err(failed("registering it with the runtime"))?;
        Ok(Self { socket, crowded: Mutex::new(()), address, wildcard })
    }

    /// A socket that listens to a group, bound and set up. Has to be called within a tokio runtime.
    pub(super) fn listening(socket: socket2::Socket) -> io::Result<Self> {
        let socket = UdpSocket::from(socket);
        let address = socket.local_addr()?;
        Ok(Self { socket: sandbar_runtime::watch(socket.into())?, crowded: Mutex::new(()), address, wildcard: false })
    }

    /// A peer that has sent to a group, as the address sees it from which it is answered here: that of the route to it.
    pub(super) fn seen_by(&self, remote: SocketAddr) -> io::Result<Endpoint> {
        if !self.wildcard {
            return Ok(Endpoint { remote, local: None, session: None });
        }
        // To connect it sends nothing; it has the kernel choose.
        let route = UdpSocket::bind((self.address.ip(), 0))?;
        route.connect(remote)?;
        let local = match route.local_addr()? {
            SocketAddr::V4(v4) => LocalAddress::V4(*v4.ip()),
            SocketAddr::V6(v6) => LocalAddress::V6(*v6.ip(), v6.scope_id()),
        };
        Ok(Endpoint { remote, local: Some(local), session: None })
    }

    /// The bound address; with the port the kernel chose, if it was asked to.
    pub(super) fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Waits for datagrams, and takes one or more.
    pub(super) async fn receive(&self, buffer: &mut ReceiveBuffer) -> io::Result<()> {
        buffer.received.clear();
        loop {
            let mut ready = self.socket.readable().await?;
            match self.receive_now(buffer) {
                Ok(()) => {
                    // Those that come from here on make it ready again.
                    if buffer.received.len() < DATAGRAMS_AT_ONCE {
                        ready.clear_ready();
                    }
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) => return Err(error),
            }
        }
    }

    fn receive_now(&self, buffer: &mut ReceiveBuffer) -> io::Result<()> {
        // The larger of the two control messages; a socket receives one kind.
        let control = self.wildcard.then(|| nix::cmsg_space!(libc::in6_pktinfo));
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(DATAGRAMS_AT_ONCE, control);
        let mut room = buffer.bytes.chunks_exact_mut(DATAGRAM_BYTES_MAX);
        let mut parts: [[IoSliceMut<'_>; 1]; DATAGRAMS_AT_ONCE] =
            std::array::from_fn(|_| [IoSliceMut::new(room.next().unwrap_or_default())]);
        let fd = self.socket.as_raw_fd();
        for message in socket::recvmmsg(fd, &mut headers, &mut parts, MsgFlags::empty(), None)? {
            buffer.received.push((message.bytes, self.sender(&message)));
        }
        Ok(())
    }

    /// Who sent a datagram, if an answer would get there.
    fn sender(&self, message: &RecvMsg<'_, '_, SockaddrStorage>) -> Option<Endpoint> {
        let remote = message.address.as_ref().and_then(socket_address).filter(|remote| remote.port() != 0)?;
        if !self.wildcard {
            return Some(Endpoint { remote, local: None, session: None });
        }
        // Without its control message it is not known where it was sent to.
        let local = message.cmsgs().ok()?.find_map(destination).flatten()?;
        Some(Endpoint { remote, local: Some(local), session: None })
    }

    /// Sends a datagram if the send buffer has room for it.
    pub(super) fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        self.send_now(transmit)
    }

    /// Sends a datagram, waiting up to `wait` for room in the send buffer.
    pub(super) async fn send(&self, transmit: &Transmit, wait: Duration) -> io::Result<()> {
        match self.send_now(transmit) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            sent => return sent,
        }
        tokio::time::timeout(wait, self.send_when_there_is_room(transmit))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn send_when_there_is_room(&self, transmit: &Transmit) -> io::Result<()> {
        // One at a time: each has a descriptor of its own.
        let _turn = self.crowded.lock().await;
        let watched = tokio::net::UdpSocket::from_std(self.socket.get_ref().try_clone()?.into())?;
        watched.async_io(Interest::WRITABLE, || self.send_now(transmit)).await
    }

    fn send_now(&self, transmit: &Transmit) -> io::Result<()> {
        let parts = [IoSlice::new(&transmit.bytes)];
        let to = SockaddrStorage::from(transmit.to.remote);
        let fd = self.socket.as_raw_fd();
        let flags = MsgFlags::empty();
        match transmit.to.local {
            None => socket::sendmsg(fd, &parts, &[], flags, Some(&to)),
            Some(LocalAddress::V4(address)) => {
                let source = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from(address).to_be() },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                let control = [ControlMessage::Ipv4PacketInfo(&source)];
                socket::sendmsg(fd, &parts, &control, flags, Some(&to))
            }
            Some(LocalAddress::V6(address, interface)) => {
                let source = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: address.octets() },
                    ipi6_ifindex: interface,
                };
                let control = [ControlMessage::Ipv6PacketInfo(&source)];
                socket::sendmsg(fd, &parts, &control, flags, Some(&to))
            }
        }?;
        Ok(())
    }
}

impl AsFd for DatagramSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

/// Enlarges the receive buffer: past the system's limit where we may, up to it otherwise.
fn widen(socket: &UdpSocket, bytes: usize) {
    let widened =
        setsockopt(socket, sockopt::RcvBufForce, &bytes).or_else(|_| setsockopt(socket, sockopt::RcvBuf, &bytes));
    // The kernel doubles what was asked for, to count its own bookkeeping.
    let got = socket::getsockopt(socket, sockopt::RcvBuf).unwrap_or(0) / 2;
    if widened.is_err() || got < bytes {
        tracing::warn!(asked = bytes, got, "the receive buffer is smaller than asked: raise net.core.rmem_max");
    }
}

fn socket_address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddrV4::new(v4.ip(), v4.port()).into());
    }
    let v6 = storage.as_sockaddr_in6()?;
    // The flow label is no part of who the peer is.
    Some(SocketAddrV6::new(v6.ip(), v6.port(), 0, v6.scope_id()).into())
}

/// The address a datagram was sent to; `Some(None)` if nobody may answer from it.
fn destination(message: ControlMessageOwned) -> Option<Option<LocalAddress>> {
    if let ControlMessageOwned::Ipv4PacketInfo(info) = message {
        let sent_to = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
        let own = Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr));
        // They differ for groups and broadcasts: the kernel then gives the interface's own address.
        return Some((sent_to == own).then_some(LocalAddress::V4(own)));
    }
    if let ControlMessageOwned::Ipv6PacketInfo(info) = message {
        let sent_to = Ipv6Addr::from(info.ipi6_addr.s6_addr);
        let group =
            sent_to.is_multicast() || sent_to.to_ipv4_mapped().is_some_and(|v4| v4.is_multicast() || v4.is_broadcast());
        let interface = if sent_to.is_unicast_link_local() { info.ipi6_ifindex } else { 0 };
        return Some((!group).then_some(LocalAddress::V6(sent_to, interface)));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coap::CoapConfig;

    #[tokio::test]
    #[allow(clippy::print_stderr, reason = "says aloud what is skipped")]
    async fn the_receive_buffer_is_as_large_as_asked_for() {
        let asked = CoapConfig::default().receive_buffer_bytes;
        let socket = DatagramSocket::bind(([127, 0, 0, 1], 0).into(), asked).unwrap();
        let got = socket::getsockopt(socket.socket.get_ref(), sockopt::RcvBuf).unwrap() / 2;
        if !nix::unistd::geteuid().is_root() {
            return eprintln!("SKIPPED: the system's limit on receive buffers is only for root to pass; {got} bytes");
        }
        assert!(asked >= 4 << 20 && got >= asked, "{got} bytes of {asked}");
    }
}
