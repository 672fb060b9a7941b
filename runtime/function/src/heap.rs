//! The worker's heap on huge pages: what a fork costs grows with the number of pages, and one huge page is 512 small ones.
//!
//! Two ways. Python's arenas are taken from memory that is asked to be huge when it is first touched, which makes loading quicker as
//! well; but for the first of them, in which the interpreter itself lives: each instance copies some of that, and copies from small pages
//! are cheaper. All else that is large and in one piece when the code is loaded, the kernel copies to huge pages then (`settle`).
//!
//! Memory is not given away for it: a heap of a few MiB is left as it is, and so is what was touched only here and there. Kernels that
//! have no huge pages, or cannot do it now, leave all as it was.
#![allow(unsafe_code, reason = "memory that others allocate from, and advice on memory of others")]

use std::ffi::c_void;
use std::ops::Range;
use std::ptr;
use std::sync::{Mutex, PoisonError};

/// Bytes of a huge page, where they are these. Elsewhere the kernel takes no advice, or has less to give.
const HUGE: usize = 2 << 20;
const PAGE: usize = 4096;
/// What is smaller than this stays on small pages.
const WORTH_IT: usize = 8 << 20;
/// Of what is to become a huge page, so much must be there: the rest is memory that it costs.
const RESIDENT_MIN: usize = HUGE / PAGE / 8 * 7;
/// What arenas are cut from.
const BLOCK: usize = 4 * HUGE;
/// `MADV_COLLAPSE`, since Linux 6.1.
const COLLAPSE: libc::c_int = 25;

/// Moves what is large and in use of this process's private memory to huge pages. To be called before the first fork; later memory is
/// that of instances, which need little and need it at once.
pub(crate) fn settle() {
    trim();
    arenas().settled = true;
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    let runs = maps.lines().filter_map(heap_mapping).flat_map(|mapping| dense_runs(&mapping));
    // Each costs milliseconds, whatever its size: the kernel waits for all processors.
    runs.filter(|run| run.len() >= WORTH_IT).for_each(|run| collapse(&run));
}

fn collapse(run: &Range<usize>) {
    // SAFETY: what is at an address does not change. Whatever keeps the kernel from it, the memory is as good as before.
    unsafe { libc::madvise(ptr::without_provenance_mut(run.start), run.len(), COLLAPSE) };
}

/// Gives back what the C library holds of memory that nobody uses any more: to each process forked from here a page that is not there is
/// cheaper than one to copy.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it concerns memory only that is in nobody's use.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// The addresses of a line of `/proc/self/maps`, if it is of private memory that is no file's and no stack.
fn heap_mapping(line: &str) -> Option<Range<usize>> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let is_private = fields.next()? == "rw-p";
    let is_heap = matches!(fields.nth(3), None | Some("[heap]"));
    let address = |text| usize::from_str_radix(text, 16).ok();
    let mapping = address(start)?..address(end)?;
    (is_private && is_heap && !arenas().covers(&mapping)).then_some(mapping)
}

/// Where, in a mapping, huge pages would be nearly full; what lies side by side is one run.
fn dense_runs(mapping: &Range<usize>) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut start = mapping.start.next_multiple_of(HUGE);
    while start + HUGE <= mapping.end {
        if resident(start) >= RESIDENT_MIN {
            match runs.last_mut().filter(|run| run.end == start) {
                Some(run) => run.end += HUGE,
                None => runs.push(start..start + HUGE),
            }
        }
        start += HUGE;
    }
    runs
}

/// How many pages are there, of those from this address on that would make a huge one.
fn resident(start: usize) -> usize {
    let mut pages = [0u8; HUGE / PAGE];
    // SAFETY: the buffer has a byte for each page; nothing is read or written at the address.
    let result = unsafe { libc::mincore(ptr::without_provenance_mut(start), HUGE, pages.as_mut_ptr()) };
    if result < 0 { 0 } else { pages.iter().filter(|page| **page & 1 == 1).count() }
}

/// Memory for the arenas of an interpreter's allocator.
#[derive(Debug)]
struct Arenas {
    /// Bytes given out so far.
    given: usize,
    /// What is left of the last block.
    rest: Range<usize>,
    /// All blocks.
    blocks: Vec<Range<usize>>,
    /// From now on nothing comes from blocks: the first touch of a huge page clears all of it, while a caller waits.
    settled: bool,
}

static ARENAS: Mutex<Arenas> = Mutex::new(Arenas { given: 0, rest: 0..0, blocks: Vec::new(), settled: false });

fn arenas() -> std::sync::MutexGuard<'static, Arenas> {
    ARENAS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Arenas {
    fn allocate(&mut self, size: usize) -> *mut c_void {
        self.given = self.given.saturating_add(size);
        if self.settled || self.given <= WORTH_IT || size > BLOCK {
            return map(size);
        }
        if self.rest.len() < size {
            let Some(block) = huge_block() else { return map(size) };
            self.rest = block.clone();
            self.blocks.push(block);
        }
        let start = self.rest.start;
        self.rest.start += size;
        ptr::with_exposed_provenance_mut(start)
    }

    fn covers(&self, mapping: &Range<usize>) -> bool {
        self.blocks.iter().any(|block| block.start < mapping.end && mapping.start < block.end)
    }
}

/// Memory of this size; null if there is none.
fn map(size: usize) -> *mut c_void {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: no address is asked for, so nothing that is mapped changes.
    let start = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED { ptr::null_mut() } else { start }
}

/// A block that begins with a huge page.
fn huge_block() -> Option<Range<usize>> {
    let whole = map(BLOCK + HUGE);
    if whole.is_null() {
        return None;
    }
    let whole = whole.expose_provenance();
    let start = whole.next_multiple_of(HUGE);
    for surplus in [whole..start, start + BLOCK..whole + BLOCK + HUGE] {
        unmap(&surplus);
    }
    // SAFETY: the memory was mapped just now, for this.
    unsafe { libc::madvise(ptr::with_exposed_provenance_mut(start), BLOCK, libc::MADV_HUGEPAGE) };
    Some(start..start + BLOCK)
}

fn unmap(range: &Range<usize>) {
    if !range.is_empty() {
        // SAFETY: the caller has mapped it, and nobody uses it.
        unsafe { libc::munmap(ptr::with_exposed_provenance_mut(range.start), range.len()) };
    }
}

/// Memory for an arena; null if there is none. The first argument is for the allocator's own use, of which there is none.
pub(crate) extern "C" fn allocate_arena(_own: *mut c_void, size: usize) -> *mut c_void {
    arenas().allocate(size)
}

/// Takes an arena back, also one that the interpreter mapped itself before it was told of these.
pub(crate) extern "C" fn free_arena(_own: *mut c_void, start: *mut c_void, size: usize) {
    let start = start.expose_provenance();
    unmap(&(start..start + size));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heap_is_what_is_private_and_of_no_file() {
        let line = "55ec736c0000-55ec73a7f000 rw-p 00000000 00:00 0                          [heap]";
        assert_eq!(heap_mapping(line), Some(0x55ec_736c_0000..0x55ec_73a7_f000));
        assert!(heap_mapping("7fd938043000-7fd9383cc000 rw-p 00000000 00:00 0 ").is_some());
        for other in [
            "7fd938043000-7fd9383cc000 rw-s 00000000 00:01 7    /memfd:sandbar-bus (deleted)",
            "7fd938043000-7fd9383cc000 rw-p 00001000 fe:00 42   /usr/lib/libpython3.11.so",
            "7fd938043000-7fd9383cc000 r--p 00000000 00:00 0 ",
            "7ffd38043000-7ffd383cc000 rw-p 00000000 00:00 0    [stack]",
            "",
        ] {
            assert_eq!(heap_mapping(other), None, "{other}");
        }
    }

    #[test]
    fn only_what_is_nearly_full_is_worth_a_huge_page() {
        let block = huge_block().unwrap();
        // SAFETY: the block is this test's own.
        unsafe { libc::madvise(ptr::with_exposed_provenance_mut(block.start), BLOCK, libc::MADV_NOHUGEPAGE) };
        let touch = |pages: Range<usize>| {
            for page in pages {
                let byte: *mut u8 = ptr::with_exposed_provenance_mut(block.start + page * PAGE);
                // SAFETY: as above, and within it.
                unsafe { byte.write(7) };
            }
        };
        touch(0..RESIDENT_MIN);
        touch(512..512 + RESIDENT_MIN - 1);
        touch(1024..2048);
        assert_eq!(dense_runs(&block), [block.start..block.start + HUGE, block.start + 2 * HUGE..block.end]);
        collapse(&block);
        let first: *const u8 = ptr::with_exposed_provenance(block.start);
        // SAFETY: as above.
        assert_eq!(unsafe { first.read() }, 7, "what was there is there");
        unmap(&block);
    }

    #[test]
    fn arenas_are_cut_from_blocks_once_the_heap_is_large_and_before_it_is_settled() {
        const ARENA: usize = 1 << 20;
        let mut arenas = Arenas { given: 0, rest: 0..0, blocks: Vec::new(), settled: false };
        let take = |arenas: &mut Arenas| arenas.allocate(ARENA).expose_provenance();
        let mut taken: Vec<usize> = (0..WORTH_IT / ARENA).map(|_| take(&mut arenas)).collect();
        assert!(arenas.blocks.is_empty());
        taken.extend((0..=BLOCK / ARENA).map(|_| take(&mut arenas)));
        assert_eq!(arenas.blocks.len(), 2);
        assert!(arenas.blocks.iter().all(|block| block.start % HUGE == 0));
        let mut apart = taken.clone();
        apart.sort_unstable();
        assert!(apart.windows(2).all(|pair| pair[0] + ARENA <= pair[1]), "none is given twice: {apart:x?}");
        arenas.settled = true;
        taken.push(take(&mut arenas));
        assert!(!arenas.blocks[1].contains(taken.last().unwrap()));
        for start in taken {
            free_arena(ptr::null_mut(), ptr::with_exposed_provenance_mut(start), ARENA);
        }
    }
}
