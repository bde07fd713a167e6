"""Reads the rows of a problem set by name, one dict each: files, Hugging Face data sets, TFDS.

    path/to/train.jsonl[.gz]      one JSON object a line
    path/to/train.parquet
    hf:ORG/NAME[/CONFIG][:SPLIT]  a data set of the Hugging Face hub, or of its cache
    hf:/folder[:SPLIT]            what save_to_disk wrote, or a folder of data files
    tfds:NAME[/CONFIG][:VERSION][:SPLIT]   prepared in TFDS's data directory ($TFDS_DATA_DIR)
    tfds:/folder[:SPLIT]          a prepared one, by the folder that has its dataset_info.json
    gs://bucket/train.jsonl       any file or folder of these in a bucket, hf:gs://bucket/folder[:SPLIT]:
                                  it is copied here once

A SPLIT may be a slice ("train[:100]"). Without one there must be a single split. Folders begin with
"/", "." or "~".
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cegppo_jax.data.model_files import hub_answers
from cegppo_jax.storage import strict_json
from cegppo_jax.storage.bucket import in_bucket, local_copy
from cegppo_jax.storage.paths import local_path, refuse_url


class Row(NamedTuple):
    """One row, before anything is known of its fields."""

    place: str  # for messages: "train.jsonl:12"
    number: int  # from 1; of a text file: the line's
    values: dict[str, Any]


class RowSet(NamedTuple):
    """A problem set's rows, read while they are iterated over."""

    source: str  # the source of rows that do not name one
    rows: Iterator[Row]


def open_rows(name: str) -> RowSet:
    """Opens the rows of a problem set. The forms of names are above.

    Raises:
      ValueError: a name of no known form; a data set that is not here; while iterating, "place:
        what is wrong" for malformed content.
      FileNotFoundError: there is no such file.
    """
    name = _copied(name)
    refuse_url("problem set", name)
    for prefix, read in READERS.items():
        if name.startswith(prefix):
            return read(name)
    for suffix, read_file in FILE_READERS.items():
        if name.endswith(suffix):
            path = local_path("problem set", name)
            return RowSet(path.name.split(".")[0], read_file(path))
    raise ValueError(
        f"{name!r} names no problem set: expected a file ending in {' or '.join(FILE_READERS)}, "
        f"or a name beginning with {' or '.join(READERS)}"
    )


def _copied(name: str) -> str:
    """Returns a name with the path of a copy for the URL of something in a bucket."""
    found = re.fullmatch(r"((?:hf|tfds):)?(\w+://[^:]+)(:.*)?", name)
    if found is None or not in_bucket(found[2]):
        return name
    return f"{found[1] or ''}{local_copy('problem set', found[2], ('*',))}{found[3] or ''}"


def jsonl_rows(path: Path) -> Iterator[Row]:
    """Yields the rows of a UTF-8 file with one JSON object a line. Blank lines are skipped."""
    for number, line in _numbered_lines(path):
        place = f"{path}:{number}"
        yield Row(place, number, _parse_object(line, place))


def _numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, text) of every line that is not blank."""
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                # utf-8-sig: some editors begin a file with a byte order mark
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}:{number}: not UTF-8: {error}") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}:{number + 1}: not a whole gzip file: {error}") from error


def _parse_object(line: str, place: str) -> dict[str, Any]:
    """Returns the JSON object in a line."""
    try:
        values = strict_json.parse(line)
        if "\\ud" in line.lower():  # half of a character: nothing could write it down
            json.dumps(values, ensure_ascii=False).encode()
    except ValueError as error:  # UnicodeEncodeError as well
        raise ValueError(f"{place}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(
            f"{place}: expected a JSON object with named fields, found {type(values).__name__}"
        )
    return values


def read_parquet(path: Path) -> Iterator[Row]:
    """Yields the rows of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet

    with path.open("rb") as stream:  # a missing file is a FileNotFoundError of Python's
        try:
            batches = pa.parquet.ParquetFile(stream).iter_batches()
            values = (row for batch in batches for row in batch.to_pylist())
            yield from _numbered(str(path), values)
        except pa.ArrowException as error:
            raise ValueError(f"{path}: not a whole Parquet file: {error}") from error


def read_huggingface(name: str) -> RowSet:
    """Reads "hf:...", a data set of Hugging Face's `datasets`. No code of a data set is run."""
    import datasets

    target, _, split = name.removeprefix("hf:").partition(":")
    if _is_folder(target):
        folder = local_path("problem set", target)
        source, found = folder.name, _from_folder(name, folder)
    else:
        owner, *rest = target.split("/")
        if len(rest) not in (1, 2):
            raise ValueError(f"{name!r}: expected hf:ORG/NAME[/CONFIG][:SPLIT], or hf:/folder")
        source, found = rest[0], _from_hub(name, f"{owner}/{rest[0]}", *rest[1:])
    if isinstance(found, datasets.DatasetDict):
        split = _check_split(name, split, found)
        lengths = {one: len(rows) for one, rows in found.items()}
        [part] = datasets.ReadInstruction.from_spec(split).to_absolute(lengths)
        found = found[part.splitname].select(range(part.from_, part.to))
    elif split:
        raise ValueError(f"{name!r}: it was saved as one data set, leave out the split {split!r}")
    return RowSet(source, _numbered(name, found))


def _from_folder(name: str, folder: Path) -> Any:
    """Reads a Dataset or DatasetDict from a folder."""
    import datasets

    if not folder.is_dir():
        raise ValueError(f"{name!r}: there is no folder {str(folder)!r}")
    if any((folder / mark).exists() for mark in ("dataset_dict.json", "state.json")):
        try:
            return datasets.load_from_disk(str(folder))
        except (OSError, ValueError) as error:
            raise ValueError(f"{name!r} is damaged: {_first_line(error)}") from error
    return _from_hub(name, str(folder))


def _from_hub(name: str, *arguments: str) -> Any:
    """Calls load_dataset, with errors that say what to do."""
    import datasets
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    try:
        with contextlib.ExitStack() as stack:
            if not _is_folder(arguments[0]) and not hub_answers():  # it would be tried for minutes
                for place in (constants, datasets.config):
                    stack.enter_context(_set(place, "HF_HUB_OFFLINE", True))
            return datasets.load_dataset(*arguments)
    # OSError: DatasetNotFoundError, ConnectionError and missing files; ValueError: wrong configs
    except (OSError, ValueError, HfHubHTTPError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(
            f"{name!r} cannot be opened ({_first_line(error)}). Without a network: download it "
            "elsewhere (hf download --repo-type dataset ORG/NAME --local-dir FOLDER) and name the "
            "folder, hf:/path/to/FOLDER[:SPLIT]"
        ) from error


@contextlib.contextmanager
def _set(place: Any, name: str, value: Any) -> Iterator[None]:
    """Within this context, an attribute has another value."""
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)


def read_tfds(name: str) -> RowSet:
    """Reads "tfds:...", a prepared TFDS data set. tensorflow is not imported."""
    import tensorflow_datasets as tfds

    target = name.removeprefix("tfds:")
    version = r"[0-9*]+\.[0-9*]+\.[0-9*]+"
    found = re.fullmatch(rf"([^:]+)(:{version})?(?::([^:]+(?:\[.*\])?))?", target)
    if found is None:
        raise ValueError(f"{name!r}: expected tfds:NAME[/CONFIG][:VERSION][:SPLIT]")
    where, split = f"{found[1]}{found[2] or ''}", found[3] or ""
    try:
        if _is_folder(target):
            builder = tfds.builder_from_directory(_prepared_folder(where))
        else:
            builder = tfds.core.read_only_builder.builder_from_files(
                where, data_dir=os.environ.get("TFDS_DATA_DIR")
            )
        rows = builder.as_data_source()
    except (OSError, ValueError, NotImplementedError, tfds.core.DatasetNotFoundError) as error:
        raise ValueError(
            f"{name!r} cannot be opened ({_first_line(error)}). It must have been prepared in a "
            "format with random access: tfds build NAME --file_format=array_record, in "
            "$TFDS_DATA_DIR or with --data_dir"
        ) from error
    split = _check_split(name, split, rows)
    if split not in rows:  # a slice
        rows = {split: builder.as_data_source(split=split)}
    return RowSet(builder.name, _numbered(name, (_plain(row) for row in rows[split])))


def _prepared_folder(where: str) -> str:
    """Returns the folder, if it has the files that TFDS writes next to the data."""
    folder = local_path("problem set", where)
    missing = [one for one in ("dataset_info.json", "features.json") if not (folder / one).exists()]
    if missing:
        raise ValueError(f"{folder} has no {' and no '.join(missing)}")
    return str(folder)


def _plain(value: Any) -> Any:
    """Converts what TFDS gives to what JSON would have given: text for bytes, lists for arrays."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    return value.decode("utf-8") if isinstance(value, bytes) else value


def _numbered(name: str, values: Iterable[dict[str, Any]]) -> Iterator[Row]:
    for number, row in enumerate(values, start=1):
        yield Row(f"{name}, row {number}", number, row)


def _check_split(name: str, split: str, splits: Iterable[str]) -> str:
    """Returns the requested split, or the only one there is."""
    names = sorted(splits)
    if not split and len(names) == 1:
        return names[0]
    if split.partition("[")[0] in names:
        return split
    wrong = f"there is no split {split!r}" if split else "it has several splits, name one"
    raise ValueError(f"{name!r}: {wrong} of {names} ({name.partition(':')[0]}:...:{names[0]})")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _is_folder(target: str) -> bool:
    return target.startswith(("/", ".", "~"))


READERS: dict[str, Callable[[str], RowSet]] = {"hf:": read_huggingface, "tfds:": read_tfds}
FILE_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": jsonl_rows,
    ".jsonl.gz": jsonl_rows,
    ".parquet": read_parquet,
}
