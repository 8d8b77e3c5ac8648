"""The image encoders: that they are the public networks, that public weights load, that they export. Needs torch.

What public implementations say is held here as numbers taken from them once: timm 1.0.31, torchvision 0.29.2,
pretrainedmodels 0.7.4 and MONAI 1.6.1, each filled with :func:`filled` and shown :func:`picture`. Only MONAI is needed
to run.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
import zlib
from collections.abc import Mapping

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the [export] extra")
pytest.importorskip("monai", reason="DenseNet169 and SEResNet101 are MONAI's")
pytestmark = pytest.mark.torch

from monai.networks.nets.densenet import DenseNet  # noqa: E402
from torch import nn  # noqa: E402

from edgehem.backends.onnxruntime import OnnxRuntimeSession  # noqa: E402
from edgehem.errors import UsageError  # noqa: E402
from edgehem.export.models.backbones import BACKBONES, backbone  # noqa: E402
from edgehem.export.models.backbones.encoder import Encoder, Layout  # noqa: E402
from edgehem.export.models.backbones.from_monai import DenseNet169  # noqa: E402
from edgehem.export.models.backbones.inception import averaged  # noqa: E402
from edgehem.export.models.backbones.inception_resnet_v2 import ScaledResidual  # noqa: E402
from edgehem.export.models.backbones.mobilenet_v3 import InvertedResidual, Row, SqueezeExcite  # noqa: E402
from edgehem.export.models.backbones.weights import adapted, load, translate  # noqa: E402
from edgehem.export.models.hemorrhagenet import HemorrhageNet  # noqa: E402
from edgehem.export.to_onnx import fuse_batch_norms  # noqa: E402

PARITY = 1e-5
"""Largest difference relative to the largest value: float32 in networks of up to 249 convolutions, seen up to 9e-7."""

# name, index of the layout, classifier there and its classes, tensors, SHA-256 of all names and shapes (first 16),
# norm of the features, their product with cos(0, 1, 2, ...)
PUBLIC = [
    ("DenseNet169", 1, "classifier", 1000, 1_015, "3cf5a9e291cff123", 3.89144, -1.7741),  # torchvision, timm
    ("DenseNet169", 0, "class_layers.out", 1000, 1_015, "e51203918fca0cb0", 3.52796, -3.11988),  # MONAI
    ("InceptionResNetV2", 1, "classif", 1000, 1_306, "f9ddd9eadfba7b6b", 19.2423, 18.105),  # timm
    ("InceptionResNetV2", 1, "last_linear", 1001, 1_306, "6e6063a9d8124ef6", 19.2423, 18.105),  # pretrainedmodels
    ("InceptionV4", 1, "last_linear", 1000, 896, "7b98e6d07af66cc7", 2.51041, 0.458667),  # timm
    ("InceptionV4", 1, "last_linear", 1001, 896, "d3da4ccce89bec70", 2.51041, 0.458667),  # pretrainedmodels
    ("MobileNetV3Small", 1, "classifier.3", 1000, 244, "4e84a246a3fc7383", 2.07838, -0.527906),  # torchvision
    ("MobileNetV3Small", 2, "classifier", 1000, 244, "dad02d8bb8b33035", 2.2761, 1.96208),  # timm
    ("MobileNetV3Large", 1, "classifier.3", 1000, 312, "48d34b4f39c83e39", 2.36099, 0.797125),  # torchvision
    ("MobileNetV3Large", 2, "classifier", 1000, 312, "05df56b15cd350a1", 2.28845, 2.43387),  # timm
    ("SEResNet101", 1, "last_linear", 1000, 758, "de6e2bb3cd435ccd", 73.2085, -15.4686),  # pretrainedmodels, timm
    ("SEResNet101", 0, "last_linear", 1000, 758, "53ac9143c8b32e2c", 76.7377, 55.0924),  # MONAI
]
IDS = [f"{row[0]}-{row[2]}" for row in PUBLIC]


def filled(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Weights that depend on their names and shapes alone, tame enough that rounding does not grow on the way."""
    state = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
            continue
        random = np.random.default_rng(zlib.crc32(name.encode())).random(shape, np.float32)
        if name.endswith("running_var"):
            values = 0.5 + random
        elif name.endswith(("running_mean", "bias")):
            values = (random - 0.5) * 0.2
        elif len(shape) == 1:
            values = 0.5 + random * 0.5
        else:
            values = (random - 0.5) * np.float32(np.sqrt(24 / np.prod(shape[1:])))
        state[name] = torch.from_numpy(np.asarray(values, np.float32))
    return state


def picture(size: int = 96) -> torch.Tensor:
    """[1, 3, size, size], by formula."""
    values = np.sin(np.arange(3 * size * size) * 0.013)
    return torch.from_numpy(values.reshape(1, 3, size, size).astype(np.float32))


def summary(features: torch.Tensor) -> tuple[float, float]:
    """Norm, and a product in which every feature has another weight."""
    values = features.double().reshape(-1)
    return float(values.norm()), float(values @ torch.cos(torch.arange(len(values), dtype=torch.float64)))


def digest(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Of names and shapes, whatever the order."""
    lines = "\n".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def public_shapes(encoder: Encoder, layout: Layout, classifier: str, classes: int) -> dict[str, tuple[int, ...]]:
    """A public checkpoint's names and shapes: ours renamed, 1 × 1 convolutions where they have those, a classifier."""
    shapes = {layout.rename(key): tuple(value.shape) for key, value in encoder.state_dict().items()}
    for key, shape in shapes.items():
        if len(shape) == 2 and (key == "conv_head.weight" or ".se_module." in key):
            shapes[key] = (*shape, 1, 1)
    width = BACKBONES[type(encoder).__name__].width
    return shapes | {f"{classifier}.weight": (classes, width), f"{classifier}.bias": (classes,)}


@pytest.fixture(scope="module")
def encoders() -> dict[str, Encoder]:
    """One of each, for tests that only read or that load everything anew."""
    return {name: backbone(name).eval() for name in BACKBONES}


def features_of(encoder: Encoder, image: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return encoder(image)


@pytest.mark.parametrize("name", BACKBONES)
def test_counts_and_widths_are_the_descriptions(name: str, encoders: dict[str, Encoder]) -> None:
    entry, encoder = BACKBONES[name], encoders[name]
    parameters = sum(p.numel() for p in encoder.parameters())
    assert parameters == entry.parameters
    if entry.classifier_parameters is not None:
        assert parameters + 1000 * (entry.width + 1) == entry.classifier_parameters
    size = 128
    with torch.inference_mode():
        maps = encoder.feature_map(torch.rand(2, 3, size, size))
        assert maps.shape[:2] == (2, entry.map_width)
        assert size / entry.stride >= maps.shape[2] >= size / entry.stride - 2
        assert encoder.pooled(maps).shape == (2, entry.width)
        assert min(encoder.feature_map(torch.rand(1, 3, entry.minimum_size, entry.minimum_size)).shape) == 1
        if entry.minimum_size > 1:
            with pytest.raises(RuntimeError):
                encoder.feature_map(torch.rand(1, 3, entry.minimum_size - 1, entry.minimum_size - 1))


@pytest.mark.parametrize("row", PUBLIC, ids=IDS)
def test_public_weights_give_the_public_features(row: tuple, encoders: dict[str, Encoder]) -> None:  # type: ignore[type-arg]
    """The names are the public package's own, all of them find their place, and the answers are that package's."""
    name, index, classifier, classes, tensors, names, norm, product = row
    encoder = encoders[name]
    layout = encoder.layouts[index]
    shapes = public_shapes(encoder, layout, classifier, classes)
    assert len(shapes) == tensors and digest(shapes) == names
    # With 1001 classes the encoder is the same as with 1000: there the names are enough.
    state = filled(shapes) if classes == 1000 else {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}
    done = load(encoder, state) if classes == 1000 else translate(state, encoder)
    assert done.layout == layout.source and not done.missing + done.unexpected + done.misfits
    assert set(done.unused) == {f"{classifier}.weight", f"{classifier}.bias"}
    assert done.classifier["weight"] is state[f"{classifier}.weight"] and done.classifier["bias"].shape == (classes,)
    if classes == 1000:
        assert summary(features_of(encoder, picture())) == pytest.approx((norm, product), rel=1e-4, abs=1e-4 * norm)


@pytest.mark.parametrize("name", BACKBONES)
def test_our_own_names_load_as_they_are(name: str, encoders: dict[str, Encoder]) -> None:
    encoder = encoders[name]
    state = encoder.state_dict()
    done = translate({"state_dict": {f"module.net.encoder.{k}": v for k, v in state.items()}, "epoch": 3}, encoder)
    assert done.layout.startswith("edgehem") and done.prefix == "module.net.encoder."
    assert all(done.state[key] is value or torch.equal(done.state[key], value) for key, value in state.items())
    for layout in encoder.layouts:
        renamed = [layout.rename(key) for key in state]
        assert len(set(renamed)) == len(state)


def test_densenet_names_of_before_2018_load(encoders: dict[str, Encoder]) -> None:
    """torchvision's published file: dots in the names, and no count of batches."""
    encoder = encoders["DenseNet169"]
    new, old = encoder.layouts[1:]
    state = filled({new.rename(k): tuple(v.shape) for k, v in encoder.state_dict().items()})
    older = {old.rename(k): state[new.rename(k)] for k in encoder.state_dict() if not k.endswith("num_batches_tracked")}
    assert "features.denseblock1.denselayer1.norm.1.weight" in older
    done, expected = translate(older, encoder), translate(state, encoder)
    assert done.layout == old.source and not done.missing + done.unexpected
    assert all(torch.equal(done.state[key], value) for key, value in expected.state.items())


def test_another_epsilon_is_made_up_for(encoders: dict[str, Encoder]) -> None:
    """timm's MobileNetV3 has 1e-5, ours 1e-3: what the variance and epsilon add up to stays."""
    encoder = encoders["MobileNetV3Small"]
    torchvision, timm = encoder.layouts[1:]
    state = encoder.state_dict()
    for layout, difference in ((torchvision, 0.0), (timm, 1e-5 - 1e-3)):
        renamed = {layout.rename(key): value for key, value in state.items()}
        shifted = translate(renamed, encoder).state["stem.bn.running_var"]
        assert torch.allclose(shifted, state["stem.bn.running_var"] + difference, rtol=0, atol=1e-8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 7])
def test_a_first_convolution_answers_grey_images_as_before(channels: int) -> None:
    weight = torch.rand(8, 3, 3, 3)
    grey = torch.rand(1, 1, 9, 9)
    before = nn.functional.conv2d(grey.expand(-1, 3, -1, -1), weight)
    after = nn.functional.conv2d(grey.expand(-1, channels, -1, -1), adapted(weight, channels))
    assert torch.allclose(before, after, atol=1e-5)
    if channels >= 3:
        assert torch.allclose(adapted(weight, channels)[:, 2] * ((channels - 3) // 3 + 1), weight[:, 2], atol=1e-6)


def test_weights_for_three_channels_load_into_five() -> None:
    state = backbone("MobileNetV3Small").state_dict()
    before = {key: value.clone() for key, value in state.items()}
    encoder = backbone("mobilenetv3small", in_channels=5, pretrained_state=state)
    assert encoder(torch.rand(2, 5, 64, 64)).shape == (2, 1024)
    assert translate(state, encoder).adapted_from == 3
    assert all(torch.equal(before[key], value) for key, value in state.items())


def test_what_does_not_fit_is_refused_by_name() -> None:
    state = backbone("Compact").state_dict()
    with pytest.raises(UsageError, match="no encoder is called 'ResNet18'; there are DenseNet169"):
        backbone("ResNet18")
    with pytest.raises(UsageError, match="in_channels is 0"):
        backbone("Compact", in_channels=0)
    with pytest.raises(UsageError, match=r"no InceptionV4 in the checkpoint.*the file has to_half\.0\.weight"):
        backbone("InceptionV4", pretrained_state=state)
    with pytest.raises(UsageError, match=r"holds no tensors, but epoch"):
        backbone("Compact", pretrained_state={"epoch": 1})
    with pytest.raises(UsageError, match=r"missing to_half\.1\.bias"):
        backbone("Compact", pretrained_state={k: v for k, v in state.items() if k != "to_half.1.bias"})
    with pytest.raises(UsageError, match="unexpected surprise"):
        backbone("Compact", pretrained_state=state | {"surprise": torch.ones(1)})
    with pytest.raises(UsageError, match=r"to_half\.1\.bias has shape \(5,\), not \(12,\)"):
        backbone("Compact", pretrained_state=state | {"to_half.1.bias": torch.ones(5)})
    twice = {f"{who}.{key}": value for who in ("student", "teacher") for key, value in state.items()}
    with pytest.raises(UsageError, match=r"2 times, under 'student\.', 'teacher\.'"):
        backbone("Compact", pretrained_state=twice)
    assert backbone("Compact", pretrained_state=twice, prefix="teacher.")


def test_the_network_that_only_looks_like_seresnet101_is_refused(encoders: dict[str, Encoder]) -> None:
    with pytest.raises(UsageError, match="legacy_seresnet101"):
        translate({"module.layer1.0.se.fc1.weight": torch.ones(1)}, encoders["SEResNet101"])


def test_compact_is_the_encoder_of_hemorrhagenet() -> None:
    torch.manual_seed(0)
    network = HemorrhageNet(slices=4).eval()
    image = torch.rand(2, 4, 3, 64, 64)
    seen = []
    network.to_sixteenth.register_forward_hook(lambda *arguments: seen.append(arguments[2]))
    encoder = backbone("Compact", pretrained_state=network.state_dict()).eval()
    encoder.set_slices(4)  # type: ignore[operator]
    with torch.inference_mode():
        network(image, torch.ones(2, 4))
        assert torch.equal(encoder.feature_map(image.reshape(8, 3, 64, 64)), seen[0])
        encoder.set_slices(None)  # type: ignore[operator]
        one = encoder(image[0, :1])
        assert torch.allclose(encoder(image[0])[:1], one, atol=1e-6), "images are not independent"


def test_batch_norms_have_the_epsilon_they_were_trained_with(encoders: dict[str, Encoder]) -> None:
    for name, encoder in encoders.items():
        norms = {(m.eps, m.momentum) for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)}
        momentum = 0.01 if name.startswith("MobileNet") else 0.1
        assert norms == {(encoder.epsilon, momentum)}, name
        assert {layout.epsilon for layout in encoder.layouts} <= {1e-5, 1e-3}
    assert {n for n, e in encoders.items() if e.epsilon == 1e-3} == {n for n in encoders if n[:3] in {"Inc", "Mob"}}


def test_squeeze_and_excite_is_its_formula() -> None:
    torch.manual_seed(0)
    module = SqueezeExcite(72).double()
    assert module.reduce.out_channels == 24, "a quarter, to a multiple of eight: 18 -> 24"
    x = torch.randn(2, 72, 5, 7, dtype=torch.float64)
    mean = x.numpy().mean(axis=(2, 3))
    weights = {key: value.numpy().squeeze() for key, value in module.state_dict().items()}
    inner = np.maximum(mean @ weights["reduce.weight"].T + weights["reduce.bias"], 0)
    gate = np.clip((inner @ weights["restore.weight"].T + weights["restore.bias"]) / 6 + 0.5, 0, 1)
    with torch.inference_mode():
        assert np.allclose(module(x).numpy(), x.numpy() * gate[:, :, None, None])


def test_hard_swish_is_where_the_paper_has_it() -> None:
    """After expansion and depthwise convolution, never after the projection; ReLU in the early blocks."""
    hard, early = (InvertedResidual(40, Row(5, 240, 40, True, hard, 1)) for hard in (True, False))
    for block, kind in ((hard, nn.Hardswish), (early, nn.ReLU)):
        assert [type(m) for m in block.modules() if isinstance(m, (nn.Hardswish, nn.ReLU))] == [kind, kind]
        assert isinstance(block.project[-1], nn.BatchNorm2d) and block.shortcut
    assert not InvertedResidual(40, Row(5, 240, 48, True, True, 1)).shortcut
    assert not InvertedResidual(40, Row(5, 240, 40, True, True, 2)).shortcut


def test_residuals_of_inception_resnet_are_scaled(encoders: dict[str, Encoder]) -> None:
    scales = [m.scale for m in encoders["InceptionResNetV2"].modules() if isinstance(m, ScaledResidual)]
    assert scales == [0.17] * 10 + [0.10] * 20 + [0.20] * 9 + [1.0]
    last = [m for m in encoders["InceptionResNetV2"].modules() if isinstance(m, ScaledResidual)][-1]
    x = torch.randn(1, 2080, 2, 2)
    with torch.inference_mode():
        assert torch.allclose(last(x), x + last.up(last.mixed(x))), "the last one has no ReLU"


def test_average_pooling_leaves_the_padding_out() -> None:
    assert torch.allclose(averaged(1, 1)[0](torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))


def shortened(encoder: Encoder) -> Encoder:
    """With every kind of block but fewer of a kind: the exporter takes seconds per hundred layers."""
    if isinstance(encoder, DenseNet169):
        encoder.features = DenseNet(2, in_channels=3, out_channels=1, block_config=(2, 2, 2, 2)).features
        encoder.load_state_dict(filled({key: tuple(value.shape) for key, value in encoder.state_dict().items()}))
    elif hasattr(encoder, "residual_b"):
        encoder.residual_a, encoder.residual_b = encoder.residual_a[:1], encoder.residual_b[:1]  # type: ignore[index]
        encoder.residual_c = encoder.residual_c[-2:]  # type: ignore[index]
    elif hasattr(encoder, "layer3"):
        encoder.layer2, encoder.layer3 = encoder.layer2[:2], encoder.layer3[:2]  # type: ignore[index]
    elif hasattr(encoder, "stages"):
        encoder.stages = nn.Sequential(*(s for i, s in enumerate(encoder.stages) if i not in {7, 8, 9, 12, 13, 14, 15}))  # type: ignore[arg-type]
    return encoder.eval()


@pytest.mark.parametrize("name", [name for name in BACKBONES if name != "MobileNetV3Large"])
def test_export_keeps_the_answers_for_any_batch(name: str) -> None:
    encoder = backbone(name).eval()
    load(encoder, filled({key: tuple(value.shape) for key, value in encoder.state_dict().items()}))
    encoder = shortened(encoder)
    image = picture(96).expand(3, -1, -1, -1) * torch.tensor([1.0, 0.5, -1.0]).reshape(3, 1, 1, 1)
    expected = features_of(encoder, image).numpy()
    fuse_batch_norms(encoder)
    if "MONAI" not in BACKBONES[name].origin:
        assert not any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                encoder,
                (torch.rand(2, 3, 96, 96),),
                input_names=["image"],
                output_names=["features"],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},),
                dynamo=True,
                opset_version=18,
                verbose=False,
            )
    finally:
        exporter.setLevel(level)
    assert program is not None
    session = OnnxRuntimeSession(program.model_proto.SerializeToString())
    for count in (1, 3):
        got = session.run({"image": image[:count].numpy()})["features"]
        assert got.shape == (count, expected.shape[1])
        assert np.abs(got - expected[:count]).max() <= PARITY * np.abs(expected).max()
