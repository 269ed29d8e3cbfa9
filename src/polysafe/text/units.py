"""Sizes, times and speeds as readers see them."""

from __future__ import annotations


def format_bytes(size: float) -> str:
    """A number of bytes in decimal units, as disks and models are sold: `16.1 GB`."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def format_seconds(seconds: float) -> str:
    """A duration in the largest two units: `3 min 20 s`."""
    if seconds < 1:
        return "< 1 s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def format_rate(speed: float | None) -> str:
    """How many things a second, or a minute where there is less than one: `12.5/s`, `3.2 M/s`, `40/min`."""
    if not speed:
        return ""
    return f"{60 * speed:.2g}/min" if speed < 1 else f"{format_number(speed)}/s"


def format_number(number: float) -> str:
    """A number in three digits: `12.5`, `3.2 M`."""
    for prefix in ("", " k", " M"):
        if number < 1000:
            return f"{number:.3g}{prefix}"
        number /= 1000
    return f"{number:.3g} G"
