"""Every name that the protocols of api.py promise is in a real TensorRT: no device is needed to look.

TensorRT is not on the package index, and cannot be imported where these tests usually run. TensorRT for RTX has the
API of TensorRT 11, and its bindings can be looked at without a GPU where somebody put them.
"""

from __future__ import annotations

import importlib
import inspect
import typing
from types import ModuleType
from typing import Any

import pytest

from edgehem.backends.tensorrt import api

pytestmark = pytest.mark.tensorrt

MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
CLASSES = {
    api.Dims: "Dims",
    api.HostMemory: "IHostMemory",
    api.Tensor: "ITensor",
    api.Network: "INetworkDefinition",
    api.ParserError: "ParserError",
    api.Parser: "OnnxParser",
    api.Profile: "IOptimizationProfile",
    api.TimingCache: "ITimingCache",
    api.Config: "IBuilderConfig",
    api.Builder: "Builder",
    api.Inspector: "EngineInspector",
    api.Context: "IExecutionContext",
    api.Engine: "ICudaEngine",
    api.Runtime: "Runtime",
}
"""Each protocol, and the class that it stands for."""
MEMBERS = {
    "ILogger": ("Severity", "log"),
    "IProgressMonitor": ("phase_start", "step_complete", "phase_finish"),
    "MemoryPoolType": ("WORKSPACE",),
    "ProfilingVerbosity": ("DETAILED",),
    "LayerInformationFormat": ("JSON",),
    "BuilderFlag": ("TF32", "GPU_FALLBACK"),
    "DeviceType": ("DLA", "GPU"),
    "TensorIOMode": ("INPUT", "OUTPUT"),
    "TensorLocation": ("DEVICE",),
    "TensorFormat": ("LINEAR",),
}
"""What is used of enumerations and of classes that edgehem derives from."""


def promised(protocol: type[Any]) -> list[str]:
    """Names that a protocol declares; ``__buffer__`` shows from Python 3.12 on."""
    own = {name for name in vars(protocol) if not name.startswith("_") and name != "Any"}
    special = {name for name in ("__len__", "__getitem__") if name in vars(protocol)}
    return sorted(own | special | set(inspect.get_annotations(protocol)))


@pytest.fixture(scope="module", params=MODULES)
def module(request: pytest.FixtureRequest) -> ModuleType:
    try:
        return importlib.import_module(request.param)
    except Exception as error:  # bindings without their libraries raise what they like
        pytest.skip(f"{request.param} cannot be imported: {type(error).__name__}")


def test_every_protocol_is_looked_at() -> None:
    protocols = {
        value
        for value in vars(api).values()
        if inspect.isclass(value) and getattr(value, "_is_protocol", False) and value is not typing.Protocol
    }
    assert protocols == {*CLASSES, api.TensorRtApi}
    assert all(promised(protocol) for protocol in protocols)


def test_the_module_has_every_name(module: ModuleType) -> None:
    names = [*promised(api.TensorRtApi), "__version__"]
    assert not [name for name in names if not hasattr(module, name)]


@pytest.mark.parametrize("protocol", CLASSES, ids=lambda protocol: protocol.__name__)
def test_every_class_has_every_name(module: ModuleType, protocol: type[Any]) -> None:
    found = getattr(module, CLASSES[protocol])
    assert not [name for name in promised(protocol) if not hasattr(found, name)]


@pytest.mark.parametrize("name", MEMBERS)
def test_members_that_are_used(module: ModuleType, name: str) -> None:
    assert not [member for member in MEMBERS[name] if not hasattr(getattr(module, name), member)]


def test_dimensions_are_read_by_length_and_index(module: ModuleType) -> None:
    assert api.sizes(module.Dims((1, -1, 224))) == (1, -1, 224)


def test_severities_are_members_of_one_enumeration(module: ModuleType) -> None:
    severity = module.ILogger.Severity
    assert {severity.INTERNAL_ERROR, severity.ERROR, severity.WARNING} <= set(severity.__members__.values())
