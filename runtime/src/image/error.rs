//! Why an image is not taken.

use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::digest::Digest;

/// Why an image layout is not one, or its image cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    /// A part of the layout cannot be opened or read.
    #[error("cannot read {what} of the image")]
    Read {
        what: String,
        #[source]
        source: io::Error,
    },
    /// A part of the layout is something else than a regular file.
    #[error("{0} of the image is not a regular file")]
    NotAFile(String),
    /// A document is not what it should be.
    #[error("{what} of the image makes no sense")]
    Document {
        what: String,
        #[source]
        source: serde_json::Error,
    },
    /// A version of a document that is not known.
    #[error("{what} of the image is of version {version}, which is not known")]
    Version { what: String, version: String },
    /// What is written for a digest is none.
    #[error("{0:?} is not a digest: `sha256:` and 64 hexadecimal digits")]
    NotADigest(String),
    /// There are more or fewer bytes than were promised.
    #[error("{digest} is of {found} bytes, not of {promised} as the image says")]
    Size { digest: Digest, found: u64, promised: u64 },
    /// The bytes are not those that were promised.
    #[error("the contents of {promised} have the digest {found}")]
    Contents { promised: Digest, found: Digest },
    /// Nothing in the layout has this tag.
    #[error("the layout has no image tagged `{tag}`{hint}")]
    Tag { tag: String, hint: String },
    /// Several images, and nothing says which.
    #[error("the layout has several images: say which, as in oci:DIR:TAG{hint}")]
    Several { hint: String },
    /// Another kind of machine's.
    #[error("the image is for {found}; this host is {wanted}")]
    Platform { found: String, wanted: String },
    /// Neither an image, nor a list of images, nor a layer that can be unpacked.
    #[error("{what} of the image is of a kind that is not taken: {media_type:?}")]
    MediaType { what: String, media_type: String },
    /// The layers and the list of their contents differ in length.
    #[error("the image has {layers} layers and names the contents of {contents}")]
    Layers { layers: usize, contents: usize },
    /// A limit of [`ImageLimits`](super::ImageLimits) is exceeded.
    #[error("the image is too much: up to {limit} {what} are taken")]
    TooMany { limit: u64, what: &'static str },
    /// A layer cannot be read as an archive.
    #[error("layer {digest} cannot be read")]
    Layer {
        digest: Digest,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An entry of a layer that is not taken.
    #[error("{path:?} in a layer of the image {why}")]
    Entry { path: PathBuf, why: &'static str },
    /// The copy could not be written.
    #[error("cannot write {path:?} of the image")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// For what goes wrong with a file of the copy.
pub(super) fn write(path: &Path) -> impl Fn(Errno) -> ImageError + '_ {
    |errno| ImageError::Write { path: path.to_owned(), source: errno.into() }
}

/// For an entry that is not taken.
pub(super) fn entry(path: &Path, why: &'static str) -> ImageError {
    ImageError::Entry { path: path.to_owned(), why }
}
