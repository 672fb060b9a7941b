//! The root file system that an application asks for.

use std::fmt;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use super::problem::did_you_mean;
use crate::{bundle, image};

const IMAGE: &str = "oci";

/// Where the root file system of an application's sandbox comes from, if not from the host's system directories. A relative path
/// is in the application's folder; an absolute one is of the host, which says what of that may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rootfs {
    /// A directory, as it is.
    Directory(PathBuf),
    /// An OCI image layout.
    Image {
        /// Its directory.
        layout: PathBuf,
        /// Which image of the layout, if it has several.
        tag: Option<String>,
    },
}

impl Rootfs {
    /// Reads what a manifest says; what is wrong with it, as the end of a sentence.
    pub(super) fn parse(written: &str) -> Result<Self, String> {
        // A path with a colon in its first name can be written with `./` before.
        let (kind, rest) = match written.split_once(':') {
            Some((kind, rest)) if !kind.contains('/') => (kind, rest),
            Some(_) | None => return Ok(Self::Directory(checked_path(written)?)),
        };
        if kind != IMAGE {
            let meant = did_you_mean(kind, [IMAGE]);
            return Err(format!(
                "is of a kind that is not known{meant}; it is a directory, or an image layout such as `oci:image`, which `skopeo copy docker://NAME oci:image` makes"
            ));
        }
        let (layout, tag) = match rest.split_once(':') {
            Some((_, "")) => return Err("has no tag after its last colon".to_owned()),
            Some((layout, tag)) => (layout, Some(tag.to_owned())),
            None => (rest, None),
        };
        Ok(Self::Image { layout: checked_path(layout)?, tag })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Directory(path) | Self::Image { layout: path, .. } => path,
        }
    }

    /// Whether what is in the application's folder `dir` can be used; if not, why, as the end of a sentence. What is elsewhere
    /// on a host is looked at when it is deployed there.
    pub(super) fn look(&self, dir: &Path) -> Result<(), String> {
        let path = self.path();
        if path.is_absolute() {
            return Ok(());
        }
        if let Some(left_out) = bundle::left_out(path) {
            return Err(format!("is in `{left_out}/`, which is not deployed; copy it elsewhere"));
        }
        super::code::refuse_links(dir, path)?;
        let full = dir.join(path);
        match fs::symlink_metadata(&full) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err("is not a directory".to_owned()),
            Err(_) => {
                return Err(format!("does not exist in the application's folder{}", nearest(&full)));
            }
        }
        let Self::Image { tag, .. } = self else { return Ok(()) };
        let directory = fs::File::open(&full).map_err(|error| format!("cannot be read: {error}"))?;
        let looked_at = image::look(OwnedFd::from(directory), tag.as_deref());
        looked_at.map_err(|error| format!("cannot be used: {}", crate::chain(&error)))
    }
}

impl fmt::Display for Rootfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Image { layout, tag: None } => write!(f, "{IMAGE}:{}", layout.display()),
            Self::Image { layout, tag: Some(tag) } => write!(f, "{IMAGE}:{}:{tag}", layout.display()),
        }
    }
}

/// The path without `.` and doubled slashes, if it has no `..`.
fn checked_path(written: &str) -> Result<PathBuf, String> {
    if written.is_empty() || written.contains('\0') {
        return Err("names no directory".to_owned());
    }
    let mut path = PathBuf::new();
    for component in Path::new(written).components() {
        match component {
            Component::Normal(_) | Component::RootDir => path.push(component),
            Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err("has a `..`; name the directory itself".to_owned());
            }
        }
    }
    if path.as_os_str().is_empty() {
        return Err("is the application's folder itself, not a directory in it".to_owned());
    }
    if path == Path::new("/") {
        return Err("is the whole host; without `rootfs` a sandbox has the host's system directories".to_owned());
    }
    Ok(path)
}

/// What else is there that may have been meant.
fn nearest(missing: &Path) -> String {
    let written = missing.file_name().unwrap_or_default().to_string_lossy();
    let siblings = missing.parent().and_then(|parent| fs::read_dir(parent).ok()).into_iter().flatten().flatten();
    let names: Vec<String> = siblings
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    did_you_mean(&written, names.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_a_directory_or_an_image_with_or_without_a_tag() {
        assert_eq!(Rootfs::parse("root"), Ok(Rootfs::Directory("root".into())));
        assert_eq!(Rootfs::parse("./a:b//c/."), Ok(Rootfs::Directory("a:b/c".into())));
        assert_eq!(Rootfs::parse("/srv/a:b"), Ok(Rootfs::Directory("/srv/a:b".into())));
        let image =
            |layout: &str, tag: Option<&str>| Ok(Rootfs::Image { layout: layout.into(), tag: tag.map(str::to_owned) });
        assert_eq!(Rootfs::parse("oci:images/python"), image("images/python", None));
        assert_eq!(Rootfs::parse("oci:/srv/python:3.12-slim"), image("/srv/python", Some("3.12-slim")));
        for text in ["root", "oci:images/python", "oci:/srv/python:3.12-slim"] {
            assert_eq!(Rootfs::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_leads_out_or_is_of_another_kind_is_refused_with_what_to_do() {
        for (written, why) in [
            ("", "names no directory"),
            ("oci:", "names no directory"),
            ("oci::tag", "names no directory"),
            ("oci:image:", "has no tag"),
            (".", "application's folder itself"),
            ("../root", "has a `..`"),
            ("oci:a/../../b", "has a `..`"),
            ("/", "the whole host"),
            ("//.", "the whole host"),
            ("docker://python:3", "skopeo copy docker://NAME oci:image"),
            ("ocl:image", "did you mean `oci`?"),
        ] {
            let refused = Rootfs::parse(written).unwrap_err();
            assert!(refused.contains(why), "{written}: {refused}");
        }
    }
}
