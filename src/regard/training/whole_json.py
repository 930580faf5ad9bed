"""JSON files that say themselves whether they are as they were written.

The last line is `"checksum": "..."`, over all lines before it. A file that another program wrote anew, in another
layout, is taken as it is; so is one whose line with the checksum was taken out.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regard.errors import RegardError
from regard.files import json_text
from regard.reading import MB, parse_json, read_text

_LAST_LINE = re.compile(r',\n  "checksum": "([0-9a-f]{16})"\n\}\n\Z')


def with_checksum(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with their checksum, ready for `write_json`."""
    plain = {key: value for key, value in values.items() if key != "checksum"}
    return {**plain, "checksum": _checksum(json_text(plain, indent=2).removesuffix("\n}"))}


def read_table(file: Path, *, most: int = 256 * MB) -> dict[str, Any]:
    """The table in a JSON file. RegardError for one that is missing, damaged, or another kind of value."""
    if not file.exists():
        raise RegardError(f"{file}: is missing")
    text = read_text(file, most=most)
    values = parse_json(text, str(file))
    if not isinstance(values, dict):
        raise RegardError(f"{file}: should hold a table, holds {type(values).__name__}")
    last = _LAST_LINE.search(text)
    if last is not None and last[1] != _checksum(text[: last.start()]):
        raise RegardError(
            f'{file}: is damaged, or was edited: its checksum differs; after an edit take the line "checksum" out'
        )
    return values


def _checksum(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
