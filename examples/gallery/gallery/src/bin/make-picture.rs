//! Writes a picture of at least a given size, to try the gallery with.
//!
//! `make-picture BYTES FILE`: FILE ends in `.jpg`, `.jpeg` or `.png`. The picture is as small as a
//! few tries find it, and the same for the same BYTES.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::{env, fs, io};

use gallery::picture::PIXELS_MAX;
use gallery::scene::{self, SceneError};

type Encode = fn(u32, u32) -> Result<Vec<u8>, SceneError>;

const USAGE: &str = "usage: make-picture BYTES FILE.jpg|FILE.png";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use io::Write;
            // Nobody is left to tell when standard error is gone; the exit code still says it.
            drop(writeln!(io::stderr(), "make-picture: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [bytes_min, file] = arguments else {
        return Err(USAGE.into());
    };
    let bytes_min: usize = bytes_min.parse().map_err(|error| format!("{bytes_min}: {error}"))?;
    let path = Path::new(file);
    let encode: Encode = match path.extension().and_then(|extension| extension.to_str()) {
        Some("jpg" | "jpeg") => scene::jpeg,
        Some("png") => scene::png,
        Some(_) | None => return Err(USAGE.into()),
    };
    let picture = at_least(bytes_min, encode)?;
    fs::write(path, picture).map_err(|error| format!("{file}: {error}").into())
}

/// The smallest of a row of pictures, each an eighth wider than the one before, that is large enough.
fn at_least(bytes_min: usize, encode: Encode) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut width: u32 = 64;
    loop {
        let height = width / 4 * 3;
        if u64::from(width) * u64::from(height) > PIXELS_MAX {
            return Err(format!("a picture of {bytes_min} bytes is larger than the gallery takes").into());
        }
        // A pixel takes between one and four bytes: what cannot be large enough is not drawn.
        if u64::from(width) * u64::from(height) * 4 >= bytes_min as u64 {
            let picture = encode(width, height)?;
            if picture.len() >= bytes_min {
                return Ok(picture);
            }
        }
        width += width / 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_is_large_enough_but_not_much_larger() {
        for encode in [scene::jpeg as Encode, scene::png] {
            let picture = at_least(100_000, encode).unwrap();
            assert!((100_000..180_000).contains(&picture.len()), "{}", picture.len());
        }
    }

    #[test]
    fn a_picture_beyond_the_gallery_is_refused() {
        assert!(at_least(usize::MAX, scene::jpeg).is_err());
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for arguments in [vec![], vec!["10"], vec!["ten", "a.png"], vec!["10", "a.gif"]] {
            let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
            assert!(run(&arguments).is_err(), "{arguments:?}");
        }
    }
}
