//! What a function calls itself, and what came of it.

use std::cell::RefCell;
use std::ffi::c_char;

use super::{format, process, slice, string};
use crate::callee::CallError;
use crate::instance::{Instance, Served};

thread_local! {
    /// The reply (or the diagnostic) of this thread's last call, until the next one.
    static REPLY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The outcome of a call, as C sees it.
const DONE: i32 = 0;

fn code(error: &CallError) -> i32 {
    match error {
        CallError::NoSuchFunction(_) => -1,
        CallError::TooLarge(_) => -2,
        CallError::Overloaded => -3,
        CallError::Loop => -4,
        CallError::DeadlinePassed => -5,
        CallError::NotListed(_) => -6,
        CallError::Ended(verdict, _) => *verdict as i32,
    }
}

/// Calls another function and waits: 0 when done, else why not. The answer, or the diagnostic, is what [`sandbar_reply`] gives.
///
/// # Safety
/// `function` is a C string, `start..start + len` is readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandbar_call(
    function: *const c_char,
    start: *const u8,
    len: usize,
    content_format: i32,
) -> i32 {
    // SAFETY: the caller's word.
    let function = unsafe { string(function) };
    // SAFETY: the caller's word.
    let payload = unsafe { slice(start, len) };
    in_call(|instance, served| {
        let (answer, _format) = instance.call(served, &function, payload, format(content_format))?;
        Ok(answer)
    })
}

/// Sends to another function and does not wait: 0, or why it was not sent.
///
/// # Safety
/// `function` is a C string, `start..start + len` is readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandbar_send(
    function: *const c_char,
    start: *const u8,
    len: usize,
    content_format: i32,
) -> i32 {
    // SAFETY: the caller's word.
    let function = unsafe { string(function) };
    // SAFETY: the caller's word.
    let payload = unsafe { slice(start, len) };
    in_call(|instance, served| {
        instance.send(served, &function, payload, format(content_format))?;
        Ok(Vec::new())
    })
}

/// What the instance does in the call it serves; the bytes, or the diagnostic, are kept for [`sandbar_reply`].
fn in_call(act: impl FnOnce(&Instance, &Served) -> Result<Vec<u8>, CallError>) -> i32 {
    let process = process();
    let (Some(instance), Some(served)) = (process.instance.as_ref(), process.served.as_ref()) else { return -1 };
    keep(act(instance, served))
}

fn keep(result: Result<Vec<u8>, CallError>) -> i32 {
    let (code, bytes) = match result {
        Ok(answer) => (DONE, answer),
        Err(error) => (code(&error), error.to_string().into_bytes()),
    };
    REPLY.with(|reply| reply.replace(bytes));
    code
}

/// The answer of this thread's last call: its start; its length goes to `len`. Valid until the next call.
///
/// # Safety
/// `len` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandbar_reply(len: *mut usize) -> *const u8 {
    REPLY.with(|reply| {
        let reply = reply.borrow();
        // SAFETY: the caller's word.
        unsafe { *len = reply.len() };
        reply.as_ptr()
    })
}
