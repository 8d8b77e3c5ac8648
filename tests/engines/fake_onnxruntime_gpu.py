"""FakeOnnxRuntime: onnxruntime as it is on a machine with NVIDIA GPUs, pretended on one without.

It computes with the real onnxruntime on the CPU, and imitates what its GPU providers do around that: providers that
start, drop out quietly or raise; who takes which operator; a graph with an engine inside, which is a file of the fake's
own make; errors at a run; and a plugin with its devices. Nothing that a test shows with it was shown on a GPU.
"""

from __future__ import annotations

import runpy
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import onnxruntime as real

CUDA, TENSORRT, RTX = "CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider"
CPU = "CPUExecutionProvider"
MARK = b"FAKE-ENGINE:"
_FIELD = runpy.run_path(str(Path(__file__).parent / "tiny.py"))["field"]


class Fail(Exception):  # noqa: N818 - ONNX Runtime's name
    """ONNX Runtime's exceptions share no base but Exception."""


class EPFail(Fail):
    pass


class SessionOptions(real.SessionOptions):
    """The real one, with a place for a plugin's devices. What the real one does not have cannot be set."""

    def __init__(self) -> None:
        super().__init__()
        self.plugin = None

    def __setattr__(self, name: str, value: object) -> None:
        assert name == "plugin" or hasattr(real.SessionOptions, name), name
        super().__setattr__(name, value)

    def add_provider_for_devices(self, devices, options) -> None:
        self.plugin = (list(devices), dict(options))

    def entry(self, name: str) -> str:
        try:
            return self.get_session_config_entry(name)
        except RuntimeError:
            return ""


def packed(graph: bytes, reads, answers, *, embedded: bool = True) -> bytes:
    """A graph of one EPContext, which holds another graph as its engine."""
    engine = MARK + struct.pack("<Q", len(graph)) + graph if embedded else b"plan.engine"
    node = b"".join(_FIELD(1, name) for name in reads) + b"".join(_FIELD(2, name) for name in answers)
    node += _FIELD(4, "EPContext") + _FIELD(7, "com.microsoft")
    node += _FIELD(5, _FIELD(1, "embed_mode") + _FIELD(3, int(embedded)) + _FIELD(20, 2))
    node += _FIELD(5, _FIELD(1, "ep_cache_context") + _FIELD(4, engine) + _FIELD(20, 3))
    return _FIELD(1, 8) + _FIELD(7, _FIELD(1, node) + _FIELD(2, "plan")) + _FIELD(8, _FIELD(1, "") + _FIELD(2, 13))


def unpacked(plan: bytes) -> bytes:
    at = plan.index(MARK) + len(MARK)
    (size,) = struct.unpack_from("<Q", plan, at)
    return plan[at + 8 : at + 8 + size]


class FakeOnnxRuntime:
    """The module.

    Parameters
    ----------
    providers : tuple of str
        Those it was built with.

    Attributes
    ----------
    broken : dict
        Provider to ``drop`` (it quietly does not start) or ``raise``.
    places : callable
        Operator and the provider that would take it, to the one that does.
    writes : str
        What becomes of a compiled graph: ``whole``, ``nothing``, ``outside`` (the engine in another file), ``part`` and
        ``rest`` (with another output, another input), or ``engineless``.
    open_error, run_error : Exception, optional
        Raised by every session with a GPU provider from now on.
    devices : list
        What the plugin offers once it is registered.
    opened : list of SimpleNamespace
        Every session there was.
    """

    GraphOptimizationLevel = real.GraphOptimizationLevel
    SessionOptions = SessionOptions
    __version__ = real.__version__

    def __init__(self, *providers: str) -> None:
        self._providers = [*providers, "AzureExecutionProvider", CPU]
        self.broken: dict[str, str] = {}
        self.places: Callable[[str, str], str] = lambda operator, own: own
        self.writes = "whole"
        self.open_error: Exception | None = None
        self.run_error: Exception | None = None
        self.register_error: Exception | None = None
        self.devices: list[SimpleNamespace] = []
        self.registered: list[tuple[str, str]] = []
        self.opened: list[SimpleNamespace] = []
        self.preloaded = self.attempts = 0
        self.InferenceSession = _session_class(self)

    def get_available_providers(self) -> list[str]:
        return list(self._providers)

    def get_ep_devices(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(ep_name=CPU), *(self.devices if self.registered else [])]

    def register_execution_provider_library(self, name: str, path: str) -> None:
        self.attempts += 1
        if self.register_error is not None:
            raise self.register_error
        if any(name == before for before, _ in self.registered):
            raise Fail(f"[ONNXRuntimeError] : 1 : FAIL : library is already registered under {name}")
        self.registered.append((name, path))

    def preload_dlls(self, directory: str | None = None) -> None:
        assert directory == ""
        self.preloaded += 1
        print("Failed to load libcublas.so.12")


def _session_class(fake: FakeOnnxRuntime) -> type:
    class InferenceSession:
        """Like the real one, as far as it is used."""

        def __init__(self, content, settings, providers=None, provider_options=None, **rest) -> None:
            devices, options = settings.plugin or ([], None)
            asked = [device.ep_name for device in devices] or list(providers)
            fake.opened.append(
                SimpleNamespace(
                    content=content,
                    settings=settings,
                    asked=asked,
                    options=[options] if devices else provider_options,
                    rest=rest,
                )
            )
            self._on_gpu = asked != [CPU]
            if any(fake.broken.get(name) == "raise" for name in asked):
                raise Fail("LoadLibrary failed for /home/somebody/libonnxruntime_providers_cuda.so")
            if self._on_gpu and fake.open_error is not None:
                raise fake.open_error
            self._got = [name for name in asked if fake.broken.get(name) != "drop"]
            self._got += [] if CPU in self._got else [CPU]
            self._is_plan = MARK in content
            if self._is_plan and self._got[0] not in (TENSORRT, RTX):
                raise Fail("EPContext is not a registered function/op")
            graph = unpacked(content) if self._is_plan else content
            self._session = real.InferenceSession(graph, settings, providers=[CPU], enable_fallback=0)
            fake.opened[-1].shapes = [port.shape for port in self._session.get_inputs()]
            if settings.entry("ep.context_enable") == "1" and self._got[0] in (TENSORRT, RTX):
                self._write(graph, settings)

        def _write(self, graph: bytes, settings: SessionOptions) -> None:
            assert settings.entry("ep.context_embed_mode") == "1"
            reads = [port.name for port in self._session.get_inputs()]
            answers = [port.name for port in self._session.get_outputs()]
            if fake.writes == "nothing":
                return
            if fake.writes == "part":
                graph = graph.replace(b"copy", b"none")
            if fake.writes == "rest":
                graph = graph.replace(b"\x01a", b"\x01c")
            plan = packed(graph, reads, answers, embedded=fake.writes != "outside")
            Path(settings.entry("ep.context_file_path")).write_bytes(graph if fake.writes == "engineless" else plan)

        def get_providers(self) -> list[str]:
            return self._got

        def get_inputs(self):
            return self._session.get_inputs()

        def get_outputs(self):
            return self._session.get_outputs()

        def get_provider_graph_assignment_info(self):
            found: dict[str, list[SimpleNamespace]] = {}
            for part in self._session.get_provider_graph_assignment_info():
                for node in part.get_nodes():
                    name = fake.places(node.op_type, self._got[0])
                    found.setdefault(name, []).append(SimpleNamespace(op_type=node.op_type))
            if self._is_plan:
                found = {self._got[0]: [SimpleNamespace(op_type="EPContext")]}
            return [SimpleNamespace(ep_name=name, get_nodes=lambda nodes=nodes: nodes) for name, nodes in found.items()]

        def run(self, outputs, inputs):
            if self._on_gpu and fake.run_error is not None:
                raise fake.run_error
            return self._session.run(outputs, inputs)

    return InferenceSession
