"""Everything edgehem raises, and the one list of codes that verdicts are explained with.

A code is part of the public contract: it appears in ``--json``, in logs and in reports. Codes are added, never
renamed and never given a second meaning.
"""

from __future__ import annotations

from enum import Enum


class EdgehemError(Exception):
    """Base of every error that edgehem raises on purpose."""


class UsageError(EdgehemError, ValueError):
    """The caller asked for something that cannot be: a wrong argument, a path that does not exist."""


class BundleError(EdgehemError, ValueError):
    """A bundle is missing, malformed, or not what its manifest says."""


class BackendError(EdgehemError, RuntimeError):
    """An inference engine is absent, was asked for something it cannot do, or failed."""


class BackendMemoryError(BackendError):
    """An engine or its device has too little memory for what it was given; smaller work, or a later try, may fit."""


class DeviceLostError(BackendError):
    """A device failed, or does not answer, in a way that leaves this process without it: a new process may recover.

    Whoever supervises the process restarts it; until then another engine has to do the work.
    """


class PlanError(BackendError):
    """An engine has no plan that may serve a graph here: none was made, or it is of other hardware or software, or
    damaged, or was never compared with the reference. ``edgehem compile`` makes one."""


class BudgetError(EdgehemError, RuntimeError):
    """A stage finished and left its budget: its artefact must not be used as if it had not."""


class MissingExtraError(EdgehemError, ImportError):
    """A capability needs an optional dependency that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the [{extra}] extra: pip install 'edgehem[{extra}]'")


class Code(str, Enum):
    """Why a study got no result, or why a person should look at the result it got."""

    # NO-RESULT: the study was not analysed.
    NO_DICOM = "NO_DICOM"
    """Nothing at the given place is a DICOM file."""
    UNREADABLE = "UNREADABLE"
    """A DICOM file, a DICOMDIR or an archive is damaged or locked: truncated, or not of the announced length."""
    SYNTAX_UNSUPPORTED = "SYNTAX_UNSUPPORTED"
    """The pixels are compressed in a way that this installation cannot decode, or must not trust."""
    PIXELS_MISSING = "PIXELS_MISSING"
    """The files carry no images (reports, structured data), or not in a form CT images take."""
    NOT_CT = "NOT_CT"
    """The files are of another modality: MR, a waveform, a segmentation."""
    NO_AXIAL_SERIES = "NO_AXIAL_SERIES"
    """Only localizers, reformats, secondary captures, bone kernels or non-axial images were found."""
    NOT_HEAD = "NOT_HEAD"
    """The images do not show a head."""
    CONTRAST = "CONTRAST"
    """A contrast agent was given; blood and contrast look alike."""
    TOO_FEW_SLICES = "TOO_FEW_SLICES"
    """The series has too few slices to cover a head."""
    TOO_LARGE = "TOO_LARGE"
    """More files, or larger images, than a head CT can have."""
    GEOMETRY_MISSING = "GEOMETRY_MISSING"
    """Position, orientation or pixel spacing is missing or not a number."""
    GEOMETRY_MIXED = "GEOMETRY_MIXED"
    """Slices of one series disagree about orientation, spacing, size, patient or study."""
    SLICE_GAP = "SLICE_GAP"
    """Slices are missing: inside the stack, or listed by a DICOMDIR and not there."""
    RESCALE_MISSING = "RESCALE_MISSING"
    """Stored values cannot be turned into Hounsfield units."""
    HU_IMPLAUSIBLE = "HU_IMPLAUSIBLE"
    """Air or soft tissue is not where Hounsfield units put it."""
    COVERAGE = "COVERAGE"
    """The stack does not show enough of the brain."""

    # FLAG: analysed, and a person should know this about the result.
    TILT_CORRECTED = "TILT_CORRECTED"
    """The gantry was tilted; each slice was sampled at its own position."""
    SPACING_VARIABLE = "SPACING_VARIABLE"
    """The slice distance changes inside the stack; each slice was sampled at its own position."""
    DUPLICATES_DROPPED = "DUPLICATES_DROPPED"
    """The same slice was found more than once; one was kept."""
    SERIES_CHOSEN = "SERIES_CHOSEN"
    """Several series could have been analysed; the reasons say which was."""
    FILES_PASSED_OVER = "FILES_PASSED_OVER"
    """Some files could not be used: not DICOM, or not part of the series."""
    PADDING = "PADDING"
    """Pixels outside the field of view were masked."""
    INTERCEPT_ZERO = "INTERCEPT_ZERO"
    """The rescale intercept is 0: values are taken as HU already, and air was found where HU put it."""
    COVERAGE_PARTIAL = "COVERAGE_PARTIAL"
    """A part of the head lies outside the stack."""
    LOSSY = "LOSSY"
    """The images went through lossy compression."""
    AGE_UNDER_18 = "AGE_UNDER_18"
    """The patient is younger than the model was made for."""
    HU_UNUSUAL = "HU_UNUSUAL"
    """Air, or the inside of the skull as a whole, measures other than usual: disease, or a scale that is off."""
    COARSE_VALUES = "COARSE_VALUES"
    """The images hold so few grey values that blood and brain may share one."""
    METAL = "METAL"
    """Metal lies at the brain or on its skull; streaks may hide blood or look like it."""
    MOTION = "MOTION"
    """The patient moved during the scan."""
    CONTRAST_SEEN = "CONTRAST_SEEN"
    """No header says so, but vessels are as bright as after a contrast agent."""
    POSTOPERATIVE = "POSTOPERATIVE"
    """The skull has a large gap or holds air: surgery, or an open injury."""
    UNCERTAIN = "UNCERTAIN"
    """The prediction set does not single out an answer; a person must decide."""


class Refusal(EdgehemError, ValueError):  # noqa: N818 - a refusal is an answer, not an error
    """The input cannot be analysed: a NO-RESULT with its code and a sentence for a radiographer.

    Parameters
    ----------
    code : Code
        One of the NO-RESULT codes.
    reason : str
        A sentence in plain words. Never holds patient identifiers, file names or full UIDs.
    """

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
