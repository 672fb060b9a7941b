"""The functions of `failures` that go wrong in a way a plain process can show."""

import contextlib
import json
import os
import signal
import subprocess
import time
import unittest

from bundle import EXAMPLES, Context, load

misbehave = load("failures", "misbehave")


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Misbehave(unittest.TestCase):
    def test_raise(self):
        with self.assertRaisesRegex(misbehave.OnPurpose, "on purpose, with 3 bytes"):
            misbehave.raise_error(b"abc", Context())

    def test_slow(self):
        begun = time.monotonic()
        self.assertEqual(misbehave.answer_slowly(b" 50\n", Context()), "50")
        self.assertGreaterEqual(time.monotonic() - begun, 0.05)

    def test_a_payload_that_is_no_number_is_refused(self):
        for event in [b"soon", b"-1", b"1.5", b"\xff", b"1" * 10]:
            with self.subTest(event=event), self.assertRaises(ValueError):
                misbehave.answer_slowly(event, Context())

    def test_large(self):
        self.assertEqual(len(misbehave.answer_too_much(b"", Context())), 2 << 20)

    def test_children_outlive_the_answer_and_a_polite_signal(self):
        context = Context()
        pids = json.loads(misbehave.leave_children(b"2", context))["pids"]
        try:
            self.assertEqual((len(set(pids)), context.answer_format), (2, 50))
            for pid in pids:
                self.assertNotEqual(os.getsid(pid), os.getsid(0))
            # The children need a moment to turn the polite signals off.
            time.sleep(0.2)
            for pid in pids:
                os.kill(pid, signal.SIGTERM)
            time.sleep(0.1)
            self.assertTrue(all(is_alive(pid) for pid in pids))
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def test_too_many_children_are_refused(self):
        with self.assertRaises(ValueError):
            misbehave.leave_children(b"17", Context())

    def test_namespaces(self):
        context = Context()
        namespaces = json.loads(misbehave.list_namespaces(b"", context))
        self.assertEqual(namespaces.keys(), set(misbehave.NAMESPACES))
        self.assertRegex(namespaces["pid"], r"^pid:\[\d+\]$")

    def test_shell(self):
        ended = subprocess.run(
            [str(EXAMPLES / "failures" / "shell.sh")], input=b"x", capture_output=True, timeout=10, check=False,
        )
        self.assertEqual((ended.returncode, ended.stdout), (3, b""))
        self.assertEqual(ended.stderr.splitlines()[-1], b"shell: failed on purpose, exit code 3")


if __name__ == "__main__":
    unittest.main()
