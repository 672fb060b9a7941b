//! Content formats: CoAP's registered numbers and the media types they stand for.
//!
//! A call's payload carries its format as a number of the IANA registry "CoAP Content-Formats"
//! (RFC 7252, section 12.3); HTTP carries a media type. [`TABLE`] holds the registered pairs that
//! functions plausibly exchange. What it does not hold passes without a format: a number without a row
//! reaches the function as it came over CoAP, but has no `Content-Type` over HTTP.

/// A registered pair. The first row of a media type is the one that is used for it.
struct Row {
    number: u16,
    media_type: &'static str,
}

/// From the registry, by number. All are registered without a content coding.
const TABLE: &[Row] = &[
    row(0, "text/plain; charset=utf-8"),
    row(21, "image/gif"),
    row(22, "image/jpeg"),
    row(23, "image/png"),
    row(40, "application/link-format"),
    row(41, "application/xml"),
    row(42, "application/octet-stream"),
    row(47, "application/exi"),
    row(50, "application/json"),
    row(51, "application/json-patch+json"),
    row(52, "application/merge-patch+json"),
    row(60, "application/cbor"),
    row(61, "application/cwt"),
    row(62, "application/multipart-core"),
    row(63, "application/cbor-seq"),
    row(110, "application/senml+json"),
    row(111, "application/sensml+json"),
    row(112, "application/senml+cbor"),
    row(113, "application/sensml+cbor"),
    row(114, "application/senml-exi"),
    row(115, "application/sensml-exi"),
    row(310, "application/senml+xml"),
    row(311, "application/sensml+xml"),
    row(320, "application/senml-etch+json"),
    row(322, "application/senml-etch+cbor"),
    row(432, "application/td+json"),
    row(11542, "application/vnd.oma.lwm2m+tlv"),
    row(11543, "application/vnd.oma.lwm2m+json"),
    row(11544, "application/vnd.oma.lwm2m+cbor"),
    row(20000, "text/css"),
    row(30000, "image/svg+xml"),
];

const fn row(number: u16, media_type: &'static str) -> Row {
    Row { number, media_type }
}

/// `text/plain; charset=utf-8`.
pub(crate) const TEXT: u16 = 0;
/// `application/link-format` (RFC 6690), the format of discovery.
pub(crate) const LINK_FORMAT: u16 = 40;

/// The media type of a number, if it has a row.
pub(crate) fn media_type(number: u16) -> Option<&'static str> {
    TABLE.iter().find(|row| row.number == number).map(|row| row.media_type)
}

/// The number of a media type as it stands in a `Content-Type` header, if it has a row.
///
/// Parameters are not compared, but for one: text in a charset other than UTF-8 (or its part, US-ASCII) is not
/// what number 0 promises.
pub(crate) fn number(content_type: &str) -> Option<u16> {
    let mut parts = content_type.split(';');
    let essence = parts.next()?.trim();
    let row = TABLE.iter().find(|row| {
        let own = row.media_type.split(';').next().unwrap_or_default();
        own.eq_ignore_ascii_case(essence)
    })?;
    let charset = parts
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))
        .map(|(_, value)| value.trim().trim_matches('"'));
    let readable =
        charset.is_none_or(|charset| charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("us-ascii"));
    (row.number != TEXT || readable).then_some(row.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_unique_and_found_both_ways() {
        assert!(TABLE.windows(2).all(|two| two[0].number < two[1].number));
        for row in TABLE {
            assert_eq!(media_type(row.number), Some(row.media_type));
            assert_eq!(number(row.media_type), Some(row.number));
        }
    }

    #[test]
    fn parameters_and_case_are_tolerated() {
        assert_eq!(number("Application/JSON; charset=utf-8"), Some(50));
        assert_eq!(number("text/plain"), Some(0));
        assert_eq!(number("text/plain;charset=\"UTF-8\""), Some(0));
        assert_eq!(number("text/plain; charset=latin1"), None);
        assert_eq!(number("application/x-unheard-of"), None);
        assert_eq!(number(""), None);
        assert_eq!(media_type(65000), None);
    }
}
