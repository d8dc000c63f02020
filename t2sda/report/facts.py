"""By what, when and for how long a run was trained: from its run.json, or from its log."""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from t2sda.files import is_missing, open_regular
from t2sda.report.scores import Curve
from t2sda.training.record import FILE_NAME, sessions_of

_LOG_TIME = re.compile(rb"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d{3} ")
_LOG_VERSIONS = re.compile(rb"t2sda \S+, torch \S+, \S+, \d+ process")
_LOG_END_BYTES = 1 << 16
_COMMIT_DIGITS = 12

_NO_RECORD = (IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError)
"""What reading a run.json raises that is empty, or holds other things than `RunRecord` wrote."""

Facts = list[tuple[str, str]]
"""(what, text) of what is known."""


def facts_of(folder: Path, curves: Mapping[str, Curve]) -> Facts:
    """What the files of a run say; what they do not say is left out."""
    try:
        facts = _recorded(sessions_of(folder / FILE_NAME))
    except _NO_RECORD:
        facts = _logged(folder / "log.txt")
    if pace := [value for _, value in curves.get("seconds_per_iteration", [])]:
        facts.append(("seconds a step", f"{statistics.median(pace):.2f}"))
    return facts


def _recorded(sessions: Sequence[Mapping[str, Any]]) -> Facts:
    """Of the newest session; times are added up, and of memory the most counts."""
    newest = sessions[-1]
    versions = newest.get("versions") or {}
    facts = [("versions", ", ".join(f"{name} {versions[name]}" for name in versions))]
    if newest.get("commit"):
        text = str(newest["commit"])
        facts.append(("commit", text[:_COMMIT_DIGITS] + "+" * text.endswith("+")))
    facts.append(("machine", _machine(newest)))
    facts.append(("started", str(sessions[0].get("started", "?"))[:16].replace("T", " ")))
    if len(sessions) > 1:
        facts.append(("resumed", f"{len(sessions) - 1} times"))
    known = [session["seconds"] for session in sessions if session.get("seconds") is not None]
    if len(known) == len(sessions):
        facts.append(("time", str(timedelta(seconds=round(sum(known))))))
    for key, what in (("peak_memory_mib", "memory"), ("peak_gpu_memory_mib", "GPU memory")):
        peaks = [session[key] for session in sessions if session.get(key)]
        if peaks:
            facts.append((what, f"{max(peaks) / 1024:.1f} GiB"))
    return facts


def _machine(session: Mapping[str, Any]) -> str:
    machine = session.get("machine") or {}
    parts = [machine.get("gpu"), machine.get("processor"), f"{machine.get('cores', '?')} cores"]
    if machine.get("memory_mib"):
        parts.append(f"{machine['memory_mib'] / 1024:.0f} GiB")
    if session.get("processes", 1) != 1:
        parts.append(f"{session['processes']} processes")
    return ", ".join(str(part) for part in parts if part)


def _logged(path: Path) -> Facts:
    """Of runs that have no record: versions, and the time between the log's ends."""
    facts = []
    beginning, end = _ends(path)
    if found := _LOG_VERSIONS.search(beginning):
        facts.append(("versions", found[0].decode(errors="replace").rpartition(",")[0]))
    found_times = (time for part in (beginning, end) for time in _LOG_TIME.finditer(part))
    times = [time for text in found_times if (time := _time(text[1].decode())) is not None]
    if times:
        first, last = times[0], times[-1]
        facts.append(("started", f"{first:%Y-%m-%d %H:%M}"))
        facts.append(("time by the log", str(last - first)))
    return facts


def _time(text: str) -> datetime | None:
    """None for digits that are no time."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _ends(path: Path) -> tuple[bytes, bytes]:
    """The first and the last bytes of a log; empty where there is none."""
    if is_missing(path):
        return b"", b""
    with open_regular(path) as file:
        beginning = file.read(_LOG_END_BYTES)
        file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_END_BYTES))
        return beginning, file.read()
