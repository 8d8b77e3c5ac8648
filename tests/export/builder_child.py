"""A real TensorRT parser and builder in a process of its own: it is native code, and some graphs make it crash.

``python builder_child.py`` says what it is in a line of JSON, then answers every graph on standard input (its length in
eight bytes, then the ONNX) with a line: why it is refused, or an empty string.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import Any

MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
SIDE = 8
"""Size given to axes that are dynamic besides the batch."""


class Builder:
    """Parses and builds, and keeps what is said.

    Raises
    ------
    Exception
        Where TensorRT needs a GPU and finds none.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        lines: list[str] = []

        class Logger(module.ILogger):  # type: ignore[misc,name-defined]
            def log(self, severity: Any, message: str) -> None:
                if severity <= module.ILogger.Severity.ERROR:
                    lines.append(message)

        self.logger, self.lines = Logger(), lines
        self.builder = module.Builder(self.logger)

    def refusal(self, graph: bytes) -> str:
        """Why a graph is refused; empty if it is built."""
        self.lines.clear()
        trt = self.module
        # TensorRT 10 has to be asked for a strongly typed network; later ones have no other.
        flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        network = self.builder.create_network(0 if flag is None else 1 << int(flag))
        parser = trt.OnnxParser(network, self.logger)
        if not parser.parse(graph):
            return "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors)) or "not parsed"
        profile, settings = self.builder.create_optimization_profile(), self.builder.create_builder_config()
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            shape = [size if size > 0 else (SIDE if axis else 1) for axis, size in enumerate(tensor.shape)]
            profile.set_shape(tensor.name, shape, shape, shape)
        settings.add_optimization_profile(profile)
        if hasattr(settings, "set_compute_capability"):
            settings.num_compute_capabilities = 1
            settings.set_compute_capability(trt.ComputeCapability.SM86, 0)
        plan = self.builder.build_serialized_network(network, settings)
        return "" if plan is not None else "; ".join(self.lines) or "not built"


def main() -> None:
    """Answer until nothing comes."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the library prints must not come between the answers
    builder, why = None, []
    for name in MODULES:
        try:
            builder = Builder(import_module(name))
            break
        except Exception as error:  # absent, a placeholder, or without its GPU
            why.append(f"{name}: {type(error).__name__}")
    print(json.dumps({"rtx": builder is not None and "rtx" in name, "missing": "" if builder else "; ".join(why)}),
          file=replies, flush=True)  # fmt: skip
    while builder is not None and len(size := sys.stdin.buffer.read(8)) == 8:
        graph = sys.stdin.buffer.read(int.from_bytes(size, "little"))
        print(json.dumps(builder.refusal(graph)), file=replies, flush=True)


if __name__ == "__main__":
    main()
