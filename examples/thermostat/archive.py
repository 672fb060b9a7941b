"""Keeps one line per pack in the application's log.

Runs on its own beside `alarm`: the device does not wait for it, and its answer goes nowhere.
"""

import json

SENSORS_IN_LINE_MAX = 8


def handle(event, context):
    context.log(line(json.loads(event)))


def line(summary):
    """The summary that `average` made, as one line for people."""
    readings = sum(sensor["count"] for sensor in summary)
    parts = [_sensor(sensor) for sensor in summary[:SENSORS_IN_LINE_MAX]]
    left_out = len(summary) - len(parts)
    if left_out:
        parts.append(f"and {left_out} more")
    return f"readings {readings}, sensors {len(summary)}: " + "; ".join(parts)


def _sensor(sensor):
    unit = sensor.get("u", "")
    return (
        f"{sensor['n']} {sensor['smoothed']:.6g} {unit}".rstrip()
        + f" ({sensor['min']:.6g} to {sensor['max']:.6g}, mean {sensor['mean']:.6g})"
    )
