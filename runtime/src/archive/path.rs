//! Paths in archives, and names of a bundle's files: what is wrong with them.

use unicode_normalization::is_nfc;

use super::tar::PATH_BYTES_MAX;

/// The longest name of a file, as the system has it.
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// What is wrong with a path, as the end of a sentence that begins with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    #[error("is empty")]
    Empty,
    #[error("is absolute; paths in an archive are relative to the application's folder")]
    Absolute,
    #[error("leads upwards by `..`")]
    Upwards,
    #[error("has an empty part between slashes")]
    EmptyName,
    #[error("has a part `.` that leads nowhere")]
    Dot,
    #[error("ends in a slash, but is no directory")]
    Slash,
    #[error("has a NUL in it")]
    Nul,
    #[error("is longer than {PATH_BYTES_MAX} bytes")]
    LongPath,
    #[error("has a name longer than {NAME_BYTES_MAX} bytes")]
    LongName,
    #[error("has more than {0} directories inside each other")]
    Deep(usize),
    #[error("is not UTF-8")]
    NotUtf8,
    #[error("has a control character in it")]
    Control,
    #[error("has a backslash in it; the parts of a path are separated by slashes")]
    Backslash,
    #[error("starts with the letter of a drive")]
    Drive,
    #[error(
        "has a character that can be written in several ways, and is not in the usual one (Unicode's form NFC); rename it"
    )]
    NotComposed,
}

/// The parts of a path below some folder, none for the folder itself. A leading `./` is passed over, as archivers that are
/// given `.` write it, and so is a directory's slash at the end.
///
/// The parts are what the kernel takes as names, and no more than that.
///
/// # Errors
/// The path is not one that stays below.
pub(crate) fn parts(path: &[u8], is_directory: bool, depth_max: usize) -> Result<Vec<&[u8]>, PathError> {
    if path.is_empty() {
        return Err(PathError::Empty);
    }
    if path.len() > PATH_BYTES_MAX {
        return Err(PathError::LongPath);
    }
    if path.contains(&0) {
        return Err(PathError::Nul);
    }
    if path.starts_with(b"/") {
        return Err(PathError::Absolute);
    }
    let path = match path.strip_suffix(b"/") {
        Some(path) if is_directory => path,
        Some(_) => return Err(PathError::Slash),
        None => path,
    };
    let path = if path == b"." && is_directory { b"" } else { path.strip_prefix(b"./").unwrap_or(path) };
    if path.is_empty() && is_directory {
        return Ok(Vec::new());
    }
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    if parts.len() > depth_max.saturating_add(usize::from(!is_directory)) {
        return Err(PathError::Deep(depth_max));
    }
    parts.iter().try_for_each(|part| match *part {
        b"" => Err(PathError::EmptyName),
        b"." => Err(PathError::Dot),
        b".." => Err(PathError::Upwards),
        name if name.len() > NAME_BYTES_MAX => Err(PathError::LongName),
        _ => Ok(()),
    })?;
    Ok(parts)
}

/// A name as a bundle may have it: text that looks the same and is the same on every system, and does nothing to a terminal.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn name(name: &[u8]) -> Result<&str, PathError> {
    let name = std::str::from_utf8(name).map_err(|_| PathError::NotUtf8)?;
    match name.as_bytes() {
        _ if name.chars().any(char::is_control) => Err(PathError::Control),
        _ if name.contains('\\') => Err(PathError::Backslash),
        [letter, b':', ..] if letter.is_ascii_alphabetic() => Err(PathError::Drive),
        _ if !is_nfc(name) => Err(PathError::NotComposed),
        _ => Ok(name),
    }
}

/// What two names must not have in common in one directory: on other systems they would be one file.
pub(crate) fn folded(name: &str) -> String {
    // By way of capitals, as several small letters may have the same one.
    name.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(path: &[u8], is_directory: bool) -> Result<Vec<&str>, PathError> {
        parts(path, is_directory, 3)?.into_iter().map(name).collect()
    }

    #[test]
    fn paths_below_are_taken_apart() {
        assert_eq!(checked(b"a", false), Ok(vec!["a"]));
        assert_eq!(checked(b"./a/b.py", false), Ok(vec!["a", "b.py"]));
        assert_eq!(checked("a/ü/...".as_bytes(), false), Ok(vec!["a", "ü", "..."]));
        for root in [b"." as &[u8], b"./"] {
            assert_eq!(checked(root, true), Ok(vec![]), "{root:?}");
        }
        for directory in [b"a/b" as &[u8], b"a/b/", b"./a/b/"] {
            assert_eq!(checked(directory, true), Ok(vec!["a", "b"]), "{directory:?}");
        }
        assert_eq!(checked(b"a/b/c/d", false).map(|parts| parts.len()), Ok(4), "a file in the third directory");
        let long = vec![b'n'; NAME_BYTES_MAX];
        assert!(checked(&long, false).is_ok());
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        for (path, expected) in [
            (b"" as &[u8], PathError::Empty),
            (b"/", PathError::Absolute),
            (b"/etc/passwd", PathError::Absolute),
            (b"//a", PathError::Absolute),
            (b"..", PathError::Upwards),
            (b"../a", PathError::Upwards),
            (b"a/../../b", PathError::Upwards),
            (b"a/..", PathError::Upwards),
            (b"./..", PathError::Upwards),
            (b"a//b", PathError::EmptyName),
            (b".//a", PathError::EmptyName),
            (b".", PathError::Dot),
            (b"././a", PathError::Dot),
            (b"a/./b", PathError::Dot),
            (b"a/.", PathError::Dot),
            (b"a/", PathError::Slash),
            (b"a\0b", PathError::Nul),
            (b"a/b/c/d/e", PathError::Deep(3)),
        ] {
            assert_eq!(parts(path, false, 3), Err(expected), "{path:?}");
        }
        assert_eq!(parts(b"a//", true, 3), Err(PathError::EmptyName));
        assert_eq!(parts(b"a/b/c/d", true, 3), Err(PathError::Deep(3)));
        assert_eq!(parts(b"/", true, 3), Err(PathError::Absolute));
        assert_eq!(parts(b"././", true, 3), Err(PathError::Dot));
        assert_eq!(parts(&[b'n'; NAME_BYTES_MAX + 1], false, 3), Err(PathError::LongName));
        assert_eq!(parts(&b"n/".repeat(PATH_BYTES_MAX), true, usize::MAX), Err(PathError::LongPath));
    }

    #[test]
    fn names_that_mislead_are_refused() {
        for (bytes, expected) in [
            (b"a\xff" as &[u8], PathError::NotUtf8),
            (b"a\nb", PathError::Control),
            (b"\x1b[2J", PathError::Control),
            (b"\x7f", PathError::Control),
            ("\u{9b}2J".as_bytes(), PathError::Control),
            (b"..\\a", PathError::Backslash),
            (b"C:evil", PathError::Drive),
            ("e\u{301}".as_bytes(), PathError::NotComposed),
            ("\u{212b}".as_bytes(), PathError::NotComposed),
        ] {
            assert_eq!(name(bytes), Err(expected), "{bytes:?}");
        }
        assert_eq!(name("\u{e9}".as_bytes()), Ok("é"));
        assert_eq!(folded("Straße.PY"), folded("STRASSE.py"));
        assert_eq!(folded("ΟΔΟΣ"), folded("οδος"));
        assert_eq!(folded("οδοσ"), folded("οδος"));
        assert_eq!(folded("ÉTÉ"), "été");
    }
}
