"""Writers as a user may write them."""

from typing import ClassVar

from cegppo_jax.reporting.metrics import read_metrics


class Collects:
    """Keeps what it is given, to look at."""

    opened: ClassVar[list] = []

    def __init__(self, workdir, resume_after):
        self.workdir, self.resume_after = workdir, resume_after
        self.taken, self.lines_before, self.closed = [], [], False
        self.opened.append(self)

    def write(self, phase, step, values):
        self.lines_before.append(len(read_metrics(self.workdir)))
        self.taken.append((phase, step, values))

    def close(self):
        self.closed = True


class NotAWriter:
    """Cannot be closed."""

    def write(self, phase, step, values):
        pass


class TakesAFolder(Collects):
    """Not a writer: it cannot be opened."""

    def __init__(self, folder):
        pass
