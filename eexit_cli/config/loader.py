"""Reading ``--config FILE``: YAML, TOML or JSON whose keys are the options' names.

A run's own ``config.json`` and ``all_results.json`` are such files too, so
``eexit attack --config results/<run>/config.json`` repeats a run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from eexit_cli.core.catalog import nearest
from eexit_cli.core.errors import MissingArtifactError, UsageError
from eexit_cli.core.option import flag
from eexit_cli.core.text import not_utf8

_RUN_KEYS = {"schema_version", "command", "config"}


def read_config(path: Path, known: Collection[str], *, command: str = "") -> dict[str, Any]:
    """The settings of a file, by field name.

    Args:
        path: ends in .yaml, .yml, .toml or .json.
        known: the fields that the command has.
        command: the command's name; a run's file must be a run of it.

    Returns:
        Field name -> value; keys may be spelled ``top-n`` or ``top_n``. Empty values are left
        out: they say nothing.

    Raises:
        MissingArtifactError: there is no such file.
        UsageError: not a known format, not readable as it, or an unknown key; the hint names the
            nearest option.
    """
    settings = _parse(path)
    if settings.keys() >= _RUN_KEYS:
        return _settings_of_run(settings, path, known, command)
    fields: dict[str, Any] = {}
    for key, value in settings.items():
        name = str(key).replace("-", "_")
        if name not in known:
            close = nearest(name, known)
            options = [flag(candidate) for candidate in close or sorted(known)]
            start = "Did you mean" if close else "This command has"
            raise UsageError(
                f"Unknown key '{key}' in '{path}'",
                hint=f"{start} {', '.join(options)}{'?' if close else ''}",
            )
        if name in fields:
            raise UsageError(f"'{path}' sets '{name}' twice", hint="Keep one of the two lines")
        if value is not None:
            fields[name] = _scalar(value, key, path)
    return fields


def _settings_of_run(
    run: dict[str, Any], path: Path, known: Collection[str], command: str
) -> dict[str, Any]:
    """What a run was asked, without what its pipeline noted beside it (the resolved criterion)."""
    if command and run["command"] != command:
        raise UsageError(
            f"'{path}' is a run of '{run['command']}', not of '{command}'",
            hint=f"Repeat it with: eexit {run['command']} --config {path}",
        )
    asked: dict[str, Any] = run["config"]
    return {
        name: value
        for name, value in asked.items()
        if name in known and name != "resume" and value is not None
    }


def _scalar(value: Any, key: Any, path: Path) -> Any:
    if isinstance(value, dict):
        raise UsageError(
            f"'{key}' in '{path}' is a table, not a value",
            hint="Options are written at the top level, one 'name: value' each",
        )
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 4.0 is a whole number for every option, and "4.0" is not for some
    return value


def _parse(path: Path) -> dict[str, Any]:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(
            f"'{path}' is no configuration file",
            hint=f"Its name must end in {', '.join(_READERS)}",
        )
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MissingArtifactError(
            f"No configuration file '{path}'", hint="Check the path given to --config"
        ) from None
    except IsADirectoryError:
        raise UsageError(f"'{path}' is a folder", hint="Give --config a file") from None
    except UnicodeDecodeError as error:
        said = not_utf8(f"'{path}'", path.read_bytes())
        raise UsageError(said, hint="Save it as UTF-8") from error
    content = reader(text, path)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(
            f"'{path}' holds no settings",
            hint="Write one 'name: value' per line, as in 'limit: 20'",
        )
    return content


def _yaml(text: str, path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _broken(path, "YAML", error) from error


def _toml(text: str, path: Path) -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found]

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _broken(path, "TOML", error) from error


def _json(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _broken(path, "JSON", error) from error


def _broken(path: Path, kind: str, error: Exception) -> UsageError:
    return UsageError(f"'{path}' is not valid {kind}", hint=" ".join(str(error).split()))


_READERS = {".yaml": _yaml, ".yml": _yaml, ".toml": _toml, ".json": _json}
