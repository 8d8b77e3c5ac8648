"""SimpleITK: its general resampler, and for whole factors its means of blocks."""

from __future__ import annotations

from typing import Any

from edgehem.benchmarks.buffers import buffer
from edgehem.benchmarks.case import ANTIALIASED, PIXEL_MM, Case, Job
from edgehem.benchmarks.contender import POSITIONS_HU, WHOLE_HU, Contender, Pass
from edgehem.benchmarks.crew import Crew
from edgehem.benchmarks.peers.windows import Float32, NumpyWindows
from edgehem.kernels import AIR_HU
from edgehem.volume import Volume


def contenders(job: Job) -> tuple[Contender, ...]:
    """Linear interpolation does both jobs: halfway between pixels it is their mean."""
    general = Contender(
        name="simpleitk",
        library="SimpleITK",
        how="ResampleImageFilter, linear, to float32; windows in NumPy, planes split over Python threads",
        make=resample,
        module="SimpleITK",
    )
    if job is not ANTIALIASED:
        return (general,)
    special = Contender(
        name="simpleitk-binshrink",
        library="SimpleITK",
        how="BinShrink of int16, which rounds to whole HU; windows as above",
        make=bin_shrink,
        module="SimpleITK",
        tolerance_hu=WHOLE_HU + POSITIONS_HU,
    )
    return general, special


def resample(case: Case, job: Job, threads: int) -> Pass:
    """Any grid."""
    import SimpleITK as sitk  # noqa: N813

    target = case.target(job)
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize(target.shape[::-1])
    resampler.SetOutputSpacing(target.spacing_mm[::-1])
    resampler.SetOutputOrigin(target.origin)
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetOutputPixelType(sitk.sitkFloat32)
    resampler.SetDefaultPixelValue(AIR_HU)
    return _pass(case, threads, resampler.Execute)


def bin_shrink(case: Case, job: Job, threads: int) -> Pass:
    """Whole factors."""
    import SimpleITK as sitk  # noqa: N813

    _, steps = case.start_and_step(job)
    factors = [int(step) for step in steps[::-1]]
    return _pass(case, threads, lambda image: sitk.BinShrink(image, factors))


def _pass(case: Case, threads: int, resampled: Any) -> Pass:
    import SimpleITK as sitk  # noqa: N813

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    crew, windows = Crew(threads), NumpyWindows(case)
    out = buffer(case.shape)

    def run(stack: Volume) -> Float32:
        image = sitk.GetImageFromArray(stack.pixels)
        image.SetSpacing((PIXEL_MM, PIXEL_MM, case.gap_mm))
        image.SetOrigin(stack.origin[0].tolist())
        result = resampled(image)
        stored = sitk.GetArrayViewFromImage(result)  # valid for as long as `result` lives
        crew(lambda first, end: windows(stored[first:end], out[first:end]), case.planes)
        return out

    return run
