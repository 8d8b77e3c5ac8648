"""Training of the imaging path: pairs of the same head with and without blood, hard augmentation, averaged weights."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgehem.errors import UsageError
from edgehem.export.models.hemorrhagenet import LABELS, HemorrhageNet
from edgehem.export.progress import Progress
from edgehem.export.samples import PRESENT_MM2, UNKNOWN, Cache
from edgehem.preprocess import CANONICAL, PreprocessSpec
from edgehem.workers import keep_freed_memory


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training on stacks of so many planes."""

    planes: int
    batch: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides a training run besides its data.

    Half stacks come first: per second of training they show twice as many heads. Full stacks, as they are scored,
    end it.
    """

    seed: int = 0
    phases: tuple[Phase, ...] = (Phase(planes=20, batch=8, steps=1600), Phase(planes=40, batch=4, steps=900))
    learning_rate: float = 2.5e-3
    weight_decay: float = 2e-3
    average: float = 0.995
    map_weight: float = 50.0
    rim_hu: float = 0.0
    """Largest brightening of what lies beside bone, HU: beam hardening, the kernel's tail, partial volume of thick
    slices. The one real scan that was looked at shows more of it than phantoms do (``edgehem bench realism``)."""
    slice_weight: float = 1.0
    bfloat16: bool = True


REFINE = Settings(
    phases=(Phase(planes=20, batch=8, steps=200), Phase(planes=40, batch=4, steps=120)), learning_rate=8e-4, rim_hu=30.0
)
"""A short, gentle schedule for a network that was trained before."""
RIM_REACH = ((9, 1.0), (15, 0.6))
"""Width in pixels of what spreads from bone (glow of the kernel's tail, cupping), and its share of the brightening."""


class Augmenter:
    """Random changes a scanner, a patient or a technician could have made; all in HU, before the windows."""

    def __init__(self, rng: np.random.Generator, spec: PreprocessSpec, rim_hu: float = 0.0) -> None:
        self.rng, self.spec, self.rim_hu = rng, spec, rim_hu
        rows, columns = spec.shape[1:]
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        white = torch.randn(48, 1, rows, columns, generator=generator)
        smooth = nn.functional.avg_pool2d(white, 3, 1, 1)
        self.noise = torch.cat([white, smooth / smooth.std()])[:, 0]
        coarse = torch.randn(24, 1, 5, 5, generator=generator)
        self.bias = nn.functional.interpolate(coarse, (rows, columns), mode="bicubic", align_corners=True)[:, 0]

    def image(self, hu: npt.NDArray[np.int16]) -> torch.Tensor:
        """Augmented windows of planes: int16 [S, Y, X] HU -> float32 [S, C, Y, X], 0..1."""
        rng = self.rng
        x = torch.from_numpy(hu).float()
        planes = len(x)
        if rng.random() < 0.15:
            x = nn.functional.avg_pool2d(x[:, None], 3, 1, 1)[:, 0]
        if self.rim_hu:
            bone = (x - 300).clamp(0, 1200)[:, None] / 600
            for reach, share in RIM_REACH:
                beside = bone
                # Rows, then columns: a square of 15 × 15 costs seven times as much.
                for kernel in 2 * ((reach, 1), (1, reach)):
                    beside = nn.functional.avg_pool2d(beside, kernel, 1, (kernel[0] // 2, kernel[1] // 2))
                x += float(rng.uniform(0, share * self.rim_hu)) * beside[:, 0]
        contrast, shift = float(rng.uniform(0.88, 1.12)), float(rng.normal(0, 1.5))
        offsets = torch.from_numpy(rng.normal(0, float(rng.uniform(0, 1.0)), planes).astype(np.float32))
        # Contrast turns around 30 HU, so that blood and brain part and approach without leaving their range.
        x = x * contrast + (30 * (1 - contrast) + shift + offsets)[:, None, None]
        x += float(rng.uniform(0, 1.8)) * self.bias[int(rng.integers(len(self.bias)))]
        if (level := float(rng.uniform(-1.5, 2.5))) > 0:
            pick = torch.from_numpy(rng.integers(0, len(self.noise), planes))
            x += level * self.noise[pick]
        return windowed(x, self.spec)


def windowed(hu: torch.Tensor, spec: PreprocessSpec) -> torch.Tensor:
    """The spec's windows in torch: float32 [S, Y, X] HU -> float32 [S, C, Y, X]."""
    out = torch.empty(len(hu), len(spec.windows), *hu.shape[1:])
    for channel, (level, width) in enumerate(spec.windows):
        torch.clamp((hu - (level - width / 2)) / width, 0, 1, out=out[:, channel])
    return out.sub_(spec.mean).div_(spec.std) if (spec.mean, spec.std) != (0, 1) else out


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Tensors of a step: image [N, S, C, Y, X], valid [N, S], labels [N, 6], slices [N, S, 6], blood [N, S, y, x],
    mapped [N]."""

    image: torch.Tensor
    valid: torch.Tensor
    labels: torch.Tensor
    slices: torch.Tensor
    blood: torch.Tensor
    mapped: torch.Tensor


class Sampler:
    """Draws batches: a positive and a negative of the same head where there is one, at the same height."""

    def __init__(self, cache: Cache, settings: Settings, spec: PreprocessSpec) -> None:
        self.cache, self.rng = cache, np.random.default_rng([settings.seed, 11])
        self.augment = Augmenter(self.rng, spec, settings.rim_hu)
        known = cache.labels[:, 0]
        self.positive, self.negative = np.flatnonzero(known == 1), np.flatnonzero(known == 0)
        if not len(self.positive) or not len(self.negative):
            raise UsageError("training needs studies with and without hemorrhage (column 'any')")
        self.partner: dict[int, list[int]] = {}
        for index in self.negative:
            self.partner.setdefault(int(cache.group[index]), []).append(int(index))
        self.queue: list[int] = []

    def _next_positive(self) -> int:
        if not self.queue:
            self.queue = [int(i) for i in self.rng.permutation(self.positive)]
        return self.queue.pop()

    def batch(self, phase: Phase) -> Batch:
        """A batch of `phase.batch` stacks, half of them without blood."""
        rows = []
        for _ in range(phase.batch // 2):
            bleeding = self._next_positive()
            same_head = self.partner.get(int(self.cache.group[bleeding])) or [int(self.rng.choice(self.negative))]
            flip = bool(self.rng.random() < 0.5)
            start = self._start(bleeding, phase.planes)
            rows += [self._row(bleeding, start, phase.planes, flip)]
            rows += [self._row(int(self.rng.choice(same_head)), start, phase.planes, flip)]
        columns = [torch.stack(column) for column in zip(*rows, strict=True)]
        return Batch(**dict(zip(("image", "valid", "labels", "slices", "blood", "mapped"), columns, strict=True)))

    def _start(self, index: int, planes: int) -> int:
        total = self.cache.hu.shape[1]
        if planes >= total:
            return 0
        bloody = np.flatnonzero(self.cache.area_mm2[index].sum(axis=1) >= PRESENT_MM2)
        if len(bloody) and self.rng.random() < 0.85:
            middle = int(self.rng.choice(bloody)) - int(self.rng.integers(planes // 4, planes - planes // 4))
            return int(np.clip(middle, 0, total - planes))
        return int(self.rng.integers(0, total - planes + 1))

    def _row(self, index: int, start: int, planes: int, flip: bool) -> list[torch.Tensor]:
        cache, rng = self.cache, self.rng
        window = slice(start, start + planes)
        hu, blood = cache.hu[index, window], cache.blood[index, window]
        # Moved in the plane by whole cells of the map, so that both stay aligned.
        move = [int(v) for v in rng.integers(-2, 3, 2)]
        if flip:
            hu, blood = hu[:, :, ::-1], blood[:, :, ::-1]
        hu = np.roll(hu, [4 * m for m in move], (1, 2))
        blood = np.roll(blood, move, (1, 2))
        area = cache.area_mm2[index, window]
        labels = cache.labels[index].astype(np.float32)
        slices = np.full((planes, len(LABELS)), UNKNOWN, np.float32)
        if cache.mapped[index]:
            whole = np.concatenate([area.sum(axis=1, keepdims=True), area], axis=1)
            slices = np.where(whole >= PRESENT_MM2, 1.0, np.where(whole > 0, UNKNOWN, 0.0)).astype(np.float32)
            if planes < cache.hu.shape[1]:
                peak = whole.max(axis=0)
                labels = np.where(peak >= PRESENT_MM2, 1.0, np.where(peak > 0, UNKNOWN, 0.0)).astype(np.float32)
        elif labels[0] == 0:
            slices[:] = 0
        return [
            self.augment.image(np.ascontiguousarray(hu)),
            torch.from_numpy(cache.valid[index, window].copy()),
            torch.from_numpy(labels),
            torch.from_numpy(slices),
            torch.from_numpy(np.ascontiguousarray(blood).astype(np.float32) / 255),
            torch.tensor(float(cache.mapped[index])),
        ]


def hierarchical_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of "any" on all, of the subtypes given "any" on the bleeding; unknown labels are left out.

    Parameters
    ----------
    logits, labels : float32 [..., 6]
    """
    loss = nn.functional.binary_cross_entropy_with_logits(logits, labels.clamp(0, 1), reduction="none")
    known = (labels != UNKNOWN).float()
    known[..., 1:] *= (labels[..., :1] == 1).float()
    weight = known * torch.tensor([2.0, *([1.0] * (len(LABELS) - 1))])  # RSNA 2019 counts "any" twice
    return (loss * weight).sum() / weight.sum().clamp(min=1)


def loss_terms(model: HemorrhageNet, batch: Batch, settings: Settings) -> dict[str, torch.Tensor]:
    """The loss and its parts on a batch."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.bfloat16):
        logits, _, slice_logits, blood = model(batch.image, batch.valid)
    study = hierarchical_loss(logits.float(), batch.labels)
    by_slice = torch.where(batch.valid[..., None] > 0, batch.slices, float(UNKNOWN))
    slices = hierarchical_loss(slice_logits.float(), by_slice)
    # Weighted towards blood: it fills less than a hundredth of the cells.
    cell = nn.functional.binary_cross_entropy_with_logits(
        blood.float(), batch.blood, reduction="none", pos_weight=torch.tensor(3.0)
    )
    pixels = (cell.mean(dim=(1, 2, 3)) * batch.mapped).sum() / batch.mapped.sum().clamp(min=1)
    total = study + settings.slice_weight * slices + settings.map_weight * pixels
    return {"loss": total, "study": study, "slices": slices, "map": pixels}


class Averaged:
    """Exponential moving average of weights and batch statistics: one checkpoint alone is a coin-flip."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def update(self, model: nn.Module) -> None:
        """Take a step's weights in; early steps count more, so that the start is forgotten."""
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 10))
        for name, value in model.state_dict().items():
            if value.dtype.is_floating_point:
                self.state[name].lerp_(value.detach(), 1 - decay)
            else:
                self.state[name].copy_(value)


def train(
    cache: Cache,
    out: Path,
    settings: Settings | None = None,
    *,
    spec: PreprocessSpec = CANONICAL,
    minutes: float | None = None,
    initial: HemorrhageNet | None = None,
) -> dict[str, Any]:
    """Train HemorrhageNet and write a checkpoint.

    Parameters
    ----------
    cache : Cache
    out : Path
        ``.pt``: a state dict (``weights_only`` loadable). A JSON record of the run is written beside it.
    settings : Settings, optional
    spec : PreprocessSpec
    minutes : float, optional
        Stop early when the time is up: the schedule is shortened, not broken off. A run with a limit depends on the
        machine's speed and is not reproducible; the shipped bundle is trained without one.
    initial : HemorrhageNet, optional
        Weights to start from; changed in place. Random ones by default.

    Returns
    -------
    dict
        The record.
    """
    settings = settings or Settings()
    keep_freed_memory()
    torch.manual_seed(settings.seed)
    model = initial or HemorrhageNet(slices=spec.shape[0], channels=len(spec.windows))
    sampler = Sampler(cache, settings, spec)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=settings.learning_rate,
    )
    total = sum(phase.steps for phase in settings.phases)
    averaged = Averaged(model, settings.average)
    bar, curve, begun, step = Progress("training", total), [], time.monotonic(), 0
    model.train()
    for number, phase in enumerate(settings.phases):
        model.set_slices(phase.planes)
        share = sum(p.steps for p in settings.phases[: number + 1]) / total
        for _ in range(phase.steps):
            progress = step / total
            if minutes is not None:
                progress = max(progress, (time.monotonic() - begun) / (60 * minutes))
            if progress >= share:
                break
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * _schedule(progress)
            terms = loss_terms(model, sampler.batch(phase), settings)
            optimiser.zero_grad(set_to_none=True)
            terms["loss"].backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            averaged.update(model)
            step += 1
            values = {name: float(value.detach()) for name, value in terms.items()}
            curve.append([round(values[name], 5) for name in ("loss", "study", "slices", "map")])
            bar.show(
                step,
                f"loss {np.mean([c[0] for c in curve[-50:]]):.3f} study {np.mean([c[1] for c in curve[-50:]]):.3f} ",
            )
    bar.close()
    record = {
        "system": "hemorrhagenet",
        "settings": asdict(settings),
        "data": cache.record,
        "samples": len(cache),
        "steps": step,
        "seconds": round(time.monotonic() - begun, 1),
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "curve": {"columns": ["loss", "study", "slices", "map"], "every": 10, "values": curve[::10]},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(averaged.state, out)
    out.with_suffix(".json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    return record


def _schedule(progress: float) -> float:
    """Learning-rate factor: linear warm-up over 4 %, then a cosine to 1 %."""
    if progress < 0.04:
        return max(progress, 1e-3) / 0.04
    return float(0.01 + 0.99 * (1 + np.cos(np.pi * min(1.0, (progress - 0.04) / 0.96))) / 2)
