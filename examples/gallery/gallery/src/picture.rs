//! Opens a picture that nobody vouches for.
//!
//! A few kilobytes can claim to be a picture of gigabytes. The size is therefore taken from the
//! picture's header and checked before a pixel is decoded, and the decoder is told how much memory
//! it may take.

use std::io::Cursor;

use image::{ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use serde::Serialize;
use thiserror::Error;

/// The longest side of a picture that is taken, in pixels.
pub const SIDE_MAX: u32 = 16_384;
/// The most pixels of a picture that is taken. The decoded picture is kept in memory, and of a
/// progressive JPEG its coefficients as well: up to 11 bytes a pixel together.
pub const PIXELS_MAX: u64 = 24_000_000;
/// The most memory a decoded picture may take, in bytes: 24 megapixels of RGBA at 8 bits.
pub const DECODED_BYTES_MAX: u64 = 96_000_000;

/// Why a picture is not taken.
#[derive(Debug, Error)]
pub enum PictureError {
    /// The first bytes are those of no format the gallery takes.
    #[error("neither a JPEG nor a PNG picture")]
    UnknownFormat,
    /// The picture is broken, or needs more memory than [`DECODED_BYTES_MAX`].
    #[error("cannot read the picture")]
    Unreadable(#[source] ImageError),
    /// The picture has no pixels.
    #[error("the picture is empty: {width} x {height} pixels")]
    Empty {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
    /// The picture has more pixels than [`SIDE_MAX`] and [`PIXELS_MAX`] allow.
    #[error(
        "the picture is too large: {width} x {height} pixels; \
         taken are sides of {SIDE_MAX} and {PIXELS_MAX} pixels in all"
    )]
    TooLarge {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
    },
}

/// The formats the gallery takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// JPEG, in any of its colour spaces, baseline or progressive.
    Jpeg,
    /// PNG; of an animated one the first picture.
    Png,
}

impl Format {
    /// The number in the CoAP Content-Formats registry.
    #[must_use]
    pub fn content_format(self) -> u16 {
        match self {
            Self::Jpeg => 22,
            Self::Png => 23,
        }
    }
}

/// What a picture's header says, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    /// As its first bytes say.
    pub format: Format,
    /// In pixels, at most [`SIDE_MAX`].
    pub width: u32,
    /// In pixels, at most [`SIDE_MAX`].
    pub height: u32,
}

/// Checks a picture's format and size without decoding it.
///
/// # Errors
/// The picture is of another format, broken in its header, empty or too large.
pub fn inspect(bytes: &[u8]) -> Result<Picture, PictureError> {
    open(bytes).map(|(picture, _)| picture)
}

/// Checks a picture like [`inspect`], and readies its decoder, which keeps to the limits.
///
/// # Errors
/// As for [`inspect`].
pub fn open(bytes: &[u8]) -> Result<(Picture, impl ImageDecoder + '_), PictureError> {
    let (format, decoded_as) = match image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => (Format::Jpeg, ImageFormat::Jpeg),
        Ok(ImageFormat::Png) => (Format::Png, ImageFormat::Png),
        Ok(_) | Err(_) => return Err(PictureError::UnknownFormat),
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), decoded_as);
    // The sides are checked below, where the refusal can name them.
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(DECODED_BYTES_MAX);
    reader.limits(limits.clone());
    let decoder = reader.into_decoder().map_err(PictureError::Unreadable)?;

    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(PictureError::Empty { width, height });
    }
    let pixels = u64::from(width) * u64::from(height);
    if width > SIDE_MAX || height > SIDE_MAX || pixels > PIXELS_MAX {
        return Err(PictureError::TooLarge { width, height });
    }
    // Not every decoder counts the buffer for the pixels against its limit.
    limits.reserve(decoder.total_bytes()).map_err(PictureError::Unreadable)?;
    Ok((Picture { format, width, height }, decoder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene;

    #[test]
    fn format_and_size_are_read() {
        let jpeg = scene::jpeg(40, 30).unwrap();
        let png = scene::png(40, 30).unwrap();
        let seen = |bytes: &[u8]| {
            let picture = inspect(bytes).unwrap();
            (picture.format, picture.format.content_format(), picture.width, picture.height)
        };
        assert_eq!(seen(&jpeg), (Format::Jpeg, 22, 40, 30));
        assert_eq!(seen(&png), (Format::Png, 23, 40, 30));
    }

    #[test]
    fn other_formats_are_refused() {
        for bytes in [&b""[..], b"hello", b"GIF89a\x01\0\x01\0", b"BM", b"\xff\xd8", b"\x89PNG"] {
            let refused = inspect(bytes);
            assert!(matches!(refused, Err(PictureError::UnknownFormat | PictureError::Unreadable(_))), "{bytes:?}");
        }
    }

    #[test]
    fn a_picture_that_only_claims_to_be_large_is_refused() {
        for (width, height) in [(50_000, 50_000), (16_385, 1), (1, 16_385), (6_000, 4_001)] {
            let bomb = scene::png_header_claiming(width, height, 2, 8);
            let refused = inspect(&bomb);
            assert!(
                matches!(refused, Err(PictureError::TooLarge { width: w, height: h }) if (w, h) == (width, height)),
                "{width} x {height}: {refused:?}"
            );
        }
    }

    #[test]
    fn a_picture_without_pixels_is_refused() {
        assert!(inspect(&scene::png_header_claiming(0, 10, 2, 8)).is_err());
    }

    #[test]
    fn a_picture_that_needs_too_much_memory_is_refused() {
        let deep = scene::png_header_claiming(5_000, 4_800, 6, 16);
        assert!(matches!(inspect(&deep), Err(PictureError::Unreadable(ImageError::Limits(_)))));
    }

    #[test]
    fn every_beginning_of_a_picture_is_an_answer_or_an_error() {
        let jpeg = scene::jpeg(16, 16).unwrap();
        let png = scene::png(16, 16).unwrap();
        for picture in [jpeg, png] {
            for end in 0..picture.len() {
                // Reaching the end of the loop is the test: no beginning makes it panic.
                drop(inspect(&picture[..end]));
            }
        }
    }
}
