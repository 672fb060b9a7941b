"""`alarm` of the thermostat: the verdict, on every awk that is installed."""

import json
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from bundle import EXAMPLES

BUNDLE = EXAMPLES / "thermostat"
AWKS = (["mawk"], ["gawk"], ["original-awk"], ["busybox", "awk"])

RULES = """\
# a comment
  # and one further in
house:cellar   Cel   8    -
house:*        Cel   15   25.5

house:*        %RH   -    70
any            *     -1   1
"""


def sensor(name, smoothed, unit=None):
    return {"n": name, **({"u": unit} if unit else {}), "count": 1, "smoothed": smoothed}


class EveryAwk(unittest.TestCase):
    def setUp(self):
        self.installed = [awk for awk in AWKS if shutil.which(awk[0])]
        missing = [" ".join(awk) for awk in AWKS if awk not in self.installed]
        if not self.installed:
            self.skipTest("SKIPPED: no awk is installed")
        if missing:
            print(f"SKIPPED for want of the program: alarm on {', '.join(missing)}")

    def judge(self, awk, summary, rules=RULES):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as table:
            table.write(rules)
            table.flush()
            return subprocess.run(
                [*awk, "-f", str(BUNDLE / "alarm.awk"), "reading=rules", table.name, "reading=summary", "-"],
                input=summary, capture_output=True, text=True, timeout=10, check=False,
                env={**os.environ, "LC_ALL": "C"},
            )

    def verdict(self, awk, *sensors):
        judged = self.judge(awk, json.dumps(sensors))
        self.assertEqual((judged.returncode, judged.stderr), (0, ""))
        return json.loads(judged.stdout)

    def test_verdicts(self):
        for awk in self.installed:
            with self.subTest(awk=awk[0]):
                self.assertEqual(
                    self.verdict(
                        awk, sensor("house:room", 20, "Cel"), sensor("house:room", 99, "Fah"),
                        sensor("shed", 99, "Cel"),
                    ),
                    {"state": "ok", "checked": 1, "unwatched": 2, "alarms": []},
                )
                self.assertEqual(
                    self.verdict(
                        awk, sensor("house:room", 25.6, "Cel"), sensor("house:bath", 71, "%RH"),
                        sensor("house:cellar", 7.9, "Cel"), sensor("any", -1.5), sensor("house:attic", 25.5, "Cel"),
                    ),
                    {
                        "state": "alarm", "checked": 5, "unwatched": 0,
                        "alarms": [
                            {"n": "house:room", "u": "Cel", "smoothed": 25.6, "above": 25.5},
                            {"n": "house:bath", "u": "%RH", "smoothed": 71, "above": 70},
                            {"n": "house:cellar", "u": "Cel", "smoothed": 7.9, "below": 8},
                            {"n": "any", "smoothed": -1.5, "below": -1},
                        ],
                    },
                )

    def test_the_first_rule_that_fits_counts(self):
        for awk in self.installed:
            with self.subTest(awk=awk[0]):
                self.assertEqual(self.verdict(awk, sensor("house:cellar", 9, "Cel"))["state"], "ok")
                self.assertEqual(self.verdict(awk, sensor("house:cellar", 40, "Cel"))["state"], "ok")

    def test_any_json_is_read(self):
        spread = '[\n {"u" : "Cel" ,\r\n  "smoothed":\t2.0e1, "n":"house:room", "deep": [{"n":"x"}, "]"]} ]\n'
        odd = json.dumps([sensor("house:room", 20, 'a"},{\\ü')])
        for awk in self.installed:
            with self.subTest(awk=awk[0]):
                self.assertEqual(json.loads(self.judge(awk, spread).stdout)["checked"], 1)
                self.assertEqual(json.loads(self.judge(awk, odd).stdout)["unwatched"], 1)

    def test_many_sensors_are_judged(self):
        many = [sensor(f"house:{number}", 30, "Cel") for number in range(2_000)]
        for awk in self.installed:
            with self.subTest(awk=awk[0]):
                self.assertEqual(len(self.verdict(awk, *many)["alarms"]), 2_000)

    def test_a_token_may_be_longer_than_the_window(self):
        for awk in self.installed:
            for length in [*range(250, 260), 5_000]:
                with self.subTest(awk=awk[0], length=length):
                    name = "house:" + "x" * length
                    (alarm,) = self.verdict(awk, sensor(name, 30, "Cel"))["alarms"]
                    self.assertEqual(alarm["n"], name)

    def test_a_number_at_the_edge_of_the_window_is_not_cut(self):
        for awk in self.installed:
            for length in range(248, 260):
                with self.subTest(awk=awk[0], length=length):
                    number = "3" * length + ".5e+1"
                    judged = self.judge(awk, '[{"n":"any","smoothed":' + number + "}]")
                    self.assertIn(number, judged.stdout)

    def test_what_is_no_summary_is_refused(self):
        for awk in self.installed:
            for summary in ["", "[", "{}", '[{"n":"a"}]', '[{"n":"a","smoothed":1}', "[hello]", '["']:
                with self.subTest(awk=awk[0], summary=summary):
                    judged = self.judge(awk, summary)
                    self.assertNotEqual(judged.returncode, 0)
                    self.assertTrue(judged.stderr.startswith("alarm: "), judged.stderr)
                    self.assertEqual(judged.stdout, "")

    def test_wrong_rules_are_named(self):
        for awk in self.installed:
            for rule in ["house:* Cel 15", "house:* Cel warm 30", "house:* Cel 1 2 3"]:
                with self.subTest(awk=awk[0], rule=rule):
                    judged = self.judge(awk, "[]", f"# rules\n{rule}\n")
                    self.assertNotEqual(judged.returncode, 0)
                    self.assertIn("line 2", judged.stderr)


class Script(unittest.TestCase):
    def test_the_script_finds_its_bundle_and_an_awk(self):
        summary = json.dumps([sensor("urn:dev:ow:1:room", 31, "Cel")])
        for script in [BUNDLE / "alarm.sh", Path(os.path.relpath(BUNDLE / "alarm.sh", EXAMPLES))]:
            judged = subprocess.run(
                [str(script)], input=summary, capture_output=True, text=True, timeout=10, check=False, cwd=EXAMPLES,
            )
            self.assertEqual((judged.returncode, judged.stderr), (0, ""))
            self.assertEqual(json.loads(judged.stdout)["state"], "alarm")

    def test_a_host_without_awk_is_named(self):
        with tempfile.TemporaryDirectory() as empty:
            judged = subprocess.run(
                ["/bin/sh", str(BUNDLE / "alarm.sh")], input="[]", capture_output=True, text=True, timeout=10,
                check=False, env={"PATH": empty},
            )
        self.assertEqual(judged.returncode, 1)
        self.assertIn("no awk", judged.stderr)


if __name__ == "__main__":
    unittest.main()
