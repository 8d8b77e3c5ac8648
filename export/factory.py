"""The user's own network: ``module:factory`` on the command line, imported and called. This runs the user's code."""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from edgehem.errors import UsageError


def build(target: str, arguments: Mapping[str, Any] | None = None, *, folder: Path | None = None) -> nn.Module:
    """Make a module by calling what the user named.

    Parameters
    ----------
    target : str
        ``package.module:factory``; a class or a function, also inside a class (``module:Networks.small``).
    arguments : mapping, optional
        Keyword arguments.
    folder : Path, optional
        Where to look for the module first, if asked: without it the current directory is not looked into.

    Raises
    ------
    UsageError
        If it cannot be imported, called, or returns something else than a module.
    """
    module, colon, name = target.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise UsageError(f"{target!r} is not of the form package.module:factory")
    with _looking_in(folder):
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name and (module == error.name or module.startswith(f"{error.name}.")):
                where = f"in {folder}" if folder else "installed; the current directory is looked into only when asked"
                raise UsageError(f"no module called {error.name} is {where}") from error
            raise UsageError(f"{module} needs {error.name}, which is not installed") from error
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            raise UsageError(f"{module} cannot be imported ({type(error).__name__}: {error})") from error
        for part in name.split("."):
            if not hasattr(found, part):
                raise UsageError(f"{module} has no {name}")
            found = getattr(found, part)
        if not callable(found) or isinstance(found, nn.Module):
            raise UsageError(f"{target} is a {type(found).__name__}; name a function or class that makes the network")
        try:
            network = found(**(arguments or {}))
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UsageError(
                f"{name}{_signature(found)} called with {dict(arguments or {})} failed ({reason})"
            ) from error
    if not isinstance(network, nn.Module):
        raise UsageError(f"{target} returned a {type(network).__name__}, not a torch.nn.Module")
    return network


def arguments_of(items: Sequence[str]) -> dict[str, Any]:
    """Keyword arguments of ``name=value`` items; values are JSON where they are, else text.

    Raises
    ------
    UsageError
        If an item has no name, or a name comes twice.
    """
    found: dict[str, Any] = {}
    for item in items:
        name, sign, value = item.partition("=")
        if not sign or not name.isidentifier() or name in found:
            raise UsageError(f"{item!r} is not name=value, or {name!r} came before")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


@contextmanager
def _looking_in(folder: Path | None) -> Iterator[None]:
    """Import from a folder first, or from anywhere but the current directory."""
    before, here = list(sys.path), Path.cwd()
    if folder is not None:
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder")
        sys.path.insert(0, str(folder.resolve()))
    else:
        sys.path[:] = [entry for entry in before if entry and Path(entry).absolute() != here]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def _signature(called: Any) -> str:
    try:
        return str(inspect.signature(called))
    except (TypeError, ValueError):
        return "(...)"
