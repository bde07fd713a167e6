"""A process beside each of several hosts that says which host has stopped, and stops its own.

distributed.py starts it (`Watched`). A process of its own, since what it watches may hang in a
collective, be aborted by the runtime or be stopped: it still has the words then. The watchdog of
host 0 listens; the others connect to it and tell it every second where their host is. It decides
who has stopped and tells all. Messages are JSON, one a line:

    host -> its watchdog       {"progress": 41, "where": "rollout ..."} every second,
                               {"failed": "ValueError: ..."} before it ends with an error, or
                               {"ended": true} when it is done
    watchdog -> its host       {"port": 4711} of host 0, once; {"stop": "..."}: end with exit code 1
    watchdogs -> that of 0     {"host": 1, "age": seconds since its host was heard, ...}
    that of 0 -> watchdogs     {"lost": null or host, "why": "...", "where": of host 0}
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any

BEAT_SECONDS = 1.0
GRACE_SECONDS = 5.0  # for a host to end by itself, and for the others' news to arrive
CONNECT_SECONDS = 60.0
PROGRAM = "from cegppo_jax.watchdog import main; main()"

News = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class WatchSettings:
    """What a watchdog watches."""

    host: int
    hosts: int
    address: tuple[str, int] | None  # of host 0's watchdog; None: this is that one
    heartbeat_seconds: float  # without a word from a host, after which it counts as dead
    stall_seconds: float  # without progress anywhere, after which all stop


@dataclasses.dataclass
class HostState:
    """What is known of a host."""

    heard: float  # when, by the watchdog's clock
    moved: float  # when its progress last changed
    progress: int = 0
    where: str = "its start"
    failed: str | None = None
    died: bool = False
    ended: bool = False

    def update(self, message: News, now: float) -> None:
        """Takes in what a host or its watchdog has said."""
        self.heard = now - message.get("age", 0.0)
        if message.get("progress", self.progress) != self.progress:
            self.moved, self.progress = now, message["progress"]
        self.where = message.get("where", self.where)
        self.failed = message.get("failed", self.failed)
        self.died, self.ended = (
            message.get(name, getattr(self, name)) for name in ("died", "ended")
        )


def verdict(
    states: dict[int, HostState], now: float, watch: WatchSettings, ignored: Iterable[int] = ()
) -> tuple[int, str] | None:
    """Returns the host that has stopped and why, in words; None: all go on, or have ended."""
    going = {h: one for h, one in states.items() if not one.ended and h not in ignored}
    for host, one in going.items():
        named, seen = f"host {host} of {watch.hosts}", f"last seen: {one.where}"
        if one.failed is not None:
            return host, f"{named} has stopped ({seen}): {one.failed}"
        if one.died:
            return host, f"{named} has died ({seen})"
        if (silent := now - one.heard) > watch.heartbeat_seconds:
            return host, f"{named} has not been heard of for {silent:.0f} s ({seen})"
    moved = max((one.moved for one in going.values()), default=now)
    if now - moved > watch.stall_seconds:
        host = min(going, key=lambda h: going[h].progress)
        return host, (
            f"no host has got anywhere for {now - moved:.0f} s; the furthest behind is host {host} "
            f"of {watch.hosts} (last seen: {going[host].where}; --stall_timeout_seconds)"
        )
    return None


class JsonStream:
    """A stream of JSON lines from a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._rest = descriptor, b""

    def fileno(self) -> int:
        """Returns the descriptor, for a selector."""
        return self._descriptor

    def read(self) -> list[News] | None:
        """Returns the messages that have come; None at the end of the stream."""
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:
            data = b""
        if not data:
            return None
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in whole]


class Guard:
    """The loop of the watchdog's process."""

    def __init__(self, watch: WatchSettings) -> None:
        now = time.monotonic()
        self._watch, self._parent = watch, os.getppid()
        self._last = now  # when another watchdog was heard
        self._own = HostState(now, now)
        self._states = {host: HostState(now, now) for host in range(watch.hosts)}
        self._states[watch.host] = self._own
        self._selector = selectors.DefaultSelector()
        self._selector.register(JsonStream(0), selectors.EVENT_READ, self._from_host)
        self._peers: dict[int, socket.socket] = {}  # of host 0: by host; of others: host 0's
        self._open: list[socket.socket] = []
        if watch.address is None:
            self._server = socket.create_server(("", 0), backlog=watch.hosts)
            self._selector.register(self._server, selectors.EVENT_READ, self._accept)
            say({"port": self._server.getsockname()[1]})
        else:
            self._peers[0] = socket.create_connection(watch.address, CONNECT_SECONDS)
            self._hear(self._peers[0])

    def run(self) -> None:
        """Watches until this host has ended, or some host has to be named."""
        beat = time.monotonic()
        while True:
            wait = max(beat - time.monotonic(), 0.0)
            for key, _ in self._selector.select(wait):
                key.data(key.fileobj)
            now = time.monotonic()
            if now >= beat:
                beat = now + BEAT_SECONDS
                self._tell({})
            if self._watch.address is None:
                if lost := verdict(self._states, now, self._watch):
                    self._tell({"lost": lost[0], "why": lost[1]})
                    self._stop(*lost)
            elif (silent := now - self._last) > self._watch.heartbeat_seconds:
                self._stop(0, f"host 0 of {self._watch.hosts} has been silent for {silent:.0f} s")
            if all(one.ended for one in self._states.values()) or (
                self._own.ended and self._watch.address is not None
            ):
                return

    def _tell(self, message: News) -> None:
        """Sends a message, or a sign of life, to the other watchdogs."""
        own = self._own
        message = {"host": self._watch.host, **message, "where": own.where, "ended": own.ended}
        message |= {"progress": own.progress, "age": time.monotonic() - own.heard}
        if own.failed is not None:
            message["failed"] = own.failed
        if own.died:
            message["died"] = True
        for peer in self._peers.values():
            with contextlib.suppress(OSError):  # its end is read as well
                peer.sendall(json.dumps(message).encode() + b"\n")

    def _from_host(self, lines: JsonStream) -> None:
        messages = lines.read()
        if messages is None:
            self._selector.unregister(lines)
            self._own.died = not self._own.ended and self._own.failed is None
            self._tell({})
            if self._watch.address is not None and not self._own.ended:
                self._wait_for_news()
            return
        for message in messages:
            self._own.update(message, time.monotonic())
        if self._own.ended or self._own.failed is not None:
            self._tell({})

    def _wait_for_news(self) -> None:
        """Lets the watchdog of host 0 say whether this host has died of another one's death."""
        until = time.monotonic() + GRACE_SECONDS
        while (left := until - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                key.data(key.fileobj)
        raise SystemExit(0)

    def _accept(self, server: socket.socket) -> None:
        connection, _ = server.accept()
        self._hear(connection)

    def _hear(self, connection: socket.socket) -> None:
        connection.settimeout(None)
        self._open.append(connection)
        self._selector.register(
            JsonStream(connection.fileno()),
            selectors.EVENT_READ,
            lambda lines: self._from_peer(lines, connection),
        )

    def _from_peer(self, lines: JsonStream, connection: socket.socket) -> None:
        messages, now = lines.read(), time.monotonic()
        if messages is None:
            self._selector.unregister(lines)
            for host, peer in self._peers.items():
                state = self._states[host]
                if peer is connection and not state.ended:
                    state.died = True
                    if self._watch.address is not None:
                        self._stop(
                            0, f"host 0 of {self._watch.hosts} has died (last seen: {state.where})"
                        )
            return
        self._last = now
        for message in messages:
            self._peers.setdefault(message["host"], connection)
            self._states[message["host"]].update(message, now)
            if message.get("lost") is not None:
                self._stop(message["lost"], message["why"])

    def _stop(self, lost: int, why: str) -> None:
        """Says who has stopped and ends this host, unless it is the one and ends by itself."""
        if self._own.failed is not None and not self._own.died:
            raise SystemExit(0)  # it says what has happened
        if lost != self._watch.host or not self._own.died:
            words = "the same command on every host goes on from what is saved"
            print(f"error: {why}. All stop; {words}", file=sys.stderr, flush=True)
        if not self._own.died:
            say({"stop": why})
            time.sleep(GRACE_SECONDS)
            with contextlib.suppress(OSError):
                if os.getppid() == self._parent:
                    os.kill(self._parent, signal.SIGKILL)
        raise SystemExit(0)


def say(message: News) -> None:
    """Tells the host something."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(message).encode() + b"\n")


def start_watchdog(watch: WatchSettings) -> subprocess.Popen[bytes]:
    """Starts a watchdog's process. Its standard streams carry the messages."""
    return subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM, json.dumps(dataclasses.asdict(watch))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C in a terminal reaches the whole group
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def main() -> None:
    """Runs the watchdog that the command line describes."""
    values = json.loads(sys.argv[1])
    address = values.pop("address")
    Guard(WatchSettings(**values, address=None if address is None else tuple(address))).run()
