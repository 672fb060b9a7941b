//! What interpreters need beside a worker: the memory for their arenas, and the template from which workers are forked.

use std::ffi::c_void;

use super::process;
use crate::heap::{allocate_arena, free_arena, trim};
use crate::process::Side;
use crate::template;
use crate::worker::give_up;

/// Where an interpreter takes the memory for its allocator's arenas from, so that it lies on huge pages: laid out as CPython's
/// `PyObjectArenaAllocator`. To be handed to it before code is loaded.
#[repr(C)]
#[derive(Debug)]
pub struct ArenaAllocator {
    own: *mut c_void,
    allocate: extern "C" fn(*mut c_void, usize) -> *mut c_void,
    free: extern "C" fn(*mut c_void, *mut c_void, usize),
}

/// Says where arenas come from.
///
/// # Safety
/// `allocator` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandbar_arenas(allocator: *mut ArenaAllocator) {
    let arenas = ArenaAllocator { own: std::ptr::null_mut(), allocate: allocate_arena, free: free_arena };
    // SAFETY: the caller's word.
    unsafe { allocator.write(arenas) };
}

/// In a template, sleeps until a worker is wanted: 1, or 0 when none will be any more.
#[unsafe(no_mangle)]
pub extern "C" fn sandbar_template_next() -> i32 {
    trim();
    let wanted = template::next();
    let mut process = process();
    process.wanted = wanted;
    i32::from(process.wanted.is_some())
}

/// Forks the worker that is wanted: 1 in the worker, 0 in the template.
#[unsafe(no_mangle)]
pub extern "C" fn sandbar_template_fork() -> i32 {
    let process = process();
    let Some(wanted) = process.wanted.as_ref() else { return 0 };
    if !matches!(wanted.fork(), Ok(Side::Child)) {
        // Without room for a process: the supervisor sees that there is none.
        return 0;
    }
    if let Err(error) = wanted.become_worker() {
        give_up(&format_args!("the worker cannot take its own identity: {error}"));
    }
    1
}

/// What the worker that was wanted is to load: the function's name (0), the code (1), the handler (2); its start, and its length in `len`.
///
/// # Safety
/// `len` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sandbar_template_wanted(what: i32, len: *mut usize) -> *const u8 {
    let process = process();
    let request = process.wanted.as_ref().map(|wanted| &wanted.request);
    let part = request.map_or(&[][..], |request| match what {
        0 => &request.name,
        1 => &request.code,
        _ => &request.handler,
    });
    // SAFETY: the caller's word.
    unsafe { *len = part.len() };
    part.as_ptr()
}

/// Ends a template.
#[unsafe(no_mangle)]
pub extern "C" fn sandbar_template_end() -> ! {
    template::end()
}
