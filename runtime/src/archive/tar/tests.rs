use std::io::Read;
use std::process::Command;

use proptest::prelude::*;

use super::*;

/// A header of POSIX's format, without a checksum.
fn block(path: &str, flag: u8, size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..path.len()].copy_from_slice(path.as_bytes());
    block[100..107].copy_from_slice(b"0000644");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[156] = flag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    block
}

/// The block with its checksum.
fn summed(mut block: [u8; BLOCK]) -> [u8; BLOCK] {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn changed(path: &str, flag: u8, size: u64, change: impl Fn(&mut [u8; BLOCK])) -> Vec<u8> {
    let mut block = block(path, flag, size);
    change(&mut block);
    summed(block).to_vec()
}

/// An entry with its contents.
fn entry(path: &str, flag: u8, contents: &[u8]) -> Vec<u8> {
    let mut bytes = summed(block(path, flag, contents.len() as u64)).to_vec();
    bytes.extend(contents);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    while format!("{length}{rest}").len() != length {
        length += 1;
    }
    format!("{length}{rest}")
}

fn end() -> Vec<u8> {
    vec![0; 2 * BLOCK]
}

/// All entries, and the contents of the files.
fn read(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, ArchiveError> {
    let mut tar = TarReader::new(bytes, false);
    let mut entries = Vec::new();
    while let Some(entry) = tar.next_entry()? {
        let mut contents = Vec::new();
        tar.body().take(1 << 20).read_to_end(&mut contents)?;
        entries.push((entry, contents));
    }
    Ok(entries)
}

#[track_caller]
fn refused(parts: &[Vec<u8>], why: &str) {
    let error = read(&parts.concat()).unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
}

fn paths(bytes: &[u8]) -> Vec<String> {
    read(bytes).unwrap().into_iter().map(|(entry, _)| String::from_utf8(entry.path).unwrap()).collect()
}

#[test]
fn entries_come_with_their_contents() {
    let linked = changed("link", b'2', 0, |block| block[157..160].copy_from_slice(b"a/b"));
    let bytes = [entry("d/", b'5', b""), entry("d/f", b'0', &[7; 700]), linked, entry("e", b'0', b""), end()].concat();
    let entries = read(&bytes).unwrap();
    let file = Entry { path: b"d/f".to_vec(), kind: Kind::File, mode: 0o644, size: 700 };
    assert_eq!(entries[1], (file, vec![7; 700]));
    let kinds: Vec<_> = entries.into_iter().map(|(entry, _)| entry.kind).collect();
    assert_eq!(kinds, [Kind::Directory, Kind::File, Kind::SymbolicLink(b"a/b".to_vec()), Kind::File]);
}

#[test]
fn contents_that_nobody_reads_are_passed_over() {
    let bytes = [entry("a", b'0', &[1; 5000]), entry("b", b'0', b"b"), end(), vec![0; 10_240]].concat();
    let mut tar = TarReader::new(bytes.as_slice(), false);
    assert_eq!(tar.next_entry().unwrap().unwrap().path, b"a");
    tar.body().read_exact(&mut [0; 3]).unwrap();
    assert_eq!(tar.next_entry().unwrap().unwrap().path, b"b");
    assert_eq!(tar.next_entry().unwrap(), None);
    assert_eq!(tar.next_entry().unwrap(), None);
}

#[test]
fn long_names_of_every_kind_are_read() {
    let name = "n".repeat(150);
    let prefixed = changed("file", b'0', 0, |block| block[345..350].copy_from_slice(b"where"));
    let pax = entry("x", b'x', (record("mtime", "1.5") + &record("path", &name)).as_bytes());
    let bytes = [
        prefixed,
        entry("long", b'L', format!("{name}\0").as_bytes()),
        entry("cut", b'0', b""),
        pax,
        entry("cut", b'0', b""),
        entry("g", b'g', record("comment", "of git").as_bytes()),
        end(),
    ]
    .concat();
    assert_eq!(paths(&bytes), ["where/file", &name, &name]);
}

#[test]
fn what_other_archivers_write_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(95));
    std::fs::create_dir(dir.path().join("d".repeat(90))).unwrap();
    std::fs::write(dir.path().join(&long), vec![9; 2000]).unwrap();
    std::os::unix::fs::symlink("t".repeat(200), dir.path().join("link")).unwrap();
    for format in ["ustar", "gnu", "posix"] {
        // What is too long for the oldest format stays out of it.
        let names: &[&str] = if format == "ustar" { &["--exclude=link", "."] } else { &["."] };
        let packed =
            Command::new("tar").current_dir(&dir).args(["-c", "-f", "-", "-H", format]).args(names).output().unwrap();
        assert!(packed.status.success(), "{format}: {}", String::from_utf8_lossy(&packed.stderr));
        let entries = read(&packed.stdout).unwrap();
        let file = entries.iter().find(|(entry, _)| entry.path == format!("./{long}").as_bytes());
        assert_eq!(file.unwrap().1, vec![9; 2000], "{format}");
        if format != "ustar" {
            let target = Kind::SymbolicLink(vec![b't'; 200]);
            assert!(entries.iter().any(|(entry, _)| entry.kind == target), "{format}");
        }
    }
}

#[test]
fn an_archive_that_is_cut_off_anywhere_is_refused() {
    let bytes = [entry("x", b'x', record("path", "p").as_bytes()), entry("a", b'0', &[1; 600]), end()].concat();
    assert!(read(&bytes).is_ok());
    for length in 0..bytes.len() {
        let error = read(&bytes[..length]).unwrap_err();
        assert!(matches!(error, ArchiveError::Truncated(_)), "cut at {length}: {error}");
    }
}

#[test]
fn what_follows_the_end_is_refused() {
    let file = entry("a", b'0', b"a");
    refused(&[file.clone(), end(), file.clone()], "something follows the end");
    refused(&[file.clone(), end(), vec![0; 20_000], vec![1]], "something follows the end");
    refused(&[file.clone(), vec![0; BLOCK], file], "something follows the end");
}

#[test]
fn a_header_must_be_whole() {
    let mut flipped = entry("a", b'0', b"");
    flipped[0] ^= 1;
    refused(&[flipped, end()], "checksum of a header is wrong");
    let of = |change: fn(&mut [u8; BLOCK])| [changed("a", b'0', 0, change), end()];
    refused(&of(|block| block[257..265].fill(0)), "neither of POSIX's format nor of GNU's");
    refused(&of(|block| block[508..512].copy_from_slice(b"tar\0")), "star's own format");
    refused(&of(|block| block[3] = b'x'), "goes on after a NUL");
    refused(&of(|block| block[126] = b'9'), "a size is not an octal number");
    refused(&of(|block| block[126] = b'-'), "a size is not an octal number");
    refused(&of(|block| block[126] = b' '), "a size is not an octal number");
    refused(&of(|block| block[124..136].fill(0xff)), "a size is negative");
    refused(&of(|block| block[124..136].fill(0xbf)), "beyond all files");
    refused(&of(|block| block[124..136].copy_from_slice(b"777777777777")), "in the middle of an entry");
    let nine_of_base_256 = changed("a", b'0', 0, |block| {
        block[124..136].copy_from_slice(b"\x80\0\0\0\0\0\0\0\0\0\0\x09");
    });
    let contents = [b"123456789".to_vec(), vec![0; BLOCK - 9]].concat();
    assert_eq!(read(&[nine_of_base_256, contents, end()].concat()).unwrap()[0].1, b"123456789");
}

#[test]
fn extensions_must_be_sound_and_have_an_entry() {
    let file = entry("a", b'0', b"a");
    let pax = |text: &str| entry("x", b'x', text.as_bytes());
    for (text, why) in [
        ("99 path=b\n", "not as long as it says"),
        ("9 path=b\n0", "not as long as it says"),
        ("0 path=b\n", "not as long as it says"),
        ("+10 path=b\n", "not as long as it says"),
        ("18446744073709551617 path=b\n", "not as long as it says"),
        ("10 path=bb", "not as long as it says"),
        ("7 path\n", "has no `=`"),
        ("8 path=\n", "is empty"),
        ("11 path=b\0\n", "has a NUL"),
        ("9 size=\n", "not as long as it says"),
        ("8 size=\n", "no number"),
        ("10 size=-1\n", "not as long as it says"),
        ("11 size=-1\n", "no number"),
        ("28 size=9999999999999999999\n", "no number"),
        ("22 GNU.sparse.major=1\n", "sparse file, which is not supported"),
        ("10 path=b\n10 path=c\n", "same thing twice"),
        ("10 size=9\n", "two sizes that differ"),
    ] {
        refused(&[pax(text), file.clone(), end()], why);
    }
    let long = |flag, text: &str| entry("l", flag, text.as_bytes());
    refused(&[pax("10 path=b\n"), end()], "an extension has no entry");
    refused(&[long(b'L', "b\0"), end()], "an extension has no entry");
    refused(&[long(b'L', "b\0"), long(b'L', "c\0"), file.clone(), end()], "two extensions of one kind");
    refused(&[long(b'L', "b\0"), pax("10 path=c\n"), file.clone(), end()], "two long names");
    refused(&[long(b'L', "b"), file.clone(), end()], "does not end where it says");
    refused(&[long(b'L', "b\0c\0"), file.clone(), end()], "does not end where it says");
    refused(&[long(b'L', "\0"), file.clone(), end()], "a long name is empty");
    refused(&[entry("g", b'g', b"10 path=b\n"), file.clone(), end()], "given to all entries");
    refused(&[pax("10 path=b\n"), entry("g", b'g', b""), file, end()], "an extension has no entry");
}

/// A source that tells what it was asked for.
struct Endless {
    head: Vec<u8>,
    read: u64,
}

impl Read for Endless {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let head = (&self.head[usize::try_from(self.read).unwrap().min(self.head.len())..]).read(into)?;
        let read = if head == 0 { into.len() } else { head };
        self.read += read as u64;
        Ok(read)
    }
}

#[test]
fn extensions_that_are_too_large_are_refused_before_they_are_read() {
    let pax = record("path", &"p".repeat(PATH_BYTES_MAX + 1));
    refused(&[entry("x", b'x', pax.as_bytes()), end()], "longer than 4096 bytes");
    for (flag, size) in [(b'L', 1 << 32), (b'K', 4098), (b'x', EXTENSION_BYTES_MAX + 1), (b'g', 1 << 32)] {
        let mut source = Endless { head: summed(block("a", flag, size)).to_vec(), read: 0 };
        let error = TarReader::new(&mut source, false).next_entry().unwrap_err().to_string();
        assert!(error.contains(&format!("has {size} bytes")), "{error}");
        assert_eq!(source.read, BLOCK as u64, "nothing more is read");
    }
}

#[test]
fn what_is_not_supported_is_said() {
    for (flag, what) in [(b'S', "a sparse file"), (b'M', "one volume of several"), (b'D', "incremental"), (b'?', "'?'")]
    {
        refused(&[entry("a", flag, b""), end()], what);
    }
    refused(&[entry("a", b'2', b""), end()], "a link leads nowhere");
    refused(&[entry("a", b'5', b"contents"), end()], "a directory has contents");
    refused(&[entry("a", b'6', b"contents"), end()], "a named pipe has contents");
    let link = changed("a", b'1', 512, |block| block[157] = b'b');
    refused(&[link, entry("b", b'0', b""), end()], "a hard link has contents");
}

/// A tar with everything in it, so that there is much to break.
fn specimen() -> Vec<u8> {
    [
        entry("g", b'g', record("comment", "of git").as_bytes()),
        entry("d/", b'5', b""),
        entry("x", b'x', (record("path", "d/long") + &record("size", "700") + &record("mtime", "1")).as_bytes()),
        entry("d/f", b'0', &[b'1'; 700]),
        entry("l", b'L', b"d/other\0"),
        entry("k", b'K', b"target\0"),
        changed("link", b'2', 0, |block| block[157] = b't'),
        end(),
    ]
    .concat()
}

#[derive(Clone, Debug)]
enum Change {
    Byte(usize, u8),
    Digits(usize, u64),
    Cut(usize),
    Move(usize, usize),
}

fn change(length: usize) -> impl Strategy<Value = Change> {
    let blocks = length / BLOCK;
    prop_oneof![
        (0..length, any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        (0..blocks, 0..u64::from(u32::MAX) * 16).prop_map(|(block, size)| Change::Digits(block, size)),
        (0..length).prop_map(Change::Cut),
        (0..blocks, 0..blocks).prop_map(|(from, to)| Change::Move(from, to)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let in_range = |at: usize, bytes: &[u8]| at.saturating_add(BLOCK) <= bytes.len();
    match *change {
        Change::Byte(at, byte) if at < bytes.len() => bytes[at] = byte,
        Change::Digits(block, size) if in_range(block * BLOCK, bytes) => {
            let at = block * BLOCK + 124;
            bytes[at..at + 11].copy_from_slice(format!("{:011o}", size & OCTAL_SIZE_MAX).as_bytes());
        }
        Change::Cut(length) => bytes.truncate(length),
        Change::Move(from, to) if in_range(from * BLOCK, bytes) && in_range(to * BLOCK, bytes) => {
            bytes.copy_within(from * BLOCK..(from + 1) * BLOCK, to * BLOCK);
        }
        Change::Byte(..) | Change::Digits(..) | Change::Move(..) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// However an archive is changed, reading it ends, takes no more than there is, and gives no more than that.
    #[test]
    fn a_changed_archive_is_read_or_refused(
        changes in proptest::collection::vec(change(specimen().len()), 1..6),
        sum_again in any::<bool>(),
    ) {
        let mut bytes = specimen();
        changes.iter().for_each(|change| apply(&mut bytes, change));
        if sum_again {
            // Otherwise hardly anything would get past the checksums.
            for block in bytes.as_chunks_mut::<BLOCK>().0 {
                if &block[257..262] == b"ustar" {
                    *block = summed(*block);
                }
            }
        }
        if let Ok(entries) = read(&bytes) {
            let contents: usize = entries.iter().map(|(_, contents)| contents.len()).sum();
            prop_assert!(contents + entries.len() * BLOCK <= bytes.len());
            for (entry, contents) in entries {
                prop_assert_eq!(entry.size, contents.len() as u64);
                prop_assert!(entry.path.len() <= PATH_BYTES_MAX && !entry.path.contains(&0));
            }
        }
    }

    #[test]
    fn noise_is_refused(bytes in proptest::collection::vec(any::<u8>(), 1..4096)) {
        prop_assert!(read(&bytes).is_err());
    }
}
