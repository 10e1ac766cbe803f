"""The command line: duologue talk | ask | serve | train | data | eval | bench | models."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from duologue import __version__
from duologue.errors import CheckpointError, DuologueError

if TYPE_CHECKING:
    from duologue.checkpoints import Resolver
    from duologue.pipeline import Metrics, Pipeline

FAILED = 2  # the exit code of everything that a person can put right
LLM = "smollm2-135m-instruct"  # the artefact that mini is made from, and that writes text for its data
LONGEST = 160  # tokens of a written answer, as many as a spoken one may have


class _Group(TyperGroup):
    """Ends every command that fails for a known reason with one line and exit code 2."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with _one_line():
            return super().invoke(ctx)


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except DuologueError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted; what was written so far is whole")
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(FAILED) from None


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Train, evaluate and serve end-to-end speech language models: speech in, speech out, in real time.",
)
data_app = typer.Typer(no_args_is_help=True, help="Make training data.")
app.add_typer(data_app, name="data")

ModelOption = Annotated[str, typer.Option("--model", "-m", help="A packaged model's name, or a model folder.")]
CacheOption = Annotated[
    Path | None,
    typer.Option("--cache", envvar="DUOLOGUE_CACHE", help="Folder of fetched parts (default: ~/.cache/duologue)."),
]
OmegaOption = Annotated[
    int | None, typer.Option("--omega", min=1, help="Speech units a chunk: smaller starts sooner, larger is smoother.")
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="Threads of the model (default: one is left to the network).")
]
SettingOption = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change one setting.")]
HostOption = Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for every network.")]
PortOption = Annotated[int, typer.Option("--port", min=0, max=65_535)]
KeysOption = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file", dir_okay=False, help="Keys that open the server, one a line; none: no key is asked."
    ),
]
InsecureOption = Annotated[
    bool, typer.Option("--insecure", help="Let other machines in without a key.", show_default=False)
]
TlsOption = Annotated[bool, typer.Option("--tls", help="https with a certificate that is made here.")]
CertificateOption = Annotated[
    Path | None,
    typer.Option(
        "--certificate", exists=True, dir_okay=False, help="PEM, for https: microphones need it off localhost."
    ),
]
KeyOption = Annotated[Path | None, typer.Option("--key", exists=True, dir_okay=False, help="PEM key of --certificate.")]


@app.command()
def ask(
    question: Annotated[Path, typer.Argument(help="An audio file of 0.2 s to 10 minutes.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the spoken answer goes (WAV).")] = Path("answer.wav"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
    model: ModelOption = "mini",
    omega: OmegaOption = None,
    text_only: Annotated[bool, typer.Option("--text-only", help="Say nothing, only write: quicker.")] = False,
    cache: CacheOption = None,
) -> None:
    """Answer a spoken question: text as it is thought, speech as it is made."""
    from duologue.audio import io

    io.check_question(question)
    if not text_only:
        io.check_writable(out)
    pipeline = _load(model, cache, omega=omega, speak=not text_only)
    with contextlib.ExitStack() as stack:
        writer = None if text_only else stack.enter_context(io.WavWriter(out, pipeline.output_rate))
        metrics = _answer(pipeline, question, writer, show=not as_json)
    if as_json:
        print(json.dumps({**metrics.as_dict(), "audio": str(out) if writer and writer.samples else None}))
    if pipeline.model.spec.duplex and not metrics.text:
        _fail(f"{question}: the model had nothing to say to it; speak closer to the microphone, or ask another thing")
    if not metrics.transcript and not metrics.text:
        _fail(f"{question}: heard no speech in it, so there is no answer; speak closer to the microphone or louder")
    if not as_json:
        _say(_summary(metrics) + ("" if text_only else f"; speech in {out}"))


@app.command()
def talk(
    model: ModelOption = "mini",
    host: HostOption = "127.0.0.1",
    port: PortOption = 8998,
    keys: KeysOption = None,
    insecure: InsecureOption = False,
    tls: TlsOption = False,
    certificate: CertificateOption = None,
    key: KeyOption = None,
    omega: OmegaOption = None,
    check_only: Annotated[bool, typer.Option("--check-only", help="Only answer the bundled question.")] = False,
    threads: ThreadsOption = None,
    cache: CacheOption = None,
) -> None:
    """Check the model on a bundled spoken question, then serve a page to talk to it."""
    with contextlib.ExitStack() as stack:
        door = None if check_only else stack.enter_context(_door(host, port, keys, insecure=insecure))
        pipeline = _load(model, cache, omega=omega)
        _self_check(pipeline, model, cache)
        if door is not None:
            pair = _certificate(tls, certificate, key, host=host, cache=cache)
            _serve(pipeline, door, pair, threads=threads, page=True)


@app.command()
def serve(
    model: ModelOption = "mini",
    host: HostOption = "127.0.0.1",
    port: PortOption = 8998,
    sessions: Annotated[int, typer.Option("--max-sessions", min=1, help="Most conversations at once.")] = 8,
    keys: KeysOption = None,
    insecure: InsecureOption = False,
    tls: TlsOption = False,
    certificate: CertificateOption = None,
    key: KeyOption = None,
    origins: Annotated[
        list[str] | None, typer.Option("--origin", metavar="URL", help="A site whose pages may use the server.")
    ] = None,
    knowledge: Annotated[
        Path | None, typer.Option("--knowledge", metavar="DIR", help="Texts to answer from, with their source named.")
    ] = None,
    glossary: Annotated[
        Path | None, typer.Option("--glossary", metavar="FILE", help="Words and what they mean.")
    ] = None,
    rates: Annotated[Path | None, typer.Option("--rates", metavar="FILE", help="What currencies are worth.")] = None,
    recordings: Annotated[
        Path | None,
        typer.Option("--recordings", metavar="DIR", help="Keep the sound and the words of conversations here."),
    ] = None,
    keep_days: Annotated[float, typer.Option("--keep-days", help="Days after which a recording is deleted.")] = 30.0,
    log_text: Annotated[bool, typer.Option("--log-text", help="Log what is said, too.", show_default=False)] = False,
    otel: Annotated[
        str | None,
        typer.Option(
            "--otel", metavar="URL", envvar="OTEL_EXPORTER_OTLP_ENDPOINT", help="Where OpenTelemetry collects spans."
        ),
    ] = None,
    threads: ThreadsOption = None,
    omega: OmegaOption = None,
    settings: SettingOption = None,
    cache: CacheOption = None,
) -> None:
    """Serve conversations: OpenAI's Realtime API, Moshi's protocol, plain HTTP, and a page."""
    from duologue import config
    from duologue.server.app import ServeConfig
    from duologue.server.assistant import Library
    from duologue.server.recordings import RecordingConfig, Recordings
    from duologue.server.tracing import Tracing

    allowed = ServeConfig(max_sessions=sessions, origins=tuple(origins or ()), log_text=log_text)
    made = config.override(allowed, settings or [])
    kept = Recordings(RecordingConfig(folder=recordings, keep_days=keep_days)) if recordings else None
    tracing = Tracing.over_http(otel) if otel else None
    library = Library.read(knowledge=knowledge, glossary=glossary, rates=rates)
    with _door(host, port, keys, insecure=insecure) as door:
        pipeline = _load(model, cache, omega=omega)
        pair = _certificate(tls, certificate, key, host=host, cache=cache)
        _log()
        options: dict[str, Any] = {"config": made, "library": library, "recordings": kept, "tracing": tracing}
        _serve(pipeline, door, pair, threads=threads, **options)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe in ./recipes by name, or FILE.py, or FILE.py:FUNCTION.")],
    settings: SettingOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run was stopped.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The run's folder.")] = None,
) -> None:
    """Train a model by a recipe."""
    _backend("duologue.train").run(recipe, settings or [], resume=resume, out=str(out or ""))


@data_app.command("synth")
def synthesise(
    recipe: Annotated[str, typer.Argument(help="A data recipe: FILE.py or FILE.py:FUNCTION.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The data's folder.")],
    settings: SettingOption = None,
    endpoint: Annotated[
        str | None,
        typer.Option("--endpoint", metavar="URL", help="Write text with an OpenAI-compatible server (up to /v1)."),
    ] = None,
    endpoint_model: Annotated[str, typer.Option("--endpoint-model", help="The model to ask for there.")] = "",
    key: Annotated[str, typer.Option("--key", envvar="DUOLOGUE_API_KEY", help="Its key.", show_default=False)] = "",
    ray: Annotated[bool, typer.Option("--ray", help="Spread the work with Ray.")] = False,
    cache: CacheOption = None,
) -> None:
    """Make spoken dialogues to train on; run again, it goes on where it was."""
    from duologue import config

    file, _, function = recipe.partition(":")
    function = function or Path(file).stem.removeprefix("data_")
    made = _backend("duologue.train.stages").find(f"{file}:{function}")()
    made = config.override(made, settings or [])
    if endpoint:
        writers = _backend("duologue.data.writers")
        text_model = writers.EndpointModel(writers.EndpointConfig(url=endpoint, model=endpoint_model), key=key)
    else:
        text_model = _text_model(LLM, cache) if made.text_model else None
    summary = _backend("duologue.data.synthesis").synthesise(made, out, text_model=text_model, ray=ray)
    _say(f"{summary.turns} turns in {summary.folder}; see its data card")


@data_app.command("dialogue")
def make_dialogues(
    texts: Annotated[
        Path,
        typer.Argument(metavar="TEXTS", help="A recipe (FILE.py or FILE.py:FUNCTION), or a JSONL file (see below)."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The data's folder.")],
    settings: SettingOption = None,
    stereo: Annotated[
        bool, typer.Option("--stereo", help="Write moshi-finetune's layout too: stereo WAV, alignments, lists.")
    ] = False,
) -> None:
    """Make conversations of two channels, for a full-duplex model; run again, it goes on where it was.

    A JSONL file holds dialogues, one a line, as {"turns": [["user", "Hello."], ["assistant", "Hi."]]} or as chat
    messages; or it is a list of moshi-finetune's layout ({"path": ..., "duration": ...}), which is read as it is.

    \b
    duologue data dialogue recipes/data_duplex.py --out data_out/duplex
    duologue data dialogue talks.jsonl --out data_out/talks --stereo --set conversations=500
    duologue data dialogue talks.jsonl -o data_out/calm --set timing.interruption_chance=0 --set seed=2
    duologue data dialogue calls/train.jsonl --out data_out/calls
    """
    from duologue import config

    dialogue = _backend("duologue.data.dialogue")
    if texts.suffix == ".jsonl" and dialogue.is_stereo_list(texts):
        if settings or stereo:
            _fail(f"{texts}: these conversations are read as they are; --set and --stereo do not apply")
        summary = dialogue.import_stereo(texts, out)
    else:
        if texts.suffix == ".jsonl":
            source = dialogue.DialogueSource(path=str(texts), name=texts.stem, licence="as its owner says")
            made = dialogue.DialogueConfig(name=texts.stem, sources=(source,))
        else:
            file, _, function = str(texts).partition(":")
            function = function or Path(file).stem.removeprefix("data_")
            made = _backend("duologue.train.stages").find(f"{file}:{function}")()
        made = config.override(made, settings or [])
        summary = dialogue.make_dialogues(made, out, stereo=stereo)
    page = _backend("duologue.eval.dialogue_page").write_dialogue_page(out)
    _say(f"{summary.conversations} conversations, {summary.hours:.2f} hours in {summary.folder}; report: {page}")


@app.command("bench", help="Measure latency, speed and memory, and write a report.")
@app.command("eval", help="Measure a model against what it must reach, and write a report.")
def measure(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            help="eval: mini (all), bench, mimi or duplex. bench: serve, mimi or moshi.", show_default=False
        ),
    ] = "",
    model: ModelOption = "mini",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The report's folder.")] = None,
    settings: SettingOption = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few items of each task, to see that it works.")] = False,
    only: Annotated[list[str] | None, typer.Option("--only", metavar="TASK", help="Only this task.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Run tasks again whose results are kept.")] = False,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of torch and of the judges.")] = 2,
    cache: CacheOption = None,
) -> None:
    speed = context.info_name == "bench"
    if speed and name in ("mimi", "moshi"):  # of published packages, not of a model; `eval mimi` is about quality
        name = f"bench-{name}"
    with _working("loading"):
        run = _backend("duologue.eval").run
    page = run(
        name or ("bench" if speed else "mini"),
        model=model,
        out=out,
        settings=settings or [],
        quick=quick,
        only=only,
        again=again,
        threads=threads,
        resolver=_resolver(cache),
        before=_untouched(model, cache),
    )
    _say(f"report: {page}")


@app.command()
def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every hash in full.")] = False,
    cache: CacheOption = None,
) -> None:
    """Show what models there are and where their parts come from."""
    from duologue.checkpoints import describe

    found = describe(_resolver(cache))
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for entry in found["models"]:
        parts = ", ".join(f"{role} = {name}" for role, name in entry["artefacts"].items())
        print(f"{entry['name']}  ({entry['family']}, {_size(entry['bytes'])}, {entry['folder']})")
        _print_files(entry["files"])
        print(f"  outside parts: {parts or 'none'}\n")
    for entry in found["artefacts"]:
        state = "cached" if entry["cached"] else "not fetched yet"
        print(f"{entry['name']}  ({_size(entry['bytes'])}, {entry['licence']}, {state})")
        print(f"  {entry['about']}")
        _print_files(entry["files"])
        print("  from " + ", then ".join(entry["sources"]) + "\n")
    print(f"cache: {found['cache']}")


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"duologue {__version__}")
        raise typer.Exit


def main() -> None:
    """The entry point of the `duologue` command."""
    app()


def _load(model: str, cache: Path | None, *, omega: int | None, speak: bool = True) -> Pipeline:
    with _working(f"loading {model}"):
        from duologue.checkpoints import open_model
        from duologue.pipeline import Pipeline

        resolver = _resolver(cache)
        outside = [name for name in open_model(model).artefacts.values() if name in resolver.table]
    for name in outside:
        if not resolver.cached(name):  # apart from the rest: a download has a bar of its own
            resolver(name)
    with _working(f"loading {model}", announce=False):
        settings: dict[str, Any] = {} if omega is None else {"omega": omega}
        if not speak:
            settings["speak"] = False
        return Pipeline.from_pretrained(model, resolver=resolver, settings=settings)


def _text_model(name: str, cache: Path | None) -> Any:
    """A language model as it was published, as a writer of text: an artefact by its name, or an absolute path."""
    path = Path(name) if Path(name).is_absolute() else _resolver(cache)(name)
    with _working("loading the text model"):
        import torch

        from duologue.models.language_model import read_language_model
        from duologue.models.text_model import LocalTextModel

        return LocalTextModel(*read_language_model(path, dtype=torch.bfloat16))


def _untouched(model: str, cache: Path | None) -> Callable[[str], str] | None:
    """Answers to written questions by a model's language model before its tuning; loaded at the first question."""
    from duologue.checkpoints import open_model
    from duologue.codecs.text import Message

    name = open_model(model).artefacts.get("llm")
    if name is None:
        return None
    load = functools.cache(lambda: _text_model(name, cache))
    return lambda question: load().complete([[Message("user", question)]], max_tokens=LONGEST)[0]


def _backend(name: str) -> Any:
    """A part of duologue that needs the train extra, imported only when it is used."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("duologue"):
            raise
        raise DuologueError(f"this needs the package {error.name}; pip install 'duologue[train]'") from error


def _resolver(cache: Path | None) -> Resolver:
    from duologue.checkpoints import Resolver

    return Resolver(cache)


def _answer(pipeline: Pipeline, question: Path, writer: Any, *, show: bool) -> Metrics:
    """Prints and writes an answer as it comes."""
    from duologue.pipeline import Audio, Done, Heard, Text

    for event in pipeline.stream(question):
        if isinstance(event, Heard) and event.final and event.text and show:
            _say(f"heard: {event.text}")
        elif isinstance(event, Text) and show:
            print(event.text, end="", flush=True)
        elif isinstance(event, Audio) and writer is not None:
            writer.write(event.samples)
        elif isinstance(event, Done):
            metrics = event.metrics
    if show and metrics.text:
        print(flush=True)
    return metrics


def _self_check(pipeline: Pipeline, model: str, cache: Path | None) -> None:
    from duologue.audio import io
    from duologue.checkpoints import resolve_model

    hello = resolve_model(model) / "hello.wav"
    if not hello.is_file():
        _say("self-check: this model brings no spoken question (hello.wav), so none was asked")
        return
    folder = _resolver(cache).cache
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be made ({error.strerror}); choose another with --cache") from error
    out = folder / "hello-answer.wav"
    with io.WavWriter(out, pipeline.output_rate) as writer:
        metrics = _answer(pipeline, hello, writer, show=True)
    if not metrics.transcript or not metrics.audio_seconds:
        raise CheckpointError(
            f"self-check: heard {metrics.transcript!r} in {hello} and said nothing; reinstall duologue"
        )
    _say(f"self-check: {_summary(metrics)}; speech in {out}")


@contextlib.contextmanager
def _door(host: str, port: int, keys: Path | None, *, insecure: bool) -> Iterator[tuple[Any, Any]]:
    """The bound socket and the keys: what is wrong with them is known before the model is loaded."""
    from duologue.server.app import bind
    from duologue.server.security import Keys, check_reach, read_keys

    known = Keys(read_keys(keys) if keys else ())
    check_reach(host, known, insecure=insecure)
    with bind(host, port) as listener:
        yield listener, known


def _certificate(
    tls: bool, certificate: Path | None, key: Path | None, *, host: str, cache: Path | None
) -> tuple[Path | None, Path | None]:
    from duologue.server.tls import own_certificate

    return own_certificate(_resolver(cache).cache / "tls", host=host) if tls and not certificate else (certificate, key)


def _serve(
    pipeline: Pipeline,
    door: tuple[Any, Any],
    pair: tuple[Path | None, Path | None],
    *,
    threads: int | None,
    page: bool = False,
    **options: Any,
) -> None:
    from duologue.server.app import Server
    from duologue.server.app import serve as run

    listener, keys = door
    host, port = listener.getsockname()[:2]
    shown = "localhost" if host in ("127.0.0.1", "::1", "0.0.0.0", "::") else host
    _use_threads(threads)
    server = Server(pipeline, keys=keys, **options)
    what = f"talk to {pipeline.name}" if page else f"{pipeline.name} for {server.config.max_sessions} conversations"
    _say(f"{what} at http{'s' if pair[0] else ''}://{shown}:{port}  (Ctrl-C ends it)")
    run(server, listener, certificate=pair[0], key=pair[1])
    _say("stopped")


def _use_threads(wanted: int | None) -> None:
    """How many threads torch computes with from now on.

    Args:
        wanted: None: one fewer than there are, unless OMP_NUM_THREADS says how many. A model's step is many small
            products, and a thread that waits at each of them for another one, which has the network to serve, takes
            longer than one alone.
    """
    import torch

    if wanted is None and "OMP_NUM_THREADS" not in os.environ:
        wanted = max(1, torch.get_num_threads() - 1)
    if wanted is not None:
        torch.set_num_threads(wanted)


def _log() -> None:
    """Writes the server's log to the error output."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("duologue").setLevel(logging.INFO)


def _summary(metrics: Metrics) -> str:
    return (
        f"first sound after {metrics.first_audio_ms:.0f} ms, {metrics.audio_seconds:.1f} s of speech "
        f"at {metrics.real_time_factor:.2f} of real time"
        if metrics.first_audio_ms is not None and metrics.real_time_factor is not None
        else "no speech"
    )


@contextlib.contextmanager
def _working(what: str, *, announce: bool = True) -> Iterator[None]:
    """Shows on the error output that something takes a while; one plain line where that is not a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        if announce:
            _say(f"{what} ...")
        yield


def _print_files(files: dict[str, dict[str, Any]]) -> None:
    for name, entry in files.items():
        print(f"  {name}  {_size(entry['bytes'])}  sha256 {entry['sha256'][:16]}...")


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _fail(line: str) -> None:
    _say("duologue: " + " ".join(line.split()))
    raise typer.Exit(FAILED)


if __name__ == "__main__":
    main()
