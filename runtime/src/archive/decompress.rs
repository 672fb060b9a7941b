//! Which format an archive has, by its content; and the tar inside compression, with bounds on what comes of it.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::ArchiveError;
use super::tar::TarReader;

/// The largest window of a zstd frame, which is held in memory: what the format asks every decoder to support, and all that
/// its compressor uses unless told `--ultra` or `--long`.
pub(crate) const WINDOW_BYTES_MAX: u64 = 8 << 20;

/// As much of an archive's start as tells its format.
pub(crate) const HEAD_BYTES: usize = 512;

/// What is to come of decompression at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamLimits {
    /// Bytes, whatever they are for.
    pub(crate) output_bytes: u64,
    /// How many times the bytes that were read. Deflate reaches 1,032, code and pictures hardly 20.
    pub(crate) ratio: u64,
    /// Up to so many bytes, any ratio is harmless.
    pub(crate) any_ratio_bytes: u64,
}

impl StreamLimits {
    /// Whether so many bytes may have come of so many.
    pub(crate) fn check(&self, input: u64, output: u64) -> Result<(), ArchiveError> {
        if output > self.any_ratio_bytes && output / self.ratio > input {
            return Err(ArchiveError::Bomb { ratio: self.ratio });
        }
        if output > self.output_bytes {
            return Err(ArchiveError::TooLarge { limit: self.output_bytes });
        }
        Ok(())
    }
}

/// A format of archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Zip,
    Tar,
    Gzip,
    Zstd,
}

impl Format {
    /// The format of what starts with these bytes, of which there are [`HEAD_BYTES`] unless it is shorter.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        match head {
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Some(Self::Zip),
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            // A frame, or one that is to be skipped.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            _ if head.get(257..262) == Some(b"ustar") => Some(Self::Tar),
            _ => None,
        }
    }
}

/// The tar that this is, or is compressed in it.
///
/// # Errors
/// It is neither, or cannot be read.
pub(crate) fn tar<R: Read>(source: R, limits: StreamLimits) -> Result<TarReader<impl Read>, ArchiveError> {
    let mut source = BufReader::with_capacity(1 << 16, Counted { source, bytes: 0 });
    let (head, source) = {
        let mut head = Vec::new();
        source.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head)?;
        (head.clone(), BufReader::with_capacity(1 << 16, Cursor::new(head).chain(source)))
    };
    let format = Format::of(&head);
    let decoder = match format {
        Some(Format::Tar) => Decoder::Plain(source),
        Some(Format::Gzip) => Decoder::Gzip(Box::new(MultiGzDecoder::new(source))),
        Some(Format::Zstd) => Decoder::Zstd(Box::new(Frames::new(source))),
        Some(Format::Zip) | None => return Err(ArchiveError::UnknownFormat),
    };
    let mut bounded = Bounded { decoder, output: 0, limits };
    let mut head = Vec::new();
    bounded.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    if Format::of(&head) != Some(Format::Tar) {
        return Err(ArchiveError::UnknownFormat);
    }
    Ok(TarReader::new(Cursor::new(head).chain(bounded), format != Some(Format::Tar)))
}

/// Knows how many bytes were read.
struct Counted<R> {
    source: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        // What the file system says is told from what a decoder says.
        let read = self.source.read(into).map_err(|error| io::Error::from(ArchiveError::Read(error)))?;
        self.bytes += read as u64;
        Ok(read)
    }
}

/// What decoders read: the head again, then the rest.
type Source<R> = BufReader<io::Chain<Cursor<Vec<u8>>, BufReader<Counted<R>>>>;

enum Decoder<R: Read> {
    Plain(Source<R>),
    Gzip(Box<MultiGzDecoder<Source<R>>>),
    Zstd(Box<Frames<Source<R>>>),
}

impl<R: Read> Decoder<R> {
    fn input_bytes(&self) -> u64 {
        let source = match self {
            Self::Plain(source) => source,
            Self::Gzip(decoder) => decoder.get_ref(),
            Self::Zstd(frames) => &frames.source,
        };
        source.get_ref().get_ref().1.get_ref().bytes
    }
}

/// A decoder that is not believed to come to an end.
struct Bounded<R: Read> {
    decoder: Decoder<R>,
    output: u64,
    limits: StreamLimits,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.decoder {
            Decoder::Plain(source) => source.read(into),
            Decoder::Gzip(decoder) => decoder.read(into).map_err(damaged),
            Decoder::Zstd(frames) => frames.read(into).map_err(damaged),
        }?;
        self.output += read as u64;
        self.limits.check(self.decoder.input_bytes(), self.output)?;
        Ok(read)
    }
}

/// What a decoder says, told from what the file system says.
pub(crate) fn damaged(error: io::Error) -> io::Error {
    if error.get_ref().is_some_and(|inner| inner.is::<ArchiveError>()) {
        return error;
    }
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return ArchiveError::Truncated("its compressed data").into();
    }
    ArchiveError::Compression(error).into()
}

/// The frames of a zstd stream, one after another.
pub(crate) struct Frames<S> {
    source: S,
    decoder: FrameDecoder,
    /// Whether the decoder is in a frame that has not been checked yet.
    in_frame: bool,
}

impl<S: BufRead> Frames<S> {
    pub(crate) fn new(source: S) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(WINDOW_BYTES_MAX);
        Self { source, decoder, in_frame: false }
    }

    /// Whether there is a frame to be decoded now, or the stream has ended.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.in_frame {
            if self.source.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match self.decoder.reset(&mut self.source) {
                Ok(()) => self.in_frame = true,
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = io::copy(&mut self.source.by_ref().take(u64::from(length)), &mut io::sink())?;
                    if skipped < u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(FrameDecoderError::WindowSizeTooBig { requested, max }) => {
                    let what = format!("a zstd window of {requested} bytes, where {max} are taken");
                    return Err(ArchiveError::Unsupported { what }.into());
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(true)
    }

    fn check(&self) -> io::Result<()> {
        match self.decoder.get_checksum_from_data() {
            Some(written) if Some(written) != self.decoder.get_calculated_checksum() => {
                Err(io::Error::other("a frame's checksum is wrong"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl<S: BufRead> Read for Frames<S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while !into.is_empty() && self.begin()? {
            let read = self.decoder.read(into)?;
            if read > 0 {
                return Ok(read);
            }
            if self.decoder.is_finished() {
                self.check()?;
                self.in_frame = false;
                continue;
            }
            let decoded = self.decoder.decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1));
            decoded.map_err(io::Error::other)?;
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests;
