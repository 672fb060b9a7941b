//! What is wrong with each kind of archive, and what must be said of it.
//!
//! Every one holds an application that would be deployed, so that it is refused for what is wrong with it and for nothing else.

use crate::compressed::{self, gzip, zstd};
use crate::tar::{self, BLOCK, changed, end, entry, extended, file, link, long_name, record};
use crate::zip::{self, End, Entry};

pub(crate) const MANIFEST: &str =
    "name = \"guest\"\nentry = \"echo\"\n[functions.echo]\nruntime = \"python3\"\ncode = \"functions.py\"\n";
pub(crate) const CODE: &str = "def handle(event, context):\n    return event\n";

/// One hostile archive.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    /// A part of what must be said of it.
    pub(crate) said: &'static str,
}

fn kind(name: &'static str, bytes: Vec<u8>, said: &'static str) -> Kind {
    Kind { name, bytes, said }
}

/// The files of an application, as a tar without an end.
pub(crate) fn application() -> Vec<u8> {
    [file("sandbar.toml", MANIFEST), file("functions.py", CODE)].concat()
}

/// A tar of an application, and something more.
fn with(more: Vec<u8>) -> Vec<u8> {
    [application(), more, end()].concat()
}

/// Every kind that fits into memory.
pub(crate) fn all() -> Vec<Kind> {
    [
        paths(),
        not_files(),
        duplicates(),
        amounts(),
        headers(),
        extensions(),
        manifests(),
        compression(),
        zips(),
        zip_entries(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn paths() -> Vec<Kind> {
    let named = |name, path: &[u8], said| kind(name, with(file(path, "escaped")), said);
    vec![
        named("a path upwards", b"../escaped", "leads upwards by `..`"),
        named("a path down and upwards", b"a/../../escaped", "leads upwards by `..`"),
        named("an absolute path", b"/tmp/sandbar-escaped", "is absolute"),
        named("a backslash", b"..\\escaped", "has a backslash in it"),
        named("a drive letter", b"C:escaped", "starts with the letter of a drive"),
        named("an escape sequence", b"a\x1b[2Jb", "has a control character in it"),
        named("a line end in a name", b"a\nsandbar: all is well", "has a control character in it"),
        named("bytes that are no text", b"a\xff\xfe", "is not UTF-8"),
        named("an empty part", b"a//b", "has an empty part between slashes"),
        named("a part that is a dot", b"a/./b", "a part `.` that leads nowhere"),
        named("a file that is a dot", b".", "a part `.` that leads nowhere"),
        named("a file with a slash", b"a/", "ends in a slash, but is no directory"),
        named("a decomposed letter", "e\u{301}".as_bytes(), "Unicode's form NFC"),
        kind("no name", with(changed("", b'0', |_| ())), "\"\" is empty"),
        kind("a prefix upwards", with(changed("a", b'0', |block| block[345..347].copy_from_slice(b".."))), "upwards"),
        kind("a NUL in a name", with(changed("a", b'0', |block| block[2] = b'b')), "a name goes on after a NUL"),
        kind("a name of 256 bytes", with(long_name([b'n'; 256])), "a name longer than 255 bytes"),
        kind("a path of 5000 bytes", with(long_name([b'p'; 5000])), "a long name has 5001 bytes; 4097 are taken"),
        kind("2000 directories", with(long_name("d/".repeat(2000) + "f")), "32 directories inside each other"),
        kind("a path upwards in an extension", with(extended(record("path", "../escaped"))), "leads upwards"),
    ]
}

fn not_files() -> Vec<Kind> {
    let through = [link("out", b'2', "/tmp"), file("out/sandbar-escaped", "escaped")].concat();
    let inward = [link("in", b'2', "functions.py"), link("hard", b'1', "in")].concat();
    let device = |flag| changed("device", flag, |block| block[329..345].copy_from_slice(b"0000001\x000000003\0"));
    vec![
        kind("a link out and a file through it", with(through), "\"out\" is a symbolic link"),
        kind("a link within", with(inward), "\"in\" is a symbolic link"),
        kind("a hard link out", with(link("passwd", b'1', "/etc/passwd")), "\"passwd\" is a hard link"),
        kind("a hard link within", with(link("hard", b'1', "functions.py")), "\"hard\" is a hard link"),
        kind("a link to nowhere", with(changed("link", b'2', |_| ())), "a link leads nowhere"),
        kind("a device by characters", with(device(b'3')), "\"device\" is a device"),
        kind("a device by blocks", with(device(b'4')), "\"device\" is a device"),
        kind("a named pipe", with(changed("pipe", b'6', |_| ())), "\"pipe\" is a named pipe"),
        kind("a directory with contents", with(entry("d", b'5', "contents")), "a directory has contents"),
        kind("a hard link with contents", with(entry("sandbar.toml", b'1', MANIFEST)), "a link leads nowhere"),
        kind("a sparse file", with(entry("s", b'S', "")), "a sparse file, which is not supported"),
        kind("a volume of several", with(entry("m", b'M', "")), "one volume of several, which is not supported"),
        kind("an unknown type", with(entry("u", b'Z', "")), "type 'Z', which is not supported"),
    ]
}

fn duplicates() -> Vec<Kind> {
    let pair = |first: &str, second: &str| with([file(first, "1"), file(second, "2")].concat());
    let directories = [entry("d/", b'5', ""), entry("d/", b'5', "")].concat();
    vec![
        kind("a file twice", pair("a", "a"), "\"a\" is in the archive twice"),
        kind("a manifest twice", with(file("sandbar.toml", MANIFEST)), "\"sandbar.toml\" is in the archive twice"),
        kind("a file twice by a dot", pair("a", "./a"), "\"a\" is in the archive twice"),
        kind("a directory twice", with(directories), "\"d\" is in the archive twice"),
        kind("names that differ in case", pair("Data", "data"), "\"data\" and \"Data\" differ in case only"),
        kind("folders that differ in case", pair("Lib/a", "lib/b"), "\"lib\" and \"Lib\" differ in case only"),
        kind("letters that differ in case", pair("\u{c9}", "\u{e9}"), "differ in case only"),
        kind("letters written in two ways", pair("\u{e9}", "e\u{301}"), "Unicode's form NFC"),
        kind("a file used as a directory", pair("a", "a/b"), "\"a\" is both a file and a directory"),
        kind("a directory used as a file", pair("a/b", "a"), "\"a\" is both a file and a directory"),
    ]
}

fn amounts() -> Vec<Kind> {
    let large = [application(), tar::header(b"large", b'0', 200 << 20).to_vec()].concat();
    let hole = tar::header(b"zeros", b'0', 100 << 20).to_vec();
    let files: Vec<u8> = (0..10_000).flat_map(|number| file(format!("f{number}"), "")).collect();
    let directories: Vec<u8> = (0..400).flat_map(|number| file(format!("{number}/{}f", "d/".repeat(30)), "")).collect();
    vec![
        kind("a file of 200 MiB", large, "\"large\" is too much: a bundle holds up to 134217728 bytes in one file"),
        kind("too many files", with(files), "is too much: a bundle holds up to 10000 files and directories"),
        kind(
            "too many directories",
            with(directories),
            "is too much: a bundle holds up to 10000 files and directories",
        ),
        kind(
            "20 GB of zeros",
            compressed::zeros([application(), hole.clone()].concat()),
            "is a bomb: it decompresses to more than 200 times",
        ),
        kind("20 GB of zeros after the end", compressed::zeros(with(vec![])), "is a bomb"),
        kind(
            "20 GB in an extension",
            compressed::zeros([application(), tar::header(b"x", b'x', 1 << 20).to_vec()].concat()),
            "is not as long as it says",
        ),
        kind("a zstd of blocks of one byte", compressed::zstd_zeros(&[application(), hole].concat()), "is a bomb"),
        kind("gzip without contents, again and again", gzip(b"").repeat(100_000), "this is no archive"),
    ]
}

fn headers() -> Vec<Kind> {
    let whole = with(file("data", [7; 2000]));
    let cut = |from_end: usize| whole[..whole.len() - from_end].to_vec();
    let field = |name, change: fn(&mut [u8; BLOCK]), said| kind(name, with(changed("a", b'0', change)), said);
    let mut flipped = whole.clone();
    flipped[100] ^= 1;
    vec![
        kind("an archive cut off in a header", cut(2 * BLOCK + 2048 + 100), "in the middle of a header"),
        kind("an archive cut off in contents", cut(2 * BLOCK + 1000), "in the middle of an entry"),
        kind("an archive without an end", cut(2 * BLOCK), "in the middle of a header"),
        kind("an archive with half an end", cut(BLOCK), "in the middle of its end mark"),
        kind("a wrong checksum", flipped, "the checksum of a header is wrong"),
        kind("files after the end", [with(vec![]), with(vec![])].concat(), "something follows the end"),
        kind("a byte after the end", [with(vec![0; 5000]), vec![1]].concat(), "something follows the end"),
        field("a format before POSIX", |block| block[257..265].fill(0), "neither of POSIX's format nor of GNU's"),
        field("a negative size", |block| block[124..136].fill(0xff), "a size is negative"),
        field("a size beyond 64 bits", |block| block[124..136].fill(0x81), "a size is beyond all files"),
        field("a size that is no number", |block| block[130] = b'x', "a size is not an octal number"),
        field("a size with a gap", |block| block[130] = 0, "a size is not an octal number"),
        field("a mode that is no number", |block| block[102] = b'9', "a mode is not an octal number"),
    ]
}

fn extensions() -> Vec<Kind> {
    let alone = |name, records: &str, said| kind(name, with(extended(records)), said);
    let huge = |name: &'static str, flag, size, said| kind(name, with(tar::header(b"x", flag, size).to_vec()), said);
    let global = [entry("g", b'g', record("path", "all")), file("a", "")].concat();
    let twice = [entry("l", b'L', "a\0"), long_name("b")].concat();
    let both = [entry("l", b'L', "a\0"), extended(record("path", "b"))].concat();
    let endless = [entry("l", b'L', "name"), file("a", "")].concat();
    // Whoever takes the first size only finds a header in what is contents to all others.
    let hidden = [entry("x", b'x', record("size", "0")), file("data", file("hidden", "hidden"))].concat();
    vec![
        kind("contents that are entries to some", with(hidden), "an entry has two sizes that differ"),
        alone("a size in an extension", &record("size", "1099511627776"), "134217728 bytes in one file"),
        alone("a size beyond 64 bits in an extension", &record("size", "99999999999999999999"), "no number"),
        alone("a negative size in an extension", &record("size", "-4"), "no number"),
        alone("a record that is longer than all", "99 path=b\n", "is not as long as it says"),
        alone("a record that is shorter than it is", "8 path=b\n", "is not as long as it says"),
        alone("a record of no length", "0 path=b\n", "is not as long as it says"),
        alone("a record that gives nothing", "8 path\n\n", "no `=`"),
        alone("a NUL in an extension", &record("path", "a\0b"), "has a NUL in it"),
        alone("an empty path in an extension", &record("path", ""), "is empty"),
        alone("a path twice in an extension", &record("path", "b").repeat(2), "says the same thing twice"),
        alone("a sparse file by extension", &record("GNU.sparse.major", "1"), "sparse file, which is not supported"),
        alone("5000 bytes of path in an extension", &record("path", &"p".repeat(5000)), "longer than 4096 bytes"),
        huge("a long name of 4 GB", b'L', 1 << 32, "a long name has 4294967296 bytes"),
        huge("an extension of 4 GB", b'x', 1 << 32, "an extended header has 4294967296 bytes"),
        huge("an extension for all of 4 GB", b'g', 1 << 32, "an extended header has 4294967296 bytes"),
        kind("one path for all", with(global), "one path or size is given to all entries"),
        kind("two long names", with(twice), "two extensions of one kind"),
        kind("a long name and an extended one", with(both), "two long names"),
        kind("a long name without an end", with(endless), "does not end where it says"),
        kind("an extension for nothing", with(entry("x", b'x', record("path", "b"))), "an extension has no entry"),
    ]
}

fn manifests() -> Vec<Kind> {
    let of = |manifest: Vec<u8>| [file("functions.py", CODE), manifest, end()].concat();
    let folders = ["one/", "two/"]
        .map(|top| [file(format!("{top}sandbar.toml"), MANIFEST), file(format!("{top}functions.py"), CODE)].concat());
    let deep = [file("a/b/sandbar.toml", MANIFEST), file("a/b/functions.py", CODE), end()].concat();
    let long = format!("{MANIFEST}# {}\n", "-".repeat(300_000));
    vec![
        kind(
            "a manifest that is a link",
            of(link("sandbar.toml", b'2', "/etc/passwd")),
            "\"sandbar.toml\" is a symbolic link",
        ),
        kind("a manifest that is a directory", of(entry("sandbar.toml/", b'5', "")), "this is not a regular file"),
        kind("a manifest that is too long", of(file("sandbar.toml", long)), "it is longer than 262144 bytes"),
        kind("a manifest of zeros", of(file("sandbar.toml", [0; 100])), "sandbar.toml:1:"),
        kind("no manifest", of(vec![]), "there is no sandbar.toml at the top"),
        kind("a manifest too deep", deep, "there is no sandbar.toml at the top"),
        kind("two applications", [folders.concat(), end()].concat(), "there is no sandbar.toml at the top"),
        kind("a manifest in capitals", of(file("SANDBAR.TOML", MANIFEST)), "there is no sandbar.toml at the top"),
        kind(
            "a manifest in a folder that is left out",
            of(file("target/sandbar.toml", MANIFEST)),
            "there is no sandbar.toml",
        ),
        kind("nothing", end(), "this is no archive"),
    ]
}

fn compression() -> Vec<Kind> {
    let whole = with(file("data", compressed::noise(5000)));
    let (gz, zst) = (gzip(&whole), zstd(&whole));
    let cut = |bytes: &[u8]| bytes[..bytes.len() - 1000].to_vec();
    let flipped = |bytes: &[u8], from_end: usize| {
        let mut bytes = bytes.to_vec();
        let at = bytes.len() - from_end;
        bytes[at] ^= 1;
        bytes
    };
    let window = [b"\x28\xb5\x2f\xfd\x00".as_slice(), &[21 << 3], b"\x01\0\0"].concat();
    let empty_blocks = [b"\x28\xb5\x2f\xfd\x00\x50".to_vec(), vec![0; 3_000_000]].concat();
    let dictionary = b"\x28\xb5\x2f\xfd\x21\x07\x00\x01\0\0".to_vec();
    vec![
        kind("gzip in gzip", gzip(&gz), "this is no archive"),
        kind("gzip in gzip in gzip", gzip(&gzip(&gz)), "this is no archive"),
        kind("zip in gzip", gzip(&packed(vec![])), "this is no archive"),
        kind("gzip that is cut off", cut(&gz), "in the middle of its compressed data"),
        kind("gzip with a wrong checksum", flipped(&gz, 6), "compressed data is damaged"),
        kind("gzip with something after it", [gz.as_slice(), &[7; 100]].concat(), "compressed data is damaged"),
        kind(
            "gzip with an endless name",
            [b"\x1f\x8b\x08\x08\0\0\0\0\0\0".to_vec(), vec![b'n'; 1 << 20]].concat(),
            "damaged",
        ),
        kind("zstd in gzip", gzip(&zst), "this is no archive"),
        kind("zstd that is cut off", cut(&zst), "compressed data"),
        kind("zstd with a wrong checksum", flipped(&zst, 2), "checksum is wrong"),
        kind("zstd with something after it", [zst.as_slice(), &[7; 100]].concat(), "compressed data is damaged"),
        kind("zstd with a window of 2 GiB", window, "a zstd window of 2147483648 bytes, where 8388608 are taken"),
        kind("zstd of a million blocks of nothing", empty_blocks, "compressed data is damaged"),
        kind("zstd that wants a dictionary", dictionary, "compressed data is damaged"),
        kind("noise", compressed::noise(100_000), "this is no archive"),
        kind("an empty file", vec![], "this is no archive"),
        kind("a script", b"#!/bin/sh\ntouch /tmp/sandbar-escaped\n".to_vec(), "this is no archive"),
        kind("zeros", vec![0; 1 << 20], "this is no archive"),
    ]
}

/// A zip of an application, and something more.
fn packed(more: Vec<Entry>) -> Vec<u8> {
    ended(more, |_| ())
}

fn ended(more: Vec<Entry>, change: impl FnOnce(&mut End)) -> Vec<u8> {
    let entries = [zip::entry("sandbar.toml", MANIFEST.as_bytes()), zip::entry("functions.py", CODE.as_bytes())];
    zip::zip(&[entries.to_vec(), more].concat(), change)
}

fn zips() -> Vec<Kind> {
    let whole = packed(vec![]);
    let comment = packed(vec![])[whole.len() - 22..].to_vec();
    let locator = [b"PK\x06\x07".as_slice(), &[0; 16]].concat();
    let split = whole.len() - 22;
    let sixty_four = [&whole[..split], &locator, &whole[split..]].concat();
    let ends = |name, change: fn(&mut End), said| kind(name, ended(vec![], change), said);
    // Many entries whose contents are the same bytes of the file.
    let shared = zip::entry("zeros", &vec![0; 1 << 20]);
    let offset = Some(whole.windows(4).position(|window| window == b"PK\x01\x02").unwrap().try_into().unwrap());
    let again = |number| Entry { name: format!("zeros{number}").into(), offset, ..shared.clone() };
    let overlapping: Vec<Entry> = std::iter::once(shared.clone()).chain((0..10_000).map(again)).collect();
    vec![
        kind("a zip that is cut off", whole[..whole.len() - 5].to_vec(), "cut off"),
        kind("a zip without a directory", whole[..200].to_vec(), "cut off"),
        kind("a zip with something after it", [whole.as_slice(), b"more"].concat(), "something follows its end"),
        kind("a zip after something", [b"PK\x03\x04".as_slice(), &whole].concat(), "not where it is said to be"),
        kind("a zip with two ends", ended(vec![], |end| end.comment = comment), "there are two ends to choose from"),
        kind("a zip of zip64", sixty_four, "zip64"),
        kind("entries that share their contents", packed(overlapping), "entries overlap"),
        ends("a directory that has more", |end| end.entries = 1, "the directory has more in it than it says"),
        ends("a directory that has less", |end| end.entries = 9, "the directory has less in it than it says"),
        ends("a directory elsewhere", |end| end.offset = 7, "not where it is said to be"),
        ends("a directory of 4 GB", |end| end.bytes = u32::MAX - 1, "not where it is said to be"),
        ends("a part of several", |end| end.disk = 1, "the parts of an archive of several"),
    ]
}

fn zip_entries() -> Vec<Kind> {
    let of = |name, path: &str, change: fn(&mut Entry), said| {
        kind(name, packed(vec![zip::changed(path, b"contents", change)]), said)
    };
    let pair = |first, second| packed(vec![zip::entry(first, b"1"), zip::entry(second, b"2")]);
    let bomb = zip::entry("zeros", &vec![0; 10 << 20]);
    vec![
        of("a path upwards in a zip", "../escaped", |_| (), "leads upwards by `..`"),
        of("an absolute path in a zip", "/tmp/sandbar-escaped", |_| (), "is absolute"),
        of("a backslash in a zip", "..\\escaped", |_| (), "has a backslash in it"),
        of("a NUL in a zip", "a\0b", |_| (), "has a NUL in it"),
        of("a link in a zip", "out", |entry| entry.mode = 0o120_777, "\"out\" is a symbolic link"),
        of("a named pipe in a zip", "pipe", |entry| entry.mode = 0o10_644, "\"pipe\" is a named pipe"),
        of("a device in a zip", "device", |entry| entry.mode = 0o20_644, "\"device\" is a device"),
        of("a socket in a zip", "socket", |entry| entry.mode = 0o140_644, "\"socket\" is of an unknown kind"),
        of("a directory that is none", "d", |entry| entry.mode = 0o40_755, "differ on whether it is a directory"),
        of("a directory with contents in a zip", "d/", |_| (), "a directory has contents"),
        of("an encrypted entry", "a", |entry| entry.flags |= 1, "an encrypted entry, \"a\""),
        of("an unknown method", "a", |entry| entry.method = 95, "compressed by method 95"),
        of("a wrong checksum in a zip", "a", |entry| entry.checksum ^= 1, "an entry's checksum is wrong"),
        of("a size that is less", "a", |entry| entry.size = 3, "not of the size that it says"),
        of("a size that is more", "a", |entry| entry.size = 1 << 20, "not of the size that it says"),
        of("a size of zip64", "a", |entry| entry.size = u32::MAX, "zip64"),
        of(
            "contents that reach into the directory",
            "a",
            |entry| (entry.method, entry.size) = (0, 90),
            "not of the size",
        ),
        of("contents that are no deflate", "a", |entry| entry.packed.fill(0xff), "compressed data is damaged"),
        of("a name that differs", "a", |entry| entry.local_name = b"b".to_vec(), "described in two ways that differ"),
        of("a second name", "a", |entry| entry.extra = b"\x75\x70\x02\0..".to_vec(), "a second name for \"a\""),
        of("bytes that are no text in a zip", "a", |entry| entry.named(b"\x81"), "is not UTF-8"),
        kind("a file twice in a zip", pair("a", "a"), "\"a\" is in the archive twice"),
        kind("names that differ in case in a zip", pair("A", "a"), "differ in case only"),
        kind("a file used as a directory in a zip", pair("a", "a/b"), "\"a\" is both a file and a directory"),
        kind("a bomb in a zip", packed(vec![bomb]), "is a bomb: it decompresses to more than 200 times"),
    ]
}
