"""Build the four native modules, and compile the Python of the hot path; all else is in setup.cfg.

`termproxy.tls._openssl` is compiled against the system's OpenSSL, 3.0 or later.  For an OpenSSL
elsewhere, set TERMPROXY_OPENSSL_PREFIX to its prefix (the folder that holds include/ and lib/).
The others (`_sockets`, `http._wire`, `observability._tally`) need nothing but a compiler.

The modules in HOT stay plain Python, and work as such.  Cython compiles them as they are; classes that
say in `__slots__` what they hold become structs, whose members cost no look-up: see perf/NOTES.md.
"""

import ast
import os
import shutil
import sysconfig
import tempfile
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, SetupError

HOT = [
    "termproxy.backends.approach",
    "termproxy.backends.balancing",
    "termproxy.backends.cluster",
    "termproxy.backends.connect",
    "termproxy.backends.pool",
    "termproxy.backends.server",
    "termproxy.http.forwarding",
    "termproxy.observability.metrics",
    "termproxy.relay.pump",
    "termproxy.worker.acceptor",
    "termproxy.worker.admission",
    "termproxy.worker.client_table",
    "termproxy.worker.connection",
    "termproxy.worker.deadlines",
    "termproxy.worker.exchange",
    "termproxy.worker.frontend",
    "termproxy.worker.gate",
    "termproxy.worker.handshake_queue",
    "termproxy.worker.http_connection",
    "termproxy.worker.relaying",
]
STRUCTS = Path("build/structs")  # what Cython is told of their classes

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

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

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


def structs(module: str) -> str:
    """Cython's declaration (.pxd) of the classes of a module that have `__slots__`."""
    tree = ast.parse(source(module).read_text())
    origins = {
        alias.name: each.module
        for each in tree.body
        if isinstance(each, ast.ImportFrom)
        for alias in each.names
    }
    lines = []
    for each in tree.body:
        slots = slots_of(each)
        if slots is None:
            continue
        bases = [base.id for base in each.bases]
        lines += [f"from {origins[base]} cimport {base}" for base in bases if base in origins]
        lines += [f"cdef class {each.name}({', '.join(bases)}):", "    pass"]
        lines += [
            "    cdef object __weakref__" if name == "__weakref__" else f"    cdef public object {name}"
            for name in slots
        ]
    return "\n".join(lines) + "\n"


def slots_of(node: ast.stmt) -> tuple[str, ...] | None:
    """What a class that nothing decorates says that it holds."""
    is_plain = isinstance(node, ast.ClassDef) and not node.decorator_list
    if is_plain and all(isinstance(base, ast.Name) for base in node.bases):
        for each in node.body:
            if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "__slots__":
                return ast.literal_eval(each.value)
    return None


def source(module: str) -> Path:
    return Path(module.replace(".", "/") + ".py")


def compiled(modules: list[str]) -> list[Extension]:
    """The extensions that the modules become."""
    files = []
    has_changed = False
    for module in modules:
        file = STRUCTS / source(module).with_suffix(".pxd")
        file.parent.mkdir(parents=True, exist_ok=True)
        for package in (file.parent, file.parent.parent):
            Path(package, "__init__.pxd").touch()
        text = structs(module)
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
            has_changed = True
        files.append(str(file))
    return cythonize(
        [Extension(module, [str(source(module))], depends=files, **hardened) for module in modules],
        force=has_changed,  # a class is laid out by its bases, too
        include_path=[str(STRUCTS)],
        build_dir="build/cython",
        # Annotations are for readers and mypy: a `float` of ours may well be an int.
        compiler_directives={"language_level": 3, "annotation_typing": False},
        quiet=True,
    )


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
        Extension("termproxy._sockets", ["termproxy/_sockets.pyx"], **hardened),
        Extension("termproxy.http._wire", ["termproxy/http/_wire.pyx"], **hardened),
        Extension("termproxy.observability._tally", ["termproxy/observability/_tally.pyx"], **hardened),
        *compiled(HOT),
    ],
)
