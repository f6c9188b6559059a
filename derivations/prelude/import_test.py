"""Imports what a wheel promises from a run-time system that has nothing but Python, inside the sandbox.

Arguments: the names of the modules to import. Reads from the environment:
  wheel        a directory that holds exactly one wheel
  out          the report to write: one line per module
  expect       optional: JSON object with `native` (the wheel must load extension modules) and `modules` (what to import
               when no arguments name them)
  python_path  optional: a tree whose `lib` holds what the wheel needs at run time

It runs natively or, for a foreign platform, through a user-mode emulator: either way the interpreter that runs this
is the target's own.
"""

import importlib
import importlib.machinery
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import sysconfig
import traceback
import zipfile


class TestError(Exception):
    """A reason why the wheel is not good, explained by its message alone."""


def main():
    sys.dont_write_bytecode = True
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if entry and os.path.abspath(entry) != here]
    expect = json.loads(os.environ.get("expect") or "{}")

    site = os.path.join(os.getcwd(), "site")
    wheel = only_wheel(required("wheel"))
    unpack(wheel, site)
    sys.path.insert(0, site)
    python_path = os.environ.get("python_path")
    if python_path:
        sys.path.insert(1, os.path.join(python_path, "lib"))
    importlib.invalidate_caches()

    print(f"{os.path.basename(wheel)} on {sysconfig.get_platform()} ({platform.machine()}), {sys.version.split()[0]}")
    modules = sys.argv[1:] or expect.get("modules") or top_level_modules(site)
    if not modules:
        raise TestError("the wheel has nothing to import")
    lines = [import_one(name, site) for name in modules]
    extensions = loaded_extensions(site)
    for name, path in extensions:
        print(f"  loaded {name} from {os.path.relpath(path, site)}")
    if expect.get("native") and not extensions:
        raise TestError("the wheel should be native, but no extension module was loaded from it")
    with open(required("out"), "w", encoding="utf-8") as report:
        report.write("".join(f"{line}\n" for line in lines))


def required(name):
    value = os.environ.get(name)
    if not value:
        raise TestError(f"the environment variable `{name}` is missing")
    return value


def only_wheel(directory):
    wheels = sorted(name for name in os.listdir(directory) if name.endswith(".whl"))
    if len(wheels) != 1:
        raise TestError(f"`{directory}` should hold one wheel, it holds {wheels}")
    return os.path.join(directory, wheels[0])


def unpack(wheel, site):
    """Puts what an installer would make importable into `site`."""
    os.mkdir(site)
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            name = re.sub(r"^[^/]+\.data/(purelib|platlib)/", "", entry.filename)
            if entry.is_dir() or re.match(r"[^/]+\.data/", name):
                continue
            path = os.path.normpath(os.path.join(site, name))
            if not path.startswith(site + os.sep):
                raise TestError(f"the wheel's entry `{entry.filename}` leads out of it")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with archive.open(entry) as source, open(path, "wb") as destination:
                shutil.copyfileobj(source, destination)


def top_level_modules(site):
    names = set()
    for entry in os.listdir(site):
        if os.path.isfile(os.path.join(site, entry, "__init__.py")):
            names.add(entry)
        elif os.path.isfile(os.path.join(site, entry)):
            suffixes = [".py", *importlib.machinery.EXTENSION_SUFFIXES]
            suffix = next((suffix for suffix in suffixes if entry.endswith(suffix)), None)
            if suffix:
                names.add(entry.removesuffix(suffix))
    return sorted(names)


def import_one(name, site):
    """Imports a module and answers the report's line about it."""
    try:
        module = importlib.import_module(name)
    except BaseException as error:
        traceback.print_exc()
        raise TestError(f"`{name}` cannot be imported: {type(error).__name__}: {error}") from error
    path = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), "")
    if not inside(path, site):
        raise TestError(f"`{name}` was imported from `{path or 'the interpreter'}`, not from the wheel")
    line = f"{name}{version_of(module, site)} {os.path.relpath(path, site)}"
    print(f"  imported {line}")
    return line


def inside(path, site):
    return os.path.realpath(path).startswith(os.path.realpath(site) + os.sep)


def version_of(module, site):
    version = getattr(module, "__version__", None)
    if version is None:
        versions = [item.version for item in importlib.metadata.distributions(path=[site])]
        version = versions[0] if len(versions) == 1 else None
    return f" {version}" if isinstance(version, str) else ""


def loaded_extensions(site):
    """The extension modules that the process has loaded out of the wheel, wherever their names came from."""
    suffixes = tuple(importlib.machinery.EXTENSION_SUFFIXES)
    found = []
    for name, module in sorted(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if path and path.endswith(suffixes) and inside(path, site):
            found.append((name, path))
    return found


def run():
    os.umask(0o022)
    sys.stdout.reconfigure(line_buffering=True)
    try:
        main()
    except TestError as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run())
