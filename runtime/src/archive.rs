//! Archives, read as what they are: bytes that somebody else wrote.
//!
//! ```text
//! bytes ──decompress──▶ bytes ──tar──▶ entry, its body, entry, its body … end
//!   │       gzip, zstd,   │       ▲    (path, kind, mode, size)
//!   │       or as it is   │       │
//!   │                     └ what comes of it is counted
//!   └──────────────zip────────────┘
//! ```
//!
//! The readers are ours. What is on offer unpacks by itself, or has a record that says why not: sizes in extension headers that
//! one half of a reader believes and the other does not, so that a file's contents are read as further entries; extension
//! headers read into memory whole, whatever their size; links followed, names cut at a NUL, duplicates dropped in silence.
//! A reader that refuses what no honest archiver writes is short enough to be read.
//!
//! Invariants:
//! 1. Memory is bounded whatever the archive says: blocks of 512 bytes, extension headers up to [`tar::EXTENSION_BYTES_MAX`],
//!    windows up to [`decompress::WINDOW_BYTES_MAX`].
//! 2. An archive is read to its end, or it is an error: nothing follows the end, nothing is missing before it, and what has a
//!    checksum is checked.
//! 3. What two readers might read as two things is an error, not a choice.
//!
//! Nothing here writes, or judges what an application may hold: [`path`] tells what is wrong with a name, and whoever unpacks
//! decides which kinds of entries it takes.

pub(crate) mod decompress;
pub(crate) mod path;
pub(crate) mod tar;
mod zip;

use std::fs::File;
use std::io::{self, Read};

use decompress::{Format, HEAD_BYTES, StreamLimits};
use zip::ZipReader;

/// Gives `take` each entry of the archive in a file, of so many bytes, with its contents, of which it may leave some. The
/// archive is a zip, or a tar with or without compression, as its content tells.
///
/// # Errors
/// The archive is at fault, or `take` refuses an entry.
pub(crate) fn each_entry<E: From<ArchiveError>>(
    file: &File,
    file_bytes: u64,
    limits: StreamLimits,
    mut take: impl FnMut(&Entry, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let mut head = Vec::new();
    let mut reader = io::BufReader::new(file);
    read(reader.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head))?;
    if Format::of(&head) == Some(Format::Zip) {
        let mut zip = ZipReader::open(file, file_bytes, limits)?;
        while let Some((entry, mut contents)) = zip.next_entry()? {
            take(&entry, &mut contents)?;
            // What is not taken is checked all the same.
            read(io::copy(&mut contents, &mut io::sink()))?;
        }
    } else {
        let mut tar = decompress::tar(io::Cursor::new(head).chain(reader), limits)?;
        while let Some(entry) = tar.next_entry()? {
            take(&entry, &mut tar.body())?;
        }
    }
    Ok(())
}

fn read<T>(result: io::Result<T>) -> Result<T, ArchiveError> {
    result.map_err(ArchiveError::from)
}

/// One entry of an archive, without its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The path as it is written, of whatever bytes; nothing has been checked. That of a directory may end in a slash.
    pub(crate) path: Vec<u8>,
    /// What it is.
    pub(crate) kind: Kind,
    /// Its permission bits, set-uid and the like among them, as they are written.
    pub(crate) mode: u32,
    /// The bytes of its contents; zero for all but files.
    pub(crate) size: u64,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, and where it leads, as it is written; that is empty in a zip, where it is the contents.
    SymbolicLink(Vec<u8>),
    /// Another name of the file that has this path.
    HardLink(Vec<u8>),
    /// A device by characters.
    CharacterDevice,
    /// A device by blocks.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// None of these, such as a socket.
    Other,
}

impl Kind {
    /// What it is, for messages.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::File => "a regular file",
            Self::Directory => "a directory",
            Self::SymbolicLink(_) => "a symbolic link",
            Self::HardLink(_) => "a hard link",
            Self::CharacterDevice | Self::BlockDevice => "a device",
            Self::Fifo => "a named pipe",
            Self::Other => "of an unknown kind",
        }
    }
}

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// The file system, or the decompression, gave an error.
    #[error("the archive cannot be read")]
    Read(#[source] io::Error),
    /// What is compressed in it is not as its format says.
    #[error("the archive's compressed data is damaged")]
    Compression(#[source] io::Error),
    /// It ends too early.
    #[error("the archive ends in the middle of {0}; it is cut off, or not complete yet")]
    Truncated(&'static str),
    /// It is of no format that is read here.
    #[error("this is no archive: neither zip nor tar, and neither gzip nor zstd of a tar")]
    UnknownFormat,
    /// Something in it is not as its format says.
    #[error("the archive is damaged, or made to mislead, at byte {offset}{}: {what}", if *decompressed { " of what it decompresses to" } else { "" })]
    Malformed {
        /// Where, in bytes from the start of the tar or zip.
        offset: u64,
        /// Whether that is counted in what came of decompression.
        decompressed: bool,
        /// What is wrong there.
        what: String,
    },
    /// It has something that is not read here.
    #[error("the archive has {what}, which is not supported")]
    Unsupported {
        /// What it has.
        what: String,
    },
    /// It is too large, or decompresses to too much.
    #[error(
        "the archive is too large: up to {limit} bytes are taken, counted when decompressed; leave out what is not needed"
    )]
    TooLarge {
        /// How many bytes are taken.
        limit: u64,
    },
    /// It decompresses to suspiciously much, for what it is.
    #[error(
        "the archive is a bomb: it decompresses to more than {ratio} times its size; deploy the folder, or pack it as a tar, if it is meant to be so"
    )]
    Bomb {
        /// How many times its size is taken.
        ratio: u64,
    },
}

/// The archive's own error, if a reader of this module put one into the error of its `read`.
impl From<io::Error> for ArchiveError {
    fn from(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => error,
            Err(error) => Self::Read(error),
        }
    }
}

impl From<ArchiveError> for io::Error {
    fn from(error: ArchiveError) -> Self {
        Self::other(error)
    }
}
