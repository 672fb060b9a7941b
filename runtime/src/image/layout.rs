//! An OCI image layout: which image is meant, and its parts, each checked against the digest it goes by.
//!
//! ```text
//! oci-layout    index.json ──tag, platform──▶ (an index of platforms ──▶) manifest ──▶ configuration
//!                                                                            └──▶ layers, in order
//! ```
//! A layout comes with the application and is not believed: documents have a size at most, a path is made of a checked digest
//! alone, and all is opened below the layout's directory, through no link.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::ImageLimits;
use super::digest::{Digest, Digested};
use super::error::ImageError;
use crate::manifest::did_you_mean;

/// Lists in lists; more than one is rare.
const INDEX_DEPTH_MAX: usize = 4;
/// Tags that an error names at most.
const TAGS_NAMED: usize = 8;
const TAG: &str = "org.opencontainers.image.ref.name";
const SYSTEM: &str = "linux";

const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
const CONFIGURATIONS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// A layout, opened.
#[derive(Debug)]
pub(crate) struct Layout {
    directory: OwnedFd,
}

/// The image that was meant.
#[derive(Debug)]
pub(super) struct Selected {
    /// Of its manifest: it stands for all that the image is.
    pub(super) digest: Digest,
    pub(super) layers: Vec<Layer>,
}

/// A layer of an image.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) blob: Blob,
    pub(super) media_type: String,
    /// The digest of the archive in it.
    pub(super) contents: Digest,
}

/// What a document promises of a part.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    pub(super) digest: Digest,
    pub(super) bytes: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutFile {
    image_layout_version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Configuration {
    #[serde(flatten)]
    platform: Platform,
    rootfs: Contents,
}

#[derive(Deserialize)]
struct Contents {
    diff_ids: Vec<String>,
}

impl Platform {
    /// Whether programs for it run here.
    fn is_ours(&self) -> bool {
        self.os == SYSTEM && self.architecture == architecture()
    }

    fn refuse(&self) -> ImageError {
        let shown = |text: &str| text.chars().take(32).collect::<String>();
        ImageError::Platform {
            found: format!("{}/{}", shown(&self.os), shown(&self.architecture)),
            wanted: format!("{SYSTEM}/{}", architecture()),
        }
    }
}

/// What images call this machine.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Descriptor {
    fn blob(&self) -> Result<Blob, ImageError> {
        let digest = Digest::parse(&self.digest).ok_or_else(|| ImageError::NotADigest(self.digest.clone()))?;
        Ok(Blob { digest, bytes: self.size })
    }

    fn tag(&self) -> Option<&str> {
        self.annotations.get(TAG).map(String::as_str)
    }

    fn is_one_of(&self, media_types: &[&str]) -> bool {
        media_types.contains(&self.media_type.as_str())
    }
}

impl Layout {
    /// Takes a directory for a layout.
    ///
    /// # Errors
    /// When it does not say that it is one.
    pub(crate) fn open(directory: OwnedFd, limits: &ImageLimits) -> Result<Self, ImageError> {
        let layout = Self { directory };
        let LayoutFile { image_layout_version: version } = layout.document("oci-layout", limits)?;
        if version.split('.').next() != Some("1") {
            return Err(ImageError::Version { what: "oci-layout".to_owned(), version });
        }
        Ok(layout)
    }

    /// Finds the image with this tag, or, without one, the only image for this host.
    ///
    /// # Errors
    /// When there is none or more than one, or its documents are not what they should be.
    pub(super) fn select(&self, tag: Option<&str>, limits: &ImageLimits) -> Result<Selected, ImageError> {
        let index: Index = self.document("index.json", limits)?;
        check_version("index.json", index.schema_version)?;
        let mut candidates = match tag {
            Some(tag) => tagged(index.manifests, tag)?,
            None => index.manifests,
        };
        for _ in 0..INDEX_DEPTH_MAX {
            let chosen = choose(&candidates)?;
            let blob = chosen.blob()?;
            if chosen.is_one_of(&MANIFESTS) {
                return self.image(blob, limits);
            }
            let index: Index = self.checked_document("an index", &blob, limits)?;
            check_version("an index", index.schema_version)?;
            candidates = index.manifests;
        }
        Err(ImageError::TooMany { limit: INDEX_DEPTH_MAX as u64, what: "indexes inside each other" })
    }

    fn image(&self, blob: Blob, limits: &ImageLimits) -> Result<Selected, ImageError> {
        let manifest: Manifest = self.checked_document("the manifest", &blob, limits)?;
        check_version("the manifest", manifest.schema_version)?;
        if !manifest.config.is_one_of(&CONFIGURATIONS) {
            let media_type = manifest.config.media_type;
            return Err(ImageError::MediaType { what: "the configuration".to_owned(), media_type });
        }
        let configuration: Configuration =
            self.checked_document("the configuration", &manifest.config.blob()?, limits)?;
        if !configuration.platform.is_ours() {
            return Err(configuration.platform.refuse());
        }
        let contents = configuration.rootfs.diff_ids;
        if contents.len() != manifest.layers.len() {
            return Err(ImageError::Layers { layers: manifest.layers.len(), contents: contents.len() });
        }
        if manifest.layers.len() > limits.layers {
            return Err(ImageError::TooMany { limit: limits.layers as u64, what: "layers" });
        }
        let layers = manifest.layers.into_iter().zip(contents).map(|(layer, contents)| {
            let blob = layer.blob()?;
            let contents = Digest::parse(&contents).ok_or(ImageError::NotADigest(contents))?;
            Ok(Layer { blob, media_type: layer.media_type, contents })
        });
        Ok(Selected { digest: blob.digest, layers: layers.collect::<Result<_, _>>()? })
    }

    /// Opens a part, which has as many bytes as were promised; whether it has the digest shows when it is read.
    pub(super) fn open_blob(&self, blob: &Blob) -> Result<impl Read + use<>, ImageError> {
        let (file, found) = self.open_file(&blob.digest.blob_path())?;
        if found != blob.bytes {
            return Err(ImageError::Size { digest: blob.digest.clone(), found, promised: blob.bytes });
        }
        // One that grows while it is read is not read for ever.
        Ok(file.take(blob.bytes.saturating_add(1)))
    }

    fn open_file(&self, path: &str) -> Result<(File, u64), ImageError> {
        let failed = |source| ImageError::Read { what: path.to_owned(), source };
        // A named pipe in the place of a part must not hold the agent up.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let resolve =
            ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let opened = openat2(&self.directory, path, OpenHow::new().flags(flags).resolve(resolve));
        let file = File::from(opened.map_err(|errno| failed(errno.into()))?);
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(ImageError::NotAFile(path.to_owned()));
        }
        Ok((file, metadata.len()))
    }

    /// A document that nothing vouches for.
    fn document<T: DeserializeOwned>(&self, path: &str, limits: &ImageLimits) -> Result<T, ImageError> {
        let (file, _) = self.open_file(path)?;
        parse(path, &read_bounded(file, path, limits)?)
    }

    fn checked_document<T: DeserializeOwned>(
        &self,
        what: &str,
        blob: &Blob,
        limits: &ImageLimits,
    ) -> Result<T, ImageError> {
        let mut digested = Digested::new(self.open_blob(blob)?);
        let bytes = read_bounded(&mut digested, what, limits)?;
        let (found_bytes, found) =
            digested.finish().map_err(|source| ImageError::Read { what: what.to_owned(), source })?;
        check(blob, found_bytes, found)?;
        parse(what, &bytes)
    }
}

/// Whether what was read is what was promised.
pub(super) fn check(promised: &Blob, bytes: u64, found: Digest) -> Result<(), ImageError> {
    let Blob { digest, bytes: promised_bytes } = promised;
    if bytes != *promised_bytes {
        return Err(ImageError::Size { digest: digest.clone(), found: bytes, promised: *promised_bytes });
    }
    if found != *digest {
        return Err(ImageError::Contents { promised: digest.clone(), found });
    }
    Ok(())
}

fn read_bounded(from: impl Read, what: &str, limits: &ImageLimits) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    let read = from.take(limits.document_bytes + 1).read_to_end(&mut bytes);
    read.map_err(|source| ImageError::Read { what: what.to_owned(), source })?;
    if bytes.len() as u64 > limits.document_bytes {
        return Err(ImageError::TooMany { limit: limits.document_bytes, what: "bytes of a document" });
    }
    Ok(bytes)
}

fn parse<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|source| ImageError::Document { what: what.to_owned(), source })
}

fn check_version(what: &str, version: u32) -> Result<(), ImageError> {
    if version == 2 {
        return Ok(());
    }
    Err(ImageError::Version { what: what.to_owned(), version: version.to_string() })
}

fn tagged(candidates: Vec<Descriptor>, tag: &str) -> Result<Vec<Descriptor>, ImageError> {
    let (tagged, others): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|candidate| candidate.tag() == Some(tag));
    if tagged.is_empty() {
        let meant = did_you_mean(tag, others.iter().filter_map(Descriptor::tag));
        let hint = if meant.is_empty() { tags(&others) } else { meant };
        return Err(ImageError::Tag { tag: tag.to_owned(), hint });
    }
    Ok(tagged)
}

/// "; it has `one`, `other`", as the end of a sentence.
fn tags(candidates: &[Descriptor]) -> String {
    let tags: Vec<_> =
        candidates.iter().filter_map(Descriptor::tag).take(TAGS_NAMED).map(|tag| format!("`{tag}`")).collect();
    if tags.is_empty() { String::new() } else { format!("; it has {}", tags.join(", ")) }
}

/// The one for this host. One that says for which it is goes before one that does not.
fn choose(candidates: &[Descriptor]) -> Result<&Descriptor, ImageError> {
    let known = |candidate: &&Descriptor| candidate.is_one_of(&MANIFESTS) || candidate.is_one_of(&INDEXES);
    let Some(first) = candidates.iter().find(known) else {
        let media_type = candidates.first().map(|candidate| candidate.media_type.clone()).unwrap_or_default();
        return Err(ImageError::MediaType { what: "an index".to_owned(), media_type });
    };
    let named = |candidate: &&Descriptor| candidate.platform.as_ref().is_some_and(Platform::is_ours);
    let mut fitting: Vec<_> = candidates.iter().filter(known).filter(named).collect();
    if fitting.is_empty() {
        fitting = candidates.iter().filter(known).filter(|candidate| candidate.platform.is_none()).collect();
    }
    match (fitting.as_slice(), &first.platform) {
        ([], Some(platform)) => Err(platform.refuse()),
        ([], None) => Ok(first),
        ([chosen], _) => Ok(chosen),
        ([chosen, others @ ..], _) if others.iter().all(|other| other.digest == chosen.digest) => Ok(chosen),
        _ => Err(ImageError::Several { hint: tags(candidates) }),
    }
}
