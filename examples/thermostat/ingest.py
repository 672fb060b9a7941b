"""Reads a SenML pack as a device sends it and hands it on resolved.

SenML (RFC 8428) lets a device say once what its records share: base name, base time, base unit,
base value, base sum. Whoever reads a pack has to put every record together from what came before
it. This function does that once, so that the functions after it read plain records: a full name,
a time in seconds since 1970, a value, and no base fields (RFC 8428, 4.6, "resolved records").

What RFC 8428 forbids is refused with a message that names the record and the field: the device's
owner reads it as the diagnostic of the call.
"""

import json
import math
import re
import time

SENML_JSON = 110
JSON = 50

VERSION_MAX = 10
# Times below this are seconds from now, mostly in the past; times from it on are seconds since
# 1970 (RFC 8428, 4.5.3).
ABSOLUTE_TIME_MIN = 2**28

STRING, NUMBER, BOOLEAN = "a string", "a number", "a boolean"
KINDS = {
    "bn": STRING, "bt": NUMBER, "bu": STRING, "bv": NUMBER, "bs": NUMBER, "bver": NUMBER,
    "n": STRING, "u": STRING, "v": NUMBER, "vs": STRING, "vb": BOOLEAN, "vd": STRING,
    "s": NUMBER, "t": NUMBER, "ut": NUMBER,
}
VALUES = ("v", "vs", "vb", "vd")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9:./_-]*")
BASE64URL = re.compile(r"[A-Za-z0-9_-]*")


class SenmlError(ValueError):
    """The payload is not a SenML pack that this function understands."""


def handle(event, context):
    if context.content_format not in (SENML_JSON, JSON, None):
        raise SenmlError(
            f"content format {context.content_format} is not SenML in JSON ({SENML_JSON})"
        )
    records = resolve(parse(event), time.time())
    context.set_content_format(SENML_JSON)
    return json.dumps(records, separators=(",", ":"), ensure_ascii=False).encode()


def parse(event):
    """The records of a pack, as dictionaries of JSON values; nothing in them is checked yet."""
    try:
        pack = json.loads(
            event.decode("utf-8"),
            parse_int=float,
            parse_constant=_refuse_constant,
            object_pairs_hook=_refuse_repeats,
        )
    except UnicodeDecodeError as error:
        raise SenmlError(f"not UTF-8: byte {error.start} is {event[error.start]:#04x}") from error
    except json.JSONDecodeError as error:
        raise SenmlError(f"not JSON: {error}") from error
    except RecursionError as error:
        raise SenmlError("not a SenML pack: nested too deeply") from error
    if not isinstance(pack, list):
        raise SenmlError(f"a SenML pack is an array of records, not {_kind(pack)}")
    if not pack:
        raise SenmlError("a SenML pack holds at least one record; this one is empty")
    return pack


def resolve(pack, now):
    """The pack's records with the base fields applied, in order of time.

    `now`: seconds since 1970, what relative times count from.
    """
    base = {"bn": "", "bt": 0.0, "bver": float(VERSION_MAX)}
    resolved = []
    for number, record in enumerate(pack, start=1):
        _check(record, number)
        if "bver" in record and number > 1 and record["bver"] != base["bver"]:
            raise SenmlError(f"record {number}: all records of a pack have one version (bver)")
        base.update((label, record[label]) for label in record if label in KINDS and label[0] == "b")
        resolved.append(_resolve_record(record, base, now, number))
    resolved.sort(key=lambda record: record["t"])
    return resolved


def _resolve_record(record, base, now, number):
    plain = {"n": base["bn"] + record.get("n", "")}
    if not NAME.fullmatch(plain["n"]):
        raise SenmlError(
            f"record {number}: the name {plain['n']!r} (bn + n) must be letters, digits and -:./_, "
            "and begin with a letter or digit"
        )
    unit = record.get("u", base.get("bu"))
    if unit is not None:
        plain["u"] = unit
    plain.update(_value(record, base, number))
    if "s" in record or "bs" in base:
        plain["s"] = _finite(base.get("bs", 0.0) + record.get("s", 0.0), "bs + s", number)
    instant = base["bt"] + record.get("t", 0.0)
    if instant < ABSOLUTE_TIME_MIN:
        instant += now
    plain["t"] = _finite(instant, "bt + t", number)
    if "ut" in record:
        plain["ut"] = record["ut"]
    return plain


def _value(record, base, number):
    """The record's one value field, or none where the record carries a sum alone."""
    present = [label for label in VALUES if label in record]
    if len(present) > 1:
        raise SenmlError(f"record {number}: one value at most, not {' and '.join(present)}")
    has_sum = "s" in record or "bs" in base
    # A base value without a value counts as the value 0 on top of it (RFC 8428, 4.5.4).
    if present == ["v"] or (not present and not has_sum and "bv" in base):
        return {"v": _finite(base.get("bv", 0.0) + record.get("v", 0.0), "bv + v", number)}
    if present:
        return {present[0]: record[present[0]]}
    if has_sum:
        return {}
    raise SenmlError(f"record {number}: neither a value (v, vs, vb or vd) nor a sum (s)")


def _check(record, number):
    """Refuses fields of a wrong type or content, and fields that must be understood but are not."""
    if not isinstance(record, dict):
        raise SenmlError(f"record {number}: a record is an object, not {_kind(record)}")
    for label, value in record.items():
        kind = KINDS.get(label)
        if kind is None:
            if label.endswith("_"):
                raise SenmlError(f"record {number}: {label!a} must be understood and is not")
            continue
        if _kind(value) != kind:
            raise SenmlError(f"record {number}: {label} must be {kind}, not {_kind(value)}")
        if kind == NUMBER:
            _finite(value, label, number)
        elif kind == STRING:
            _check_string(label, value, number)
    version = record.get("bver", 1.0)
    if version < 1 or version != int(version):
        raise SenmlError(f"record {number}: bver must be a positive integer, not {version:g}")
    if version > VERSION_MAX:
        raise SenmlError(f"record {number}: SenML version {version:g}; {VERSION_MAX} is understood")


def _check_string(label, value, number):
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise SenmlError(f"record {number}: {label} holds half a surrogate pair") from error
    if label == "vd" and (not BASE64URL.fullmatch(value) or len(value) % 4 == 1):
        raise SenmlError(f"record {number}: vd must be base64url without padding")


def _finite(value, label, number):
    if not math.isfinite(value):
        raise SenmlError(f"record {number}: {label} is beyond the range of a double")
    return value


def _kind(value):
    if isinstance(value, bool):
        return BOOLEAN
    if isinstance(value, float):
        return NUMBER
    if isinstance(value, str):
        return STRING
    if value is None:
        return "null"
    return "an array" if isinstance(value, list) else "an object"


def _refuse_constant(name):
    raise SenmlError(f"not JSON: {name} is no number")


def _refuse_repeats(pairs):
    # The usual "last one wins" would let two readers of one pack see two different readings.
    fields = {}
    for label, value in pairs:
        if label in fields:
            raise SenmlError(f"the field {label!a} appears twice in one record")
        fields[label] = value
    return fields
