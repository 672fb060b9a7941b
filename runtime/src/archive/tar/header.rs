//! The header block of a tar, as POSIX (ustar) and GNU write it.
//!
//! ```text
//! 0      100  108  116  124   136    148       156   157      257    263  265                345     500
//! │ name │mode│uid │gid │size │mtime │checksum │type │linkname│magic │vers│ users, devices   │prefix │
//! ```

use super::BLOCK;

const CHECKSUM: std::ops::Range<usize> = 148..156;

/// What one block says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) size: u64,
    /// Seconds since 1970; zero if it is something that is not so written, such as a time before.
    pub(super) modified: u64,
    /// What the block is for.
    pub(super) flag: u8,
}

impl Header {
    /// Reads a block, all of whose parts that we use must be as they should.
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Self, String> {
        let written = octal(&block[CHECKSUM]).map_err(|what| format!("the checksum {what}"))?;
        if written != checksum(block) {
            return Err("the checksum of a header is wrong".to_owned());
        }
        let posix = &block[257..265] == b"ustar\x0000";
        if !posix && &block[257..265] != b"ustar  \0" {
            return Err("a header is neither of POSIX's format nor of GNU's".to_owned());
        }
        if posix && &block[508..512] == b"tar\0" {
            return Err("a header is of star's own format, which reads as another in POSIX's".to_owned());
        }
        let mut path = text(&block[..100]).map_err(|what| format!("a name {what}"))?.to_vec();
        // In GNU's format, something else stands in the place of the prefix.
        let prefix =
            if posix { text(&block[345..500]).map_err(|what| format!("a name's prefix {what}"))? } else { &[] };
        if !prefix.is_empty() {
            path = [prefix, b"/", &path].concat();
        }
        let link = text(&block[157..257]).map_err(|what| format!("a link's target {what}"))?.to_vec();
        let mode = octal(&block[100..108]).map_err(|what| format!("a mode {what}"))?;
        let mode = u32::try_from(mode & 0o7777).unwrap_or_default();
        let size = size(&block[124..136])?;
        let modified = octal(&block[136..148]).unwrap_or_default();
        Ok(Self { path, link, mode, size, modified, flag: block[156] })
    }
}

/// The sum of a block's bytes, with spaces for the checksum itself.
fn checksum(block: &[u8; BLOCK]) -> u64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    sum(&block[..CHECKSUM.start]) + CHECKSUM.len() as u64 * u64::from(b' ') + sum(&block[CHECKSUM.end..])
}

/// A text that ends at the first NUL or fills its field. A reader in C sees no more than that, so there must be no more.
fn text(field: &[u8]) -> Result<&[u8], &'static str> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let (text, rest) = field.split_at(end);
    if rest.iter().any(|byte| *byte != 0) { Err("goes on after a NUL") } else { Ok(text) }
}

/// A number in octal digits, with spaces before it and spaces or NULs after it; nothing at all is zero.
fn octal(field: &[u8]) -> Result<u64, &'static str> {
    let start = field.iter().position(|byte| *byte != b' ').unwrap_or(field.len());
    let field = &field[start..];
    let end = field.iter().position(|byte| matches!(byte, b' ' | 0)).unwrap_or(field.len());
    let (digits, rest) = field.split_at(end);
    if rest.iter().any(|byte| !matches!(byte, b' ' | 0)) || digits.iter().any(|digit| !matches!(digit, b'0'..=b'7')) {
        return Err("is not an octal number");
    }
    // The longest field has twelve digits, which are 36 bits.
    Ok(digits.iter().fold(0, |value, digit| value << 3 | u64::from(digit - b'0')))
}

/// A size: octal, or where the first bit is set, in base 256 as GNU writes what is too large for octal.
fn size(field: &[u8]) -> Result<u64, String> {
    let Some((first, rest)) = field.split_first().filter(|(first, _)| **first & 0x80 != 0) else {
        return octal(field).map_err(|what| format!("a size {what}"));
    };
    if first & 0x40 != 0 {
        return Err("a size is negative".to_owned());
    }
    let mut value = u128::from(first & 0x3f);
    for byte in rest {
        value = value << 8 | u128::from(*byte);
    }
    // Files have no more than that many bytes, and offsets are to have room above.
    u64::try_from(value)
        .ok()
        .filter(|size| *size <= super::SIZE_MAX)
        .ok_or_else(|| "a size is beyond all files".to_owned())
}
