//! Makes a picture small.

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageDecoder, ImageError, Rgb, RgbImage, RgbaImage};
use thiserror::Error;

use crate::picture::{self, PictureError};

/// The longer side of a thumbnail, in pixels; a smaller picture keeps its size.
pub const SIDE_MAX: u32 = 160;

/// JPEG quality of 1 to 100, as the encoder counts it: below 80 edges show rings at this size.
const QUALITY: u8 = 80;

/// Why there is no thumbnail.
#[derive(Debug, Error)]
pub enum ThumbnailError {
    /// The picture is not taken.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// The picture is broken behind its header.
    #[error("cannot decode the picture")]
    Undecodable(#[source] ImageError),
    /// The thumbnail could not be written.
    #[error("cannot write the thumbnail")]
    Unwritable(#[source] ImageError),
}

/// A JPEG of the picture, its sides at most [`SIDE_MAX`], upright, transparent parts white.
///
/// # Errors
/// The picture is not taken (see [`picture::open`]) or cannot be decoded.
pub fn make(bytes: &[u8]) -> Result<Vec<u8>, ThumbnailError> {
    let (picture, mut decoder) = picture::open(bytes)?;
    // An orientation that cannot be read is no reason to answer nothing.
    let orientation = decoder.orientation().ok();
    let full = DynamicImage::from_decoder(decoder).map_err(ThumbnailError::Undecodable)?;
    let mut small =
        if picture.width.max(picture.height) > SIDE_MAX { full.thumbnail(SIDE_MAX, SIDE_MAX) } else { full };
    if let Some(orientation) = orientation {
        small.apply_orientation(orientation);
    }
    let opaque = if small.color().has_alpha() { on_white(&small.into_rgba8()) } else { small.into_rgb8() };
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY).encode_image(&opaque).map_err(ThumbnailError::Unwritable)?;
    Ok(jpeg)
}

/// JPEG has no transparency, and dropping the alpha channel shows what was meant to be hidden.
fn on_white(picture: &RgbaImage) -> RgbImage {
    RgbImage::from_fn(picture.width(), picture.height(), |x, y| {
        let [red, green, blue, alpha] = picture.get_pixel(x, y).0;
        Rgb([red, green, blue].map(|channel| over_white(channel, alpha)))
    })
}

fn over_white(channel: u8, alpha: u8) -> u8 {
    let (channel, alpha) = (u16::from(channel), u16::from(alpha));
    let sum = channel * alpha + 255 * (255 - alpha);
    u8::try_from(sum / 255).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene;
    use image::{GenericImageView, ImageFormat};

    fn thumbnail(bytes: &[u8]) -> DynamicImage {
        let jpeg = make(bytes).unwrap();
        assert_eq!(image::guess_format(&jpeg).unwrap(), ImageFormat::Jpeg);
        image::load_from_memory(&jpeg).unwrap()
    }

    #[test]
    fn the_longer_side_becomes_the_maximum() {
        assert_eq!(thumbnail(&scene::jpeg(800, 400).unwrap()).dimensions(), (160, 80));
        assert_eq!(thumbnail(&scene::png(400, 800).unwrap()).dimensions(), (80, 160));
    }

    #[test]
    fn a_line_keeps_a_pixel_of_width() {
        assert_eq!(thumbnail(&scene::png(3_000, 1).unwrap()).dimensions(), (160, 1));
    }

    #[test]
    fn a_small_picture_keeps_its_size() {
        assert_eq!(thumbnail(&scene::png(31, 7).unwrap()).dimensions(), (31, 7));
    }

    #[test]
    fn a_picture_is_turned_upright() {
        let turned = scene::jpeg_with_orientation(400, 200, 6).unwrap();
        assert_eq!(thumbnail(&turned).dimensions(), (80, 160));
    }

    #[test]
    fn what_is_transparent_becomes_white() {
        assert_eq!(over_white(0, 0), 255);
        assert_eq!(over_white(7, 255), 7);
        assert_eq!(over_white(0, 128), 127);
    }

    #[test]
    fn a_picture_cut_short_or_scribbled_over_does_not_panic() {
        for picture in [scene::jpeg(24, 16).unwrap(), scene::png(24, 16).unwrap()] {
            for cut in (0..picture.len()).step_by(7) {
                drop(make(&picture[..cut]));
            }
            for position in (0..picture.len()).step_by(5) {
                for value in [0, 0x7f, 0xff] {
                    let mut scribbled = picture.clone();
                    scribbled[position] = value;
                    drop(make(&scribbled));
                }
            }
        }
    }
}
