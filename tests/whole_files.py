"""Which tests pytest-xdist keeps on one worker: those of a file whose fixtures are computed once
for all of it, and other tests one by one.
"""

import functools
import re
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parents[1]


@functools.cache
def shares_fixtures(path):
    """Whether a file of tests has fixtures that it computes once."""
    return bool(re.search(r'fixture\(scope="module"', (ROOT / path).read_text()))


class WholeFiles(LoadScopeScheduling):
    """Told from the files, since this process collects no tests. Marks (xdist_group) reach it as a
    part of a test's id only, and with pytest 9.2 not even so.
    """

    def _split_scope(self, nodeid):
        path = nodeid.partition("::")[0]
        return path if shares_fixtures(path) else nodeid
