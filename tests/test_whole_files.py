"""Workers of pytest-xdist are given what shares fixtures as a whole."""

from types import SimpleNamespace

from whole_files import WholeFiles, shares_fixtures

SHARED = [f"tests/learner/test_update.py::test_{n}[a::b]" for n in range(7)]
ALONE = [f"tests/sampling/test_filters.py::test_{n}" for n in range(9)]


class Worker:
    """A worker that is given work and does it at once."""

    def __init__(self, work):
        self.work = work
        self.gateway = SimpleNamespace(id=str(id(self)))
        self.shutting_down = False

    def send_runtest_some(self, indices):
        self.work.append((self, list(indices)))

    def shutdown(self):
        self.shutting_down = True


def test_a_file_goes_to_one_worker_and_other_tests_one_by_one():
    option = SimpleNamespace(loadscopereorder=True)
    config = SimpleNamespace(option=option, getvalue=lambda name: {"tx": ["2*popen"]}[name])
    scheduler, sent, given = WholeFiles(config), [], []
    workers = [Worker(sent) for _ in range(2)]
    tests = ALONE + SHARED
    for worker in workers:
        scheduler.add_node(worker)
        scheduler.add_node_collection(worker, tests)
    scheduler.schedule()
    while sent:
        worker, indices = sent.pop(0)
        given.append([tests[index] for index in indices])
        for index in indices:
            scheduler.mark_test_complete(worker, index)
    assert sorted(given) == sorted([SHARED, *([one] for one in ALONE)])
    assert given[0] == SHARED  # the longest first
    assert all(worker.shutting_down for worker in workers)


def test_a_file_is_kept_whole_for_its_fixtures():
    assert shares_fixtures("tests/learner/test_update.py")
    assert not shares_fixtures("tests/sampling/test_filters.py")
