"""What an exception of ONNX Runtime's GPU providers means, as one of edgehem's errors.

ONNX Runtime raises exceptions without a type of their own for what went wrong; the only sign is the text, with the CUDA
error's number, name or words in it. The text itself is not passed on, and no cause is kept: it may quote values and
paths.

References
----------
CUDA Runtime API, "Data types used by CUDA Runtime", enum cudaError: errors after which "the process must be terminated
and relaunched". CUDA Driver API, enum CUresult: the same numbers. cuBLAS and cuDNN, their status types.
"""

from __future__ import annotations

import re

from edgehem.errors import BackendError, BackendMemoryError, DeviceLostError

LOST = {
    4: ("cudaErrorCudartUnloading", "CUDA_ERROR_DEINITIALIZED", "driver shutting down"),
    214: ("cudaErrorECCUncorrectable", "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"),
    220: ("cudaErrorNvlinkUncorrectable", "CUDA_ERROR_NVLINK_UNCORRECTABLE", "uncorrectable NVLink error"),
    226: ("cudaErrorContained", "CUDA_ERROR_CONTAINED", ""),
    700: ("cudaErrorIllegalAddress", "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"),
    702: ("cudaErrorLaunchTimeout", "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated"),
    709: ("cudaErrorContextIsDestroyed", "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"),
    710: ("cudaErrorAssert", "CUDA_ERROR_ASSERT", "device-side assert triggered"),
    714: ("cudaErrorHardwareStackError", "CUDA_ERROR_HARDWARE_STACK_ERROR", "hardware stack error"),
    715: ("cudaErrorIllegalInstruction", "CUDA_ERROR_ILLEGAL_INSTRUCTION", "an illegal instruction was encountered"),
    716: ("cudaErrorMisalignedAddress", "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"),
    717: (
        "cudaErrorInvalidAddressSpace",
        "CUDA_ERROR_INVALID_ADDRESS_SPACE",
        "operation not supported on global/shared address space",
    ),
    718: ("cudaErrorInvalidPc", "CUDA_ERROR_INVALID_PC", "invalid program counter"),
    719: ("cudaErrorLaunchFailure", "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"),
    721: ("cudaErrorTensorMemoryLeak", "CUDA_ERROR_TENSOR_MEMORY_LEAK", ""),
    # What a GPU that fell off its bus answers. It may mean less; a restart too many is the smaller harm.
    999: ("cudaErrorUnknown", "CUDA_ERROR_UNKNOWN", ""),
}
"""Errors that leave this process without its GPU, by number: names in the runtime and the driver API, and the words
they are told with, where those can mean nothing else."""

MEMORY_NUMBER = 2
MEMORY = (
    "cudaErrorMemoryAllocation",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "out of memory",
    "OutOfMemory",  # TensorRT
    "Failed to allocate memory for requested buffer",  # ONNX Runtime's arena
    "smaller than requested bytes",  # the same at its limit
    "std::bad_alloc",
    "bad allocation",
)
"""What tells of too little memory, of the device or the host."""

_NUMBER = re.compile(r"\bCUDA (?:runtime |driver )?(?:failure|error)[ :#=(]+(\d+)\b", re.IGNORECASE)
"""ONNX Runtime's own way to tell a CUDA error: "CUDA failure 700: an illegal memory access was encountered ; GPU=0"."""


def failure(error: BaseException, what: str) -> BackendError:
    """The error to raise in place of one of ONNX Runtime's, *from None*.

    Parameters
    ----------
    error : BaseException
    what : str
        What failed, in words of ours: the message begins with it.

    Returns
    -------
    BackendError
        DeviceLostError or BackendMemoryError where the text says so.
    """
    text = str(error)
    numbers = {int(number) for number in _NUMBER.findall(text)}
    lower = text.lower()
    for number, signs in LOST.items():
        # Before memory: what fails after such an error may be an allocation.
        if number in numbers or any(sign and _told(sign, lower) for sign in signs):
            return DeviceLostError(f"{what}: {signs[0]}, which leaves this process without its GPU")
    if MEMORY_NUMBER in numbers or isinstance(error, MemoryError) or any(_told(sign, lower) for sign in MEMORY):
        return BackendMemoryError(f"{what}: there is too little memory")
    return BackendError(f"{what} ({type(error).__name__})")


def _told(sign: str, lower: str) -> bool:
    """Whether a text in lower case has a sign in it, as a word."""
    return re.search(rf"(?<!\w){re.escape(sign.lower())}(?!\w)", lower) is not None
