"""Text files from outside: regular files only, of bounded size and depth. Every fault is one RegardError.

YAML is read as text alone: `yes` and `007` stay what was written, and no value becomes a date or a boolean.
"""

import json
import tomllib
from pathlib import Path
from stat import S_ISREG
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import yaml

from regard.errors import RegardError, one_line

MB = 2**20
DEEPEST = 100  # levels of lists, tables and elements within each other
MOST_ALIASES = 100  # of a YAML file: each may repeat all that stands before it


def require_file(path: Path) -> int:
    """The size in bytes of a regular file. RegardError for anything else: a pipe or a device would be read for ever."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise RegardError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not S_ISREG(status.st_mode):
        raise RegardError(f"{path}: is {'a directory' if path.is_dir() else 'no regular file'}; a file is needed")
    return status.st_size


def read_bytes(path: Path, *, most: int = 16 * MB) -> bytes:
    """The bytes of a regular file of at most `most` bytes."""
    size = require_file(path)
    if size > most:
        raise RegardError(f"{path}: has {size / MB:,.1f} MB; at most {most / MB:,g} MB are read")
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise RegardError(f"{path}: cannot be read: {error.strerror or error}") from None


def read_text(path: Path, *, most: int = 16 * MB) -> str:
    """UTF-8, with or without a byte order mark."""
    try:
        return read_bytes(path, most=most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RegardError(f"{path}: is not UTF-8 text (byte {error.start})") from None


def read_json(path: Path, *, most: int = 256 * MB) -> Any:
    return parse_json(read_bytes(path, most=most), str(path))


def parse_json(text: str | bytes, where: str) -> Any:
    """JSON; `where` is what the error calls it."""
    try:
        values = json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text)
    except RecursionError:
        raise _too_deep(where) from None
    except ValueError as error:  # of JSON, of UTF-8, or a number of thousands of digits
        raise RegardError(f"{where}: is not JSON: {one_line(error)}") from None
    _require_shallow(values, where)
    return values


def parse_toml(text: str, where: str) -> dict[str, Any]:
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise _too_deep(where) from None
    except ValueError as error:  # of TOML, or a number of thousands of digits
        raise RegardError(f"{where}: is not TOML: {one_line(error)}") from None
    _require_shallow(values, where)
    return values


def read_yaml(path: Path) -> Any:
    """Lists, tables and strings: every scalar is the text that was written, an empty one is ''."""
    text = read_text(path, most=4 * MB)
    depth = aliases = 0
    try:
        for event in yaml.parse(text, yaml.BaseLoader):  # event by event: neither depth nor aliases cost anything yet
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            aliases += isinstance(event, yaml.AliasEvent)
            if depth > DEEPEST:
                raise _too_deep(path)
            if aliases > MOST_ALIASES:
                raise RegardError(f"{path}: has more than {MOST_ALIASES} aliases")
        values = yaml.load(text, yaml.BaseLoader)
    except RegardError:
        raise
    except (yaml.YAMLError, RecursionError, ValueError, TypeError) as error:
        raise RegardError(f"{path}: is not YAML: {one_line(error)}") from None
    _require_small(values, path)
    return values


def _require_shallow(values: Any, where: object) -> None:
    level, depth = [values], 0
    while level := [value for value in level if isinstance(value, list | dict)]:
        depth += 1
        if depth > DEEPEST:
            raise _too_deep(where)
        level = [inner for value in level for inner in (value.values() if isinstance(value, dict) else value)]


def _too_deep(where: object) -> RegardError:
    return RegardError(f"{where}: its values are nested more than {DEEPEST} deep")


def _require_small(values: Any, path: Path, most: int = 1_000_000) -> None:
    """RegardError where aliases make a small file large: lists of lists of the same list."""
    sizes: dict[int, int] = {}

    def size(value: Any, depth: int) -> int:
        if not isinstance(value, list | dict):
            return 1
        if depth > DEEPEST:
            raise _too_deep(path)
        if id(value) not in sizes:
            sizes[id(value)] = most  # in case it holds itself
            inner = [*value, *value.values()] if isinstance(value, dict) else value
            sizes[id(value)] = 1 + sum(size(item, depth + 1) for item in inner)
        return sizes[id(value)]

    if size(values, 0) > most:
        raise RegardError(f"{path}: its aliases make more than {most:,} values; write them out, or leave them out")


def read_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file without entities of its own."""
    data = read_bytes(path)
    depth = 0

    def start(*_: Any) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise RegardError(f"{path}: has elements nested more than {DEEPEST} deep")

    def end(*_: Any) -> None:
        nonlocal depth
        depth -= 1

    def entity(*_: Any) -> None:
        raise RegardError(f"{path}: declares entities, which are not read")

    parser = expat.ParserCreate()  # first alone, since a tree of any depth and any entities would be built at once
    parser.StartElementHandler, parser.EndElementHandler, parser.EntityDeclHandler = start, end, entity
    try:
        parser.Parse(data, True)
        return ElementTree.fromstring(data)
    except RegardError:
        raise
    except (expat.ExpatError, ElementTree.ParseError, LookupError, ValueError) as error:
        raise RegardError(f"{path}: is not XML: {one_line(error)}") from None
