"""A value as `--set KEY=VALUE` takes it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regard.errors import RegardError


def setting_text(value: Any) -> str:
    """A value as the right side of `KEY=VALUE`. RegardError for one that TOML does not have."""
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {setting_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(setting_text(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return json.dumps(str(value), ensure_ascii=False)
    raise RegardError(f"{repr(value)[:100]}: a setting is a number, a text, true or false, or a list or table of them")
