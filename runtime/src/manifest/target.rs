//! What a function may call of other applications: a path, the same on every protocol.

use std::fmt;

use super::Name;

/// The application, and the function of it, that a call is for. Displayed as the path of such a call, `/APP` or
/// `/APP/FUNCTION`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The application's name. It need not be deployed.
    pub application: Name,
    /// The function's name; `None` for the application's entry function.
    pub function: Option<Name>,
}

impl Target {
    /// Reads the path of a call; an error says what is wrong with it, and what a path looks like.
    pub(super) fn parse(path: &str) -> Result<Self, String> {
        let refused = |meant: &str| {
            let shown = path.escape_debug();
            format!(
                "`{shown}` is not the path of a call: paths are /APP or /APP/FUNCTION, such as \"/gallery/thumbnail\"{meant}"
            )
        };
        let Some(rest) = path.strip_prefix('/') else {
            let meant = Self::parse(&format!("/{path}")).ok().map(|target| format!("; did you mean `{target}`?"));
            return Err(refused(meant.as_deref().unwrap_or_default()));
        };
        let (application, function) = match rest.split_once('/') {
            Some((application, function)) => (application, Some(function)),
            None => (rest, None),
        };
        if application.is_empty() || function.is_some_and(|function| function.is_empty() || function.contains('/')) {
            return Err(refused(""));
        }
        let name = |text| Name::new(text).map_err(|error| format!("in `{}`, {error}", path.escape_debug()));
        Ok(Self { application: name(application)?, function: function.map(name).transpose()? })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.application)?;
        match &self.function {
            Some(function) => write!(f, "/{function}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn paths_are_shown_as_they_were_written() {
        for path in ["/gallery", "/gallery/thumbnail", "/0/a-b"] {
            assert_eq!(Target::parse(path).unwrap().to_string(), path);
        }
        assert_eq!(Target::parse("/gallery").unwrap().function, None);
    }

    #[test]
    fn anything_else_is_refused_with_what_is_wrong_and_what_is_right() {
        for (path, part) in [
            ("", "is not the path of a call"),
            ("/", "is not the path of a call"),
            ("//", "is not the path of a call"),
            ("/gallery/", "is not the path of a call"),
            ("//thumbnail", "is not the path of a call"),
            ("/gallery/thumbnail/small", "/APP/FUNCTION, such as \"/gallery/thumbnail\""),
            ("gallery", "did you mean `/gallery`?"),
            ("gallery/thumbnail", "did you mean `/gallery/thumbnail`?"),
            ("coap://host/gallery", "is not the path of a call"),
            ("/Gallery", "in `/Gallery`, `Gallery` is not a name"),
            ("/gallery/thumb_nail", "in `/gallery/thumb_nail`, `thumb_nail` is not a name"),
            ("/a\n", "is not a name"),
        ] {
            let refused = Target::parse(path).unwrap_err();
            assert!(refused.contains(part) && !refused.contains('\n'), "{path:?}: {refused}");
        }
    }
}
