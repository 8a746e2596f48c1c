"""Build the six native modules, and compile the Python of the hot path; all else is in setup.cfg.

`termproxy.tls._openssl` is compiled against the system's OpenSSL, 3.0 or later.  For an OpenSSL
elsewhere, set TERMPROXY_OPENSSL_PREFIX to its prefix (the folder that holds include/ and lib/).
The others (`_sockets`, `http._wire`, `observability._line` and `_tally`,
`worker._client_table`) need nothing but a compiler.

The modules in HOT stay plain Python, and work as such.  Cython compiles them as they are; classes that
say in `__slots__` what they hold become structs, whose members cost no look-up: see perf/NOTES.md.
"""

import ast
import os
import shutil
import sysconfig
import tempfile
from dataclasses import dataclass
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
    "termproxy.observability.access_log",
    "termproxy.observability.metrics",
    "termproxy.observability.record",
    "termproxy.relay.pump",
    "termproxy.worker.acceptor",
    "termproxy.worker.admission",
    "termproxy.worker.connection",
    "termproxy.worker.deadlines",
    "termproxy.worker.exchange",
    "termproxy.worker.frontend",
    "termproxy.worker.gate",
    "termproxy.worker.handshake_queue",
    "termproxy.worker.http_connection",
    "termproxy.worker.relaying",
    "termproxy.worker.shared",
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


@dataclass(frozen=True)
class Struct:
    """A class that says in `__slots__` what it holds, and what C is told of it."""

    module: str
    node: ast.ClassDef
    slots: tuple[str, ...]
    bases: tuple[str, ...]

    def members(self, known: "dict[str, Struct]") -> dict[str, str]:
        """Each slot, and the struct that is in it, or `object`; by the annotations in `__init__`."""
        types = dict.fromkeys(self.slots, "object")
        init = next((each for each in self.methods() if each.name == "__init__"), None)
        if init is None:
            return types
        given = {each.arg: each.annotation for each in (*init.args.args, *init.args.kwonlyargs)}
        for each in ast.walk(init):
            if isinstance(each, ast.AnnAssign):
                target, annotation = each.target, each.annotation
            elif isinstance(each, ast.Assign):
                target, value = each.targets[0], each.value
                annotation = given.get(value.id) if isinstance(value, ast.Name) else None
                if isinstance(value, ast.Call):
                    annotation = value.func
            else:
                continue
            if isinstance(target, ast.Attribute) and target.attr in types and annotation is not None:
                name = ast.unparse(annotation).removesuffix(" | None")
                if name in known and name in names_in(self.module):
                    types[target.attr] = name
        return types

    def methods(self) -> list[ast.FunctionDef]:
        return [each for each in self.node.body if isinstance(each, ast.FunctionDef)]

    def family(self, known: "dict[str, Struct]") -> str:
        """The class at the root of those that it may stand for."""
        return known[self.bases[0]].family(known) if self.bases else self.node.name


def is_direct(method: ast.FunctionDef) -> bool:
    """Whether it can be a function of C (cpdef), which knows neither closures nor keywords only."""
    args = method.args
    if method.decorator_list or args.vararg or args.kwarg or args.kwonlyargs or "__" in method.name:
        return False
    parts = [part for each in method.body for part in ast.walk(each)]
    closures = (ast.Lambda, ast.GeneratorExp, ast.Yield, ast.YieldFrom, ast.FunctionDef)
    return not any(
        isinstance(part, closures) or (isinstance(part, ast.Name) and part.id == "super")
        for part in parts
    )


def declarations(module: str, known: dict[str, Struct]) -> str:
    """Cython's declaration (.pxd) of a module's structs."""
    # A method and what overrides it are both direct, or neither is.
    indirect = {
        (struct.family(known), method.name)
        for struct in known.values()
        for method in struct.methods()
        if not is_direct(method)
    }
    imported: set[str] = set()
    lines = []
    for struct in known.values():
        if struct.module != module:
            continue
        members = struct.members(known)
        imported.update(struct.bases, members.values())
        lines += [f"cdef class {struct.node.name}({', '.join(struct.bases)}):", "    pass"]
        for slot, kind in members.items():
            lines.append(f"    cdef {'' if slot == '__weakref__' else 'public '}{kind} {slot}")
        for method in struct.methods():
            if (struct.family(known), method.name) not in indirect:
                names = [each.arg for each in method.args.args]
                required = len(names) - len(method.args.defaults)
                names[required:] = [f"{name}=*" for name in names[required:]]
                lines.append(f"    cpdef {method.name}({', '.join(names)})")
    others = sorted((known[name].module, name) for name in imported if name in known)
    lines[:0] = [f"from {origin} cimport {name}" for origin, name in others if origin != module]
    return "\n".join(lines) + "\n"


def structs_of(modules: list[str]) -> dict[str, Struct]:
    """By their names, which are all different; what is decorated, or generic, is none."""
    found: dict[str, Struct] = {}
    for module in modules:
        for node in ast.parse(source(module).read_text()).body:
            if not isinstance(node, ast.ClassDef) or node.decorator_list:
                continue
            slots = slots_of(node)
            if slots is not None and all(isinstance(base, ast.Name) for base in node.bases):
                if node.name in found:
                    raise SetupError(f"two classes of the hot path are called {node.name}")
                bases = tuple(base.id for base in node.bases)
                found[node.name] = Struct(module, node, slots, bases)
    return found


def slots_of(node: ast.ClassDef) -> tuple[str, ...] | None:
    for each in node.body:
        if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "__slots__":
            return ast.literal_eval(each.value)
    return None


def names_in(module: str) -> set[str]:
    """What the module imports from others, and its own classes."""
    names: set[str] = set()
    for each in ast.parse(source(module).read_text()).body:
        if isinstance(each, ast.ImportFrom):
            names.update(alias.name for alias in each.names)
        elif isinstance(each, ast.ClassDef):
            names.add(each.name)
    return names


def source(module: str) -> Path:
    return Path(module.replace(".", "/") + ".py")


def compiled(modules: list[str]) -> list[Extension]:
    """The extensions that the modules become."""
    known = structs_of(modules)
    files = []
    has_changed = False
    for module in modules:
        file = STRUCTS / source(module).with_suffix(".pxd")
        file.parent.mkdir(parents=True, exist_ok=True)
        for package in (file.parent, file.parent.parent):
            Path(package, "__init__.pxd").touch()
        text = declarations(module, known)
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
            has_changed = True
        files.append(str(file))
    return cythonize(
        [Extension(module, [str(source(module))], depends=files, **hardened) for module in modules],
        force=has_changed,  # a class is laid out by its bases, too
        include_path=[str(STRUCTS)],
        build_dir="build/cython",
        # Annotations are for readers and mypy: a `float` of ours may well be an int.  What they say of
        # structs is told above; None among these is an AttributeError as ever.
        compiler_directives={"language_level": 3, "annotation_typing": False, "nonecheck": True},
        quiet=True,
    )


library_folders = (
    [str(p) for p in (Path(PREFIX, "lib64"), Path(PREFIX, "lib")) if p.is_dir()] if (PREFIX) else []
)

hardened = {
    "extra_compile_args": [
        "-O2",
        "-fstack-protector-strong",
        "-D_FORTIFY_SOURCE=2",
        "-Werror=incompatible-pointer-types",  # as GCC 14 does
    ],
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
        Extension("termproxy.observability._line", ["termproxy/observability/_line.pyx"], **hardened),
        Extension("termproxy.observability._tally", ["termproxy/observability/_tally.pyx"], **hardened),
        Extension("termproxy.worker._client_table", ["termproxy/worker/_client_table.pyx"], **hardened),
        *compiled(HOT),
    ],
)
