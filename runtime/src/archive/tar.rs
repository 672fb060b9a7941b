//! A strict reader of tars, as they come: `ustar`, GNU's long names, and POSIX's extended headers.
//!
//! ```text
//! [x: path, linkpath, size] [L: path] [K: link]   header   contents, padded to 512   …   two blocks of zeros, zeros
//! └── at most one of each, for the entry after it ┘
//! ```
//!
//! What it does not take is an error: sparse files, volumes of several, incremental dumps, the formats before 1988, a link or a
//! device with contents, two names or two sizes for one entry, an extension without an entry, anything after the end.

mod extension;
mod header;

use std::io::{self, Read};

use super::{ArchiveError, Entry, Kind};
use extension::Records;
use header::Header;

/// What a tar consists of.
const BLOCK: usize = 512;

/// The longest path, and the longest target of a link: as the system has it.
pub(crate) const PATH_BYTES_MAX: usize = 4096;

/// The longest extended header: it may hold attributes, which are passed over.
pub(crate) const EXTENSION_BYTES_MAX: u64 = 1 << 20;

/// The largest size that is understood, so that sums of sizes and offsets do not overflow.
const SIZE_MAX: u64 = 1 << 60;

/// What a size field holds in octal; larger ones are written otherwise.
const OCTAL_SIZE_MAX: u64 = (1 << 33) - 1;

/// Reads a tar from a stream, an entry at a time.
#[derive(Debug)]
pub(crate) struct TarReader<R> {
    source: R,
    /// Bytes read so far: where errors are.
    offset: u64,
    /// Whether the offset counts bytes that are in no file.
    decompressed: bool,
    /// Bytes of the present entry's contents that are not read yet.
    body: u64,
    /// Bytes that fill the block after them.
    padding: u64,
    /// When the present entry was changed, in seconds since 1970, for whoever keeps that.
    pub(crate) modified: u64,
    ended: bool,
}

/// The contents of the entry that was read last. What is left unread is passed over.
#[derive(Debug)]
pub(crate) struct Body<'t, R> {
    tar: &'t mut TarReader<R>,
}

/// What stands before a header and is meant for its entry.
#[derive(Default)]
struct Pending {
    records: Option<Records>,
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.records.is_none() && self.long_path.is_none() && self.long_link.is_none()
    }
}

impl<R: Read> TarReader<R> {
    /// A reader of the tar that starts here.
    pub(crate) fn new(source: R, decompressed: bool) -> Self {
        Self { source, offset: 0, decompressed, body: 0, padding: 0, modified: 0, ended: false }
    }

    /// The next entry; none at the end, which is then known to be one.
    ///
    /// # Errors
    /// The archive cannot be read, or is not as it should be. It cannot be read any further then.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, ArchiveError> {
        let mut pending = Pending::default();
        self.skip_body()?;
        while !self.ended {
            let mut block = [0; BLOCK];
            self.fill(&mut block, "a header")?;
            if block == [0; BLOCK] {
                self.end(&pending)?;
                break;
            }
            let header = Header::parse(&block).map_err(|what| self.malformed(what))?;
            match header.flag {
                b'x' | b'g' | b'L' | b'K' => self.extension(&header, &mut pending)?,
                _ => return self.entry(header, pending).map(Some),
            }
        }
        Ok(None)
    }

    /// The contents of the entry that [`TarReader::next_entry`] returned last.
    pub(crate) fn body(&mut self) -> Body<'_, R> {
        Body { tar: self }
    }

    fn extension(&mut self, header: &Header, pending: &mut Pending) -> Result<(), ArchiveError> {
        let is_name = matches!(header.flag, b'L' | b'K');
        // A long name ends in a NUL.
        let limit = if is_name { PATH_BYTES_MAX as u64 + 1 } else { EXTENSION_BYTES_MAX };
        if header.size > limit {
            let what = if is_name { "a long name" } else { "an extended header" };
            return Err(self.malformed(format!("{what} has {} bytes; {limit} are taken", header.size)));
        }
        let mut bytes = vec![0; usize::try_from(header.size).unwrap_or_default()];
        self.begin_body(header.size);
        self.body().read_exact(&mut bytes)?;
        self.skip_body()?;
        let twice = match header.flag {
            b'x' => pending.records.replace(self.records(&bytes)?).is_some(),
            b'L' => pending.long_path.replace(self.long_name(bytes)?).is_some(),
            b'K' => pending.long_link.replace(self.long_name(bytes)?).is_some(),
            // For all entries to come. What names or measures them one by one cannot be meant for all.
            _ if !pending.is_empty() => return Err(self.malformed("an extension has no entry".to_owned())),
            _ if !self.records(&bytes)?.is_empty() => {
                return Err(self.malformed("one path or size is given to all entries".to_owned()));
            }
            _ => false,
        };
        if twice { Err(self.malformed("an entry has two extensions of one kind".to_owned())) } else { Ok(()) }
    }

    fn records(&self, bytes: &[u8]) -> Result<Records, ArchiveError> {
        Records::parse(bytes).map_err(|what| self.malformed(what))
    }

    fn long_name(&self, mut bytes: Vec<u8>) -> Result<Vec<u8>, ArchiveError> {
        let ends = bytes.pop() == Some(0);
        if !ends || bytes.is_empty() || bytes.contains(&0) {
            return Err(self.malformed("a long name is empty, or does not end where it says".to_owned()));
        }
        Ok(bytes)
    }

    fn entry(&mut self, header: Header, pending: Pending) -> Result<Entry, ArchiveError> {
        let Pending { records, long_path, long_link } = pending;
        let Records { path, link, size } = records.unwrap_or_default();
        if path.is_some() && long_path.is_some() || link.is_some() && long_link.is_some() {
            return Err(self.malformed("an entry has two long names".to_owned()));
        }
        // Whoever reads one size and not the other reads the contents as entries, or entries as contents.
        if size.is_some_and(|size| size != header.size && size <= OCTAL_SIZE_MAX) {
            return Err(self.malformed("an entry has two sizes that differ".to_owned()));
        }
        let path = path.or(long_path).unwrap_or(header.path);
        let link = link.or(long_link).unwrap_or(header.link);
        let kind = self.kind(header.flag, link)?;
        let size = size.unwrap_or(header.size);
        if kind != Kind::File && size != 0 {
            return Err(self.malformed(format!("{} has contents", kind.name())));
        }
        self.begin_body(size);
        self.modified = header.modified;
        Ok(Entry { path, kind, mode: header.mode, size })
    }

    fn kind(&self, flag: u8, link: Vec<u8>) -> Result<Kind, ArchiveError> {
        let unsupported = |what: &str| Err(ArchiveError::Unsupported { what: what.to_owned() });
        match flag {
            b'0' | b'\0' => Ok(Kind::File),
            b'1' | b'2' if link.is_empty() => Err(self.malformed("a link leads nowhere".to_owned())),
            b'1' => Ok(Kind::HardLink(link)),
            b'2' => Ok(Kind::SymbolicLink(link)),
            b'3' => Ok(Kind::CharacterDevice),
            b'4' => Ok(Kind::BlockDevice),
            b'5' => Ok(Kind::Directory),
            b'6' => Ok(Kind::Fifo),
            b'S' => unsupported("a sparse file"),
            b'M' | b'V' => unsupported("the header of one volume of several"),
            b'D' | b'N' => unsupported("the header of an incremental dump"),
            other => unsupported(&format!("an entry of type {:?}", char::from(other))),
        }
    }

    /// After the first block of zeros: another, and nothing but zeros up to the end of the stream.
    fn end(&mut self, pending: &Pending) -> Result<(), ArchiveError> {
        if !pending.is_empty() {
            return Err(self.malformed("an extension has no entry".to_owned()));
        }
        let mut block = [0; BLOCK];
        self.fill(&mut block, "its end mark")?;
        let mut rest = [0; 16 * BLOCK];
        let mut read = 0;
        while block == [0; BLOCK] && rest[..read].iter().all(|byte| *byte == 0) {
            read = self.read_some(&mut rest)?;
            if read == 0 {
                self.ended = true;
                return Ok(());
            }
        }
        Err(self.malformed("something follows the end of the archive".to_owned()))
    }

    fn begin_body(&mut self, size: u64) {
        self.body = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    fn skip_body(&mut self) -> Result<(), ArchiveError> {
        io::copy(&mut self.body(), &mut io::sink())?;
        let mut block = [0; BLOCK];
        let padding = &mut block[..usize::try_from(self.padding).unwrap_or_default()];
        self.padding = 0;
        self.fill(padding, "an entry")
    }

    fn fill(&mut self, mut into: &mut [u8], what: &'static str) -> Result<(), ArchiveError> {
        while !into.is_empty() {
            match self.read_some(into)? {
                0 => return Err(ArchiveError::Truncated(what)),
                read => into = &mut into[read..],
            }
        }
        Ok(())
    }

    fn read_some(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.source.read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(read) => {
                    self.offset += read as u64;
                    return Ok(read);
                }
            }
        }
    }

    fn malformed(&self, what: String) -> ArchiveError {
        ArchiveError::Malformed { offset: self.offset, decompressed: self.decompressed, what }
    }
}

impl<R: Read> Read for Body<'_, R> {
    /// As any `read`, but that the end is the entry's: where the archive ends before it, that is an error.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = into.len().min(usize::try_from(self.tar.body).unwrap_or(usize::MAX));
        if length == 0 {
            return Ok(0);
        }
        let read = self.tar.read_some(&mut into[..length])?;
        if read == 0 {
            return Err(ArchiveError::Truncated("an entry").into());
        }
        self.tar.body -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
