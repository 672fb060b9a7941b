//! What instances report of their part in traced calls.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg};
use sandbar_bus::trace::{HOP_REPORT_BYTES, HopReport};

use super::Running;
use super::table::Calls;
use crate::call::Hop;

impl Running {
    /// Reads what instances have reported of their part in traced calls.
    pub(super) fn collect_hops(&self, calls: &mut Calls) {
        // More than any honest application has under way.
        for _ in 0..4096 {
            let Some((reports, pid)) = receive_reports(&self.sandbox.trace) else { return };
            if pid == 0 {
                // Nobody can report any more: an instance has shut the socket down, which all of the application share.
                return self.corrupt.notify_one();
            }
            for report in reports {
                let Some(pending) = calls.get_mut(report.call).filter(|pending| pending.traced) else { continue };
                let Ok(function) = usize::try_from(report.function) else { continue };
                let since = |ns: u64| ns.saturating_sub(pending.began_ns);
                let hop = Hop {
                    function: self.function_name(function).to_owned(),
                    pid,
                    sent_ns: since(report.sent_ns),
                    taken_ns: since(report.taken_ns),
                    done_ns: since(report.done_ns),
                };
                pending.hops.push(hop);
            }
        }
    }
}

/// Reports of one process, with its id as the kernel has it, and none at all if the socket was shut down; `None` when there are no more
/// for now.
fn receive_reports(trace: &OwnedFd) -> Option<(Vec<HopReport>, u32)> {
    let mut bytes = [0; HOP_REPORT_BYTES * 16];
    let mut space = nix::cmsg_space!(UnixCredentials);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<()>(trace.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_DONTWAIT).ok()?;
    if message.bytes == 0 {
        return Some((Vec::new(), 0));
    }
    let pid = message.cmsgs().ok()?.find_map(|control| {
        let ControlMessageOwned::ScmCredentials(credentials) = control else { return None };
        u32::try_from(credentials.pid()).ok()
    })?;
    let len = message.bytes;
    Some((bytes[..len].chunks_exact(HOP_REPORT_BYTES).filter_map(HopReport::from_bytes).collect(), pid))
}
