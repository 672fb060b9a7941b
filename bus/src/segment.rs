//! The segment: a sealed memfd, mapped by the host agent and by the processes of one sandbox.
//!
//! This is the only module that turns offsets into references. Everything it hands out is made of atomics, save the payload
//! buffers, which are handed out as raw pointers with their length.
#![allow(unsafe_code, reason = "the one module that maps the segment")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::bell::Bell;
use crate::catalogue::{Catalogue, Function, FunctionEntry, Name, TargetEntry, narrow};
use crate::layout::{CLASSES, Geometry, Layout, PAGE_BYTES};
use crate::message::MessageHeader;
use crate::pool::Pool;
use crate::queue::{Queue, QueueIndices};
use crate::slot::InstanceSlot;

/// Names what the memory is, and in its last byte the version of the layout: to be raised with every change of it, as native
/// functions are built by themselves and may be older or newer than the host.
const MAGIC: u64 = u64::from_le_bytes(*b"sandbar\x03");
/// The first page. What is written while calls are under way has cache lines of its own.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub(crate) struct Header {
    magic: AtomicU64,
    payload_bytes_max: AtomicU64,
    /// How long an instance looks for a message before it sleeps, in nanoseconds.
    pub(crate) spin_ns: AtomicU64,
    functions: AtomicU32,
    targets: AtomicU32,
    slots: AtomicU32,
    queue_capacity: AtomicU32,
    assured: [AtomicU32; CLASSES],
    common: [AtomicU32; CLASSES],
    application: Name,
    pub(crate) sleepers: Sleepers,
    pub(crate) hints: Hints,
    /// Not 0 while the supervisor has messages in its own hands: the next sweep looks for them, should this be its last word.
    pub(crate) sweeping: AtomicU32,
    /// Rung when a chain has come to its end.
    pub(crate) chain_ended: Bell,
    pub(crate) lingering_pages_max: AtomicU32,
}

/// Who sleeps on a descriptor instead of a word.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub(crate) struct Sleepers {
    /// Not 0 while the supervisor sleeps without a time-out: whoever brings a message wakes it.
    pub(crate) supervisor: AtomicU32,
    /// Not 0 while the agent waits for its event: whoever sends it a message writes to that.
    pub(crate) agent: AtomicU32,
}

/// Where the search for a common free message starts, for each class.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub(crate) struct Hints(pub(crate) [AtomicU32; CLASSES]);

#[cfg(not(loom))]
const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<Header>() <= PAGE_BYTES);
    assert!(offset_of!(Header, magic) == 0);
    assert!(offset_of!(Header, application) == 72);
    assert!(offset_of!(Header, sleepers) == 192);
    assert!(offset_of!(Header, hints) == 256);
    assert!(offset_of!(Header, sweeping) == 320);
    assert!(offset_of!(Header, chain_ended) == 324);
    assert!(offset_of!(Header, lingering_pages_max) == 328);
};

/// A mapped segment.
#[derive(Debug)]
pub struct Segment {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the mapping belongs to no thread, and all that is reached through it is atomic or a raw pointer.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

/// Why a segment could not be made or mapped.
#[derive(Debug)]
pub enum SegmentError {
    /// A system call failed; which one.
    System(&'static str, io::Error),
    /// What was mapped is not a segment.
    NotASegment(&'static str),
}

impl std::fmt::Display for SegmentError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::System(call, _) => write!(f, "the application's segment: {call} failed"),
            Self::NotASegment(why) => write!(f, "the descriptor is no application's segment: {why}"),
        }
    }
}

impl std::error::Error for SegmentError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System(_, error) => Some(error),
            Self::NotASegment(_) => None,
        }
    }
}

fn system(call: &'static str) -> SegmentError {
    SegmentError::System(call, io::Error::last_os_error())
}

impl Segment {
    /// Makes the segment of an application: a memfd that can neither shrink (which would turn the agent's reads into SIGBUS)
    /// nor grow nor be executed.
    ///
    /// # Errors
    /// When the system refuses the memory.
    pub fn create(layout: Layout, catalogue: &Catalogue) -> Result<(Self, OwnedFd), SegmentError> {
        let fd = sealed_memfd(layout.len)?;
        let segment = Self::map(fd.as_fd(), layout)?;
        let header = segment.header();
        let geometry = segment.layout.geometry;
        header.functions.store(narrow(geometry.functions), Ordering::Relaxed);
        header.targets.store(narrow(geometry.targets), Ordering::Relaxed);
        header.slots.store(narrow(geometry.slots), Ordering::Relaxed);
        header.queue_capacity.store(narrow(geometry.queue_capacity), Ordering::Relaxed);
        header.payload_bytes_max.store(geometry.payload_bytes_max as u64, Ordering::Relaxed);
        let counts = header.assured.iter().zip(geometry.assured).chain(header.common.iter().zip(geometry.common));
        for (to, from) in counts {
            to.store(narrow(from), Ordering::Relaxed);
        }
        header.spin_ns.store(catalogue.spin_ns, Ordering::Relaxed);
        header.lingering_pages_max.store(narrow(catalogue.lingering_bytes_max / PAGE_BYTES), Ordering::Relaxed);
        header.application.write(&catalogue.application);
        for (index, function) in catalogue.functions.iter().enumerate().take(geometry.functions) {
            segment.function_entry(index).write(function);
        }
        for (entry, path) in segment.target_entries().iter().zip(&catalogue.targets) {
            entry.path.write(path);
        }
        header.magic.store(MAGIC, Ordering::Release);
        Ok((segment, fd))
    }

    /// Maps a segment from inside its sandbox, taking its geometry from its header.
    ///
    /// # Errors
    /// When it cannot be mapped, or is no segment.
    pub fn attach(fd: BorrowedFd<'_>) -> Result<Self, SegmentError> {
        let len = file_len(fd)?;
        let smallest = Layout::new(Geometry { assured: [0, 0, 0, 1], common: [0; 4], ..Geometry::usual(1, 1, 1) });
        let mut probe = smallest.map_err(|_| SegmentError::NotASegment("no layout"))?;
        if len < PAGE_BYTES {
            return Err(SegmentError::NotASegment("it is shorter than a header"));
        }
        probe.len = PAGE_BYTES;
        let first_page = Self::map(fd, probe)?;
        let header = first_page.header();
        if header.magic.load(Ordering::Acquire) != MAGIC {
            return Err(SegmentError::NotASegment(
                "it is of another version: build the function with the function crate of the Sandbar that runs it",
            ));
        }
        let wide = |word: &AtomicU32| word.load(Ordering::Relaxed) as usize;
        let payload_bytes_max = header.payload_bytes_max.load(Ordering::Relaxed);
        let geometry = Geometry {
            functions: wide(&header.functions),
            targets: wide(&header.targets),
            slots: wide(&header.slots),
            queue_capacity: wide(&header.queue_capacity),
            payload_bytes_max: usize::try_from(payload_bytes_max).unwrap_or(usize::MAX),
            assured: header.assured.each_ref().map(wide),
            common: header.common.each_ref().map(wide),
        };
        let layout = Layout::new(geometry).map_err(|_| SegmentError::NotASegment("its geometry is impossible"))?;
        if layout.len != len {
            return Err(SegmentError::NotASegment("its length does not follow from its geometry"));
        }
        Self::map(fd, layout)
    }

    fn map(fd: BorrowedFd<'_>, layout: Layout) -> Result<Self, SegmentError> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), layout.len, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(system("mmap"));
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or(SegmentError::NotASegment("mapped at 0"))?;
        Ok(Self { base, layout })
    }

    /// How the segment is laid out.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// # Safety
    /// `offset..offset + count * size_of::<T>()` must be a part of the layout, aligned for `T`, and `T` made of atomics
    /// alone.
    unsafe fn at<T>(&self, offset: usize, count: usize) -> &[T] {
        debug_assert!(offset + count * size_of::<T>() <= self.layout.len);
        debug_assert_eq!(offset % align_of::<T>(), 0);
        // SAFETY: the offset lies within the mapping, by the caller's word.
        let start = unsafe { self.base.add(offset) }.cast::<T>().as_ptr();
        // SAFETY: in bounds and aligned by the caller's word; all-atomic contents may change under a shared reference; the
        // mapping lives as long as `self`, and the memfd cannot shrink under it.
        unsafe { std::slice::from_raw_parts(start, count) }
    }

    /// All words that are written before the first process of the sandbox maps the segment, and never after: what it says of its own layout
    /// and of the application. Whoever has kept them can tell whether they were overwritten.
    pub fn constants(&self) -> Vec<u64> {
        const WORD: usize = size_of::<u64>();
        const ENTRY: usize = size_of::<FunctionEntry>() / WORD;
        /// The bell of a function's worker is no constant, nor is whether the function rests.
        const CHANGING: [usize; 2] = [1, ENTRY - 1];
        let Geometry { functions, targets, .. } = self.layout.geometry;
        // SAFETY: up to there the header is one constant word after the other.
        let header: &[AtomicU64] = unsafe { self.at(0, std::mem::offset_of!(Header, sleepers) / WORD) };
        // SAFETY: the layout has that many entries at this offset, each as many words.
        let entries: &[AtomicU64] = unsafe { self.at(self.layout.functions, functions * ENTRY) };
        let entries =
            entries.iter().enumerate().filter(|(at, _)| !CHANGING.contains(&(at % ENTRY))).map(|(_, word)| word);
        // SAFETY: likewise.
        let targets: &[AtomicU64] =
            unsafe { self.at(self.layout.targets, targets * (size_of::<TargetEntry>() / WORD)) };
        header.iter().chain(entries).chain(targets).map(|word| word.load(Ordering::Relaxed)).collect()
    }

    pub(crate) fn header(&self) -> &Header {
        // SAFETY: the header is the first thing of every layout.
        unsafe { &self.at(0, 1)[0] }
    }

    pub(crate) fn function_entry(&self, index: usize) -> &FunctionEntry {
        // SAFETY: the layout has this array at this offset; indexing checks the bounds.
        unsafe { &self.at(self.layout.functions, self.layout.geometry.functions)[index] }
    }

    fn target_entries(&self) -> &[TargetEntry] {
        // SAFETY: the layout has this array at this offset.
        unsafe { self.at(self.layout.targets, self.layout.geometry.targets) }
    }

    /// All instance slots.
    #[must_use]
    pub fn slots(&self) -> &[InstanceSlot] {
        // SAFETY: the layout has this array at this offset.
        unsafe { self.at(self.layout.slots, self.layout.geometry.slots) }
    }

    pub(crate) fn messages(&self) -> &[MessageHeader] {
        // SAFETY: the layout has this array at this offset.
        unsafe { self.at(self.layout.messages, self.layout.geometry.messages()) }
    }

    pub(crate) fn pool(&self) -> Pool<'_> {
        Pool::new(&self.layout, self.messages(), &self.header().hints.0)
    }

    /// Panics, as an index does, when there is no such queue.
    pub(crate) fn queue(&self, queue: usize) -> Queue<'_> {
        // SAFETY: the layout has this array at this offset.
        let indices: &[QueueIndices] = unsafe { self.at(self.layout.queues, self.layout.geometry.queues()) };
        let (first, count) = self.layout.cells_of(queue);
        // SAFETY: the layout gives each of its queues `count` cells from `first` on.
        let cells: &[AtomicU64] = unsafe { self.at(self.layout.cells + first * size_of::<u64>(), count) };
        Queue::new(&indices[queue], cells)
    }

    /// The payload buffer of a message: where it starts, and its length in bytes.
    pub(crate) fn buffer(&self, message: usize) -> (NonNull<u8>, usize) {
        let (offset, len) = self.layout.buffer_of(message);
        // SAFETY: the layout places the whole buffer within the mapping.
        (unsafe { self.base.add(offset) }, len)
    }

    /// Gives the memory of the payload buffers of these messages back to the system; they read as zeros afterwards. Only whole
    /// pages are given back. The caller owns the messages.
    pub(crate) fn drop_buffers(&self, messages: std::ops::Range<usize>) {
        let Some(last) = messages.clone().next_back() else { return };
        let (start, _) = self.layout.buffer_of(messages.start);
        let (last, len) = self.layout.buffer_of(last);
        let start = start.next_multiple_of(PAGE_BYTES);
        let end = (last + len) / PAGE_BYTES * PAGE_BYTES;
        if start < end {
            // SAFETY: the layout places the buffers of neighbouring messages of a class side by side within the mapping.
            let address = unsafe { self.base.add(start) }.as_ptr();
            // SAFETY: whole pages of a shared mapping of ours; nobody reads the buffers of messages that the caller owns. A refusal
            // leaves the memory as it is.
            unsafe { libc::madvise(address.cast(), end - start, libc::MADV_REMOVE) };
        }
    }

    /// Makes a part of the segment present in this process's page tables, which a fork does not copy: what is touched later costs no
    /// fault. `offsets` count from the segment's start; whole pages are made present.
    pub(crate) fn populate(&self, offsets: std::ops::Range<usize>) {
        let start = offsets.start / PAGE_BYTES * PAGE_BYTES;
        let end = offsets.end.next_multiple_of(PAGE_BYTES).min(self.layout.len);
        if start < end {
            // SAFETY: within the mapping.
            let address = unsafe { self.base.add(start) }.as_ptr();
            // SAFETY: it changes no byte. Kernels before 5.14 refuse it: the pages are faulted in when they are touched.
            unsafe { libc::madvise(address.cast(), end - start, libc::MADV_POPULATE_WRITE) };
        }
    }

    /// The application's name, as the catalogue has it.
    #[must_use]
    pub fn application(&self) -> String {
        self.header().application.read()
    }

    /// What the catalogue says of a function; `None` for an index it does not have.
    #[must_use]
    pub fn function(&self, index: usize) -> Option<Function> {
        (index < self.layout.geometry.functions).then(|| self.function_entry(index).read())
    }

    /// Index of the function of this name.
    #[must_use]
    pub fn function_index(&self, name: &str) -> Option<usize> {
        (0..self.layout.geometry.functions).find(|index| self.function_entry(*index).name.is(name))
    }

    /// Index of the function of another application with this path, in the list of those that this one may call.
    #[must_use]
    pub fn target_index(&self, path: &str) -> Option<usize> {
        self.target_entries().iter().position(|entry| entry.path.is(path))
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.layout.len) };
    }
}

fn sealed_memfd(len: usize) -> Result<OwnedFd, SegmentError> {
    let name = c"sandbar-bus";
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a C string.
    let mut fd = unsafe { libc::memfd_create(name.as_ptr(), flags | libc::MFD_NOEXEC_SEAL) };
    if fd < 0 {
        // Kernels before 6.3 do not know MFD_NOEXEC_SEAL.
        // SAFETY: as above.
        fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    }
    if fd < 0 {
        return Err(system("memfd_create"));
    }
    // SAFETY: the kernel has just given us this descriptor.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let length = libc::off_t::try_from(len).map_err(|_| SegmentError::NotASegment("too long"))?;
    // SAFETY: no memory is involved.
    if unsafe { libc::ftruncate(fd.as_raw_fd(), length) } != 0 {
        return Err(system("ftruncate"));
    }
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: no memory is involved.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) } != 0 {
        return Err(system("fcntl(F_ADD_SEALS)"));
    }
    Ok(fd)
}

fn file_len(fd: BorrowedFd<'_>) -> Result<usize, SegmentError> {
    // SAFETY: an all-zero stat is a valid one.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is ours to fill.
    if unsafe { libc::fstat(fd.as_raw_fd(), &raw mut stat) } != 0 {
        return Err(system("fstat"));
    }
    usize::try_from(stat.st_size).map_err(|_| SegmentError::NotASegment("negative length"))
}
