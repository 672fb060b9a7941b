//! Tars made byte by byte, so that anything can be wrong with them.

/// What a tar consists of.
pub(crate) const BLOCK: usize = 512;

/// A header of POSIX's format.
pub(crate) fn header(path: &[u8], flag: u8, size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..path.len()].copy_from_slice(path);
    block[100..107].copy_from_slice(b"0000755");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[156] = flag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    summed(block)
}

/// The header with the checksum of what it is now.
pub(crate) fn summed(mut block: [u8; BLOCK]) -> [u8; BLOCK] {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// An empty entry whose header is changed, and then has a right checksum again.
pub(crate) fn changed(path: &str, flag: u8, change: impl Fn(&mut [u8; BLOCK])) -> Vec<u8> {
    let mut block = header(path.as_bytes(), flag, 0);
    change(&mut block);
    summed(block).to_vec()
}

/// An entry with its contents.
pub(crate) fn entry(path: impl AsRef<[u8]>, flag: u8, contents: impl AsRef<[u8]>) -> Vec<u8> {
    let contents = contents.as_ref();
    let mut bytes = header(path.as_ref(), flag, contents.len() as u64).to_vec();
    bytes.extend(contents);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

pub(crate) fn file(path: impl AsRef<[u8]>, contents: impl AsRef<[u8]>) -> Vec<u8> {
    entry(path, b'0', contents)
}

/// A symbolic link (`2`) or a hard one (`1`).
pub(crate) fn link(path: &str, flag: u8, target: &str) -> Vec<u8> {
    changed(path, flag, |block| block[157..157 + target.len()].copy_from_slice(target.as_bytes()))
}

/// A file under a name that is too long for a header, as GNU writes it.
pub(crate) fn long_name(path: impl AsRef<[u8]>) -> Vec<u8> {
    [entry("././@LongLink", b'L', [path.as_ref(), b"\0"].concat()), file("cut", "")].concat()
}

/// A record of an extended header.
pub(crate) fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let digits = |length: usize| length.to_string().len();
    let length = (rest.len()..).find(|length| digits(*length) + rest.len() == *length).unwrap();
    format!("{length}{rest}")
}

/// A file with an extended header before it.
pub(crate) fn extended(records: impl AsRef<[u8]>) -> Vec<u8> {
    [entry("x", b'x', records), file("data", "data")].concat()
}

pub(crate) fn end() -> Vec<u8> {
    vec![0; 2 * BLOCK]
}
