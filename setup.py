"""Build the three native modules; all else about the package is in setup.cfg.

`termproxy.tls._openssl` is compiled against the system's OpenSSL, 3.0 or later.  For an OpenSSL
elsewhere, set TERMPROXY_OPENSSL_PREFIX to its prefix (the folder that holds include/ and lib/).
`termproxy.http._wire` and `termproxy.observability._tally` need nothing but a compiler.
"""

import os
import shutil
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, SetupError

PREFIX = os.environ.get("TERMPROXY_OPENSSL_PREFIX")
OPENSSL_3 = "#include <openssl/opensslv.h>\n#if OPENSSL_VERSION_MAJOR < 3\n#error older\n#endif\n"


def missing(what: str, debian: str, fedora: str) -> SetupError:
    return SetupError(
        f"\n\ntermproxy: {what}.\n"
        f"  Debian, Ubuntu:  apt-get install {debian}\n"
        f"  Fedora, RHEL:    dnf install {fedora}\n"
    )


class BuildExt(build_ext):
    """Compile, but first say in plain words what is missing on this machine."""

    def build_extensions(self) -> None:
        compiler = self.compiler.compiler_so[0]
        if shutil.which(compiler) is None:
            raise missing(f"there is no C compiler ({compiler})", "gcc libc6-dev", "gcc")
        if not self._compiles("#include <stdio.h>\n"):
            raise missing("the C library's headers are missing", "libc6-dev", "glibc-devel")
        if not Path(sysconfig.get_path("include"), "Python.h").is_file():
            raise missing("Python's headers are missing", "python3-dev", "python3-devel")
        where = f" under {PREFIX}" if PREFIX else ""
        if (PREFIX and not Path(PREFIX, "include/openssl/ssl.h").is_file()) or not self._compiles(
            "#include <openssl/ssl.h>\n"
        ):
            raise missing(f"OpenSSL's headers are missing{where}", "libssl-dev", "openssl-devel")
        if not self._compiles(OPENSSL_3):
            raise missing("OpenSSL is older than 3.0", "libssl-dev", "openssl-devel")
        super().build_extensions()

    def _compiles(self, source: str) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            probe = Path(folder, "probe.c")
            probe.write_text(source)
            include = [f"{PREFIX}/include"] if PREFIX else []
            try:
                self.compiler.compile([str(probe)], output_dir=folder, include_dirs=include)
            except CompileError:
                return False
            return True


library_folders = (
    [str(p) for p in (Path(PREFIX, "lib64"), Path(PREFIX, "lib")) if p.is_dir()] if (PREFIX) else []
)

hardened = {
    "extra_compile_args": ["-O2", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"],
    "extra_link_args": ["-Wl,-z,relro,-z,now"],
}

setup(
    cmdclass={"build_ext": BuildExt},
    ext_modules=[
        Extension(
            "termproxy.tls._openssl",
            ["termproxy/tls/_openssl.pyx"],
            include_dirs=[f"{PREFIX}/include"] if PREFIX else [],
            library_dirs=library_folders,
            runtime_library_dirs=library_folders,
            libraries=["ssl", "crypto"],
            **hardened,
        ),
        Extension("termproxy.http._wire", ["termproxy/http/_wire.pyx"], **hardened),
        Extension("termproxy.observability._tally", ["termproxy/observability/_tally.pyx"], **hardened),
    ],
)
