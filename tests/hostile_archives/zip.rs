//! Zips made byte by byte, so that anything can be wrong with them.

use std::io::Write;

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

/// One entry, in all of its fields.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    /// The name in the record before the contents.
    pub(crate) local_name: Vec<u8>,
    pub(crate) flags: u16,
    pub(crate) method: u16,
    /// As Unix has it, with the file's type.
    pub(crate) mode: u32,
    pub(crate) checksum: u32,
    pub(crate) size: u32,
    pub(crate) packed: Vec<u8>,
    pub(crate) extra: Vec<u8>,
    /// Where the directory says that it is, if that is not where it is.
    pub(crate) offset: Option<u32>,
}

/// The end record's fields.
pub(crate) struct End {
    pub(crate) disk: u16,
    pub(crate) entries: u16,
    pub(crate) bytes: u32,
    pub(crate) offset: u32,
    pub(crate) comment: Vec<u8>,
}

impl Entry {
    /// Gives it another name, in both places.
    pub(crate) fn named(&mut self, name: &[u8]) {
        (self.name, self.local_name) = (name.to_vec(), name.to_vec());
    }
}

pub(crate) fn entry(name: &str, contents: &[u8]) -> Entry {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(contents).unwrap();
    let mut crc = Crc::new();
    crc.update(contents);
    Entry {
        name: name.into(),
        local_name: name.into(),
        // Names are in UTF-8.
        flags: 1 << 11,
        method: 8,
        mode: if name.ends_with('/') { 0o40_755 } else { 0o100_755 },
        checksum: crc.sum(),
        size: contents.len().try_into().unwrap(),
        packed: encoder.finish().unwrap(),
        extra: Vec::new(),
        offset: None,
    }
}

pub(crate) fn changed(name: &str, contents: &[u8], change: impl FnOnce(&mut Entry)) -> Entry {
    let mut entry = entry(name, contents);
    change(&mut entry);
    entry
}

/// What the record before the contents and that in the directory have in common.
fn common(entry: &Entry, name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in [20, entry.flags, entry.method, 0, 0] {
        bytes.extend(field.to_le_bytes());
    }
    for field in [entry.checksum, entry.packed.len().try_into().unwrap(), entry.size] {
        bytes.extend(field.to_le_bytes());
    }
    for field in [name.len(), entry.extra.len()] {
        bytes.extend(u16::try_from(field).unwrap().to_le_bytes());
    }
    bytes
}

pub(crate) fn zip(entries: &[Entry], change: impl FnOnce(&mut End)) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let offset = entry.offset.unwrap_or(bytes.len().try_into().unwrap());
        // One that is elsewhere has nothing here.
        if entry.offset.is_none() {
            bytes.extend([b"PK\x03\x04", common(entry, &entry.local_name).as_slice(), &entry.local_name].concat());
            bytes.extend([entry.extra.as_slice(), &entry.packed].concat());
        }
        directory.extend([b"PK\x01\x02\x14\x03", common(entry, &entry.name).as_slice(), &[0; 6]].concat());
        directory.extend((entry.mode << 16).to_le_bytes());
        directory.extend(offset.to_le_bytes());
        directory.extend([entry.name.as_slice(), &entry.extra].concat());
    }
    let mut end = End {
        disk: 0,
        entries: entries.len().try_into().unwrap(),
        bytes: directory.len().try_into().unwrap(),
        offset: bytes.len().try_into().unwrap(),
        comment: Vec::new(),
    };
    change(&mut end);
    bytes.extend(directory);
    bytes.extend(b"PK\x05\x06");
    for field in [end.disk, 0, end.entries, end.entries] {
        bytes.extend(field.to_le_bytes());
    }
    for field in [end.bytes, end.offset] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(u16::try_from(end.comment.len()).unwrap().to_le_bytes());
    bytes.extend(end.comment);
    bytes
}
