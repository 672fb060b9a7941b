//! The catalogue: what a segment says of its application, for the processes of the sandbox. The host agent writes it once and never
//! reads it.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::bell::Bell;
use crate::layout::{FUNCTIONS_MAX, NEXT_MAX};
use crate::message::NO_FORMAT;

/// Length of a function's or application's name, in bytes, at most.
const NAME_MAX: usize = 64;
/// Length of a target's path, in bytes, at most: two names and two slashes.
const PATH_MAX: usize = 2 * NAME_MAX + 2;

/// What an application is, as its sandbox is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// The application's name.
    pub application: String,
    /// Its functions.
    pub functions: Vec<Function>,
    /// Paths of the functions of other applications that it may call: `/APP` or `/APP/FUNCTION`.
    pub targets: Vec<String>,
    /// How long an instance looks for a message before it sleeps, in nanoseconds.
    pub spin_ns: u64,
    /// Bytes of memory that instances of one chain may hold together after they have served, until the chain ends.
    pub lingering_bytes_max: usize,
}

/// What the catalogue says of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// The function's name.
    pub name: String,
    /// How long one call of it may run, in nanoseconds.
    pub timeout_ns: u64,
    /// Where its output goes, as indices; the first one answers the caller. None: the output is the answer.
    pub next: Vec<usize>,
    /// Instances that its worker keeps ready for calls to come.
    pub ready: Ready,
    /// Format of its output (CoAP Content-Formats registry), unless an instance says another.
    pub content_format: Option<u16>,
}

/// How many instances of a function stand ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// So many, with however few calls.
    pub least: usize,
    /// No more, with however many. The same as `least` where the number is fixed.
    pub most: usize,
}

impl Ready {
    /// Always this number.
    #[must_use]
    pub const fn exactly(number: usize) -> Self {
        Self { least: number, most: number }
    }
}

/// Text of up to `N` bytes.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Text<const N: usize> {
    len: AtomicU32,
    bytes: [AtomicU8; N],
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self { len: AtomicU32::new(0), bytes: [const { AtomicU8::new(0) }; N] }
    }
}

impl<const N: usize> Text<N> {
    pub(crate) fn write(&self, text: &str) {
        let bytes = text.as_bytes();
        for (to, from) in self.bytes.iter().zip(bytes) {
            to.store(*from, Ordering::Relaxed);
        }
        self.len.store(narrow(bytes.len().min(N)), Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> String {
        String::from_utf8_lossy(&self.bytes().collect::<Vec<u8>>()).into_owned()
    }

    fn bytes(&self) -> impl Iterator<Item = u8> {
        let len = (self.len.load(Ordering::Relaxed) as usize).min(N);
        self.bytes[..len].iter().map(|byte| byte.load(Ordering::Relaxed))
    }

    /// Whether it says this. Allocates nothing.
    pub(crate) fn is(&self, text: &str) -> bool {
        self.bytes().eq(text.bytes())
    }
}

/// The application's name, in the header.
pub(crate) type Name = Text<NAME_MAX>;

/// One function, as the processes of the sandbox see it.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub(crate) struct FunctionEntry {
    timeout_ns: AtomicU64,
    /// What the function's worker sleeps on.
    pub(crate) worker: Bell,
    /// Instances the worker keeps ready: at least, and at most.
    ready: [AtomicU16; 2],
    /// Format of its output, unless an instance says another; `NO_FORMAT` for none.
    content_format: AtomicU32,
    next_count: AtomicU32,
    next: [AtomicU32; NEXT_MAX],
    pub(crate) name: Name,
    /// Not zero: no instance is to stand ready, as nothing has been under way for long.
    pub(crate) rests: AtomicU32,
}

/// The path of one function of another application.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub(crate) struct TargetEntry {
    pub(crate) path: Text<PATH_MAX>,
}

#[cfg(not(loom))]
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<FunctionEntry>() == 128);
    assert!(offset_of!(FunctionEntry, worker) == 8);
    assert!(offset_of!(FunctionEntry, next) == 24);
    assert!(offset_of!(FunctionEntry, name) == 56);
    assert!(offset_of!(FunctionEntry, rests) == 124);
    assert!(size_of::<TargetEntry>() == 192);
};

impl FunctionEntry {
    pub(crate) fn write(&self, function: &Function) {
        self.name.write(&function.name);
        self.timeout_ns.store(function.timeout_ns, Ordering::Relaxed);
        for (to, count) in self.ready.iter().zip([function.ready.least, function.ready.most]) {
            to.store(u16::try_from(count).unwrap_or(u16::MAX), Ordering::Relaxed);
        }
        self.content_format.store(function.content_format.map_or(NO_FORMAT, u32::from), Ordering::Relaxed);
        self.next_count.store(narrow(function.next.len().min(NEXT_MAX)), Ordering::Relaxed);
        for (to, from) in self.next.iter().zip(&function.next) {
            to.store(narrow(*from), Ordering::Relaxed);
        }
    }

    pub(crate) fn read(&self) -> Function {
        let next_count = (self.next_count.load(Ordering::Relaxed) as usize).min(NEXT_MAX);
        let next = self.next[..next_count].iter().map(|next| next.load(Ordering::Relaxed) as usize);
        Function {
            name: self.name.read(),
            timeout_ns: self.timeout_ns.load(Ordering::Relaxed),
            next: next.filter(|next| *next < FUNCTIONS_MAX).collect(),
            ready: {
                let [least, most] = self.ready.each_ref().map(|count| usize::from(count.load(Ordering::Relaxed)));
                Ready { least, most }
            },
            content_format: u16::try_from(self.content_format.load(Ordering::Relaxed)).ok(),
        }
    }
}

pub(crate) fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
