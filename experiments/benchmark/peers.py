"""Runs a command and reads its line: ours, and any other framework's.

The contract: the last line of its output that is a JSON object is its result, in which a key has
seconds: a number, or an object with a "median". The key is "seconds", or one of those that the work
knows (works.py: peer_keys), or the one that --key names; "a+b" adds two of them. Of other keys,
"peer" names the framework.
"""

from __future__ import annotations

import collections
import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any


class PeerFailed(Exception):
    """A command did not end well, or its output does not keep the contract."""


def run_command(
    command: str | Sequence[str], environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Runs a command, of a shell if it is a string, and returns the object of its last line.

    Raises:
      PeerFailed: it cannot be started, its exit status is not 0, or no line is a JSON object.
    """
    shown = command if isinstance(command, str) else " ".join(command[:3])
    try:
        process = subprocess.Popen(
            command,
            shell=isinstance(command, str),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    except OSError as error:
        raise PeerFailed(f"{shown}: {error}") from error
    assert process.stdout is not None
    assert process.stderr is not None
    words: collections.deque[str] = collections.deque(maxlen=20)
    reader = threading.Thread(target=_pass_on, args=(process.stderr, words))
    reader.start()
    output = process.stdout.read()
    reader.join()
    if process.wait():
        last = ("".join(words).strip() or output.strip() or "no output").splitlines()[-1]
        raise PeerFailed(f"{shown}: exit status {process.returncode}: {last}")
    for line in reversed(output.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    raise PeerFailed(f"{shown}: none of its {len(output.splitlines())} lines is a JSON object")


def _pass_on(lines: IO[str], kept: collections.deque[str]) -> None:
    """Shows what a command says while it runs, and keeps the end of it."""
    for line in lines:
        sys.stderr.write(line)
        kept.append(line)


def seconds_of(record: Mapping[str, Any], keys: Sequence[str]) -> tuple[str, float]:
    """Returns the first of the keys that a record has, and its seconds.

    Raises:
      PeerFailed: it has none of them, or what it has is not a positive number.
    """
    for key in keys:
        parts = key.split("+")
        if not all(part in record for part in parts):
            continue
        values = [record[part] for part in parts]
        values = [one.get("median") if isinstance(one, Mapping) else one for one in values]
        if not all(type(one) in (int, float) and one > 0 for one in values):
            raise PeerFailed(f"{key} = {values}: a number of seconds above 0")
        return key, float(sum(values))
    raise PeerFailed(f"its line has none of the keys {list(keys)}, but {sorted(record)}")
