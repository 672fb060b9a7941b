//! From the manifest's text to a plain struct: known fields alone, each of its type, each with its place.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeFloat, DeInteger, DeTable, DeValue};

use super::problem::{Problems, did_you_mean};

/// A value and the bytes of the text where it stands.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

/// The manifest as it was written.
#[derive(Debug)]
pub(super) struct Plain {
    pub(super) name: Option<At<String>>,
    pub(super) entry: Option<At<String>>,
    /// Paths of other applications' functions.
    pub(super) calls: Vec<At<String>>,
    /// Names of other applications.
    pub(super) callers: Vec<At<String>>,
    pub(super) network: Option<At<String>>,
    pub(super) rootfs: Option<At<String>>,
    pub(super) limits: PlainLimits,
    pub(super) access: PlainAccess,
    /// In the order of the text.
    pub(super) rest: PlainRest,
    pub(super) functions: Vec<PlainFunction>,
}

/// The table `[limits]` as it was written; without any field if there is none.
#[derive(Debug, Default)]
pub(super) struct PlainLimits {
    pub(super) memory: Option<At<String>>,
    pub(super) processes: Option<At<i64>>,
    pub(super) cpus: Option<At<f64>>,
    pub(super) payload: Option<At<String>>,
    pub(super) queue: Option<At<i64>>,
    pub(super) calls: Option<At<i64>>,
    pub(super) spin: Option<At<String>>,
}

/// The table `[access]` as it was written; without any field if there is none.
#[derive(Debug, Default)]
pub(super) struct PlainAccess {
    pub(super) coap: Option<At<PlainDoorway>>,
    pub(super) http: Option<At<PlainDoorway>>,
}

/// Who may come in by one door, as it was written.
#[derive(Debug)]
pub(super) enum PlainDoorway {
    Word(String),
    Networks(Vec<At<String>>),
}

/// The table `[rest]` as it was written; without any field if there is none.
#[derive(Debug, Default)]
pub(super) struct PlainRest {
    pub(super) ready: Option<At<String>>,
    pub(super) workers: Option<At<String>>,
    pub(super) sandbox: Option<At<String>>,
}

/// How many instances are to stand ready, as it was written.
#[derive(Debug)]
pub(super) enum PlainReady {
    Number(i64),
    Word(String),
}

/// A table `[functions.NAME]` as it was written.
#[derive(Debug)]
pub(super) struct PlainFunction {
    pub(super) name: At<String>,
    pub(super) runtime: Option<At<String>>,
    pub(super) code: Option<At<String>>,
    pub(super) handler: Option<At<String>>,
    pub(super) timeout: Option<At<String>>,
    pub(super) ready: Option<At<PlainReady>>,
    pub(super) content_format: Option<At<i64>>,
    pub(super) observe: Option<bool>,
    pub(super) next: Vec<At<String>>,
    /// `memory`, `processes` and `cpus` alone.
    pub(super) limits: PlainLimits,
}

const TOP_FIELDS: [&str; 10] =
    ["name", "entry", "calls", "callers", "network", "rootfs", "access", "limits", "rest", "functions"];
const ACCESS_FIELDS: [&str; 2] = ["coap", "http"];
const REST_FIELDS: [&str; 3] = ["ready", "workers", "sandbox"];
const LIMITS_FIELDS: [&str; 7] = ["memory", "processes", "cpus", "payload", "queue", "calls", "spin"];
const FUNCTION_FIELDS: [&str; 9] =
    ["runtime", "code", "handler", "timeout", "ready", "content_format", "observe", "next", "limits"];
const FUNCTION_LIMITS_FIELDS: [&str; 3] = ["memory", "processes", "cpus"];

/// Reads the text. `None` if it is not TOML; a field that was refused is absent from what is returned.
pub(super) fn read(text: &str, problems: &mut Problems<'_>) -> Option<Plain> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in errors {
            problems.at(&error.span().unwrap_or(0..0), format_args!("not valid TOML: {}", error.message()));
        }
        return None;
    }
    let table = document.get_ref();
    refuse_unknown(table, &TOP_FIELDS, problems);
    let limits = match table_field(table, "limits", problems) {
        Some((_, limits)) => read_limits(limits, &LIMITS_FIELDS, problems),
        None => PlainLimits::default(),
    };
    let plain = Plain {
        name: text_field(table, "name", "\"thermostat\"", problems),
        entry: text_field(table, "entry", "\"ingest\"", problems),
        calls: texts_field(table, "calls", "a path such as \"/gallery/thumbnail\" or a list of paths", problems),
        callers: texts_field(
            table,
            "callers",
            "an application's name such as \"thermostat\" or a list of names",
            problems,
        ),
        network: text_field(table, "network", "\"host\"", problems),
        rootfs: text_field(table, "rootfs", "\"oci:image\"", problems),
        access: match table_field(table, "access", problems) {
            Some((_, access)) => read_access(access, problems),
            None => PlainAccess::default(),
        },
        limits,
        rest: match table_field(table, "rest", problems) {
            Some((_, rest)) => read_rest(rest, problems),
            None => PlainRest::default(),
        },
        functions: read_functions(table, problems),
    };
    note_missing(table, &plain, problems);
    Some(plain)
}

/// Notes the top-level fields that must be there and are not; one of a wrong type is there.
fn note_missing(table: &DeTable<'_>, plain: &Plain, problems: &mut Problems<'_>) {
    if !table.contains_key("name") {
        problems.whole("the field `name` is missing: name = \"thermostat\"");
    }
    if !table.contains_key("functions") {
        problems.whole("there is no function; a table [functions.NAME] describes one");
    }
    if let (false, [first, _, ..]) = (table.contains_key("entry"), plain.functions.as_slice()) {
        problems.whole(format_args!(
            "the field `entry` is missing: an application of several functions says which one is called when none is named, such as entry = \"{}\"",
            first.name.value
        ));
    }
}

fn read_access(table: &DeTable<'_>, problems: &mut Problems<'_>) -> PlainAccess {
    refuse_unknown(table, &ACCESS_FIELDS, problems);
    let mut doorway = |name, shut: &str| {
        let value = table.get(name)?;
        let written = if let Some(word) = value.get_ref().as_str() {
            PlainDoorway::Word(word.to_owned())
        } else if value.get_ref().as_array().is_some() {
            PlainDoorway::Networks(texts_field(table, name, "networks, as strings", problems))
        } else {
            wrong_type(value, name, &format!("\"open\", \"{shut}\" or a list of networks"), problems);
            return None;
        };
        Some(At { value: written, span: value.span() })
    };
    PlainAccess { coap: doorway("coap", "coaps"), http: doorway("http", "none") }
}

fn read_rest(table: &DeTable<'_>, problems: &mut Problems<'_>) -> PlainRest {
    refuse_unknown(table, &REST_FIELDS, problems);
    PlainRest {
        ready: text_field(table, "ready", "\"30s\" or \"never\"", problems),
        workers: text_field(table, "workers", "\"2min\" or \"never\"", problems),
        sandbox: text_field(table, "sandbox", "\"10min\" or \"never\"", problems),
    }
}

fn read_limits(table: &DeTable<'_>, known: &[&str], problems: &mut Problems<'_>) -> PlainLimits {
    refuse_unknown(table, known, problems);
    PlainLimits {
        memory: text_field(table, "memory", "\"64MiB\"", problems),
        processes: whole_number_field(table, "processes", problems),
        cpus: number_field(table, "cpus", problems),
        payload: text_field(table, "payload", "\"1MiB\"", problems),
        queue: whole_number_field(table, "queue", problems),
        calls: whole_number_field(table, "calls", problems),
        spin: text_field(table, "spin", "\"20us\"", problems),
    }
}

fn read_functions(table: &DeTable<'_>, problems: &mut Problems<'_>) -> Vec<PlainFunction> {
    let Some((span, functions)) = table_field(table, "functions", problems) else {
        return Vec::new();
    };
    if functions.is_empty() {
        problems.at(&span, "there is no function; a table [functions.NAME] describes one");
    }
    let mut in_order: Vec<_> = functions.iter().collect();
    in_order.sort_by_key(|(name, _)| name.span().start);
    let mut read = Vec::new();
    for (name, value) in in_order {
        let DeValue::Table(fields) = value.get_ref() else {
            wrong_type(value, &format!("functions.{}", name.get_ref()), "a table", problems);
            continue;
        };
        refuse_unknown(fields, &FUNCTION_FIELDS, problems);
        for (field, example) in [("runtime", "runtime = \"python3\""), ("code", "code = \"ingest.py\"")] {
            if !fields.contains_key(field) {
                let name = name.get_ref();
                problems.at(&value.span(), format_args!("function `{name}` has no `{field}`, such as {example}"));
            }
        }
        read.push(PlainFunction {
            name: At { value: name.get_ref().to_string(), span: name.span() },
            runtime: text_field(fields, "runtime", "\"python3\"", problems),
            code: text_field(fields, "code", "\"ingest.py\"", problems),
            handler: text_field(fields, "handler", "\"handle\"", problems),
            timeout: text_field(fields, "timeout", "\"2s\"", problems),
            ready: ready_field(fields, problems),
            content_format: whole_number_field(fields, "content_format", problems),
            observe: switch_field(fields, "observe", problems),
            next: texts_field(fields, "next", "a function's name or a list of names", problems),
            limits: table_field(fields, "limits", problems).map_or_else(PlainLimits::default, |(_, limits)| {
                read_limits(limits, &FUNCTION_LIMITS_FIELDS, problems)
            }),
        });
    }
    read
}

/// One text or a list of them; none if the field is absent.
fn texts_field(table: &DeTable<'_>, name: &str, right: &str, problems: &mut Problems<'_>) -> Vec<At<String>> {
    let Some(value) = table.get(name) else {
        return Vec::new();
    };
    let items = match value.get_ref().as_array() {
        Some(items) => items.iter().collect(),
        None => vec![value],
    };
    let mut texts = Vec::new();
    for item in items {
        match item.get_ref().as_str() {
            Some(text) => texts.push(At { value: text.to_owned(), span: item.span() }),
            None => wrong_type(item, name, right, problems),
        }
    }
    texts
}

fn refuse_unknown(table: &DeTable<'_>, known: &[&str], problems: &mut Problems<'_>) {
    for key in table.keys() {
        let name = key.get_ref().as_ref();
        if !known.contains(&name) {
            let meant = did_you_mean(name, known.iter().copied());
            let hint = if meant.is_empty() { format!("; known here: {}", known.join(", ")) } else { meant };
            problems.at(&key.span(), format_args!("unknown field `{name}`{hint}"));
        }
    }
}

fn table_field<'d, 'i>(
    table: &'d DeTable<'i>,
    name: &str,
    problems: &mut Problems<'_>,
) -> Option<(Range<usize>, &'d DeTable<'i>)> {
    let value = table.get(name)?;
    let DeValue::Table(fields) = value.get_ref() else {
        wrong_type(value, name, "a table", problems);
        return None;
    };
    Some((value.span(), fields))
}

fn text_field(table: &DeTable<'_>, name: &str, example: &str, problems: &mut Problems<'_>) -> Option<At<String>> {
    let value = table.get(name)?;
    let Some(text) = value.get_ref().as_str() else {
        wrong_type(value, name, &format!("a string such as {example}"), problems);
        return None;
    };
    Some(At { value: text.to_owned(), span: value.span() })
}

fn whole_number_field(table: &DeTable<'_>, name: &str, problems: &mut Problems<'_>) -> Option<At<i64>> {
    let value = table.get(name)?;
    let number =
        value.get_ref().as_integer().and_then(|number| i64::from_str_radix(number.as_str(), number.radix()).ok());
    if number.is_none() {
        wrong_type(value, name, "a whole number such as 64", problems);
    }
    number.map(|number| At { value: number, span: value.span() })
}

fn switch_field(table: &DeTable<'_>, name: &str, problems: &mut Problems<'_>) -> Option<bool> {
    let value = table.get(name)?;
    let switch = value.get_ref().as_bool();
    if switch.is_none() {
        wrong_type(value, name, "true or false", problems);
    }
    switch
}

/// A number, or a word.
fn ready_field(table: &DeTable<'_>, problems: &mut Problems<'_>) -> Option<At<PlainReady>> {
    let value = table.get("ready")?;
    let written = match value.get_ref().as_str() {
        Some(word) => PlainReady::Word(word.to_owned()),
        None => {
            let number = value.get_ref().as_integer();
            match number.and_then(|number| i64::from_str_radix(number.as_str(), number.radix()).ok()) {
                Some(number) => PlainReady::Number(number),
                None => {
                    wrong_type(value, "ready", "a whole number such as 4, or \"auto\"", problems);
                    return None;
                }
            }
        }
    };
    Some(At { value: written, span: value.span() })
}

fn number_field(table: &DeTable<'_>, name: &str, problems: &mut Problems<'_>) -> Option<At<f64>> {
    let value = table.get(name)?;
    let decimal = value.get_ref().as_integer().filter(|number| number.radix() == 10).map(DeInteger::as_str);
    let written = value.get_ref().as_float().map(DeFloat::as_str).or(decimal);
    let number = written.and_then(|number| number.parse::<f64>().ok());
    if number.is_none() {
        wrong_type(value, name, "a number such as 0.5", problems);
    }
    number.map(|number| At { value: number, span: value.span() })
}

fn wrong_type(value: &Spanned<DeValue<'_>>, name: &str, right: &str, problems: &mut Problems<'_>) {
    let found = value.get_ref().type_str();
    problems.at(&value.span(), format_args!("`{name}` must be {right}; this is of type {found}"));
}
