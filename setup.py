"""What pyproject.toml cannot say: the native kernels are built where there is a C++ compiler, and only there.

The library has a plain C interface and is loaded by ctypes, so one wheel per platform serves every Python version.
"""

import runpy

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

build = runpy.run_path("kernels/build.py")


class BuildNative(build_ext):
    """Build the library with the project's own flags, one object per instruction set."""

    def get_ext_filename(self, fullname: str) -> str:
        """No Python version in the name: nothing of Python is in the library."""
        return f"{fullname.replace('.', '/')}.so"

    def build_extension(self, ext: Extension) -> None:
        """Build, or leave NumPy to do the work: `optional` turns the error into a warning."""
        try:
            build["compile_native"](build["Path"](self.get_ext_fullpath(ext.name)))
        except build["BuildError"] as error:
            raise CompileError(f"{error}\nedgehem will run its preprocessing on NumPy, several times slower") from error


class PlatformWheel(bdist_wheel):
    """For one platform and every Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        """Python, ABI, platform."""
        return "py3", "none", super().get_tag()[2]


native = Extension(
    "edgehem.kernels.built.native",
    sources=[f"kernels/{unit}" for unit in (*build["NATIVE_UNITS"], build["ROWS_UNIT"])],
    depends=[f"kernels/{header}" for header in build["HEADERS"]],
    optional=True,
)
setup(ext_modules=[native], cmdclass={"build_ext": BuildNative, "bdist_wheel": PlatformWheel})
