"""A bundle's graph is whole: a tensor that lies elsewhere is found wherever one can be, and no bytes do harm."""

from __future__ import annotations

import hashlib
import importlib
import random
import runpy
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehem import onnx_wire
from edgehem.bundle import Bundle, find, shipped
from edgehem.errors import BundleError
from edgehem.onnx_wire import MAX_DEPTH, check_whole

TINY = runpy.run_path(str(Path(__file__).parent / "engines" / "tiny.py"))
field: Callable[[int, int | bytes | str], bytes] = TINY["field"]
varint: Callable[[int], bytes] = TINY["varint"]
tiny: Callable[..., bytes] = TINY["model"]

INSIDE = field(1, 2) + field(2, 1) + field(8, "kernel") + field(9, b"12345678")
"""Two floats."""
LOCATED = field(13, field(1, "location") + field(2, "weights.bin"))
OUTSIDE = {
    "both": INSIDE + LOCATED + field(14, 1),
    "location alone": INSIDE + field(14, 1),
    "entry alone": INSIDE + LOCATED,
    "entry first": LOCATED + INSIDE,
    "empty entry": INSIDE + field(13, b""),
    "in more bytes than needed": INSIDE + varint(14 << 3) + b"\x81\x80\x80\x00",
    "with bits above 32": INSIDE + field(14, 2**32 + 1),
    "with the tag in more bytes": INSIDE + b"\xf0\x80\x00\x01",
    "taken back": INSIDE + field(14, 1) + field(14, 0),
    "unknown location": INSIDE + field(14, 7),
}
"""Ways to say that a tensor lies elsewhere, or that one of two parsers might take for it."""


def node(attribute: bytes) -> bytes:
    """A NodeProto with names, and one attribute among others."""
    names = field(1, "x") + field(2, "y") + field(3, "the node") + field(4, "Op")
    return names + field(5, field(1, "alpha") + field(20, 2) + field(3, 3)) + field(5, attribute) + field(7, "")


def attribute(number: int, content: bytes) -> bytes:
    return field(1, "value") + field(number, content) + field(20, 4)


def graph_of(content: bytes) -> bytes:
    return field(2, "graph") + content + field(11, field(1, "x"))


def model_of(graph: bytes, more: bytes = b"") -> bytes:
    return field(1, 10) + field(2, "a test") + field(7, graph) + field(8, field(1, "") + field(2, 21)) + more


def with_node(content: bytes) -> bytes:
    """A model of one node with an attribute."""
    return model_of(graph_of(field(1, node(content))))


PLACES: dict[str, Callable[[bytes], bytes]] = {
    "initializer": lambda t: model_of(graph_of(field(5, t))),
    "a later initializer": lambda t: model_of(graph_of(field(5, INSIDE) + field(5, INSIDE) + field(5, t))),
    "sparse values": lambda t: model_of(graph_of(field(15, field(1, t) + field(2, INSIDE) + field(3, 4)))),
    "sparse indices": lambda t: model_of(graph_of(field(15, field(1, INSIDE) + field(2, t) + field(3, 4)))),
    "attribute": lambda t: with_node(attribute(5, t)),
    "attribute's tensors": lambda t: with_node(attribute(10, INSIDE) + field(10, t)),
    "attribute's sparse tensor": lambda t: with_node(attribute(22, field(1, INSIDE) + field(2, t))),
    "attribute's sparse tensors": lambda t: with_node(attribute(23, b"") + field(23, field(1, t))),
    "subgraph": lambda t: with_node(attribute(6, graph_of(field(5, t)))),
    "one of many subgraphs": lambda t: with_node(attribute(11, b"") + field(11, graph_of(field(5, t)))),
    "constant in a subgraph of a subgraph": lambda t: with_node(
        attribute(6, graph_of(field(1, node(attribute(6, graph_of(field(1, node(attribute(5, t)))))))))
    ),
    "function": lambda t: model_of(graph_of(b""), field(25, field(1, "f") + field(7, node(attribute(5, t))))),
    "a function's default": lambda t: model_of(graph_of(b""), field(25, field(11, attribute(5, t)))),
    "training, initialization": lambda t: model_of(graph_of(b""), field(20, field(1, graph_of(field(5, t))))),
    "training, algorithm": lambda t: model_of(graph_of(b""), field(20, field(2, graph_of(field(5, t))))),
    # A parser merges the two; either alone would hold one half.
    "a graph in two parts": lambda t: model_of(graph_of(b""), field(7, field(5, t))),
    "a tensor in two parts": lambda t: model_of(graph_of(field(15, field(1, INSIDE) + field(2, INSIDE) + field(1, t)))),
    "behind the ready parts": lambda t: model_of(graph_of(b""), field(14, field(1, "a"))) + field(7, field(5, t)),
}


def refused(graph: bytes) -> str:
    """Why; without harm to whoever reads it."""
    with pytest.raises(BundleError) as caught:
        check_whole(graph, "g.onnx of bundle tiny")
    text = str(caught.value)
    assert text.startswith("g.onnx of bundle tiny") and text.isprintable() and len(text) < 500
    return text


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", OUTSIDE)
def test_a_tensor_that_lies_elsewhere_is_found_wherever_it_is(place: str, way: str) -> None:
    text = refused(PLACES[place](OUTSIDE[way]))
    assert "'kernel'" in text and "elsewhere" in text
    assert ("weights.bin" in text) == (LOCATED in OUTSIDE[way])
    check_whole(PLACES[place](INSIDE + field(14, 0)), "g")


@pytest.mark.parametrize("inside", [b"", field(7, "com.microsoft")])
def test_a_compiled_engine_is_refused(inside: bytes) -> None:
    """It is code, and of one device; a graph's name or a value's may be the same word."""
    word = "EPContext"
    node_of = field(1, word) + field(3, word) + inside
    check_whole(field(7, graph_of(field(1, node_of + field(4, "Op")))), "m")
    with pytest.raises(BundleError, match="compiled engine"):
        check_whole(field(7, graph_of(field(1, node_of + field(4, word)))), "m")


@pytest.mark.parametrize("name", shipped())
def test_the_graphs_that_ship_are_whole(name: str) -> None:
    bundle = find(name)
    for graph in bundle.manifest.graphs:
        assert bundle.read(graph)


def test_a_graph_that_is_not_whole_is_not_read_though_its_hash_is_right(
    write_bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the file it names at hand, where OpenVINO takes it from."""
    outside = field(1, 3) + field(2, 1) + field(8, "b") + LOCATED + field(14, 1)
    graph = field(1, field(1, "a") + field(1, "b") + field(2, "total") + field(4, "Add")) + field(2, "sum")
    graph += field(5, outside) + b"".join(
        field(n, TINY["tensor"](name, (3,))) for n, name in ((11, "a"), (12, "total"))
    )
    (tmp_path / "weights.bin").write_bytes(bytes(12))
    monkeypatch.chdir(tmp_path)
    bundle = Bundle(write_bundle(graph=field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))))
    for read in (lambda: bundle.read(bundle.graph("fp32")), bundle.verify):
        with pytest.raises(BundleError, match=r"model\.onnx of bundle tiny is not whole.*'weights\.bin'"):
            read()


EMPTY = model_of(b"")


@pytest.mark.parametrize(
    ("graph", "why"),
    [
        (b"", "no graph"),
        (field(1, 10), "no graph"),
        (b"a graph", "leaves"),
        (b"<?xml version='1.0'?><net/>", "wire type"),
        (EMPTY + b"\x00", "number out of range"),
        (EMPTY + b"\x02\x00", "number out of range"),
        (EMPTY + b"\x0b\x0c", "wire type 3"),
        (EMPTY + b"\x0c", "wire type 4"),
        (EMPTY + b"\x0e", "wire type 6"),
        (EMPTY + b"\x0f", "wire type 7"),
        (EMPTY + b"\x80", "cut off"),
        (EMPTY + b"\x08", "cut off"),
        (EMPTY + b"\x08\x80\x80", "cut off"),
        (EMPTY + b"\x08" + b"\x80" * 10 + b"\x00", "does not end"),
        (EMPTY + b"\xba\x80\x80\x80\x10\x00", "number out of range"),  # 7 << 3 | 2, and bit 32
        (EMPTY + b"\xff" * 9 + b"\x01", "number out of range"),
        (EMPTY + b"\x12", "cut off"),
        (EMPTY + b"\x12\x05four", "leaves"),
        (EMPTY + b"\x12" + b"\xff" * 9 + b"\x01", "leaves"),
        (EMPTY + b"\x0d\x00\x00\x00", "leaves"),
        (EMPTY + b"\x09\x00\x00\x00\x00\x00\x00\x00", "leaves"),
        (EMPTY + varint(7 << 3) + b"\x00", "wire type 0"),
        (EMPTY + varint(25 << 3 | 5) + b"\x00\x00\x00\x00", "wire type 5"),
        (model_of(field(5, 0)), "wire type 0"),
        (model_of(field(5, field(14, b"\x01"))), "wire type 2"),
        (model_of(field(5, field(13, 1))), "wire type 0"),
        # The length is right for the model, and not for the graph it lies in: "inside" and "outside" would differ.
        (field(7, b"\x2a\x05\x08\x01") + field(2, "abc"), "leaves"),
        (field(7, b"\x28") + b"\x01", "cut off"),
        (field(7, b"\x2a") + b"\x01", "cut off"),
    ],
)
def test_what_is_no_model_is_refused(graph: bytes, why: str) -> None:
    check_whole(EMPTY, "g")
    text = refused(graph)
    assert "not a well-formed ONNX graph" in text and why in text


def test_fields_of_later_versions_are_stepped_over() -> None:
    later = field(99, 1) + field(98, b"\xff\xff") + b"\xad\x06four" + b"\xa9\x06in eight"
    check_whole(later + model_of(later + field(1, later) + field(5, later + INSIDE), later), "g")
    assert "kernel" in refused(later + model_of(later + field(5, later + OUTSIDE["both"])))


def test_onnx_runtimes_own_format_is_refused_though_it_is_a_model_too() -> None:
    """Such bytes are two files in one: a model here, and to ONNX Runtime a flatbuffer that was not looked at."""
    both = field(2, b"\x80\x00ORTM" + bytes(64)) + EMPTY
    assert both[4:8] == b"ORTM"
    assert "own format" in refused(both)
    check_whole(field(2, b"\x80\x00ORTN" + bytes(64)) + EMPTY, "g")


def nested(graphs: int, inner: bytes) -> bytes:
    """A model whose graph lies in that many subgraphs."""
    graph = inner
    for _ in range(graphs):
        graph = field(1, field(5, field(6, graph)))
    return model_of(graph)


def test_nesting_has_a_bound_and_no_recursion() -> None:
    """Model, graph, then three messages a subgraph, and the tensor."""
    deepest = (MAX_DEPTH - 2) // 3
    check_whole(nested(deepest, field(5, INSIDE)), "g")
    assert "kernel" in refused(nested(deepest, field(5, OUTSIDE["both"])))
    for more in (1, 2, 3000):
        assert "inside of each other" in refused(nested(deepest + more, field(5, OUTSIDE["both"])))


def test_names_that_are_long_or_no_text_are_cut_and_escaped() -> None:
    for name in (b"\x1b[2J\n\0", b"\xff\xfe", b"n" * 100_000, "\u202e".encode()):
        refused(model_of(field(5, field(8, name) + field(13, field(1, "location") + field(2, name)))))


def test_the_number_of_fields_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all walked messages together."""
    graph = model_of(b"".join(field(5, INSIDE) for _ in range(100)))
    monkeypatch.setattr(onnx_wire, "MAX_FIELDS", 510)
    check_whole(graph, "g")
    monkeypatch.setattr(onnx_wire, "MAX_FIELDS", 499)
    assert "more than 499 fields" in refused(graph)


def fastest(graph: bytes) -> float:
    """Seconds of CPU time, the least of some."""
    found = []
    for _ in range(5):
        began = time.process_time()
        check_whole(graph, "g")
        found.append(time.process_time() - began)
    return min(found)


def test_weights_cost_no_time_and_no_memory() -> None:
    """100 MB more of them: nothing is copied, or looked at."""
    large = field(8, "large") + field(9, bytes(50_000_000))
    graph = model_of(field(5, large) + field(1, node(attribute(5, large))))
    assert fastest(graph) < 0.01
    tracemalloc.start()
    check_whole(graph, "g")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize("deep", [False, True])
def test_time_grows_with_the_number_of_fields_and_no_faster(*, deep: bool) -> None:
    """Quadratic, 16 times the fields would take 256 times as long."""

    def graph(count: int) -> bytes:
        nodes = b"".join(field(1, node(attribute(5, INSIDE))) for _ in range(count))
        return nested(20, nodes) if deep else model_of(nodes)

    assert fastest(graph(8000)) < 64 * max(fastest(graph(500)), 1e-3)


def spoilt(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, cut out, repeated or put in, or the end cut off."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(found)) if found else 0
        how = rng.randrange(6)
        if how == 0 and found:
            found[at] ^= 1 << rng.randrange(8)
        elif how == 1 and found:
            found[at] = rng.choice((0, 1, 0x6A, 0x70, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif how == 2:
            del found[at : at + rng.randint(1, 8)]
        elif how == 3:
            found[at:at] = rng.choice((LOCATED, field(14, 1), b"\x80", rng.randbytes(rng.randint(1, 8))))
        elif how == 4:
            found[at:at] = found[at : at + rng.randint(1, 64)]
        else:
            del found[rng.randint(0, len(found)) :]
    return bytes(found)


def passes(graph: bytes) -> bool:
    """Whether a graph is taken; whatever is raised but BundleError fails the test."""
    try:
        check_whole(graph, "g")
    except BundleError:
        return False
    return True


SMALL = [tiny("Add"), nested(6, field(5, INSIDE))]
SMALL += [place(tensor) for place in PLACES.values() for tensor in (INSIDE, OUTSIDE["both"])]


@pytest.mark.parametrize("index", range(len(SMALL)))
def test_every_beginning_of_a_model_is_answered(index: int) -> None:
    """And with more behind it: a cut never makes a length that was too long right."""
    for end in range(len(SMALL[index]) + 1):
        passes(SMALL[index][:end])
        passes(SMALL[index][:end] + b"\x00")


def test_spoilt_models_are_answered() -> None:
    """Thousands of small ones, and some of those that ship."""
    rng = random.Random(0)
    taken = [passes(spoilt(rng.choice(SMALL), rng)) for _ in range(20_000)]
    assert 0.02 < sum(taken) / len(taken) < 0.9  # neither all noise nor all harmless
    bundle = find(shipped()[0])
    whole = bundle.read(bundle.graph("int8"))
    taken = [passes(spoilt(whole, rng)) for _ in range(200)]
    assert any(taken) and not all(taken)


@given(st.binary(max_size=200))
def test_any_bytes_are_answered(data: bytes) -> None:
    passes(data)
    passes(field(7, data))


# Beside the onnx package


@pytest.fixture(scope="module")
def onnx() -> Any:
    """The package, which the runtime has not."""
    return pytest.importorskip("onnx")


def tensors(message: Any) -> Iterator[Any]:
    """Every TensorProto below a message, found by reflection: the schema says where, not this test."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
    for about, value in message.ListFields():
        if about.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from tensors(inner)


@pytest.mark.torch
def test_no_place_of_the_schema_is_forgotten(onnx: Any) -> None:
    """The walk's tables are what the schema of the installed onnx says: every field that leads to a tensor."""
    root = onnx.ModelProto.DESCRIPTOR
    known, waiting = {root.full_name: root}, [root]
    while waiting:
        for about in waiting.pop().fields:
            below = about.message_type
            if below is not None and below.full_name not in known:
                known[below.full_name] = below
                waiting.append(below)
    leading = {onnx.TensorProto.DESCRIPTOR.full_name}
    while more := {
        name
        for name, each in known.items()
        if name not in leading and any(f.message_type and f.message_type.full_name in leading for f in each.fields)
    }:
        leading |= more

    def same(each: Any, table: dict[int, Any], seen: set[str]) -> None:
        if each.full_name in seen:
            return
        seen.add(each.full_name)
        if each.name == "TensorProto":
            assert {each.fields_by_name[name].number for name in ("external_data", "data_location")} == set(table)
            return
        wanted = {f.number: f.message_type for f in each.fields if f.message_type}
        wanted = {number: below for number, below in wanted.items() if below.full_name in leading}
        operators = {number for number, mark in table.items() if mark is onnx_wire._OPERATOR}
        assert operators == ({each.fields_by_name["op_type"].number} if each.name == "NodeProto" else set())
        assert wanted.keys() == table.keys() - operators, each.full_name
        for number, below in wanted.items():
            same(below, table[number], seen)

    seen: set[str] = set()
    same(root, onnx_wire._MODEL, seen)
    assert seen == leading


class Drawn:
    """Random models with subgraphs, functions, sparse tensors and tensors in attributes; not for running."""

    def __init__(self, onnx: Any, seed: int) -> None:
        self.onnx, self.rng, self.names = onnx, random.Random(seed), 0

    def tensor(self) -> Any:
        self.names += 1
        size = self.rng.choice((0, 1, 5, 40))
        kind = self.onnx.TensorProto.FLOAT
        values = [self.rng.random() for _ in range(size)]
        if self.rng.random() < 0.5:
            return self.onnx.helper.make_tensor(f"t{self.names}", kind, [size], values)
        return self.onnx.helper.make_tensor(f"t{self.names}", kind, [size], bytes(4 * size), raw=True)

    def sparse(self) -> Any:
        return self.onnx.helper.make_sparse_tensor(self.tensor(), self.tensor(), [9])

    def node(self, depth: int) -> Any:
        make = self.onnx.helper.make_node
        kind = self.rng.choice(("Conv", "Constant", "SparseConstant", "Many") + ("If", "Loop", "Scan") * (depth > 0))
        given: dict[str, Any] = {"Conv": {"pads": [1, 2, 3, 4], "auto_pad": "NOTSET"}}.get(kind, {})
        if kind == "Constant":
            given = {"value": self.tensor()}
        elif kind == "SparseConstant":
            given = {"sparse_value": self.sparse()}
        elif kind == "Many":
            given = {
                "tensors": [self.tensor() for _ in range(2)],
                "sparse": [self.sparse()],
                "graphs": [self.graph(depth - 1) for _ in range(2 * (depth > 0))] or [1],
            }
        elif kind == "If":
            given = {"then_branch": self.graph(depth - 1), "else_branch": self.graph(depth - 1)}
        elif kind in ("Loop", "Scan"):
            given = {"body": self.graph(depth - 1)}
        return make(kind, ["x"], ["y"], name=f"n{self.rng.random()}", **given)

    def graph(self, depth: int) -> Any:
        draw, helper = self.rng.randint, self.onnx.helper
        info = helper.make_tensor_value_info("x", self.onnx.TensorProto.FLOAT, ["N", 3])
        return helper.make_graph(
            [self.node(depth) for _ in range(draw(0, 3))],
            "g",
            [info],
            [info],
            initializer=[self.tensor() for _ in range(draw(0, 2))],
            sparse_initializer=[self.sparse() for _ in range(draw(0, 1))],
        )

    def model(self) -> Any:
        helper = self.onnx.helper
        function = helper.make_function(
            "d", "F", ["x"], ["y"], [self.node(1), self.node(1)], [helper.make_opsetid("", 21)], attributes=["alpha"],
            attribute_protos=[helper.make_attribute("beta", self.tensor())],
        )  # fmt: skip
        model = helper.make_model(self.graph(3), functions=[function] * self.rng.randint(0, 1))
        model.metadata_props.add(key="external_data", value="location")
        return model


@pytest.mark.torch
@given(seed=st.integers(0, 2**32))
def test_each_tensor_of_a_random_model_is_found_when_it_lies_elsewhere(onnx: Any, seed: int) -> None:
    """And none when none does."""
    model = Drawn(onnx, seed).model()
    data = model.SerializeToString()
    check_whole(data, "g")
    for tensor in tensors(model):
        tensor.data_location = onnx.TensorProto.EXTERNAL
        assert repr(tensor.name) in refused(model.SerializeToString())
        tensor.ClearField("data_location")
        tensor.external_data.add(key="location", value="w.bin")
        assert repr(tensor.name) in refused(model.SerializeToString())
        tensor.ClearField("external_data")
    assert model.SerializeToString() == data


@pytest.mark.torch
def test_whatever_onnx_reads_from_spoilt_bytes_was_looked_at(onnx: Any) -> None:
    """What passes is no model to onnx's parser, or one whose tensors all lie inside."""
    message = importlib.import_module("google.protobuf.message")
    rng = random.Random(1)
    models = [*SMALL, *(Drawn(onnx, seed).model().SerializeToString() for seed in range(40))]
    read = outside = 0
    for _ in range(20_000):
        data = spoilt(rng.choice(models), rng)
        parsed = onnx.ModelProto()
        try:
            parsed.ParseFromString(data)
        except message.DecodeError:
            continue
        read += 1
        if any(tensor.external_data or tensor.data_location for tensor in tensors(parsed)):
            outside += 1
            assert not passes(data)
    assert min(read, outside) > 200


@pytest.mark.torch
def test_whatever_is_too_deep_for_the_walk_is_too_deep_for_onnx(onnx: Any) -> None:
    message = importlib.import_module("google.protobuf.message")
    deepest = (MAX_DEPTH - 2) // 3
    onnx.ModelProto().ParseFromString(nested(deepest, field(5, INSIDE)))
    with pytest.raises(message.DecodeError):
        onnx.ModelProto().ParseFromString(nested(deepest + 1, field(5, INSIDE)))


@pytest.mark.torch
def test_a_graph_saved_with_its_weights_beside_it_is_refused(onnx: Any, tmp_path: Path) -> None:
    """As the onnx package does it; taken in again, it passes."""
    bundle = find(shipped()[0])
    data = bundle.read(bundle.graph("fp32"))
    model = onnx.load_from_string(data)
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    assert "'net.data'" in refused((tmp_path / "net.onnx").read_bytes())
    back = onnx.load(tmp_path / "net.onnx").SerializeToString()
    check_whole(back, "g")
    assert hashlib.sha256(back).digest() != hashlib.sha256((tmp_path / "net.onnx").read_bytes()).digest()
