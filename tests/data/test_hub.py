"""A hub id, against a server on this machine that answers as the Hugging Face hub does."""

import hashlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading

import child_runs
import pytest

from cegppo_jax.data import model_files, tokenizer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "pytorch_model.bin": b"a pickle",
    "modeling_tiny.py": b"print('code')",
}


class Hub(http.server.BaseHTTPRequestHandler):
    """One repository, lab/tiny; whatever else is asked for is not found."""

    asked: list[str]

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.asked.append(self.path)
        path, _, _ = self.path.partition("?")
        if path.startswith(f"/api/models/lab/tiny/tree/{COMMIT}"):
            files = [
                {"type": "file", "path": name, "size": len(body), "oid": COMMIT}
                for name, body in REPOSITORY.items()
            ]
            body = json.dumps(files).encode()
        elif path.startswith("/api/models/lab/tiny"):
            names = [{"rfilename": name} for name in REPOSITORY]
            body = json.dumps({"id": "lab/tiny", "sha": COMMIT, "siblings": names}).encode()
        else:
            body = REPOSITORY.get(path.removeprefix(f"/lab/tiny/resolve/{COMMIT}/"))
        if body is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    """-> (address, paths asked for) of a running server."""
    handler = type("RecordingHub", (Hub,), {"asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler.asked
    server.shutdown()
    server.server_close()


def locate(name, address, home, **variables):
    """Locates a model in a process of its own, since the hub's address is read at import."""
    program = "import sys; from cegppo_jax.data.model_files import locate_model as locate\n"
    program += "try: print(locate(sys.argv[1]))\nexcept ValueError as e: sys.exit(f'error: {e}')"
    return subprocess.run(
        [sys.executable, "-c", program, name],
        cwd=child_runs.ROOT,
        env=os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(home)} | variables,
        capture_output=True,
        text=True,
    )


def test_a_hub_id_is_downloaded_without_code_and_pickles_and_then_kept(hub, tmp_path):
    address, asked = hub
    done = locate("lab/tiny", address, tmp_path)
    assert done.returncode == 0, done.stderr
    folder = done.stdout.strip()
    kept = {name: body for name, body in REPOSITORY.items() if not name.endswith((".bin", ".py"))}
    assert {e.name: (tmp_path / e.path).read_bytes() for e in os.scandir(folder)} == kept
    assert not [path for path in asked if ".bin" in path or ".py" in path]
    asked.clear()
    assert locate("lab/tiny", address, tmp_path, HF_HUB_OFFLINE="1").stdout.strip() == folder
    assert not asked


def test_an_id_that_the_hub_does_not_know(hub, tmp_path):
    refused = locate("lab/unknown", hub[0], tmp_path)
    assert refused.returncode == 1
    assert "error: 'lab/unknown'" in refused.stderr
    assert "RepositoryNotFoundError" in refused.stderr


ASK = """
import time
import datasets
from cegppo_jax.data.model_files import locate_model
from cegppo_jax.data.rows import read_huggingface
from cegppo_jax.data.tokenizer import load_tokenizer
for ask, name in (
    (locate_model, "lab/tiny"), (load_tokenizer, "lab/tiny"), (read_huggingface, "hf:lab/tiny:test")
):
    began = time.monotonic()
    try:
        ask(name)
    except ValueError as error:
        print(time.monotonic() - began, str(error).replace(chr(10), " "))
"""


def test_without_a_hub_only_the_cache_is_read(monkeypatch, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setattr(model_files.constants, "ENDPOINT", address)
        assert not model_files.hub_answers()
        for load in (model_files.locate_model, tokenizer.load_tokenizer):
            with pytest.raises(ValueError, match=r"'lab/not-in-any-cache'.*Hugging Face hub"):
                load("lab/not-in-any-cache")


@pytest.mark.slow
def test_a_hub_that_does_not_answer_is_told_within_seconds(tmp_path):
    """A closed port, as without a network: its library alone would try for a minute or more."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
    variables = child_runs.environment(None) | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd=child_runs.ROOT,
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    for line, name in zip(lines, ("lab/tiny", "lab/tiny", "hf:lab/tiny:test"), strict=True):
        seconds, _, words = line.partition(" ")
        assert name in words
        assert float(seconds) < 20
    assert "Retrying" not in done.stderr
