"""Disks that take no more, without changing the machine: a limit on the size of files, which the
kernel enforces on every thread of this process, and a small file system in memory.
"""

import contextlib
import resource
import subprocess

import jax


@contextlib.contextmanager
def files_of_at_most(size):
    """Within this context no file of this process grows beyond so many bytes (EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = jax.config.jax_enable_compilation_cache  # in which half a program would stay
    jax.config.update("jax_enable_compilation_cache", False)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        jax.config.update("jax_enable_compilation_cache", kept)


@contextlib.contextmanager
def small_disk(folder, options):
    """Mounts a file system in memory at a folder, if this user may -> a function that changes its
    options ("size=200k", "ro"), or None if he may not.
    """
    folder.mkdir()

    def mount(more):
        return subprocess.run(["mount", *more, str(folder)], capture_output=True).returncode == 0

    if not mount(["-t", "tmpfs", "-o", options, "tmpfs"]):
        yield None
        return
    try:
        yield lambda changed: mount(["-o", f"remount,{changed}"])
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
