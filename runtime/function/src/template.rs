//! The template: a process that has started a language's interpreter and nothing of the application, from which the workers of that
//! language are forked, so that they share its pages and need not start an interpreter each.
//!
//! The supervisor asks for each worker over a socket and hands what it is to have. The new process is the supervisor's child, and takes
//! everything that a worker's own start would have given it (user, log, filter) before it runs code of the application. What cannot be
//! taken twice (capabilities, Landlock rules) the template was started with, as a worker is.
#![allow(unsafe_code, reason = "descriptors by number, and identity by system calls")]

use std::ffi::CStr;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::AtomicU32;

use crate::process::{self, Side, check, fork_sibling};
use crate::worker::descriptors;

/// Where a template hears of the workers that are wanted: where a worker reports.
pub const CONTROL: RawFd = descriptors::STATUS;
/// What a new worker says first on its status socket, so that the supervisor hears from the kernel which process it is.
pub const FORKED: &[u8] = b"forked\n";
/// What stands in the environment of a template where a worker's has its function's name: as long as a name that is to take its place.
pub const NAME_TO_COME: &str = "----------------------------------------------------------------";
/// Bytes of a request at most.
pub const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Descriptors of a request: the new worker's status socket, and its log.
const DESCRIPTORS: usize = 2;

/// A worker that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The user and group it is to be.
    pub user: u32,
    /// Its function's name.
    pub name: Vec<u8>,
    /// What the interpreter is to load.
    pub code: Vec<u8>,
    /// What is called there.
    pub handler: Vec<u8>,
    /// The filter of system calls that it is to enter, as the kernel takes it.
    pub filter: Vec<u8>,
}

impl Request {
    /// As it goes through the socket: each part after its length.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let user = self.user.to_le_bytes();
        let mut bytes = Vec::new();
        for part in [&user[..], &self.name, &self.code, &self.handler, &self.filter] {
            bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend_from_slice(part);
        }
        bytes
    }

    /// `None` if these bytes are no request.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut next = || {
            let (len, after) = rest.split_first_chunk()?;
            let (part, after) = after.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
            rest = after;
            Some(part.to_vec())
        };
        let user = u32::from_le_bytes(next()?.try_into().ok()?);
        Some(Self { user, name: next()?, code: next()?, handler: next()?, filter: next()? })
    }
}

/// A request, with what came with it.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) request: Request,
    status: RawFd,
    log: RawFd,
}

/// Sleeps until a worker is wanted; `None` when none will be any more.
pub(crate) fn next() -> Option<Wanted> {
    let mut bytes = vec![0u8; REQUEST_BYTES_MAX];
    let mut slice = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // Words, for the alignment of what the kernel writes there; more than two descriptors need.
    let mut space = [0u64; 8];
    // SAFETY: a header of zeros is one without anything.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut slice;
    header.msg_iovlen = 1;
    header.msg_control = space.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&space) as _;
    let received = loop {
        // SAFETY: all that the header names is alive and as long as said.
        let received = unsafe { libc::recvmsg(CONTROL, &raw mut header, libc::MSG_CMSG_CLOEXEC) };
        if received >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            break usize::try_from(received).ok()?;
        }
    };
    // SAFETY: the kernel has filled the header.
    let control = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    // SAFETY: null, or a header in `space`.
    let (kind, len) = unsafe { control.as_ref() }.map(|control| (control.cmsg_type, control.cmsg_len))?;
    if kind != libc::SCM_RIGHTS || len < size_of::<libc::cmsghdr>() + DESCRIPTORS * size_of::<RawFd>() {
        return None;
    }
    // SAFETY: it is a header in `space`.
    let descriptors = unsafe { libc::CMSG_DATA(control) }.cast::<[RawFd; DESCRIPTORS]>();
    // SAFETY: so many follow the header, as was looked at just now.
    let [status, log] = unsafe { descriptors.read_unaligned() };
    Some(Wanted { request: Request::from_bytes(&bytes[..received])?, status, log })
}

impl Wanted {
    /// Forks the worker, which is the supervisor's child; in the template nothing of it is left.
    ///
    /// # Errors
    /// When there is no room for a process.
    pub(crate) fn fork(&self) -> io::Result<Side> {
        let forked = fork_sibling(&AtomicU32::new(0));
        if !matches!(forked, Ok(Side::Child)) {
            for fd in [self.status, self.log] {
                // SAFETY: it came with the request, and nobody uses it.
                unsafe { libc::close(fd) };
            }
        }
        forked
    }

    /// Makes this process the worker that was wanted. From here on it reports to its own status socket.
    ///
    /// # Errors
    /// The step that failed: the process must not go on.
    pub(crate) fn become_worker(&self) -> io::Result<()> {
        for (fd, place) in [(self.status, descriptors::STATUS), (self.log, 1), (self.log, 2)] {
            // SAFETY: nobody else uses what was in this place: it was the template's.
            check(unsafe { libc::dup2(fd, place) }.into())?;
        }
        for fd in [self.status, self.log] {
            // SAFETY: it came with the request and is in its place now.
            check(unsafe { libc::close(fd) }.into())?;
        }
        // SAFETY: the bytes are alive for the call.
        check(unsafe { libc::write(descriptors::STATUS, FORKED.as_ptr().cast(), FORKED.len()) } as _)?;
        let user = self.request.user;
        // SAFETY: no memory is involved.
        check(unsafe { libc::syscall(libc::SYS_setresgid, user, user, user) })?;
        // SAFETY: no memory is involved.
        check(unsafe { libc::syscall(libc::SYS_setresuid, user, user, user) })?;
        // A change of user makes a process undumpable, which closes its own /proc to it.
        // SAFETY: no memory is involved.
        check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) }.into())?;
        self.enter_filter()?;
        self.take_name();
        Ok(())
    }

    fn enter_filter(&self) -> io::Result<()> {
        let instruction = |bytes: &[u8; 8]| {
            let [code, code_too, jt, jf, k @ ..] = *bytes;
            let code = u16::from_ne_bytes([code, code_too]);
            libc::sock_filter { code, jt, jf, k: u32::from_ne_bytes(k) }
        };
        let mut program: Vec<_> = self.request.filter.as_chunks().0.iter().map(instruction).collect();
        let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let program = libc::sock_fprog { len, filter: program.as_mut_ptr() };
        // SAFETY: the program is alive for the call.
        check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) })
    }

    /// Writes the function's name over the place that the environment has for it, which is what others see of this process.
    fn take_name(&self) {
        let Ok(variable) = std::ffi::CString::new(crate::worker::FUNCTION_VARIABLE) else { return };
        // SAFETY: this process has one thread, which does not change its environment meanwhile.
        let place = unsafe { libc::getenv(variable.as_ptr()) };
        if place.is_null() {
            return;
        }
        // SAFETY: the C library gives a C string.
        let len = unsafe { CStr::from_ptr(place) }.count_bytes();
        let name = &self.request.name;
        if name.len() <= len {
            // SAFETY: the string is this process's own, and of this length.
            unsafe { std::ptr::write_bytes(place, 0, len) };
            // SAFETY: as above, and the name is no longer.
            unsafe { std::ptr::copy_nonoverlapping(name.as_ptr(), place.cast(), name.len()) };
        }
    }
}

/// Ends this process as a template whose work is done.
pub(crate) fn end() -> ! {
    process::exit_now(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_was_sent_or_none() {
        let request = Request {
            user: 1003,
            name: b"resize".to_vec(),
            code: b"/app/resize.py".to_vec(),
            handler: Vec::new(),
            filter: vec![6, 0, 0, 0, 0, 0, 255, 127],
        };
        let bytes = request.to_bytes();
        assert_eq!(Request::from_bytes(&bytes), Some(request));
        for len in 0..bytes.len() {
            assert_eq!(Request::from_bytes(&bytes[..len]), None, "the first {len} bytes");
        }
        assert_eq!(Request::from_bytes(&[255; 64]), None);
    }
}
