"""One process writes below a URL in a bucket: a lease, since object stores have no locks.

The lease is an object, `.writer`, that only one process can create and that its holder writes again
and again. One that does not change for STALE_SECONDS is of a process that is gone, and is taken
over: what counts is change, so clocks need not agree.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable
from typing import Any

from cegppo_jax.storage import strict_json
from cegppo_jax.storage.bucket import Bucket

LEASE_NAME = ".writer"
RENEW_SECONDS = 15.0
STALE_SECONDS = 60.0  # several renewals, since one may be slow
LOOK_SECONDS = 3.0  # between two looks at the lease of another


class InUseError(ValueError):
    """Another process writes to a directory. The message names its host and its number."""


class Lease:
    """The right to write below a bucket's URL, from `hold` until `release`."""

    def __init__(self, bucket: Bucket, say: Callable[[str], None]) -> None:
        self._bucket, self._say = bucket, say
        self._described: dict[str, Any] = {}
        self._renewals = 0

    def hold(self) -> None:
        """Takes the lease.

        Raises:
          InUseError: another process has it.
        """
        self._described = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "token": secrets.token_hex(8),
        }
        while not self._bucket.create(LEASE_NAME, self._content()):
            found = self._bucket.read(LEASE_NAME)
            if found is None:  # given back meanwhile
                continue
            self._wait_until_stale(found)
            self._bucket.remove(LEASE_NAME)
            time.sleep(LOOK_SECONDS)  # another that waited as long may have removed it just now
            if self._bucket.create(LEASE_NAME, self._content()):
                time.sleep(LOOK_SECONDS)  # ... and what this one has made
                self.check()
                return

    def renew(self) -> None:
        """Writes it again. Raises InUseError as `check`."""
        self.check()
        self._renewals += 1
        self._bucket.write(LEASE_NAME, self._content())

    def check(self) -> None:
        """Raises InUseError unless this process still has it."""
        found = self._bucket.read(LEASE_NAME)
        if found is None or self._described["token"].encode() not in found:
            who = "nobody knows who" if found is None else _holder(found)
            raise InUseError(
                f"{self._bucket.url} has been taken over by {who}, since this process did not "
                f"renew its lease for {STALE_SECONDS:.0f} s: it writes no more"
            )

    def release(self) -> None:
        """Gives it back."""
        self.check()
        self._bucket.remove(LEASE_NAME)

    def _wait_until_stale(self, found: bytes) -> None:
        """Watches the lease of another. Raises InUseError when it changes: its holder lives."""
        self._say(
            f"{self._bucket.url} was being written to by {_holder(found)}: waiting "
            f"{STALE_SECONDS:.0f} s to see whether that process is still there"
        )
        end = time.monotonic() + STALE_SECONDS
        while time.monotonic() < end:
            time.sleep(min(LOOK_SECONDS, STALE_SECONDS))
            now = self._bucket.read(LEASE_NAME)
            if now is None:
                return
            if now != found:
                raise InUseError(
                    f"{self._bucket.url} is being written to by {_holder(now)}: wait until it "
                    "ends, stop it, or choose another directory"
                )

    def _content(self) -> bytes:
        return strict_json.dumps(self._described | {"renewals": self._renewals}).encode()


def _holder(content: bytes) -> str:
    """Returns who has a lease, from what is in it."""
    try:
        found: dict[str, Any] = strict_json.loads(content.decode())
        return f"process {found['process']} on {found['host']}, since {found['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
