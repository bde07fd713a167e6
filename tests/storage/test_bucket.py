"""Buckets, on a server of this machine: what is copied from them, and who writes to them."""

import json
import logging
import threading

import bucket_server
import pytest
from named_sets import load_problems

from cegppo_jax.data.fields import FIELD_MAPS
from cegppo_jax.data.model_files import HUB_FILES, locate_model
from cegppo_jax.data.tasks.table import TASKS
from cegppo_jax.data.tokenizer import build_character_tokenizer, load_tokenizer
from cegppo_jax.run.one_writer import writer_lock
from cegppo_jax.storage import bucket, lease, mirror
from cegppo_jax.storage.bucket import Bucket, BucketError, local_copy
from cegppo_jax.storage.lease import LEASE_NAME, InUseError, Lease
from cegppo_jax.storage.mirror import Mirror, opened_folder, real_place
from cegppo_jax.storage.outputs import written_place


@pytest.fixture(scope="module")
def server():
    logging.getLogger("gcsfs").setLevel(logging.ERROR)
    with bucket_server.serving() as url:
        yield url


@pytest.fixture
def url(server, request):
    """A folder of the test's own."""
    return f"{server}/{request.node.name.partition('[')[0]}"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def quick(monkeypatch):
    """Leases that are renewed and go stale in parts of a second."""
    monkeypatch.setattr(mirror, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.6)
    monkeypatch.setattr(lease, "LOOK_SECONDS", 0.05)


def test_names_are_those_below_the_url_and_of_nothing_beside_it(url, tmp_path):
    here, beside = Bucket("--run", f"{url}/run"), Bucket("--run", f"{url}/run2")
    here.write("a/b.txt", b"1")
    here.write("c.txt", b"22")
    beside.write("d.txt", b"333")
    assert sorted(here.files()) == ["a/b.txt", "c.txt"]
    assert list(Bucket("--run", f"{url}/run/c.txt").files()) == [""]
    assert Bucket("--run", f"{url}/nothing").files() == {}
    here.download(here.files(), tmp_path)
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"1"
    before = here.files()
    here.write("c.txt", b"23")
    after = here.files()
    assert [name for name in after if after[name] != before[name]] == ["c.txt"]
    here.remove("c.txt")
    here.remove("c.txt")
    assert (here.read("c.txt"), here.exists("c.txt"), here.exists("a/b.txt")) == (None, False, True)


def test_of_many_that_create_an_object_one_does(url):
    made = []
    here = Bucket("--run", url)

    def create(number):
        made.append((number, here.create("one", str(number).encode())))

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [winner] = [number for number, did in made if did]
    assert here.read("one") == str(winner).encode()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://bucket/model", "needs the package no_such_package"),
        ("gs://", "names no bucket"),
        ("gs:///model", "names no bucket"),
    ],
)
def test_what_cannot_be_opened_is_refused_before_it_is_asked_for(url, message, monkeypatch):
    monkeypatch.setitem(bucket.KINDS, "s3", "no_such_package")
    with pytest.raises(ValueError, match=message):
        Bucket("model", url)


def test_a_bucket_that_is_not_there_is_a_line(server):
    here, line = (
        Bucket("--run", "gs://no-such-bucket/run"),
        r"^gs://no-such-bucket/run cannot be used",
    )
    for act in (here.files, lambda: here.write("a", b""), lambda: here.create("a", b"")):
        with pytest.raises(BucketError, match=rf"{line}.*$"):
            act()
    assert here.read("a") is None


def test_a_copy_is_made_once_for_each_version_and_holds_no_code(url, cache, capsys):
    here = Bucket("model", url)
    for name in ("config.json", "model.safetensors", "modeling.py", "pytorch_model.bin"):
        here.write(name, b"{}")
    first = local_copy("model", url, HUB_FILES)
    assert sorted(one.name for one in first.iterdir()) == ["config.json", "model.safetensors"]
    assert first.name == url.rpartition("/")[2]
    assert "copying" in capsys.readouterr().out
    assert local_copy("model", f"{url}/", HUB_FILES) == first
    assert capsys.readouterr().out == ""
    here.write("config.json", b"[]")
    second = local_copy("model", url, HUB_FILES)
    assert second != first
    assert [(one / "config.json").read_bytes() for one in (first, second)] == [b"{}", b"[]"]
    with pytest.raises(ValueError, match="nothing of that name"):
        local_copy("model", f"{url}/elsewhere", HUB_FILES)


def test_models_tokenizers_and_problem_sets_are_read_from_a_bucket(url, cache, tmp_path):
    tokenizer = build_character_tokenizer(TASKS["chained_arithmetic"].alphabet)
    tokenizer.save_pretrained(tmp_path / "model")
    for path in (tmp_path / "model").iterdir():
        Bucket("model", url).upload(path, f"model/{path.name}")
    assert load_tokenizer(f"{url}/model").get_vocab() == tokenizer.get_vocab()
    assert (locate_model(f"{url}/model") / "tokenizer.json").is_file()
    line = json.dumps({"problem": "1+1", "answer": "2"}).encode() + b"\n"
    for name in ("train.jsonl", "set/test.jsonl"):
        Bucket("problem set", url).write(name, line)
    for name in ("train.jsonl", "train.jsonl?id=problem"):
        [problem] = load_problems(f"{url}/{name}", FIELD_MAPS["plain"])
        assert (problem.problem, problem.answer, problem.source) == ("1+1", "2", "train")
    [problem] = load_problems(f"hf:{url}/set:test", FIELD_MAPS["plain"])
    assert (problem.problem, problem.source) == ("1+1", "set")


def test_a_second_process_is_refused_while_the_first_renews(url, quick):
    here, said = Bucket("--workdir", url), []
    with opened_folder("--workdir", url) as folder, writer_lock(folder) as lock:
        lock.hold()
        with pytest.raises(InUseError, match=r"is being written to by process \d+ on "):
            Lease(here, said.append).hold()
    assert len(said) == 1
    assert not here.exists(LEASE_NAME)
    Lease(here, said.append).hold()  # given back
    assert len(said) == 1


def test_the_lease_of_one_that_is_gone_is_taken_and_it_writes_no_more(url, quick):
    here, said = Bucket("--workdir", url), []
    gone = Lease(here, said.append)
    gone.hold()
    Lease(here, said.append).hold()
    assert len(said) == 1
    for act in (gone.renew, gone.check, gone.release):
        with pytest.raises(InUseError, match="has been taken over by process"):
            act()
    assert here.exists(LEASE_NAME)


def test_one_that_lost_its_lease_ends_with_a_line_and_copies_nothing(url, quick):
    here = Bucket("--workdir", url)

    def run():
        with opened_folder("--workdir", url) as folder, writer_lock(folder) as lock:
            lock.hold()
            (folder / "metrics.jsonl").write_text("mine")
            lock.push()
            here.write(LEASE_NAME, b'{"token": "of another"}')
            (folder / "metrics.jsonl").write_text("mine, late")
            mirror.push_changes()

    with pytest.raises(SystemExit, match="has been taken over"):
        run()
    assert here.read("metrics.jsonl") == b"mine"
    assert here.read(LEASE_NAME) == b'{"token": "of another"}'


def test_a_folder_is_filled_from_its_bucket_and_without_arrays(url, quick):
    here = Bucket("--workdir", url)
    for run in ("", "runs/reference/"):
        for name in (
            *("config.json", "metrics.jsonl", "evaluations/step1/completions.jsonl"),
            *("checkpoints/0/state/d/0", "damaged_checkpoints/2-1/x", "reference/x"),
        ):
            here.write(run + name, b"1")
    with opened_folder("--workdir", url) as folder:
        found = sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file())
        assert str(real_place(folder / "checkpoints")) == f"{url}/checkpoints"
    small = ["config.json", "evaluations/step1/completions.jsonl", "metrics.jsonl"]
    assert found == [*small, *(f"runs/reference/{name}" for name in small)]
    assert not folder.exists()


def test_only_what_changed_is_copied_and_what_was_removed_goes(url, quick, monkeypatch):
    here, sent = Bucket("--workdir", url), []
    upload = Bucket.upload
    monkeypatch.setattr(Bucket, "upload", lambda *a: (sent.append(a[2]), upload(*a)))
    with opened_folder("--workdir", url) as folder, writer_lock(folder) as lock:
        lock.hold()
        (folder / "log.jsonl").write_text("a\n")
        (folder / "config.partial").write_text("half")
        (folder / "deep").mkdir()
        (folder / "deep" / "b").write_text("b")
        lock.push()
        lock.push()
        assert sent == ["deep/b", "log.jsonl"]
        with (folder / "log.jsonl").open("a") as log:
            log.write("c\n")
        (folder / "deep" / "b").unlink()
    assert sent == ["deep/b", "log.jsonl", "log.jsonl"]
    assert here.read("log.jsonl") == b"a\nc\n"
    assert list(here.files()) == ["log.jsonl"]


def test_files_are_copied_while_a_run_goes_on(url, quick, monkeypatch):
    monkeypatch.setattr(mirror, "PUSH_SECONDS", 0.0)
    copied = threading.Event()
    push = Mirror.push
    monkeypatch.setattr(Mirror, "push", lambda *a: (push(*a), copied.set()))
    with opened_folder("--workdir", url) as folder, writer_lock(folder) as lock:
        lock.hold()
        (folder / "metrics.jsonl").write_text("1")
        copied.clear()
        assert copied.wait(30)
        assert Bucket("--workdir", url).read("metrics.jsonl") == b"1"


def test_a_part_of_a_folder_has_a_writer_of_its_own(url, quick):
    here = Bucket("--run", url)
    here.write("config.json", b"{}")
    here.write("evaluations/a/completions.jsonl", b"1")
    with opened_folder("--run", url) as folder:
        here.write("evaluations/a/completions.jsonl", b"12")  # by another, who has ended
        with writer_lock(folder / "evaluations" / "a") as lock:
            lock.hold()
            assert (folder / "evaluations" / "a" / "completions.jsonl").read_text() == "12"
            assert here.exists(f"evaluations/a/{LEASE_NAME}")
            (folder / "evaluations" / "a" / "evaluation.json").write_text("{}")
            (folder / "config.json").write_text("not its own")
    assert here.read("evaluations/a/evaluation.json") == b"{}"
    assert here.read("config.json") == b"{}"


def test_errors_name_the_folder_in_the_bucket(url):
    for error in (ValueError("{} is wrong"), SystemExit("error: {} is wrong")):
        with pytest.raises(type(error)) as raised, opened_folder("--run", url) as folder:
            raise type(error)(str(error).format(folder))
        assert f"{url} is wrong" in str(raised.value)


@pytest.mark.parametrize("text", ["s3://bucket/run", "az://bucket/run", "file:///run", "hf://a/b"])
def test_a_run_is_on_this_machine_or_on_gs(text, monkeypatch):
    with (
        pytest.raises(ValueError, match=r"--workdir = .* is a URL"),
        opened_folder("--workdir", text),
    ):
        pass


def test_an_export_appears_with_its_config_last_and_is_not_written_over(url, monkeypatch):
    here, sent = Bucket("--out", url), []
    upload = Bucket.upload
    monkeypatch.setattr(Bucket, "upload", lambda *a: (sent.append(a[2]), upload(*a)))
    with written_place("--out", url, may_exist=False) as folder:
        folder.mkdir()
        for name in ("config.json", "a.json", "model.safetensors"):
            (folder / name).write_text(name)
        assert sent == []
    assert sent == ["a.json", "model.safetensors", "config.json"]
    with (
        pytest.raises(ValueError, match="already exists"),
        written_place("--out", url, may_exist=False),
    ):
        pass
    with written_place("--out", f"{url}/page.html", may_exist=True) as page:
        page.write_text("first")
    with written_place("--out", f"{url}/page.html", may_exist=True) as page:
        page.write_text("second")
    assert here.read("page.html") == b"second"

    def fails():
        with written_place("--out", f"{url}/x", may_exist=False) as path:
            path.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert not here.exists("x")
