"""`ingest` of the thermostat: what RFC 8428 asks of whoever reads a SenML pack in JSON."""

import json
import unittest

from bundle import EXAMPLES, Context, load

ingest = load("thermostat", "ingest")

NOW = 1_700_000_000.0


def resolve(*records):
    return ingest.resolve(ingest.parse(json.dumps(records).encode()), NOW)


class Resolving(unittest.TestCase):
    def test_the_multiple_measurements_of_the_rfc(self):
        # RFC 8428, 5.1.3 and 5.1.4, shortened.
        resolved = resolve(
            {"bn": "urn:dev:ow:10e2073a01080063", "bt": 1.320067464e09, "bu": "%RH", "v": 20},
            {"u": "lon", "v": 24.30621},
            {"u": "lat", "v": 60.07965},
            {"t": 60, "v": 20.3},
            {"u": "%EL", "t": 150, "v": 98},
        )
        name = "urn:dev:ow:10e2073a01080063"
        self.assertEqual(
            resolved,
            [
                {"n": name, "u": "%RH", "t": 1.320067464e09, "v": 20},
                {"n": name, "u": "lon", "t": 1.320067464e09, "v": 24.30621},
                {"n": name, "u": "lat", "t": 1.320067464e09, "v": 60.07965},
                {"n": name, "u": "%RH", "t": 1.320067524e09, "v": 20.3},
                {"n": name, "u": "%EL", "t": 1.320067614e09, "v": 98},
            ],
        )

    def test_a_base_field_counts_until_the_next_one(self):
        first, second, third = resolve(
            {"bn": "a:", "bt": 1e9, "n": "x", "v": 1}, {"n": "y", "t": 1, "v": 2},
            {"bn": "b:", "n": "x", "t": 2, "v": 3},
        )
        self.assertEqual([first["n"], second["n"], third["n"]], ["a:x", "a:y", "b:x"])
        self.assertEqual([first["t"], second["t"], third["t"]], [1e9, 1e9 + 1, 1e9 + 2])

    def test_base_value_and_base_sum_are_added(self):
        first, second, third = resolve(
            {"n": "a", "bv": 20, "v": 1.5}, {"n": "b", "v": -1}, {"n": "c", "bs": 5, "s": 2, "v": 0},
        )
        self.assertEqual((first["v"], second["v"], third["v"], third["s"]), (21.5, 19.0, 20.0, 7.0))

    def test_a_base_value_alone_is_a_value(self):
        self.assertEqual(resolve({"n": "a", "bv": 20})[0]["v"], 20.0)

    def test_a_base_value_leaves_other_kinds_of_values_alone(self):
        record = resolve({"n": "a", "bv": 20, "vs": "open"})[0]
        self.assertEqual((record["vs"], "v" in record), ("open", False))

    def test_a_record_may_carry_a_sum_alone(self):
        record = resolve({"n": "a", "s": 12})[0]
        self.assertEqual((record["s"], "v" in record), (12.0, False))

    def test_small_times_are_relative_to_now(self):
        for time, expected in [
            (-60, NOW - 60), (0, NOW), (60, NOW + 60), (2**28 - 1, NOW + 2**28 - 1), (2**28, 2.0**28),
        ]:
            self.assertEqual(resolve({"n": "a", "v": 1, "t": time})[0]["t"], expected, time)
        self.assertEqual(resolve({"n": "a", "v": 1})[0]["t"], NOW)

    def test_the_sum_of_base_time_and_time_decides_what_is_relative(self):
        self.assertEqual(resolve({"n": "a", "v": 1, "bt": 1e9, "t": -5})[0]["t"], 1e9 - 5)

    def test_records_come_out_in_order_of_time(self):
        resolved = resolve({"bn": "a", "v": 1}, {"t": -10, "v": 2}, {"t": -20, "v": 3}, {"v": 4})
        self.assertEqual([record["v"] for record in resolved], [3, 2, 1, 4])

    def test_all_kinds_of_values_and_the_update_time_are_kept(self):
        for field, value in [("vs", "grün"), ("vb", False), ("vd", "aGkgCg"), ("v", -1.5)]:
            record = resolve({"n": "a", field: value, "ut": 30})[0]
            self.assertEqual((record[field], record["ut"]), (value, 30.0))

    def test_unknown_fields_are_ignored(self):
        self.assertEqual(resolve({"n": "a", "v": 1, "color": [1, 2]})[0].keys(), {"n", "v", "t"})

    def test_no_base_field_is_left(self):
        record = resolve({"bn": "a", "bt": 1, "bu": "m", "bv": 1, "bs": 1, "bver": 5, "v": 1})[0]
        self.assertEqual(record.keys(), {"n", "u", "v", "s", "t"})


class Refusing(unittest.TestCase):
    def refused(self, event, *words):
        with self.assertRaises(ingest.SenmlError) as caught:
            ingest.resolve(ingest.parse(event), NOW)
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_what_is_no_pack(self):
        for event, word in [
            (b"", "not JSON"), (b"[", "not JSON"), (b"[] x", "not JSON"), (b"\xff[]", "not UTF-8"),
            (b"{}", "not an object"), (b"null", "not null"), (b"1", "not a number"), (b"[]", "empty"),
            (b'[{"n":"a","v":NaN}]', "NaN"), (b'[{"n":"a","v":-Infinity}]', "Infinity"),
            (b"[" * 100_000, "nested"), (b"[1]", "record 1"), (b'[{"n":"a","v":1},[]]', "record 2"),
            (b'[{"n":"a","v":1,"v":2}]', "twice"),
        ]:
            with self.subTest(event=event[:40]):
                self.refused(event, word)

    def test_wrong_types(self):
        wrong = {
            "bn": 1, "bt": "1", "bu": 1, "bv": "1", "bs": True, "bver": "10", "n": 1, "u": 1, "v": "1",
            "vs": 1, "vb": 0, "vd": 1, "s": None, "t": [], "ut": {},
        }
        for field, value in wrong.items():
            with self.subTest(field=field):
                record = {"n": "a", "v": 1, field: value}
                self.refused(json.dumps([record]).encode(), "record 1", f"{field} must be")

    def test_names(self):
        for record in [{}, {"n": ""}, {"n": "-a"}, {"n": "a b"}, {"n": "ä"}, {"n": "a\n"}, {"bn": "_", "n": "a"}]:
            with self.subTest(record=record):
                self.refused(json.dumps([{"v": 1, **record}]).encode(), "record 1", "name")

    def test_values(self):
        for record, word in [
            ({}, "neither a value"), ({"v": 1, "vb": True}, "one value at most"),
            ({"vd": "aGk="}, "base64url"), ({"vd": "a"}, "base64url"), ({"vs": "\ud800"}, "surrogate"),
        ]:
            with self.subTest(record=record):
                self.refused(json.dumps([{"n": "a", **record}]).encode(), "record 1", word)

    def test_numbers_beyond_a_double(self):
        self.refused(b'[{"n":"a","v":1e999}]', "v is beyond")
        self.refused(b'[{"n":"a","v":' + b"9" * 400 + b"}]", "v is beyond")
        self.refused(b'[{"n":"a","bv":1e308,"v":1e308}]', "bv + v is beyond")
        self.refused(b'[{"n":"a","v":1,"bt":1e308,"t":1e308}]', "bt + t is beyond")

    def test_versions(self):
        for version, word in [(11, "version 11"), (0, "positive"), (-1, "positive"), (9.5, "integer")]:
            with self.subTest(version=version):
                self.refused(json.dumps([{"n": "a", "v": 1, "bver": version}]).encode(), word)
        self.refused(b'[{"n":"a","v":1},{"v":1,"bver":5}]', "record 2", "one version")

    def test_fields_that_must_be_understood(self):
        self.refused(b'[{"n":"a","v":1,"locked_":true}]', "record 1", "locked_", "must be understood")


class Handling(unittest.TestCase):
    def test_the_answer_is_senml(self):
        context = Context(content_format=110)
        answer = ingest.handle(b'[{"n":"a","t":1e9,"v":1,"u":"\xc2\xb0"}]', context)
        self.assertEqual(answer.decode(), '[{"n":"a","u":"°","v":1.0,"t":1000000000.0}]')
        self.assertEqual(context.answer_format, 110)

    def test_other_formats_are_refused(self):
        for content_format, taken in [(None, True), (50, True), (110, True), (60, False), (112, False)]:
            with self.subTest(content_format=content_format):
                context = Context(content_format)
                if taken:
                    ingest.handle(b'[{"n":"a","v":1}]', context)
                else:
                    with self.assertRaises(ingest.SenmlError):
                        ingest.handle(b'[{"n":"a","v":1}]', context)

    def test_the_sample_readings_are_packs(self):
        for path in (EXAMPLES / "thermostat" / "readings").glob("*.json"):
            with self.subTest(path=path.name):
                self.assertTrue(ingest.handle(path.read_bytes(), Context()))


if __name__ == "__main__":
    unittest.main()
