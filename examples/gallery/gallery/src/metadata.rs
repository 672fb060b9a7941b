//! Reads what a picture tells about itself.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use exif::{Exif, In, Reader, Tag};
use image::{ExtendedColorType, ImageDecoder};
use serde::Serialize;

use crate::picture::{self, Format, PictureError};

/// A camera's text may be as long as the picture; a line in a log should not be. In bytes.
const VALUE_BYTES_MAX: usize = 64;

/// The Exif fields that are reported, and their names in the answer.
const FIELDS: [(Tag, &str); 9] = [
    (Tag::Make, "make"),
    (Tag::Model, "model"),
    (Tag::DateTimeOriginal, "taken"),
    (Tag::Orientation, "orientation"),
    (Tag::ExposureTime, "exposure"),
    (Tag::FNumber, "aperture"),
    (Tag::PhotographicSensitivity, "sensitivity"),
    (Tag::FocalLength, "focal_length"),
    (Tag::Software, "software"),
];

/// What a picture tells about itself.
#[derive(Debug, Serialize)]
pub struct Metadata {
    /// As its first bytes say.
    pub format: Format,
    /// The size of the file, in bytes.
    pub bytes: usize,
    /// In pixels, as stored: Exif may say that the picture is to be turned.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// The stored pixels' channels and depth, as `Rgb8`.
    pub color: String,
    /// Exif fields in words, at most 64 bytes each; absent where the picture has none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub exif: BTreeMap<&'static str, String>,
    /// Whether the picture says where it was taken. The place itself is left out, because what this
    /// function finds goes to a log.
    pub located: bool,
    /// Why there is Exif data but it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exif_error: Option<String>,
}

/// Reads a picture's header and its Exif data; decodes no pixels.
///
/// # Errors
/// The picture is not taken, see [`picture::open`]. Exif data that cannot be read is no error of the
/// picture: [`Metadata::exif_error`] tells of it.
pub fn read(bytes: &[u8]) -> Result<Metadata, PictureError> {
    let (picture, mut decoder) = picture::open(bytes)?;
    let color: ExtendedColorType = decoder.original_color_type();
    let mut metadata = Metadata {
        format: picture.format,
        bytes: bytes.len(),
        width: picture.width,
        height: picture.height,
        color: format!("{color:?}"),
        exif: BTreeMap::new(),
        located: false,
        exif_error: None,
    };
    match decoder.exif_metadata() {
        Ok(Some(raw)) => match Reader::new().read_raw(raw) {
            Ok(exif) => {
                metadata.located = exif.get_field(Tag::GPSLatitude, In::PRIMARY).is_some();
                metadata.exif = fields(&exif);
            }
            Err(error) => metadata.exif_error = Some(shortened(&error)),
        },
        Ok(None) => {}
        Err(error) => metadata.exif_error = Some(shortened(&error)),
    }
    Ok(metadata)
}

fn fields(exif: &Exif) -> BTreeMap<&'static str, String> {
    FIELDS
        .iter()
        .filter_map(|(tag, name)| {
            let field = exif.get_field(*tag, In::PRIMARY)?;
            let value = shortened(&field.display_value().with_unit(exif));
            Some((*name, value.trim_matches('"').to_owned()))
        })
        .collect()
}

/// The text of `value`, cut off at [`VALUE_BYTES_MAX`].
fn shortened(value: &impl fmt::Display) -> String {
    let mut text = Shortened(String::new());
    // The error only says that the text was longer; what fitted is in `text`.
    if write!(text, "{value}").is_err() {
        text.0.push('…');
    }
    text.0
}

/// Takes text until it is full, and then refuses, so that a long value is not even formatted.
struct Shortened(String);

impl Write for Shortened {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            if self.0.len() + letter.len_utf8() > VALUE_BYTES_MAX {
                return Err(fmt::Error);
            }
            self.0.push(letter);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene;

    #[test]
    fn size_and_format_are_reported() {
        let png = scene::png(40, 30).unwrap();
        let metadata = read(&png).unwrap();
        assert_eq!((metadata.format, metadata.width, metadata.height), (Format::Png, 40, 30));
        assert_eq!(metadata.bytes, png.len());
        assert_eq!(metadata.color, "Rgb8");
    }

    #[test]
    fn exif_fields_are_reported() {
        let metadata = read(&scene::jpeg_with_orientation(40, 30, 6).unwrap()).unwrap();
        assert_eq!(metadata.exif["make"], "Sandbar");
        assert_eq!(metadata.exif["taken"], "2026-01-01 12:00:00");
        assert_eq!(metadata.exif["orientation"], "row 0 at right and column 0 at top");
        assert!(!metadata.located);
        assert_eq!(metadata.exif_error, None);
    }

    #[test]
    fn broken_exif_does_not_hide_the_rest() {
        let mut jpeg = scene::jpeg_with_orientation(40, 30, 6).unwrap();
        let exif = jpeg.windows(6).position(|bytes| bytes == b"Exif\0\0").unwrap();
        jpeg[exif + 6..exif + 14].fill(0);
        let metadata = read(&jpeg).unwrap();
        assert_eq!((metadata.width, metadata.height), (40, 30));
        assert!(metadata.exif_error.is_some());
    }

    #[test]
    fn long_values_are_cut_at_a_letter() {
        let cut = shortened(&"ä".repeat(1_000));
        assert_eq!(cut, "ä".repeat(VALUE_BYTES_MAX / 2) + "…");
        assert_eq!(shortened(&"short"), "short");
    }

    #[test]
    fn scribbled_exif_does_not_panic() {
        let jpeg = scene::jpeg_with_orientation(16, 16, 1).unwrap();
        let exif = jpeg.windows(6).position(|bytes| bytes == b"Exif\0\0").unwrap();
        for position in exif..(exif + 200).min(jpeg.len()) {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut scribbled = jpeg.clone();
                scribbled[position] = value;
                drop(read(&scribbled));
            }
        }
    }
}
