//! A layer of an image: an archive, perhaps compressed, whose entries change the tree.
//!
//! ```text
//! blob ──digest, size──▶ decompressed ──ratio──▶ ──digest──▶ archive ──▶ tree
//! ```
//! Both digests are known only at the end. Until then what is unpacked has no name, and afterwards, if they are wrong, it is
//! removed.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use super::ImageLimits;
use super::digest::Digested;
use super::error::{ImageError, entry};
use super::layout::{Layer, Layout, check};
use super::tree::{FileAttributes, Tree};
use crate::archive::decompress::Frames;
use crate::archive::tar::TarReader;
use crate::archive::{Entry, Kind};

/// Media types of archives, without how they are compressed.
const ARCHIVES: [&str; 2] = ["application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar"];

/// A name that begins so takes away the one that follows.
const WHITEOUT: &[u8] = b".wh.";
/// A name that takes away all that lower layers have beside it.
const OPAQUE: &str = ".wh..wh..opq";

const EXECUTE_BITS: u32 = 0o111;

/// What a layer of any size may come to: small ones are mostly padding.
const SWELLS_ANYWAY: u64 = 16 << 20;

/// Applies a layer to what those below have made. `room` is what may still come out of layers, and is less then.
pub(super) fn apply(
    layout: &Layout,
    layer: &Layer,
    tree: &mut Tree<'_>,
    limits: &ImageLimits,
    room: &mut u64,
) -> Result<(), ImageError> {
    let unreadable = |source: io::Error| unreadable(layer, source.into());
    let mut blob = Digested::new(layout.open_blob(&layer.blob)?);
    let swells_to = layer.blob.bytes.saturating_mul(limits.ratio).saturating_add(SWELLS_ANYWAY);
    let decompressed = decompressed(layer, BufReader::with_capacity(64 << 10, &mut blob))?;
    let bounded = Bounded { inner: decompressed, room: swells_to.min(*room) };
    let mut contents = Digested::new(bounded);
    unpack(layer, &mut contents, tree)?;
    let (bytes, found) = contents.finish().map_err(unreadable)?;
    *room = room.saturating_sub(bytes);
    if found != layer.contents {
        return Err(ImageError::Contents { promised: layer.contents.clone(), found });
    }
    let (bytes, found) = blob.finish().map_err(unreadable)?;
    check(&layer.blob, bytes, found)
}

fn unreadable(layer: &Layer, source: Box<dyn std::error::Error + Send + Sync>) -> ImageError {
    ImageError::Layer { digest: layer.blob.digest.clone(), source }
}

fn decompressed<'r>(layer: &Layer, blob: impl BufRead + 'r) -> Result<Box<dyn Read + 'r>, ImageError> {
    let media_type = layer.media_type.as_str();
    let compression = ARCHIVES.iter().find_map(|archive| media_type.strip_prefix(archive));
    match compression {
        Some("") => Ok(Box::new(blob)),
        Some("+gzip" | ".gzip") => Ok(Box::new(flate2::bufread::MultiGzDecoder::new(blob))),
        Some("+zstd" | ".zstd") => Ok(Box::new(Frames::new(blob))),
        Some(_) | None => Err(ImageError::MediaType { what: "a layer".to_owned(), media_type: media_type.to_owned() }),
    }
}

fn unpack(layer: &Layer, contents: impl Read, tree: &mut Tree<'_>) -> Result<(), ImageError> {
    tree.begin_layer();
    let mut archive = TarReader::new(contents, true);
    while let Some(entry) = archive.next_entry().map_err(|error| unreadable(layer, Box::new(error)))? {
        put(entry, &mut archive, tree)?;
    }
    Ok(())
}

fn put(found: Entry, archive: &mut TarReader<impl Read>, tree: &mut Tree<'_>) -> Result<(), ImageError> {
    let written = path_of(found.path);
    let path = within_root(&written, &written)?;
    if let Some(hidden) = whiteout(&path)? {
        return match hidden {
            Hidden::Entry(hidden) => tree.white_out(&hidden),
            Hidden::Beside(directory) => tree.make_opaque(&directory, OPAQUE),
        };
    }
    if path.as_os_str().is_empty() && found.kind != Kind::Directory {
        return Err(entry(&written, "is the root, and not a directory"));
    }
    match found.kind {
        Kind::Directory => tree.directory(&path),
        Kind::File => {
            let attributes = FileAttributes { executable: found.mode & EXECUTE_BITS != 0, modified: archive.modified };
            tree.file(&path, attributes, archive.body())
        }
        Kind::SymbolicLink(target) => tree.symbolic_link(&path, &path_of(target)),
        // Relative to the root, with or without a slash.
        Kind::HardLink(target) => {
            let target = path_of(target);
            let target = target.strip_prefix("/").unwrap_or(&target);
            tree.hard_link(&path, &within_root(target, &written)?)
        }
        // A sandbox has devices of its own.
        Kind::CharacterDevice | Kind::BlockDevice | Kind::Fifo | Kind::Other if path.starts_with("dev") => Ok(()),
        Kind::CharacterDevice | Kind::BlockDevice | Kind::Fifo | Kind::Other => {
            Err(entry(&path, "is a device or named pipe outside of /dev"))
        }
    }
}

fn path_of(written: Vec<u8>) -> PathBuf {
    OsString::from_vec(written).into()
}

/// The path without `.`, if it can only lead down from the root.
fn within_root(path: &Path, shown: &Path) -> Result<PathBuf, ImageError> {
    let mut within = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => within.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(entry(shown, "leads out of the root"));
            }
        }
    }
    Ok(within)
}

/// What a whiteout takes away.
enum Hidden {
    Entry(PathBuf),
    Beside(PathBuf),
}

fn whiteout(path: &Path) -> Result<Option<Hidden>, ImageError> {
    let is_whiteout = |component: &Component<'_>| component.as_os_str().as_encoded_bytes().starts_with(WHITEOUT);
    let Some(position) = path.components().position(|component| is_whiteout(&component)) else { return Ok(None) };
    let name = path.file_name().unwrap_or_default();
    if position + 1 < path.components().count() {
        return Err(entry(path, "is in what takes something away"));
    }
    if name == OPAQUE {
        return Ok(Some(Hidden::Beside(path.parent().unwrap_or(Path::new("")).to_owned())));
    }
    let hidden = name.as_encoded_bytes().strip_prefix(WHITEOUT).unwrap_or_default();
    if matches!(hidden, b"" | b"." | b"..") || hidden.starts_with(WHITEOUT) {
        return Err(entry(path, "takes away what cannot be"));
    }
    let hidden = OsStr::from_bytes(hidden);
    Ok(Some(Hidden::Entry(path.with_file_name(hidden))))
}

/// Ends with an error where more comes out of a layer than may.
struct Bounded<R> {
    inner: R,
    room: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let room = self.room.checked_sub(count as u64);
        self.room = room.ok_or_else(|| io::Error::other("it swells to far more than real files would"))?;
        Ok(count)
    }
}
