"""The rules of TensorRT readiness: what ships passes, and each kind of wrong graph is named by its own rule."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the [export] extra")
pytestmark = pytest.mark.torch

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from edgehem.bundle import find  # noqa: E402
from edgehem.errors import BudgetError, UsageError  # noqa: E402
from edgehem.export.readiness import RULES, lint, lint_file, readiness, require_ready, table  # noqa: E402

PAGE = Path(__file__).resolve().parents[2] / "docs" / "export.md"
FLOAT, INT8 = TensorProto.FLOAT, TensorProto.INT8


def constant(name: str, values: Any, dtype: Any = np.float32) -> Any:
    return numpy_helper.from_array(np.asarray(values, dtype), name)


class Net:
    """A convolution in INT8 as TensorRT takes it, to be spoilt: x -> Q -> DQ -> Conv(DQ(int8)) -> Relu -> y."""

    def __init__(self) -> None:
        weights = np.random.default_rng(0).integers(-127, 128, (8, 4, 3, 3))
        self.stored = {
            "s": constant("s", 0.05),
            "z": constant("z", 0, np.int8),
            "w": constant("w", weights, np.int8),
            "ws": constant("ws", np.full(8, 0.01)),
            "wz": constant("wz", np.zeros(8), np.int8),
            "b": constant("b", np.zeros(8)),
        }
        self.nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], name="q"),
            helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"], name="dq"),
            helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], name="dw", axis=0),
            helper.make_node("Conv", ["xd", "wd", "b"], ["c"], name="conv", pads=[1] * 4),
            helper.make_node("Relu", ["c"], ["y"], name="relu"),
        ]
        self.input = helper.make_tensor_value_info("x", FLOAT, ["batch", 4, 8, 8])
        self.output = helper.make_tensor_value_info("y", FLOAT, ["batch", 8, 8, 8])
        self.opsets = [helper.make_opsetid("", 18)]

    def node(self, name: str) -> Any:
        return next(node for node in self.nodes if node.name == name)

    def store(self, name: str, values: Any, dtype: Any = np.float32) -> None:
        self.stored[name] = constant(name, values, dtype)

    def append(self, kind: str, inputs: list[str], **attributes: Any) -> None:
        """One more node behind the last, whose output is the graph's."""
        self.node(self.nodes[-1].name).output[0] = "last"
        self.nodes.append(
            helper.make_node(kind, ["last" if n == "y" else n for n in inputs], ["y"], name="added", **attributes)
        )

    def model(self) -> Any:
        graph = helper.make_graph(self.nodes, "net", [self.input], [self.output], list(self.stored.values()))
        return helper.make_model(graph, opset_imports=self.opsets, ir_version=10)


def uint8(net: Net) -> None:
    net.store("z", 128, np.uint8)


def asymmetric(net: Net) -> None:
    net.store("z", 3, np.int8)


def asymmetric_weights(net: Net) -> None:
    net.store("wz", [0, 0, 0, 0, 0, 0, 1, 0], np.int8)


def int32_bias(net: Net) -> None:
    net.store("bq", np.zeros(8), np.int32)
    net.nodes.insert(0, helper.make_node("DequantizeLinear", ["bq", "s"], ["bd"], name="db"))
    net.node("conv").input[2] = "bd"


def no_zero_point(net: Net) -> None:
    del net.node("q").input[2], net.node("dq").input[2]


def computed_zero_point(net: Net) -> None:
    net.nodes.insert(0, helper.make_node("Identity", ["z"], ["z2"], name="id"))
    net.node("q").input[2] = net.node("dq").input[2] = "z2"


def computed_scale(net: Net) -> None:
    net.nodes.insert(0, helper.make_node("Mul", ["s", "s"], ["s2"], name="mul"))
    net.node("q").input[1] = net.node("dq").input[1] = "s2"


def negative_scale(net: Net) -> None:
    net.store("ws", [0.01, 0.01, -0.01, 0.01, 0.01, 0.01, 0.01, 0.01])


def zero_scale(net: Net) -> None:
    net.store("s", 0.0)


def infinite_scale(net: Net) -> None:
    net.store("s", np.inf)


def mismatched_pair(net: Net) -> None:
    net.store("s2", 0.06)
    net.node("dq").input[1] = "s2"


def too_few_scales(net: Net) -> None:
    net.store("ws", np.full(5, 0.01))
    net.store("wz", np.zeros(5), np.int8)


def other_zero_points(net: Net) -> None:
    net.store("wz", np.zeros(3), np.int8)


def wrong_axis(net: Net) -> None:
    net.store("ws", np.full(4, 0.01))
    net.store("wz", np.zeros(4), np.int8)
    net.node("dw").attribute[0].i = 1


def per_channel_activations(net: Net) -> None:
    net.store("s", np.full(4, 0.05))
    net.store("z", np.zeros(4), np.int8)


def lone_quantize(net: Net) -> None:
    net.nodes[1:2] = [
        helper.make_node("Transpose", ["xq"], ["xt"], perm=[0, 1, 3, 2], name="t"),
        helper.make_node("DequantizeLinear", ["xt", "s", "z"], ["xd"], name="dq"),
    ]


def float8(net: Net) -> None:
    net.opsets = [helper.make_opsetid("", 21)]
    net.stored["z"] = helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], [0])


def int4(net: Net) -> None:
    net.opsets = [helper.make_opsetid("", 21)]
    net.stored["w"] = helper.make_tensor("w", TensorProto.INT4, [8, 4, 3, 3], np.zeros(288, np.int8))
    net.stored["wz"] = helper.make_tensor("wz", TensorProto.INT4, [8], np.zeros(8, np.int8))


def blocked(net: Net) -> None:
    net.opsets = [helper.make_opsetid("", 21)]
    net.store("ws", np.full((4, 4, 3, 3), 0.01))
    net.store("wz", np.zeros((4, 4, 3, 3)), np.int8)
    net.node("dw").attribute.append(helper.make_attribute("block_size", 2))


def custom(net: Net) -> None:
    net.append("FastGelu", ["y"], domain="com.microsoft")
    net.opsets.append(helper.make_opsetid("com.microsoft", 1))


def dynamic_quantisation(net: Net) -> None:
    net.nodes.append(helper.make_node("DynamicQuantizeLinear", ["y"], ["a", "b2", "c2"], name="dynamic"))


def dynamic_axis(net: Net) -> None:
    net.input = helper.make_tensor_value_info("x", FLOAT, ["batch", 4, "rows", 8])
    net.output = helper.make_tensor_value_info("y", FLOAT, ["batch", 8, "rows", 8])


def unknown_output(net: Net) -> None:
    net.store("shape", [-1, 4], np.int64)
    net.nodes.append(helper.make_node("NonZero", ["y"], ["places"], name="nonzero"))
    net.nodes.append(helper.make_node("Cast", ["places"], ["found"], name="cast", to=FLOAT))
    net.output = helper.make_tensor_value_info("found", FLOAT, [4, None])


def float64(net: Net) -> None:
    net.nodes[-1].output[0] = "last"
    net.nodes.append(helper.make_node("Cast", ["last"], ["wide"], name="widen", to=TensorProto.DOUBLE))
    net.nodes.append(helper.make_node("Cast", ["wide"], ["y"], name="narrow", to=FLOAT))


def branches(net: Net) -> None:
    def part(kind: str) -> Any:
        node = helper.make_node(kind, ["last"], [f"{kind}y"], name=kind)
        return helper.make_graph([node], kind, [], [helper.make_tensor_value_info(f"{kind}y", FLOAT, None)])

    net.store("choice", True, np.bool_)
    net.append("If", ["choice"], then_branch=part("Neg"), else_branch=part("Abs"))


def loop(net: Net) -> None:
    flag = helper.make_tensor_value_info("go", TensorProto.BOOL, [])
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Neg", ["v"], ["w2"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            flag,
            helper.make_tensor_value_info("v", FLOAT, None),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("w2", FLOAT, None)],
    )
    net.store("times", 3, np.int64)
    net.append("Loop", ["times", "", "y"], body=body)


def noise(net: Net) -> None:
    net.append("RandomNormalLike", ["y"])


def sequence(net: Net) -> None:
    net.nodes.append(helper.make_node("SequenceConstruct", ["y"], ["list"], name="sequence"))


def cubic(net: Net) -> None:
    net.store("sizes", [1, 1, 1, 1])
    net.append("Resize", ["y", "", "sizes"], mode="cubic")


def ellipsis(net: Net) -> None:
    net.append("Einsum", ["y"], equation="...i->...i")


def diagonal(net: Net) -> None:
    net.append("Einsum", ["y"], equation="nchh->nch")
    net.output = helper.make_tensor_value_info("y", FLOAT, ["batch", 8, 8])


def unsorted(net: Net) -> None:
    net.store("k", [3], np.int64)
    net.node("relu").output[0] = "last"
    net.nodes.append(helper.make_node("TopK", ["last", "k"], ["y", "places"], name="top", sorted=0))
    net.output = helper.make_tensor_value_info("y", FLOAT, ["batch", 8, 8, 3])


def antialiased(net: Net) -> None:
    net.store("sizes", [1, 1, 0.5, 0.5])
    net.append("Resize", ["y", "", "sizes"], mode="linear", antialias=1)
    net.output = helper.make_tensor_value_info("y", FLOAT, ["batch", 8, 4, 4])


def dilated_pool(net: Net) -> None:
    net.append("MaxPool", ["y"], kernel_shape=[3, 3], dilations=[2, 2], pads=[2] * 4)


def indices_of_pool(net: Net) -> None:
    net.append("MaxPool", ["y"], kernel_shape=[1, 1])
    net.nodes[-1].output.append("places")


def third_power_pool(net: Net) -> None:
    net.append("LpPool", ["y"], kernel_shape=[1, 1], p=3)


def slice_of_all_axes(net: Net) -> None:
    net.store("from", [0], np.int64)
    net.store("end", [2], np.int64)
    net.append("Slice", ["y", "from", "end"])


def adding_scatter(net: Net) -> None:
    net.store("where", np.zeros((1, 8, 8, 8)), np.int64)
    net.store("what", np.ones((1, 8, 8, 8)))
    net.append("ScatterElements", ["y", "where", "what"], reduction="max")


def attention(net: Net) -> None:
    net.opsets = [helper.make_opsetid("", 23)]
    net.append("Attention", ["y", "y", "y"])


def large_int64(net: Net) -> None:
    net.store("far", [2**40], np.int64)
    net.store("none", [0], np.int64)
    net.nodes.append(helper.make_node("Gather", ["far", "none"], ["index"], name="gather"))


def old_opset(net: Net) -> None:
    net.opsets = [helper.make_opsetid("", 12)]


def new_opset(net: Net) -> None:
    net.opsets = [helper.make_opsetid("", 25)]


def external(net: Net) -> None:
    tensor = net.stored["b"]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def twice(net: Net) -> None:
    net.nodes.insert(0, helper.make_node("Relu", ["x"], ["c"], name="again"))


def text_input(net: Net) -> None:
    net.input = helper.make_tensor_value_info("x", TensorProto.STRING, ["batch", 4])
    net.nodes = [
        helper.make_node("Shape", ["x"], ["n"], name="n"),
        helper.make_node("Cast", ["n"], ["y"], name="c", to=1),
    ]
    net.output = helper.make_tensor_value_info("y", FLOAT, [2])


def half_scale(net: Net) -> None:
    net.opsets = [helper.make_opsetid("", 23)]
    net.stored["ws"] = helper.make_tensor("ws", TensorProto.BFLOAT16, [8], [0.01] * 8)


def invalid(net: Net) -> None:
    net.node("conv").input[0] = "nowhere"


SPOILT: dict[str, list[Callable[[Net], None]]] = {
    "unsigned-type": [uint8],
    "zero-point-value": [asymmetric, asymmetric_weights],
    "integer-bias": [int32_bias],
    "zero-point-missing": [no_zero_point],
    "zero-point-computed": [computed_zero_point],
    "scale-computed": [computed_scale],
    "scale-value": [negative_scale, zero_scale, infinite_scale],
    "scale-type": [half_scale],
    "pair-scale": [mismatched_pair],
    "scale-shape": [too_few_scales, other_zero_points],
    "scale-axis": [wrong_axis],
    "activation-per-channel": [per_channel_activations],
    "pair-missing": [lone_quantize],
    "quantised-type": [float8, int4],
    "scale-blocked": [blocked],
    "custom-domain": [custom],
    "qoperator": [dynamic_quantisation],
    "dynamic-axis": [dynamic_axis],
    "output-shape": [dynamic_axis, unknown_output],
    "shape-by-value": [unknown_output],
    "float64": [float64],
    "control-flow": [branches, loop],
    "random": [noise],
    "operator-unsupported": [sequence],
    "operator-limits": [
        cubic,
        ellipsis,
        diagonal,
        unsorted,
        antialiased,
        dilated_pool,
        indices_of_pool,
        third_power_pool,
        slice_of_all_axes,
        adding_scatter,
        attention,
    ],
    "int64-range": [large_int64],
    "opset": [old_opset, new_opset],
    "external-data": [external],
    "duplicate-name": [twice],
    "interface-type": [text_input],
    "tensor-type": [text_input],
    "graph-invalid": [invalid],
}
SPOILT_AND_TAKEN = {
    "no_zero_point", "computed_zero_point", "computed_scale", "infinite_scale", "wrong_axis",
    "per_channel_activations", "mismatched_pair", "lone_quantize", "dynamic_axis", "float64", "branches", "noise",
    "cubic", "ellipsis", "diagonal", "unsorted", "large_int64", "old_opset", "new_opset",
}  # fmt: skip
"""What TensorRT for RTX builds all the same: the rules say why they stand."""
CASES = [(rule, spoil) for rule, spoils in SPOILT.items() for spoil in spoils]


def fixed_batch(net: Net) -> None:
    net.input = helper.make_tensor_value_info("x", FLOAT, [1, 4, 8, 8])
    net.output = helper.make_tensor_value_info("y", FLOAT, [1, 8, 8, 8])


def three_channels(net: Net) -> None:
    net.store("w", np.zeros((8, 3, 3, 3)), np.int8)
    net.input = helper.make_tensor_value_info("x", FLOAT, ["batch", 3, 8, 8])


def float_activations(net: Net) -> None:
    three_channels(net)
    net.node("conv").input[0] = "x"


def transposed_in_3d(net: Net) -> None:
    net.store("w", np.zeros((4, 8, 2, 2, 2)), np.int8)
    net.node("dw").attribute[0].i = 1
    net.nodes[3] = helper.make_node("ConvTranspose", ["xd", "wd", "b"], ["c"], name="up", strides=[2, 2, 2])
    net.input = helper.make_tensor_value_info("x", FLOAT, ["batch", 4, 4, 4, 4])
    net.output = helper.make_tensor_value_info("y", FLOAT, ["batch", 8, 8, 8, 8])


def int8_input(net: Net) -> None:
    net.input = helper.make_tensor_value_info("x", INT8, ["batch", 4, 8, 8])
    net.nodes = net.nodes[1:]
    net.node("dq").input[0] = "x"


def tokens(net: Net) -> None:
    int8_input(net)
    net.input.type.tensor_type.elem_type = TensorProto.INT64
    net.nodes[0] = helper.make_node("Cast", ["x"], ["xd"], name="cast", to=FLOAT)


def int8_output(net: Net) -> None:
    net.nodes.append(helper.make_node("QuantizeLinear", ["y", "s", "z"], ["yq"], name="last_q"))
    net.output = helper.make_tensor_value_info("yq", INT8, ["batch", 8, 8, 8])


def half(net: Net) -> None:
    net.opsets = [helper.make_opsetid("", 19)]
    for name in ("s", "ws", "b"):
        net.store(name, numpy_helper.to_array(net.stored[name]), np.float16)
    net.input.type.tensor_type.elem_type = net.output.type.tensor_type.elem_type = TensorProto.FLOAT16


def open_slice(net: Net) -> None:
    net.store("from", [0], np.int64)
    net.store("end", [2**63 - 1], np.int64)
    net.store("axes", [2], np.int64)
    net.append("Slice", ["y", "from", "end", "axes"])


READY: list[Callable[[Net], None]] = [
    fixed_batch, three_channels, float_activations, transposed_in_3d, int8_input, tokens, int8_output, half, open_slice,
]  # fmt: skip
"""What is ready, some of it with a warning."""


def found(model: Any, severity: str = "error") -> set[str]:
    return {finding.rule.id for finding in lint(model).findings if finding.rule.severity == severity}


def test_the_net_that_the_others_are_spoilt_from_is_ready() -> None:
    report = lint(Net().model())
    assert report.ready and not report.warnings, report.text()
    assert require_ready(Net().model()) == report


@pytest.mark.parametrize(("rule", "spoil"), CASES, ids=[f"{rule}-{spoil.__name__}" for rule, spoil in CASES])
def test_every_wrong_graph_is_rejected_by_its_rule(rule: str, spoil: Callable[[Net], None]) -> None:
    net = Net()
    spoil(net)
    model = net.model()
    before = model.SerializeToString()
    report = lint(model)
    assert rule in {finding.rule.id for finding in report.errors}, report.text()
    assert not report.ready and rule in report.text()
    assert model.SerializeToString() == before
    with pytest.raises(BudgetError, match=rule):
        require_ready(model)


def test_a_wrong_graph_is_not_blamed_for_more() -> None:
    """Each of these has one fault, and one rule says so."""
    for rule, spoil in (
        ("zero-point-value", asymmetric), ("unsigned-type", uint8), ("scale-value", negative_scale),
        ("scale-axis", wrong_axis), ("activation-per-channel", per_channel_activations), ("int64-range", large_int64),
        ("pair-scale", mismatched_pair), ("scale-computed", computed_scale), ("float64", float64), ("random", noise),
    ):  # fmt: skip
        net = Net()
        spoil(net)
        expected = {rule} | ({"zero-point-value"} if spoil is uint8 else set())
        assert found(net.model()) == expected


def test_warnings_do_not_stop_a_graph() -> None:
    net = Net()
    net.input = helper.make_tensor_value_info("x", FLOAT, [1, 4, 8, 8])
    net.output = helper.make_tensor_value_info("y", FLOAT, [1, 8, 8, 8])
    net.nodes[3:4] = [
        helper.make_node("Conv", ["xd", "wd", "b"], ["c0"], pads=[1] * 4),
        helper.make_node("QuantizeLinear", ["c0", "s", "z"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "s", "z"], ["c"]),
    ]
    assert found(net.model()) == set()
    assert found(net.model(), "warning") == {"fixed-batch", "pair-before-activation", "node-name"}
    net = Net()
    net.store("w", np.zeros((8, 3, 3, 3)), np.int8)
    net.input = helper.make_tensor_value_info("x", FLOAT, ["batch", 3, 8, 8])
    assert found(net.model(), "warning") == {"int8-channels"}
    net.node("conv").input[0] = "x"
    assert found(net.model(), "warning") >= {"half-quantised"}
    net = Net()
    net.append("Softmax", ["y"])
    net.nodes[-1:-1] = [
        helper.make_node("QuantizeLinear", ["last", "s", "z"], ["lq"], name="q2"),
        helper.make_node("DequantizeLinear", ["lq", "s", "z"], ["ld"], name="dq2"),
    ]
    net.nodes[-1].input[0] = "ld"
    assert found(net.model(), "warning") == {"pair-unfused"}


def test_transposed_convolutions_in_3d_are_named() -> None:
    net = Net()
    transposed_in_3d(net)
    assert found(net.model()) == set() and found(net.model(), "warning") == {"pair-unfused"}
    net.node("dw").attribute[0].i = 0
    net.store("ws", np.full(4, 0.01))
    net.store("wz", np.zeros(4), np.int8)
    assert found(net.model()) == {"scale-axis"}


def test_int8_and_tokens_may_come_in() -> None:
    """The preprocessing kernel writes int8; a text model reads tokens."""
    net = Net()
    int8_input(net)
    assert lint(net.model()).ready
    net = Net()
    tokens(net)
    assert "interface-integer" in found(net.model(), "warning") and not found(net.model())


def test_the_open_end_of_a_slice_is_no_large_number() -> None:
    net = Net()
    open_slice(net)
    assert lint(net.model()).ready


@pytest.mark.parametrize("settings", ["uint8", "asymmetric", "bias", "qoperator", "right"])
def test_what_onnx_runtimes_quantiser_writes(settings: str, tmp_path: Path) -> None:
    """Its defaults are refused, setting by setting; the settings of this project pass."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    rng = np.random.default_rng(1)
    stored = [constant("w", rng.normal(size=(8, 4, 3, 3))), constant("b", rng.normal(size=8))]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["y"], name="r"),
    ]
    ends = [helper.make_tensor_value_info(n, FLOAT, ["n", *s]) for n, s in (("x", (4, 8, 8)), ("y", (8, 6, 6)))]
    source = tmp_path / "float.onnx"
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), source)

    class Reader:
        left = 3

        def get_next(self) -> Any:
            self.left -= 1
            return {"x": rng.random((1, 4, 8, 8), np.float32)} if self.left else None

    options = {"ActivationSymmetric": True, "WeightSymmetric": True, "DedicatedQDQPair": True, "QuantizeBias": False}
    options["AddQDQPairToWeight"] = False
    if settings == "asymmetric":
        options["ActivationSymmetric"] = False
    if settings == "bias":
        options["QuantizeBias"] = True
    quantize_static(
        str(source),
        str(tmp_path / "int8.onnx"),
        Reader(),
        quant_format=QuantFormat.QOperator if settings == "qoperator" else QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8 if settings == "uint8" else QuantType.QInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv"],
        extra_options=options,
    )
    expected = {
        "uint8": "unsigned-type",
        "asymmetric": "zero-point-value",
        "bias": "integer-bias",
        "qoperator": "qoperator",
    }
    report = lint_file(tmp_path / "int8.onnx")
    if settings == "right":
        assert report.ready, report.text()
    else:
        assert expected[settings] in {finding.rule.id for finding in report.errors}, report.text()


@pytest.mark.parametrize("make", READY, ids=lambda make: make.__name__)
def test_what_is_ready_is_called_so(make: Callable[[Net], None]) -> None:
    net = Net()
    make(net)
    assert lint(net.model()).ready, lint(net.model()).text()


def test_operators_that_need_a_plugin_are_named() -> None:
    net = Net()
    net.store("offset", np.zeros((1, 2, 8, 8)))
    net.store("dw", np.ones((8, 8, 1, 1)))
    net.opsets = [helper.make_opsetid("", 19)]
    net.append("DeformConv", ["y", "dw", "offset"])
    assert lint(net.model()).ready and "operator-plugin" in found(net.model(), "warning")


def test_a_rule_that_is_stricter_than_a_builder_says_so() -> None:
    stricter = {rule.id for rule in RULES if rule.stricter}
    taken = {rule for rule, spoil in CASES if spoil.__name__ in SPOILT_AND_TAKEN}
    assert stricter == taken
    assert all(rule.stricter in table() for rule in RULES)


def test_the_shipped_graphs_are_ready() -> None:
    """All but the one whose activations are unsigned, which is for ONNX Runtime."""
    bundle = find("hemorrhagenet")
    found = readiness(bundle.folder, bundle.manifest.graphs)
    assert found["ready"]
    names = {graph.file for graph in bundle.manifest.graphs if graph.form != "qdq-u8"}
    assert {"fp32.onnx", "int8.onnx"} <= names
    assert found["graphs"] == {name: {"errors": [], "warnings": []} for name in names}
    assert found == bundle.manifest.provenance["tensorrt"]


def test_a_graph_for_another_engine_is_not_called_ready() -> None:
    bundle = find("hemorrhagenet")
    (unsigned,) = (graph for graph in bundle.manifest.graphs if graph.form == "qdq-u8")
    renamed = msgspec.structs.replace(unsigned, form="qdq-s8")
    found = readiness(bundle.folder, [renamed])
    assert not found["ready"]
    assert "unsigned-type" in found["graphs"]["int8_u8.onnx"]["errors"]


def test_a_report_says_everything_as_json() -> None:
    net = Net()
    asymmetric(net)
    report = json.loads(json.dumps(lint(net.model()).as_json()))
    assert report["schema"] == "edgehem.readiness/1" and not report["ready"] and report["rules"] == len(RULES)
    (finding,) = report["findings"]
    assert finding["rule"] == "zero-point-value" and "ActivationSymmetric" in finding["remedy"]
    assert [place["name"] for place in finding["places"]] == ["q", "dq"]


def test_any_file_gets_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    for content in (b"", b"no graph at all", b"\x08\x0a"):
        path.write_bytes(content)
        with pytest.raises(UsageError):
            lint_file(path)
    assert not lint(onnx.ModelProto()).ready


def test_graphs_spoilt_at_random_get_a_report() -> None:
    """Whatever a graph lacks, the rules answer, and never with an exception."""
    rng = random.Random(0)
    for _ in range(150):
        model = Net().model()
        for _ in range(rng.choice((1, 2, 5))):
            node, tensor = rng.choice(model.graph.node), rng.choice(model.graph.initializer)
            spoil = rng.randrange(7)
            if spoil == 0:
                del node.input[rng.randrange(len(node.input) + 1) :]
            elif spoil == 1 and node.input:
                node.input[rng.randrange(len(node.input))] = rng.choice(["", "nowhere", tensor.name])
            elif spoil == 2:
                node.op_type = rng.choice(
                    ["QuantizeLinear", "DequantizeLinear", "Resize", "TopK", "If", "Gemm", "What"]
                )
            elif spoil == 3:
                del node.output[:]
            elif spoil == 4:
                del node.attribute[:]
            elif spoil == 5:
                tensor.data_type = rng.randrange(24)
            else:
                del tensor.dims[:]
        report = lint(model)
        assert report.ready == (not report.errors) and report.text()


def test_rules_have_names_of_their_own_and_are_all_tried() -> None:
    names = [rule.id for rule in RULES]
    assert len(set(names)) == len(names)
    untried = {rule.id for rule in RULES if rule.severity == "error"} - set(SPOILT)
    assert untried <= {"interface-name", "sparse"}


def test_the_page_has_the_table_of_rules() -> None:
    assert table() in PAGE.read_text(encoding="utf-8"), "paste edgehem.export.readiness.table() into docs/export.md"
