//! Draws a picture that belongs to nobody: a sun over hills, with the grain of a cheap camera.
//!
//! The same size gives the same bytes. The grain makes the picture as hard to compress as a photo,
//! so that a file of some size has about as many pixels as a photo of that size would.

use std::io::Cursor;

use exif::experimental::Writer;
use exif::{Field, In, Tag, Value};
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ImageEncoder, Rgb, RgbImage};
use thiserror::Error;

/// JPEG quality of 1 to 100, as the encoder counts it: that of a camera's best setting.
const QUALITY: u8 = 95;

/// Why a picture could not be written.
#[derive(Debug, Error)]
pub enum SceneError {
    /// The picture could not be encoded.
    #[error("cannot encode the picture")]
    Picture(#[from] image::ImageError),
    /// The Exif data could not be encoded.
    #[error("cannot encode the Exif data")]
    Exif(#[from] exif::Error),
    /// The encoder takes no Exif data.
    #[error("cannot attach the Exif data")]
    Unsupported(#[from] image::error::UnsupportedError),
}

/// The scene as a JPEG of `width` by `height` pixels, with Exif data.
///
/// # Errors
/// The encoder refuses the size.
pub fn jpeg(width: u32, height: u32) -> Result<Vec<u8>, SceneError> {
    jpeg_with_orientation(width, height, 1)
}

/// Like [`jpeg`], with an Exif orientation of 1 (upright) to 8.
///
/// # Errors
/// The encoder refuses the size.
pub fn jpeg_with_orientation(width: u32, height: u32, orientation: u16) -> Result<Vec<u8>, SceneError> {
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, QUALITY);
    encoder.set_exif_metadata(exif_data(orientation)?)?;
    encoder.encode_image(&draw(width, height))?;
    Ok(bytes)
}

/// The scene as a PNG of `width` by `height` pixels.
///
/// # Errors
/// The encoder refuses the size.
pub fn png(width: u32, height: u32) -> Result<Vec<u8>, SceneError> {
    let mut bytes = Vec::new();
    draw(width, height).write_with_encoder(PngEncoder::new(&mut bytes))?;
    Ok(bytes)
}

/// The Exif block (a TIFF structure) of a camera called Sandbar.
fn exif_data(orientation: u16) -> Result<Vec<u8>, exif::Error> {
    let text = |text: &str| Value::Ascii(vec![text.as_bytes().to_vec()]);
    let fields = [
        (Tag::Make, text("Sandbar")),
        (Tag::Model, text("Synthetic scene")),
        (Tag::Orientation, Value::Short(vec![orientation])),
        (Tag::DateTimeOriginal, text("2026:01:01 12:00:00")),
        (Tag::PhotographicSensitivity, Value::Short(vec![200])),
    ]
    .map(|(tag, value)| Field { tag, ifd_num: In::PRIMARY, value });
    let mut writer = Writer::new();
    for field in &fields {
        writer.push_field(field);
    }
    let mut block = Cursor::new(Vec::new());
    writer.write(&mut block, false)?;
    Ok(block.into_inner())
}

fn draw(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let across = f64::from(x) / f64::from(width);
        let down = f64::from(y) / f64::from(height);
        let grain = noise(u64::from(y) << 32 | u64::from(x));
        Rgb(std::array::from_fn(|channel| level(light(across, down)[channel] + f64::from(grain[channel]) / 8.0 - 16.0)))
    })
}

/// Red, green and blue of 0 to 255 at a place given by fractions of width and height.
fn light(across: f64, down: f64) -> [f64; 3] {
    let hills = [(0.62, 0.06, 5.0, 40.0), (0.74, 0.05, 9.0, 0.0)];
    for (base, amplitude, frequency, shade) in hills.into_iter().rev() {
        if down > base + amplitude * (across * frequency).sin() {
            return [40.0 + shade, 95.0 + shade, 45.0 + shade];
        }
    }
    let from_sun = (across - 0.7).hypot(0.75 * (down - 0.25));
    if from_sun < 0.07 {
        return [255.0, 236.0, 170.0];
    }
    let glow = 60.0 * (1.0 - from_sun).max(0.0);
    [90.0 + 110.0 * down + glow, 140.0 + 70.0 * down + glow, 230.0 - 30.0 * down]
}

fn level(light: f64) -> u8 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the value is held to the range of u8 right before"
    )]
    let level = light.clamp(0.0, 255.0) as u8;
    level
}

/// Eight bytes that look random but depend on `place` alone (the finalizer of SplitMix64, Steele et
/// al., OOPSLA 2014).
fn noise(place: u64) -> [u8; 8] {
    let mut state = place.wrapping_add(0x9e37_79b9_7f4a_7c15);
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state ^ (state >> 31)).to_le_bytes()
}

/// The beginning of a PNG that claims a size, as a decompression bomb would, without any pixels.
#[cfg(test)]
pub(crate) fn png_header_claiming(width: u32, height: u32, color: u8, depth: u8) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = Vec::new();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([depth, color, 0, 0, 0]);
    for (name, data) in [(b"IHDR", &header[..]), (b"IDAT", b""), (b"IEND", b"")] {
        bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        let checked = [&name[..], data].concat();
        bytes.extend(&checked);
        bytes.extend(crc32(&checked).to_be_bytes());
    }
    bytes
}

#[cfg(test)]
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_size_gives_the_same_bytes() {
        assert_eq!(png(20, 15).unwrap(), png(20, 15).unwrap());
        assert_eq!(jpeg(20, 15).unwrap(), jpeg(20, 15).unwrap());
    }

    #[test]
    fn the_grain_keeps_the_picture_from_compressing_away() {
        assert!(png(200, 150).unwrap().len() > 200 * 150);
    }
}
