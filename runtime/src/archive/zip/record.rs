//! The records of a zip: what is at its end, the directory, and what stands before each entry's contents.

use crate::archive::Kind;

/// The end record without the comment after it.
pub(super) const END_BYTES: usize = 22;

/// A record of the directory, without the texts after it.
pub(super) const LISTED_BYTES: usize = 46;

/// What stands before an entry's contents, without the texts after it.
pub(super) const LOCAL_BYTES: usize = 30;

/// Where the larger fields of zip64 are announced, if there are any: right before the end record.
pub(super) const LOCATOR_BYTES: usize = 20;

pub(super) const END: &[u8] = b"PK\x05\x06";
pub(super) const LOCATOR: &[u8] = b"PK\x06\x07";
const LISTED: &[u8] = b"PK\x01\x02";
const LOCAL: &[u8] = b"PK\x03\x04";

/// Contents as they are.
pub(super) const STORED: u16 = 0;
/// Contents compressed the usual way.
pub(super) const DEFLATED: u16 = 8;

const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
const PATCH: u16 = 1 << 5;
/// Checksum and sizes follow the contents.
pub(super) const SIZES_FOLLOW: u16 = 1 << 3;

/// The kind of an extra field that gives the entry another name.
const SECOND_NAME: u16 = 0x7075;

/// A little-endian number of two bytes; what is not there is zero, but all records are read whole.
pub(super) fn two(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_le_bytes)
}

/// As [`two`], of four bytes.
pub(super) fn four(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// Where the directory is, as the end record says.
#[derive(Debug)]
pub(super) struct End {
    pub(super) entries: u16,
    pub(super) bytes: u32,
    pub(super) offset: u32,
}

impl End {
    pub(super) fn parse(record: &[u8]) -> Result<Self, &'static str> {
        let (disks, entries) = ((two(record, 4), two(record, 6)), two(record, 10));
        if disks != (0, 0) || two(record, 8) != entries {
            return Err("the parts of an archive of several");
        }
        let end = Self { entries, bytes: four(record, 12), offset: four(record, 16) };
        if entries == u16::MAX || end.bytes == u32::MAX || end.offset == u32::MAX {
            return Err(ZIP64);
        }
        Ok(end)
    }
}

pub(super) const ZIP64: &str = "the fields of zip64, for what is far larger than a bundle may be";

/// What the directory, or the record before the contents, says of an entry.
#[derive(Debug)]
pub(super) struct Fields {
    pub(super) flags: u16,
    pub(super) method: u16,
    pub(super) checksum: u32,
    pub(super) packed_bytes: u32,
    pub(super) bytes: u32,
    pub(super) name_bytes: usize,
    pub(super) extra_bytes: usize,
}

impl Fields {
    /// The fields that the two kinds of records have in common, from where they start.
    fn at(record: &[u8], start: usize) -> Self {
        Self {
            flags: two(record, start),
            method: two(record, start + 2),
            checksum: four(record, start + 8),
            packed_bytes: four(record, start + 12),
            bytes: four(record, start + 16),
            name_bytes: two(record, start + 20).into(),
            extra_bytes: two(record, start + 22).into(),
        }
    }

    pub(super) fn local(record: &[u8]) -> Option<Self> {
        record.starts_with(LOCAL).then(|| Self::at(record, 6))
    }
}

/// An entry as the directory lists it, without its texts.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) fields: Fields,
    pub(super) comment_bytes: usize,
    pub(super) offset: u64,
    attributes: u32,
}

impl Listed {
    pub(super) fn parse(record: &[u8]) -> Option<Self> {
        record.starts_with(LISTED).then(|| Self {
            fields: Fields::at(record, 8),
            comment_bytes: two(record, 32).into(),
            attributes: four(record, 38),
            offset: four(record, 42).into(),
        })
    }

    /// What of it is not read here, if anything. Names are taken for UTF-8 whether they are said to be so or not, as the usual
    /// archivers on Unix do not say it.
    pub(super) fn unsupported(&self, name: &[u8], extra: &[u8]) -> Option<String> {
        let Fields { flags, method, packed_bytes, bytes, .. } = self.fields;
        let shown = String::from_utf8_lossy(name);
        if flags & ENCRYPTED != 0 {
            Some(format!("an encrypted entry, {shown:?}"))
        } else if flags & PATCH != 0 || method != STORED && method != DEFLATED {
            Some(format!("an entry compressed by method {method}, {shown:?}; pack it with deflate"))
        } else if packed_bytes == u32::MAX || bytes == u32::MAX || self.offset == u64::from(u32::MAX) {
            Some(ZIP64.to_owned())
        } else if second_name(extra).is_some_and(|second| second != name) {
            Some(format!("a second name for {shown:?}"))
        } else {
            None
        }
    }

    /// The permission bits, zero where the archiver's system has none.
    pub(super) fn mode(&self) -> u32 {
        self.attributes >> 16 & 0o7777
    }

    /// What it is, by the attributes that Unix has put there, or else by its name.
    pub(super) fn kind(&self, name: &[u8]) -> Kind {
        match self.attributes >> 16 & libc::S_IFMT {
            0 if name.ends_with(b"/") => Kind::Directory,
            0 | libc::S_IFREG => Kind::File,
            libc::S_IFDIR => Kind::Directory,
            // Its contents are where it leads.
            libc::S_IFLNK => Kind::SymbolicLink(Vec::new()),
            libc::S_IFCHR => Kind::CharacterDevice,
            libc::S_IFBLK => Kind::BlockDevice,
            libc::S_IFIFO => Kind::Fifo,
            _ => Kind::Other,
        }
    }
}

/// The name that an extra field gives the entry, after a version and a checksum. What is not whole is passed over, as all other
/// fields are.
fn second_name(mut extra: &[u8]) -> Option<&[u8]> {
    while extra.len() >= 4 {
        let (field, rest) = extra.split_at_checked(4 + usize::from(two(extra, 2)))?;
        if two(field, 0) == SECOND_NAME {
            return Some(field.get(9..).unwrap_or_default());
        }
        extra = rest;
    }
    None
}
