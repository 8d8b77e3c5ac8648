"""The bare call of an engine's own library, under the session that edgehem made: what a backend adds is over that.

The library's object is the session's own. A second one beside it would have a second pool of threads, which wait for
work by spinning: each would take the other's processors for some milliseconds after every run (both calls took 1.6
times as long), and what a backend adds is far less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgehem.backends import Session
from edgehem.backends.onnxruntime import OnnxRuntimeSession
from edgehem.backends.openvino import OpenVinoSession

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]


def under(session: Session) -> Callable[[Mapping[str, Array]], Outputs] | None:
    """The library's call as its documentation has it; None for engines that have none here."""
    if isinstance(session, OnnxRuntimeSession):
        return _onnxruntime(session)
    if isinstance(session, OpenVinoSession):
        return _openvino(session)
    return None


def agree(ours: Outputs, bare: Outputs) -> None:
    """Make sure that both computed the same.

    Raises
    ------
    AssertionError
    """
    for name, value in ours.items():
        np.testing.assert_allclose(value, bare[name], rtol=1e-3, atol=1e-3)


def _onnxruntime(session: OnnxRuntimeSession) -> Callable[[Mapping[str, Array]], Outputs]:
    library = session._session
    names = [output.name for output in library.get_outputs()]
    return lambda inputs: dict(zip(names, library.run(names, dict(inputs)), strict=True))


def _openvino(session: OpenVinoSession) -> Callable[[Mapping[str, Array]], Outputs]:
    request = session._narrow.create_infer_request()
    names = list(session._outputs)

    def run(inputs: Mapping[str, Array]) -> Outputs:
        # Outputs stay the request's: the least that a caller could do.
        results = request.infer(dict(inputs), share_inputs=True, share_outputs=True)
        return {name: results[name] for name in names}

    return run
