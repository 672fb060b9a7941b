//! Discovery: what this host serves, in CoRE link format (RFC 6690).

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::visitor::Visitor;
use crate::content_format::LINK_FORMAT;
use crate::service::ServedApplication;

/// The path under which a host says what it serves.
pub(super) const PATH: [&str; 2] = [".well-known", "core"];

/// Resource type of an application's entry function.
const APPLICATION: &str = "sandbar.application";
/// Resource type of one of its functions.
const FUNCTION: &str = "sandbar.function";

/// Says that what a link leads to can be observed (RFC 7641, section 6).
const OBSERVABLE: &str = ";obs";

/// What may stand in a path segment as it is.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One link: where, and what kind of resource is there.
struct Link {
    href: String,
    /// A function's; the list itself has none.
    resource_type: Option<&'static str>,
    observable: bool,
    content_format: Option<u16>,
}

/// The links of all applications and functions that the visitor may call and that pass all filters; a filter is an item
/// of the query, `name=value` or `name=prefix*`.
pub(super) fn links(applications: &[ServedApplication], filters: &[String], visitor: &Visitor) -> String {
    let mut rendered = String::new();
    let own = Link {
        href: format!("/{}", PATH.join("/")),
        resource_type: None,
        observable: false,
        content_format: Some(LINK_FORMAT),
    };
    let served = applications.iter().flat_map(|application| {
        let href = format!("/{}", utf8_percent_encode(&application.name, SEGMENT));
        let functions: Vec<Link> = application
            .functions
            .iter()
            .filter(|function| visitor.may_call(&application.name, Some(&function.name)))
            .map(|function| Link {
                href: format!("{href}/{}", utf8_percent_encode(&function.name, SEGMENT)),
                resource_type: Some(FUNCTION),
                observable: function.observable,
                content_format: None,
            })
            .collect();
        let observable = application.observable;
        let entry = Link { href, resource_type: Some(APPLICATION), observable, content_format: None };
        Some(entry).filter(|_| visitor.may_call(&application.name, None)).into_iter().chain(functions)
    });
    for link in std::iter::once(own).chain(served) {
        if filters.iter().all(|filter| link.passes(filter)) {
            if !rendered.is_empty() {
                rendered.push(',');
            }
            link.render(&mut rendered);
        }
    }
    rendered
}

impl Link {
    fn passes(&self, filter: &str) -> bool {
        let Some((name, wanted)) = filter.split_once('=') else {
            return false;
        };
        let matches = |value: &str| match wanted.strip_suffix('*') {
            Some(prefix) => value.starts_with(prefix),
            None => value == wanted,
        };
        match name {
            "href" => matches(&self.href),
            "rt" => self.resource_type.is_some_and(matches),
            "ct" => self.content_format.is_some_and(|number| matches(&number.to_string())),
            // No link has any other attribute.
            _ => false,
        }
    }

    fn render(&self, into: &mut String) {
        into.push('<');
        into.push_str(&self.href);
        into.push('>');
        if let Some(resource_type) = self.resource_type {
            into.push_str(";rt=\"");
            into.push_str(resource_type);
            into.push('"');
        }
        if self.observable {
            into.push_str(OBSERVABLE);
        }
        if let Some(number) = self.content_format {
            into.push_str(";ct=");
            into.push_str(&number.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::ServedFunction;

    fn function(name: &str, observable: bool) -> ServedFunction {
        ServedFunction { name: name.to_owned(), observable }
    }

    fn listed(filters: &[&str]) -> String {
        let applications = [
            ServedApplication {
                name: "thermostat".to_owned(),
                observable: true,
                functions: vec![function("ingest", true), function("secret", false), function("alarm", true)],
            },
            ServedApplication { name: "odd name".to_owned(), observable: false, functions: Vec::new() },
        ];
        let filters: Vec<String> = filters.iter().map(|&filter| filter.to_owned()).collect();
        links(&applications, &filters, &Visitor::Stranger([127, 0, 0, 1].into()))
    }

    #[test]
    fn an_identity_sees_what_it_may_call() {
        let applications = ["den", "porch", "shed"].map(|name| ServedApplication {
            name: name.to_owned(),
            observable: true,
            functions: vec![function("one", true), function("two", true)],
        });
        let text = "[identities.x]\nkey = \"0123456789abcdef\"\ngrants = [\"den\", \"porch/two\"]\n";
        let keys = crate::keys::Keys::parse(text).unwrap();
        let seen = links(&applications, &[], &Visitor::Known(std::sync::Arc::clone(keys.get(b"x").unwrap())));
        let paths: Vec<_> =
            seen.split(',').filter_map(|link| link.split_once('>').map(|(path, _)| &path[1..])).collect();
        assert_eq!(paths, ["/.well-known/core", "/den", "/den/one", "/den/two", "/porch/two"]);
    }

    #[test]
    fn everything_is_listed_without_a_filter() {
        assert_eq!(
            listed(&[]),
            "</.well-known/core>;ct=40,</thermostat>;rt=\"sandbar.application\";obs,\
             </thermostat/ingest>;rt=\"sandbar.function\";obs,</thermostat/secret>;rt=\"sandbar.function\",\
             </thermostat/alarm>;rt=\"sandbar.function\";obs,</odd%20name>;rt=\"sandbar.application\""
        );
    }

    #[test]
    fn filters_select_by_whole_value_or_prefix() {
        let alarm = "</thermostat/alarm>;rt=\"sandbar.function\";obs";
        assert_eq!(listed(&["href=/thermostat/alarm"]), alarm);
        assert_eq!(listed(&["href=/thermostat/a*", "rt=sandbar*"]), alarm);
        assert_eq!(listed(&["rt=sandbar.function"]).matches(',').count(), 2);
        assert_eq!(listed(&["ct=40"]), "</.well-known/core>;ct=40");
        assert_eq!(listed(&["href=/thermo"]), "");
        assert_eq!(listed(&["if=sensor"]), "");
        assert_eq!(listed(&["nonsense"]), "");
    }
}
