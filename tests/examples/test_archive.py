"""`archive` of the thermostat: the line it keeps."""

import json
import unittest

from bundle import Context, load

archive = load("thermostat", "archive")


def sensor(name, unit="Cel"):
    return {"n": name, "u": unit, "count": 2, "min": 20, "max": 22, "mean": 21, "smoothed": 21.25}


class Archive(unittest.TestCase):
    def test_one_line_is_kept_per_pack(self):
        context = Context()
        answer = archive.handle(json.dumps([sensor("a"), sensor("b")]).encode(), context)
        self.assertIsNone(answer)
        self.assertEqual(
            context.lines,
            ["readings 4, sensors 2: a 21.25 Cel (20 to 22, mean 21); b 21.25 Cel (20 to 22, mean 21)"],
        )

    def test_a_sensor_may_have_no_unit(self):
        unitless = sensor("a")
        del unitless["u"]
        self.assertEqual(archive.line([unitless]), "readings 2, sensors 1: a 21.25 (20 to 22, mean 21)")

    def test_a_line_stays_short(self):
        line = archive.line([sensor(f"s{number}") for number in range(1_000)])
        self.assertTrue(line.endswith("; and 992 more"))
        self.assertLess(len(line), 600)


if __name__ == "__main__":
    unittest.main()
