"""Builds one wheel from one source tree by calling its PEP 517 backend directly, inside the sandbox.

Reads from the environment:
  src              the unpacked sdist (read-only)
  out              the directory to make; it will hold exactly one wheel
  python_path      optional: a tree with `lib` (importable build requirements) and `bin` (their commands)
  target           JSON object: `platform`, and optionally `python` (the expected interpreter, `cp311`) and any
                   field of `PLATFORMS` below; without it the wheel is for the machine that builds
  config_settings  optional: JSON object, handed to the backend's hooks
  NIX_BUILD_CORES  optional: how many jobs tools may run
All other variables are the recipe's and are seen by the backend.

The build requirements that the project states are enforced against what `python_path` holds: a missing one and one
of a forbidden version are errors. Nothing is downloaded, ever.
"""

import contextlib
import enum
import importlib
import importlib.metadata
import json
import os
import platform
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import traceback
import zipfile

# What a platform is called by the tools that must agree about it. `multiarch` is the directory name of the target's
# libraries and the prefix of its compilers; `python_platform` is what `sysconfig.get_platform()` must answer.
PLATFORMS = {
    "linux-x86_64": {
        "machine": "x86_64",
        "multiarch": "x86_64-linux-gnu",
        "python_platform": "linux-x86_64",
        "bits": 64,
    },
    "linux-arm64": {
        "machine": "aarch64",
        "multiarch": "aarch64-linux-gnu",
        "python_platform": "linux-aarch64",
        "bits": 64,
    },
}

# The backend of projects that name none (PEP 517), with what it needs (PEP 518).
LEGACY_BACKEND = "setuptools.build_meta:__legacy__"
LEGACY_REQUIRES = ["setuptools>=40.8.0"]

# What the first 1980 second is in Unix time: the earliest moment a zip entry can carry.
ZIP_EPOCH = 315532800


class Exit(enum.IntEnum):
    """The exit codes, so that a caller can tell the failures apart."""

    BAD_CALL = 2
    BAD_PROJECT = 10
    NO_BACKEND = 11
    UNMET_REQUIREMENTS = 12
    HOOK_RAISED = 13
    NO_WHEEL = 14


class BuildError(Exception):
    """A failure that is explained by its message alone."""

    def __init__(self, code, message, hint=None):
        super().__init__(message)
        self.code = code
        self.hint = hint


def main():
    call = Call.from_environment(os.environ)
    source = os.path.join(call.build, "src")
    copy_source(call.source, source, source_date(os.environ))
    os.chdir(source)
    project = Project.read(source)

    # Requirements are about the machine that builds, so what decides about them is asked before the target is put on.
    markers = marker_environment()
    sys.path[:] = import_path(sys.path, call, project)
    prepare_environment(call)
    apply_target(call)
    say(f"building a wheel for {call.target.platform} with {project.backend}, {sys.implementation.cache_tag}")
    inputs = Inputs.of(call.library)
    check_requirements(project.requires, project.stated_in, inputs, markers)

    backend = load_backend(project)
    dynamic = dynamic_requirements(backend, call)
    check_requirements(dynamic, f"get_requires_for_build_wheel of {project.backend}", inputs, markers)
    wheel = build(backend, call)
    say(f"built {os.path.basename(wheel)}")


def say(message):
    print(message, flush=True)


# The call


class Target:
    """The platform the wheel is for."""

    def __init__(self, settings):
        known = PLATFORMS.get(settings.get("platform"), {})
        fields = {**known, **{key: value for key, value in settings.items() if value is not None}}
        missing = sorted({"platform", "machine", "multiarch", "python_platform", "bits"} - fields.keys())
        if missing:
            names = ", ".join(f"`{name}`" for name in missing)
            raise BuildError(
                Exit.BAD_CALL,
                f"the target `{settings.get('platform')}` is unknown and `target` does not say {names}",
                f"known platforms: {', '.join(sorted(PLATFORMS))}",
            )
        self.platform = fields["platform"]
        self.machine = fields["machine"]
        self.multiarch = fields["multiarch"]
        self.python_platform = fields["python_platform"]
        self.bits = int(fields["bits"])
        self.python = fields.get("python")
        # Whether the interpreter that builds is for another platform. Asked now: later it denies it.
        self.foreign = self.multiarch != getattr(sys.implementation, "_multiarch", self.multiarch)

    @classmethod
    def native(cls):
        multiarch = getattr(sys.implementation, "_multiarch", "")
        for name, fields in PLATFORMS.items():
            if fields["multiarch"] == multiarch:
                return cls({"platform": name})
        return cls({"platform": None})


class Call:
    """What this build is asked to do."""

    def __init__(self, source, out, build, python_path, target, config_settings):
        self.source = source
        self.out = out
        self.build = build
        self.library = os.path.join(python_path, "lib") if python_path else None
        self.commands = os.path.join(python_path, "bin") if python_path else None
        self.target = target
        self.config_settings = config_settings

    @classmethod
    def from_environment(cls, environment):
        for name in ("src", "out"):
            if not environment.get(name):
                raise BuildError(Exit.BAD_CALL, f"the environment variable `{name}` is missing")
        settings = json_object(environment, "target")
        target = Target(settings) if settings else Target.native()
        found = f"cp{sys.version_info.major}{sys.version_info.minor}"
        if target.python not in (None, found):
            raise BuildError(Exit.BAD_CALL, f"the build is for `{target.python}`, but the toolchain's Python is `{found}`")
        return cls(
            environment["src"],
            environment["out"],
            os.getcwd(),
            environment.get("python_path") or None,
            target,
            json_object(environment, "config_settings"),
        )


def json_object(environment, name):
    """The object in variable `name`, or None when there is none."""
    text = environment.get(name)
    if not text:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise BuildError(Exit.BAD_CALL, f"the environment variable `{name}` is not JSON: {error}") from error
    if value is not None and not isinstance(value, dict):
        raise BuildError(Exit.BAD_CALL, f"the environment variable `{name}` is not a JSON object")
    return value or None


# The source


def source_date(environment):
    try:
        return int(environment.setdefault("SOURCE_DATE_EPOCH", str(ZIP_EPOCH)))
    except ValueError as error:
        raise BuildError(Exit.BAD_CALL, "`SOURCE_DATE_EPOCH` is not a number of seconds") from error


def copy_source(source, destination, moment):
    """Makes a writable copy with modes 0644 and 0755 only, always in the same order and with one time for all.

    The order of copying is the order in which some file systems list a directory. And if files had different times,
    which of a generated file and its origin is the newer one would depend on the order of copying; tools that look at
    it would sometimes regenerate.
    """
    if not os.path.isdir(source):
        raise BuildError(Exit.BAD_CALL, f"the source `{source}` is not a directory")
    for directory, directories, files in os.walk(source):
        directories.sort()
        copy = os.path.normpath(os.path.join(destination, os.path.relpath(directory, source)))
        os.mkdir(copy, 0o755)
        for name in sorted(directories + files):
            original, path = os.path.join(directory, name), os.path.join(copy, name)
            if os.path.islink(original):
                os.symlink(os.readlink(original), path)
            elif name in files:
                shutil.copyfile(original, path)
                os.chmod(path, 0o755 if os.stat(original).st_mode & 0o100 else 0o644)
                os.utime(path, (moment, moment))
    for directory, _, _ in os.walk(destination, topdown=False):
        os.utime(directory, (moment, moment))


class Project:
    """What the source tree says about how to build it."""

    def __init__(self, directory, backend, backend_path, requires, stated_in):
        self.directory = directory
        self.backend = backend
        self.backend_path = backend_path
        self.requires = requires
        self.stated_in = stated_in

    @classmethod
    def read(cls, directory):
        path = os.path.join(directory, "pyproject.toml")
        table = None
        if os.path.exists(path):
            try:
                with open(path, "rb") as file:
                    table = tomllib.load(file).get("build-system")
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise BuildError(Exit.BAD_PROJECT, f"`pyproject.toml` cannot be parsed: {error}") from error
        if table is None:
            if not os.path.exists(path) and not os.path.exists(os.path.join(directory, "setup.py")):
                raise BuildError(
                    Exit.BAD_PROJECT,
                    "the source has neither `pyproject.toml` nor `setup.py`",
                    "is the archive a Python sdist, and was its top directory stripped?",
                )
            return cls(directory, LEGACY_BACKEND, [], LEGACY_REQUIRES, "a project without `[build-system]`")
        requires = table.get("requires")
        if not is_string_list(requires):
            raise BuildError(Exit.BAD_PROJECT, "`build-system.requires` in `pyproject.toml` is not a list of strings")
        backend_path = table.get("backend-path", [])
        if not is_string_list(backend_path):
            raise BuildError(Exit.BAD_PROJECT, "`build-system.backend-path` in `pyproject.toml` is not a list of strings")
        for entry in backend_path:
            inside = os.path.realpath(os.path.join(directory, entry))
            if os.path.commonpath([inside, os.path.realpath(directory)]) != os.path.realpath(directory):
                raise BuildError(Exit.BAD_PROJECT, f"`backend-path` entry `{entry}` leads out of the source tree")
        backend = table.get("build-backend", LEGACY_BACKEND)
        return cls(directory, backend, backend_path, requires, "pyproject.toml")


def is_string_list(value):
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


# The environment of the backend and of what it starts


def import_path(path, call, project):
    """The backend's own directories first, then the build requirements, then the standard library.

    The directory of this script, which Python puts first, is the store: it must not be importable.
    """
    here = os.path.dirname(os.path.abspath(__file__))
    first = [os.path.join(project.directory, entry) for entry in project.backend_path]
    first += [call.library] if call.library else []
    return first + [entry for entry in path if entry and os.path.abspath(entry) != here]


def prepare_environment(call):
    environment = os.environ
    inherited = environment.get("PATH", "")
    if inherited in ("", "/path-not-set"):
        inherited = "/usr/bin:/bin"
    environment["PATH"] = f"{call.commands}:{inherited}" if call.commands else inherited
    python_path = [target_directory(call)] + ([call.library] if call.library else [])
    inherited = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join(python_path + ([inherited] if inherited else []))
    # Debian's Python compiles with -g. Without debug information no path reaches the objects, and they are half as big.
    environment["CFLAGS"] = f"-g0 {environment.get('CFLAGS', '')}".rstrip()
    environment["CXXFLAGS"] = f"-g0 {environment.get('CXXFLAGS', '')}".rstrip()
    defaults = {
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "PYTHONNOUSERSITE": "1",
        "TMPDIR": call.build,
        **job_counts(environment.get("NIX_BUILD_CORES", "")),
        **(cross_environment(call.target) if call.target.foreign else {}),
    }
    for name, value in defaults.items():
        environment.setdefault(name, value)
    sys.dont_write_bytecode = True


def job_counts(cores):
    if not cores.isdecimal() or int(cores) == 0:
        return {}
    return {"MAKEFLAGS": f"-j{cores}", "CMAKE_BUILD_PARALLEL_LEVEL": cores, "CARGO_BUILD_JOBS": cores}


def cross_environment(target):
    """What makes Debian's Python build for another architecture, and what other tools look at."""
    prefix = f"{target.multiarch}-"
    return {
        "_PYTHON_HOST_PLATFORM": target.python_platform,
        "_PYTHON_SYSCONFIGDATA_NAME": f"_sysconfigdata_{sys.abiflags}_{target.multiarch}",
        "CC": f"{prefix}gcc",
        "CXX": f"{prefix}g++",
        "AR": f"{prefix}ar",
        "RANLIB": f"{prefix}ranlib",
        "STRIP": f"{prefix}strip",
        "PKG_CONFIG_ALLOW_CROSS": "1",
        "PKG_CONFIG_LIBDIR": f"/usr/lib/{target.multiarch}/pkgconfig:/usr/share/pkgconfig",
    }


# Every Python started below us runs this first. It makes what a program can ask about its machine answer for the
# target, gives `.pth` files of the build requirements their effect, and lists directories in one order: the order of
# the file system decides, for one, in which order setuptools calls its plug-ins, and with it what gets into the wheel.
SITE_CUSTOMIZE = '''\
"""Written by the builder: makes this interpreter answer for the platform that the wheel is for, always alike."""
import os, platform, posix, site, sys

TARGET = {target!r}
LIBRARY = {library!r}


def listdir(path="."):
    return sorted(posix.listdir(path))


class scandir:
    def __init__(self, path="."):
        with posix.scandir(path) as entries:
            self.entries = iter(sorted(entries, key=lambda entry: entry.name))

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.entries)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.entries = iter(())


os.listdir, os.scandir = listdir, scandir
os.supports_fd |= {{listdir, scandir}}

if TARGET is not None:
    def uname(_real=posix.uname, _machine=TARGET["machine"]):
        real = _real()
        return type(real)((*real[:4], _machine))

    os.uname = posix.uname = uname
    platform._uname_cache = None
    sys.implementation._multiarch = TARGET["multiarch"]
    if TARGET["bits"] == 32:
        sys.maxsize = 2**31 - 1
if LIBRARY is not None:
    site.addsitedir(LIBRARY)
'''


def target_directory(call):
    return os.path.join(call.build, ".target")


def apply_target(call):
    target = call.target
    facts = {"machine": target.machine, "multiarch": target.multiarch, "bits": target.bits}
    directory = target_directory(call)
    os.mkdir(directory)
    script = os.path.join(directory, "sitecustomize.py")
    with open(script, "w", encoding="utf-8") as file:
        file.write(SITE_CUSTOMIZE.format(target=facts if target.foreign else None, library=call.library))
    runpy.run_path(script)
    importlib.invalidate_caches()
    if not target.foreign:
        return
    try:
        found = f"it is configured for `{sysconfig.get_config_var('SOABI')}`"
    except ModuleNotFoundError as error:
        found = str(error)
    if not found.endswith(f"-{target.multiarch}`"):
        raise BuildError(
            Exit.BAD_CALL,
            f"the toolchain's Python cannot build for {target.platform}: {found}",
            f"its sysroot needs the target's `libpython3.{sys.version_info.minor}-dev`",
        )


# The backend


def load_backend(project):
    module_name, _, attributes = project.backend.partition(":")
    try:
        backend = importlib.import_module(module_name)
        for attribute in filter(None, attributes.split(".")):
            backend = getattr(backend, attribute)
    except Exception as error:
        traceback.print_exc()
        raise BuildError(
            Exit.NO_BACKEND,
            f"build backend `{project.backend}` cannot be imported: {error}",
            f"{project.stated_in} requires {project.requires}; are they among `build_requires`?",
        ) from error
    if project.backend_path:
        check_in_tree(backend, module_name, project)
    return backend


def check_in_tree(backend, module_name, project):
    """PEP 517: a project that gives a `backend-path` must get its backend from there."""
    file = getattr(sys.modules[module_name], "__file__", None) or ""
    directories = [os.path.realpath(os.path.join(project.directory, entry)) for entry in project.backend_path]
    if not any(os.path.realpath(file).startswith(directory + os.sep) for directory in directories):
        raise BuildError(Exit.NO_BACKEND, f"build backend `{project.backend}` was not loaded from its `backend-path`")


def dynamic_requirements(backend, call):
    hook = getattr(backend, "get_requires_for_build_wheel", None)
    if hook is None:
        return []
    with hook_errors("get_requires_for_build_wheel"):
        return list(hook(call.config_settings))


def build(backend, call):
    hook = getattr(backend, "build_wheel", None)
    if hook is None:
        raise BuildError(Exit.NO_BACKEND, "the build backend has no `build_wheel` hook")
    directory = os.path.join(call.build, "wheel")
    os.mkdir(directory)
    with hook_errors("build_wheel"):
        name = hook(directory, call.config_settings, None)
    path = os.path.join(directory, os.path.basename(str(name)))
    if not path.endswith(".whl") or not os.path.isfile(path):
        raise BuildError(
            Exit.NO_WHEEL, f"the hook `build_wheel` said `{name}`, but made {sorted(os.listdir(directory))}"
        )
    if not zipfile.is_zipfile(path):
        raise BuildError(Exit.NO_WHEEL, f"the backend's `{name}` is not a zip file")
    os.mkdir(call.out)
    return shutil.move(path, os.path.join(call.out, os.path.basename(path)))


@contextlib.contextmanager
def hook_errors(name):
    """Turns whatever a hook throws, `SystemExit` included, into our error, with the traceback in the log."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        traceback.print_exc()
        hint = None
        if isinstance(error, subprocess.CalledProcessError):
            command = error.cmd if isinstance(error.cmd, str) else shlex.join(map(str, error.cmd))
            hint = f"it ran `{command}`"
        kind = type(error).__name__
        raise BuildError(Exit.HOOK_RAISED, f"the backend's hook `{name}` failed: {kind}: {error}", hint) from error


# Requirements (PEP 508). Our own evaluation, so that it depends neither on `packaging` being an input nor on its version.


class Inputs:
    """The distributions that the build was given."""

    def __init__(self, distributions):
        self.distributions = distributions

    @classmethod
    def of(cls, library):
        distributions = {}
        for distribution in importlib.metadata.distributions(path=[library] if library else []):
            name = normalize(distribution.metadata["Name"])
            distributions[name] = (distribution.version, distribution.requires or [])
        return cls(distributions)

    def __str__(self):
        listed = [f"{name} {version}" for name, (version, _) in sorted(self.distributions.items())]
        return ", ".join(listed) or "none"


def check_requirements(requirements, stated_in, inputs, markers):
    """Fails with the list of everything that is missing or of a wrong version, also indirectly."""
    unmet = []
    seen = set()
    pending = [(text, stated_in, "") for text in requirements]
    while pending:
        text, asker, extra = pending.pop(0)
        if (text, extra) in seen:
            continue
        seen.add((text, extra))
        try:
            requirement = Requirement(text)
            wanted = requirement.applies({**markers, "extra": extra})
        except ValueError as error:
            raise BuildError(Exit.BAD_PROJECT, f"{asker} requires `{text}`, which is not a requirement: {error}") from error
        if not wanted:
            continue
        version, needs = inputs.distributions.get(requirement.name, (None, []))
        if version is None:
            unmet.append(f"{asker} requires `{text}`; it is not among this build's inputs")
            continue
        if not requirement.allows(version):
            unmet.append(f"{asker} requires `{text}`; the input is {version}")
        for wanted_extra in ["", *requirement.extras]:
            pending.extend((need, f"{requirement.name} {version}", wanted_extra) for need in needs)
    if unmet:
        listed = "\n  ".join(dict.fromkeys(unmet))
        raise BuildError(
            Exit.UNMET_REQUIREMENTS,
            f"unmet build requirements:\n  {listed}",
            f"change `build_requires`; the inputs are: {inputs}",
        )


def normalize(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def marker_environment():
    implementation = sys.implementation.version
    return {
        "os_name": os.name,
        "sys_platform": sys.platform,
        "platform_machine": platform.machine(),
        "platform_python_implementation": platform.python_implementation(),
        "platform_release": platform.release(),
        "platform_system": platform.system(),
        "platform_version": platform.version(),
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "python_full_version": platform.python_version(),
        "implementation_name": sys.implementation.name,
        "implementation_version": f"{implementation.major}.{implementation.minor}.{implementation.micro}",
    }


class Requirement:
    """One PEP 508 line: name, extras, version specifiers and marker. The URL of a direct reference is not looked at."""

    HEAD = re.compile(r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[([^\]]*)\])?\s*")

    def __init__(self, text):
        head = self.HEAD.match(text)
        if not head:
            raise ValueError("it does not start with a name")
        self.name = normalize(head[1])
        self.extras = [normalize(extra) for extra in (head[2] or "").split(",") if extra.strip()]
        rest = text[head.end() :]
        if rest.startswith("@"):
            # A URL ends at a space, for it may hold semicolons itself.
            specifiers, marker = "", rest[1:].strip().partition(" ")[2].strip().removeprefix(";")
        else:
            specifiers, _, marker = rest.partition(";")
        specifiers = specifiers.strip()
        if specifiers.startswith("(") and specifiers.endswith(")"):
            specifiers = specifiers[1:-1]
        self.specifiers = [Specifier(item.strip()) for item in specifiers.split(",") if item.strip()]
        self.marker = Marker(marker) if marker.strip() else None

    def applies(self, environment):
        return self.marker is None or self.marker.evaluate(environment)

    def allows(self, version):
        return all(specifier.allows(version) for specifier in self.specifiers)


class Marker:
    """The condition after the semicolon."""

    TOKEN = re.compile(r"""\s*(\(|\)|'[^']*'|"[^"]*"|===|~=|==|!=|<=|>=|<|>|[A-Za-z_][\w.]*)""")
    OLD_NAMES = {
        "os.name": "os_name",
        "sys.platform": "sys_platform",
        "platform.version": "platform_version",
        "platform.machine": "platform_machine",
        "platform.python_implementation": "platform_python_implementation",
        "python_implementation": "platform_python_implementation",
    }

    def __init__(self, text):
        self.tokens = []
        position = 0
        text = text.rstrip()
        while position < len(text):
            match = self.TOKEN.match(text, position)
            if not match:
                raise ValueError(f"marker `{text}` cannot be read at `{text[position:]}`")
            self.tokens.append(match[1])
            position = match.end()

    def evaluate(self, environment):
        tokens = list(self.tokens)
        value = self._either(tokens, environment)
        if tokens:
            raise ValueError(f"marker has `{tokens[0]}` left over")
        return value

    def _either(self, tokens, environment):
        value = self._both(tokens, environment)
        while tokens and tokens[0] == "or":
            tokens.pop(0)
            right = self._both(tokens, environment)
            value = value or right
        return value

    def _both(self, tokens, environment):
        value = self._atom(tokens, environment)
        while tokens and tokens[0] == "and":
            tokens.pop(0)
            right = self._atom(tokens, environment)
            value = value and right
        return value

    def _atom(self, tokens, environment):
        if tokens and tokens[0] == "(":
            tokens.pop(0)
            value = self._either(tokens, environment)
            if not tokens or tokens.pop(0) != ")":
                raise ValueError("marker lacks a closing bracket")
            return value
        left = self._value(tokens, environment)
        operator = self._operator(tokens)
        right = self._value(tokens, environment)
        return compare(left, operator, right)

    @staticmethod
    def _operator(tokens):
        operator = tokens.pop(0) if tokens else ""
        if operator == "not" and tokens and tokens[0] == "in":
            tokens.pop(0)
            return "not in"
        if operator not in ("in", *Specifier.OPERATORS):
            raise ValueError(f"marker has `{operator}` where a comparison is expected")
        return operator

    @classmethod
    def _value(cls, tokens, environment):
        token = tokens.pop(0) if tokens else ""
        if token[:1] in ("'", '"'):
            return token[1:-1]
        name = cls.OLD_NAMES.get(token, token)
        if name not in environment:
            raise ValueError(f"marker variable `{token}` is unknown")
        return environment[name]


def compare(left, operator, right):
    """One comparison of a marker: of versions where the right side is one, of text otherwise."""
    if operator == "in":
        return left in right
    if operator == "not in":
        return left not in right
    try:
        return Specifier(operator + right).allows(left)
    except ValueError:
        pass
    results = {"==": left == right, "!=": left != right}
    results |= {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}
    if operator not in results:
        raise ValueError(f"marker compares `{left}` and `{right}` by `{operator}`")
    return results[operator]


class Specifier:
    """One version specifier of PEP 440, such as `>=1.2` or `==1.*`. Pre-releases are judged like any version."""

    OPERATORS = ("===", "~=", "==", "!=", "<=", ">=", "<", ">")

    def __init__(self, text):
        self.operator = next((operator for operator in self.OPERATORS if text.startswith(operator)), None)
        if self.operator is None:
            raise ValueError(f"`{text}` is not a version specifier")
        self.text = text[len(self.operator) :].strip()
        self.prefix = self.text.endswith(".*")
        if self.operator == "===":
            return
        if self.prefix and self.operator not in ("==", "!="):
            raise ValueError(f"`{text}` is not a version specifier")
        self.version = Version(self.text[:-2] if self.prefix else self.text)
        if self.operator == "~=" and len(self.version.release) < 2:
            raise ValueError(f"`{text}` needs a version of two parts at least")

    def allows(self, text):
        if self.operator == "===":
            return text.lower() == self.text.lower()
        candidate, bound = Version(text), self.version
        if self.operator in ("==", "!="):
            return self._equals(candidate) == (self.operator == "==")
        if self.operator == "~=":
            return candidate.public_key() >= bound.public_key() and candidate.starts_with(bound, bound.release[:-1])
        if self.operator == "<=":
            return candidate.public_key() <= bound.public_key()
        if self.operator == ">=":
            return candidate.public_key() >= bound.public_key()
        if self.operator == "<":
            before_it = candidate.is_prerelease and not bound.is_prerelease and candidate.base() == bound.base()
            return candidate.key() < bound.key() and not before_it
        after_it = candidate.post is not None and bound.post is None and candidate.base() == bound.base()
        local_of_it = candidate.local and candidate.public_key() == bound.public_key()
        return candidate.key() > bound.key() and not after_it and not local_of_it

    def _equals(self, candidate):
        if self.prefix:
            plain = (self.version.pre, self.version.post, self.version.dev) == (None, None, None)
            if plain:
                return candidate.starts_with(self.version, self.version.release)
            same_pre = candidate.pre == self.version.pre and candidate.base() == self.version.base()
            return same_pre and self.version.post in (None, candidate.post)
        if self.version.local:
            return candidate.key() == self.version.key()
        return candidate.public_key() == self.version.public_key()


class Version:
    """A version of PEP 440, comparable by `key()`."""

    FORM = re.compile(
        r"""v?(?:(?P<epoch>\d+)!)?(?P<release>\d+(?:\.\d+)*)
            (?:[-_.]?(?P<pre>alpha|a|beta|b|preview|pre|c|rc)[-_.]?(?P<pre_number>\d*))?
            (?:-(?P<bare_post>\d+)|[-_.]?(?P<post>post|rev|r)[-_.]?(?P<post_number>\d*))?
            (?:[-_.]?(?P<dev>dev)[-_.]?(?P<dev_number>\d*))?
            (?:\+(?P<local>[a-z0-9]+(?:[-_.][a-z0-9]+)*))?$""",
        re.VERBOSE | re.ASCII,
    )
    PRE_NAMES = {"alpha": "a", "beta": "b", "c": "rc", "pre": "rc", "preview": "rc"}

    def __init__(self, text):
        match = self.FORM.match(text.strip().lower())
        if not match:
            raise ValueError(f"`{text}` is not a version")
        self.epoch = int(match["epoch"] or 0)
        self.release = tuple(int(part) for part in match["release"].split("."))
        pre = match["pre"]
        self.pre = (self.PRE_NAMES.get(pre, pre), int(match["pre_number"] or 0)) if pre else None
        post = match["bare_post"] or (match["post"] and (match["post_number"] or "0"))
        self.post = int(post) if post else None
        self.dev = int(match["dev_number"] or 0) if match["dev"] else None
        parts = re.split(r"[-_.]", match["local"]) if match["local"] else []
        self.local = tuple((1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts)

    @property
    def is_prerelease(self):
        return self.pre is not None or self.dev is not None

    def base(self):
        release = list(self.release)
        while len(release) > 1 and release[-1] == 0:
            release.pop()
        return (self.epoch, tuple(release))

    def public_key(self):
        """Orders dev < a < b < rc < release < post, each dev release before what it leads to."""
        if self.pre is not None:
            pre = (0, *self.pre)
        elif self.post is None and self.dev is not None:
            pre = (-1, "", 0)
        else:
            pre = (1, "", 0)
        post = -1 if self.post is None else self.post
        dev = (1, 0) if self.dev is None else (0, self.dev)
        return (self.base(), pre, post, dev)

    def key(self):
        return (self.public_key(), self.local)

    def starts_with(self, other, release):
        padded = self.release + (0,) * max(0, len(release) - len(self.release))
        return self.epoch == other.epoch and padded[: len(release)] == release


def run():
    os.umask(0o022)
    sys.stdout.reconfigure(line_buffering=True)
    try:
        main()
    except BuildError as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        sys.stderr.flush()
        return int(error.code)
    return 0


if __name__ == "__main__":
    sys.exit(run())
