//! A strict reader of zips, whose directory is at the end.
//!
//! ```text
//! record, contents │ record, contents │ …  │ directory: an entry for each │ end: where the directory is
//! ◀──────── each after the one before ────────┘                           └── ends where the file ends
//! ```
//!
//! The reader is ours, as the crates for zips read the whole directory before anything of it can be refused, by tables that
//! keep one of several entries of a name.
//!
//! The directory says what there is; the record before an entry's contents must agree with it. Entries that share contents
//! are an error, and so are zip64 (nothing that large is taken), encryption, every compression but deflate, and an entry whose
//! contents have not the size or the checksum that it says. Sizes are counted, not believed.

mod record;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;

use flate2::Crc;
use flate2::bufread::DeflateDecoder;

use super::decompress::{StreamLimits, damaged};
use super::{ArchiveError, Entry, Kind};
use record::{END, END_BYTES, End, Fields, LISTED_BYTES, LOCAL_BYTES, LOCATOR, LOCATOR_BYTES, Listed};

/// Reads a zip, an entry at a time.
#[derive(Debug)]
pub(super) struct ZipReader<'f> {
    directory: BufReader<Section<'f>>,
    /// Entries of the directory that have not been read.
    left: u16,
    /// Where the contents of the entry before end.
    contents_end: u64,
    directory_offset: u64,
    file_bytes: u64,
    /// What came of decompression so far.
    output: u64,
    limits: StreamLimits,
}

/// A part of a file.
#[derive(Debug)]
struct Section<'f> {
    file: &'f File,
    at: u64,
    end: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = into.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut into[..length], self.at).map_err(ArchiveError::Read)?;
        if read == 0 && length > 0 {
            return Err(ArchiveError::Truncated("an entry").into());
        }
        self.at += read as u64;
        Ok(read)
    }
}

impl<'f> ZipReader<'f> {
    /// The zip in a file, of so many bytes.
    pub(super) fn open(file: &'f File, file_bytes: u64, limits: StreamLimits) -> Result<Self, ArchiveError> {
        let tail_bytes = file_bytes.min(1 << 16 | 0xff);
        let start = file_bytes - tail_bytes;
        let mut tail = Vec::new();
        Section { file, at: start, end: file_bytes }.read_to_end(&mut tail)?;
        let at = end_record(&tail)?;
        if at >= LOCATOR_BYTES && tail[at - LOCATOR_BYTES..].starts_with(LOCATOR) {
            return Err(ArchiveError::Unsupported { what: record::ZIP64.to_owned() });
        }
        let end = End::parse(&tail[at..]).map_err(|what| ArchiveError::Unsupported { what: what.to_owned() })?;
        let directory_offset = u64::from(end.offset);
        if directory_offset + u64::from(end.bytes) != start + at as u64 {
            return Err(malformed(start + at as u64, "the directory is not where it is said to be"));
        }
        let directory = Section { file, at: directory_offset, end: start + at as u64 };
        let directory = BufReader::with_capacity(1 << 14, directory);
        let left = end.entries;
        Ok(Self { directory, left, contents_end: 0, directory_offset, file_bytes, output: 0, limits })
    }

    /// The next entry and its contents; none at the end.
    pub(super) fn next_entry(&mut self) -> Result<Option<(Entry, Contents<'_, 'f>)>, ArchiveError> {
        if self.left == 0 {
            if !self.directory.fill_buf()?.is_empty() {
                return Err(self.misled("the directory has more in it than it says"));
            }
            return Ok(None);
        }
        self.left -= 1;
        let mut bytes = [0; LISTED_BYTES];
        self.read(&mut bytes)?;
        let listed = Listed::parse(&bytes).ok_or_else(|| self.misled("the directory has less in it than it says"))?;
        let mut name = vec![0; listed.fields.name_bytes];
        self.read(&mut name)?;
        let mut rest = vec![0; listed.fields.extra_bytes + listed.comment_bytes];
        self.read(&mut rest)?;
        if let Some(what) = listed.unsupported(&name, &rest[..listed.fields.extra_bytes]) {
            return Err(ArchiveError::Unsupported { what });
        }
        let kind = listed.kind(&name);
        if (kind == Kind::Directory) != name.ends_with(b"/") {
            return Err(self.misled("an entry's name and its attributes differ on whether it is a directory"));
        }
        let fields = &listed.fields;
        if kind == Kind::Directory && fields.bytes != 0 {
            return Err(self.misled("a directory has contents"));
        }
        let start = self.contents_of(&listed, &name)?;
        let section = Section { file: self.directory.get_ref().file, at: start, end: self.contents_end };
        let source = BufReader::with_capacity(1 << 15, section);
        let packed = match fields.method {
            record::STORED => Packed::Stored(source),
            _ => Packed::Deflated(DeflateDecoder::new(source)),
        };
        let entry = Entry { path: name, kind, mode: listed.mode(), size: fields.bytes.into() };
        let contents = Contents { packed, crc: Crc::new(), fields: listed.fields, zip: self };
        Ok(Some((entry, contents)))
    }

    /// Where the contents of an entry start; they end before those of the next.
    fn contents_of(&mut self, listed: &Listed, name: &[u8]) -> Result<u64, ArchiveError> {
        if listed.offset < self.contents_end {
            return Err(malformed(listed.offset, "entries overlap, or are not in the order of the directory"));
        }
        let file = self.directory.get_ref().file;
        let section = |at: u64| Section { file, at, end: self.directory_offset.max(at) };
        let overlaps = |_| malformed(listed.offset, "an entry is not where the directory says");
        let mut bytes = [0; LOCAL_BYTES];
        let mut records = section(listed.offset);
        records.read_exact(&mut bytes).map_err(overlaps)?;
        let local = Fields::local(&bytes).ok_or_else(|| overlaps(io::ErrorKind::InvalidData.into()))?;
        let mut local_name = vec![0; local.name_bytes];
        records.read_exact(&mut local_name).map_err(overlaps)?;
        let fields = &listed.fields;
        let follow = fields.flags & record::SIZES_FOLLOW != 0;
        let sizes = |of: &Fields| (of.checksum, of.packed_bytes, of.bytes);
        if local_name != name
            || (local.flags, local.method) != (fields.flags, fields.method)
            || sizes(&local) != sizes(fields) && !(follow && sizes(&local) == (0, 0, 0))
        {
            let what = format!("{:?} is described in two ways that differ", String::from_utf8_lossy(name));
            return Err(malformed(listed.offset, &what));
        }
        let start = records.at + local.extra_bytes as u64;
        self.contents_end = start + u64::from(fields.packed_bytes);
        if self.contents_end > self.directory_offset {
            return Err(malformed(listed.offset, "an entry reaches beyond where the directory starts"));
        }
        Ok(start)
    }

    fn read(&mut self, into: &mut [u8]) -> Result<(), ArchiveError> {
        match self.directory.read_exact(into) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.misled("the directory has less in it than it says"))
            }
            read => Ok(read?),
        }
    }

    /// Something is wrong with the directory, about where it has been read.
    fn misled(&self, what: &str) -> ArchiveError {
        malformed(self.directory.get_ref().at - self.directory.buffer().len() as u64, what)
    }
}

/// Where the end record is in the last bytes of a file. There must be one only that ends where the file ends.
fn end_record(tail: &[u8]) -> Result<usize, ArchiveError> {
    let ends = |at: &usize| {
        let comment = usize::from(record::two(tail, at + END_BYTES - 2));
        tail[*at..].starts_with(END) && at + END_BYTES + comment == tail.len()
    };
    let mut found = (0..(tail.len() + 1).saturating_sub(END_BYTES)).filter(ends);
    match (found.next(), found.next()) {
        (Some(at), None) => Ok(at),
        (Some(at), Some(_)) => Err(malformed(at as u64, "there are two ends to choose from")),
        (None, _) => Err(ArchiveError::Truncated("the zip, or something follows its end")),
    }
}

fn malformed(offset: u64, what: &str) -> ArchiveError {
    ArchiveError::Malformed { offset, decompressed: false, what: what.to_owned() }
}

#[derive(Debug)]
enum Packed<'f> {
    Stored(BufReader<Section<'f>>),
    Deflated(DeflateDecoder<BufReader<Section<'f>>>),
}

/// The contents of an entry. At their end, they are known to be what the directory said.
#[derive(Debug)]
pub(super) struct Contents<'z, 'f> {
    zip: &'z mut ZipReader<'f>,
    packed: Packed<'f>,
    crc: Crc,
    fields: Fields,
}

impl Contents<'_, '_> {
    fn check(&self) -> Result<(), ArchiveError> {
        let size = u64::from(self.fields.packed_bytes);
        let packed = match &self.packed {
            Packed::Stored(_) => u64::from(self.crc.amount()),
            Packed::Deflated(decoder) => decoder.total_in(),
        };
        let at = self.zip.contents_end;
        if self.crc.amount() != self.fields.bytes || packed != size {
            return Err(malformed(at, "an entry is not of the size that it says"));
        }
        if self.crc.sum() != self.fields.checksum {
            return Err(malformed(at, "an entry's checksum is wrong"));
        }
        Ok(())
    }
}

impl Read for Contents<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        let read = match &mut self.packed {
            Packed::Stored(source) => source.read(into),
            Packed::Deflated(decoder) => decoder.read(into).map_err(damaged),
        }?;
        self.zip.output += read as u64;
        self.zip.limits.check(self.zip.file_bytes, self.zip.output)?;
        self.crc.update(&into[..read]);
        // What counts its bytes has 32 bits for it; it must not come around.
        if read == 0 || self.crc.amount() > self.fields.bytes {
            self.check()?;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
