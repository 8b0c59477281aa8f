"""The one command-line door: reads configurations, calls the folders' entry points, and says in plain words what failed.

Everything heavy is imported inside the command that needs it: ``watchnext --help`` and ``watchnext serve`` load no
TensorFlow. Exit codes: 0 done, 2 something the user can mend (one sentence, no traceback), 130 interrupted, 1 a defect
of ours (with its traceback).
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from typer.core import TyperGroup

from data.days import parse_day
from data.errors import BundleError, ConfigError, LogError, WatchNextError
from data.home import Home
from data.journal import logged

if TYPE_CHECKING:
    from data.config import Config
    from service.closed_loop import Plan

PRESETS = Path(__file__).resolve().parent / "training" / "presets"
DEMO_DAYS, DEMO_SEED = 6, 7

console = Console(width=None if sys.stdout.isatty() else 120)  # a file has no edge at 80
errors = Console(stderr=True)


class Door(TyperGroup):
    """Turns the errors of every command into a sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except WatchNextError as error:
            errors.print(f"watchnext: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            errors.print(
                "\nwatchnext: interrupted. What was finished is kept: the same command goes on from there.", soft_wrap=True
            )
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Door,
    help="WatchNext ranks videos: logs in, slates out. Files are kept under $WATCHNEXT_HOME (default ./var).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
models_app = typer.Typer(help="The registry of trained bundles.", no_args_is_help=True)
app.add_typer(models_app, name="models")
quarantine_app = typer.Typer(help="Days that look broken, held back from retraining.", no_args_is_help=True)
app.add_typer(quarantine_app, name="quarantine")
keys_app = typer.Typer(help="The API keys of the service.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")

ConfigText = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A TOML file, or the name of a preset.", show_default=False)
]
DaysText = Annotated[str | None, typer.Option("--days", metavar="FIRST..LAST", help="Days, both inclusive.")]
NowText = Annotated[int | None, typer.Option("--now", metavar="MS", help="The time, for replays; default: the clock's.")]
BundleVersion = Annotated[int | None, typer.Option("--bundle", metavar="VERSION", help="Default: the champion.")]


@app.command()
def ingest(
    config: ConfigText, sources: Annotated[list[Path], typer.Argument(metavar="SOURCE...", help="Files or folders.")]
) -> None:
    """Check logs and tables and write them as day partitions. Running it twice changes nothing."""
    from data.ingest import ingest as run

    settings, home = read_config(config), Home.from_environment()
    with logged("ingest", home, console, dataset=settings.dataset):
        run(settings, sources, home, console).print(console)


@app.command()
def train(
    config: ConfigText,
    since: Annotated[str | None, typer.Option(metavar="DAY", help="First day; default: the first not trained on.")] = None,
    until: Annotated[str | None, typer.Option(metavar="DAY", help="Last day; default: the last in the log.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start from nothing instead of the newest bundle.")] = False,
) -> None:
    """Train day by day, each day scored before it is trained on; publish a bundle and promote it."""
    settings, home = read_config(config), Home.from_environment()
    first, last = (None if day is None else parse_day(day) for day in (since, until))
    from data.memory import keep_freed

    keep_freed()
    quiet_tensorflow()
    from training.run import train as run

    with logged("train", home, console, name=settings.name) as facts:
        facts["version"] = run(settings, home, first, last, fresh, console)


@app.command()
def evaluate(
    config: ConfigText,
    days: Annotated[str, typer.Option("--days", metavar="FIRST..LAST", help="Days, both inclusive.")],
    json_file: Annotated[Path, typer.Option("--json", metavar="FILE", help="Where to write the figures.")],
    bundle: BundleVersion = None,
) -> None:
    """Score days with a bundle, weights frozen, and write the figures as JSON."""
    settings, home = read_config(config), Home.from_environment()
    first, last = parse_days(days)
    quiet_tensorflow()
    from training.evaluate import evaluate as run

    with logged("evaluate", home, console, name=settings.name, days=days):
        write_json(json_file, run(settings, home, first, last, bundle, console))
    console.print(f"figures written to {json_file}")


@app.command()
def report(config: ConfigText, days: DaysText = None, bundle: BundleVersion = None) -> None:
    """Write the figures of a bundle as one HTML page and as JSON.

    Default days: those after the bundle's window, else those that were scored on the way through training.
    """
    settings, home = read_config(config), Home.from_environment()
    chosen = None if days is None else parse_days(days)
    quiet_tensorflow()
    with logged("report", home, console, name=settings.name):
        write_reports(settings, home, chosen, bundle)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    name: Annotated[
        str | None, typer.Option(help="Whose champion to serve; may be left out where there is one name.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Processes that answer; default: one a core, at most 4.")
    ] = None,
) -> None:
    """Serve the champion over HTTP."""
    from service.start import check_start
    from service.supervisor import serve as supervise

    settings = read_service_settings(name, workers)
    check_start(settings, host)
    if settings.processes > 1:
        return supervise(settings, host, port)
    import uvicorn

    from service.app import create_app

    uvicorn.run(create_app(settings), host=host, port=port, log_config=None, access_log=False)


@app.command()
def simulate(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write the log and the tables.")],
    seed: Annotated[int, typer.Option(min=0, help="Same seed and settings, same world.")],
    rows: Annotated[int, typer.Option(min=1, help="Impressions, rounded up to whole requests.")] = 1_000_000,
    days: Annotated[int, typer.Option(min=1)] = 10,
) -> None:
    """Write the log of a simulated product, to be ingested with the `simulator` preset."""
    with logged("simulate", Home.from_environment(), console, rows=rows, seed=seed):
        write_world(folder, rows, days, seed)
    console.print(f"next: watchnext ingest simulator {folder}", highlight=False, soft_wrap=True)


def write_world(folder: Path, rows: int, days: int, seed: int) -> None:
    from data.simulator.settings import WorldConfig
    from data.simulator.write import simulate as run

    with Progress(console=console) as progress:
        task = progress.add_task("simulating", total=rows)
        written = run(
            folder, WorldConfig.of_size(rows, days=days), rows, seed, lambda n, _: progress.update(task, completed=n)
        )
        progress.update(task, completed=rows)
    console.print(f"{written:,} impressions in {folder}", highlight=False, soft_wrap=True)


@models_app.command("list")
def list_models(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """The versions of a name, newest first."""
    from models.collect import needed
    from models.registry import Registry

    registry = Registry(Home.from_environment())
    versions = registry.versions(name)
    if not versions:
        raise BundleError(f"no bundle of {name!r} has been published yet: `watchnext train` makes one")
    reasons, table = needed(registry, name), Table("version", "days", "made", "")
    for version in reversed(versions):
        try:
            manifest = registry.open(name, version, verify=False).manifest
        except BundleError as error:
            table.add_row(str(version), "", "", f"damaged: {escape(str(error))}")
            continue
        days = f"{manifest.window.first_day}..{manifest.window.last_day}"
        made = f"{manifest.created_at:%Y-%m-%d %H:%M} UTC"
        table.add_row(str(version), days, made, reasons.get(version, ""))
    console.print(table)


@models_app.command("promote")
def promote_model(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    version: Annotated[int | None, typer.Argument(metavar="[VERSION]", help="Default: the newest.")] = None,
) -> None:
    """Make a version the champion."""
    from models.registry import Registry

    registry = Registry(Home.from_environment())
    chosen = version if version is not None else registry.newest(name)
    if chosen is None:
        raise BundleError(f"no bundle of {name!r} has been published yet: `watchnext train` makes one")
    registry.promote(name, chosen)
    console.print(f"{name} {chosen} is the champion")


@models_app.command("rollback")
def rollback_model(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Make the champion before the champion again. Running services follow within seconds."""
    from models.registry import Registry

    back = Registry(Home.from_environment()).rollback(name)
    console.print(f"{name} {back.version} is the champion again, instead of {back.previous}")


ModelName = Annotated[str, typer.Argument(metavar="NAME")]
ModelVersion = Annotated[int, typer.Argument(metavar="VERSION")]
TrialVersion = Annotated[int | None, typer.Argument(metavar="[VERSION]", show_default=False)]
TrialShare = Annotated[float | None, typer.Argument(metavar="[SHARE]", help="Above 0, at most 1.", show_default=False)]
Stop = Annotated[bool, typer.Option("--stop", help="End the one that runs.")]


@models_app.command("pin")
def pin_model(
    name: ModelName, version: ModelVersion, remove: Annotated[bool, typer.Option("--remove", help="Unpin it.")] = False
) -> None:
    """Keep a version from ever being collected."""
    from models.registry import Registry
    from models.rollouts import Rollouts

    rollouts = Rollouts(Registry(Home.from_environment()))
    (rollouts.unpin if remove else rollouts.pin)(name, version)
    console.print(f"{name} {version} is {'no longer ' if remove else ''}pinned")


@models_app.command("gc")
def collect_models(
    name: ModelName,
    keep: Annotated[int, typer.Option(min=1, help="How many of the versions published last stay.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove old versions; never the champion, the one before, a pinned one, one on trial, or one that is in use."""
    from models.collect import collect
    from models.registry import Registry

    result = collect(Registry(Home.from_environment()), name, keep, dry_run)
    for version, reason in result.kept.items():
        console.print(f"{name} {version} stays: {reason}")
    for version in result.removed:
        console.print(f"{name} {version} {'would be' if dry_run else 'is'} removed")


@models_app.command("shadow")
def shadow_model(name: ModelName, version: TrialVersion = None, share: TrialShare = None, stop: Stop = False) -> None:
    """Have a version score a share of the live requests after they are answered, without being served."""
    start_trial("shadow", name, version, share, stop)


@models_app.command("canary")
def canary_model(name: ModelName, version: TrialVersion = None, share: TrialShare = None, stop: Stop = False) -> None:
    """Serve a share of the users with a version; it is withdrawn by itself where it does worse than allowed."""
    start_trial("canary", name, version, share, stop)


def start_trial(kind: Any, name: str, version: int | None, share: float | None, stop: bool) -> None:
    from models.registry import Registry
    from models.rollouts import Rollouts

    rollouts = Rollouts(Registry(Home.from_environment()))
    if stop:
        ended = rollouts.end(name, kind, "stopped")
        console.print(f"the {kind} of {name} is stopped" if ended else f"{name} has no {kind} that runs")
    elif version is None or share is None:
        raise WatchNextError(
            f"expected NAME VERSION SHARE or NAME --stop, such as `watchnext models {kind} {name} ... 0.05`"
        )
    else:
        rollouts.start(name, kind, version, share)
        console.print(f"{name} {version} is the {kind} for a share of {share:g}")


@keys_app.command("create")
def create_key(
    scope: Annotated[list[str], typer.Option("--scope", metavar="SCOPE", help="rank, events or admin; repeat for several.")],
    note: Annotated[str, typer.Option(help="Whose it is.")] = "",
) -> None:
    """Make a key and print it. It is shown this once; only its hash is kept."""
    from service.keys import KeyStore

    print(KeyStore(Home.from_environment()).create(scope, note))  # alone on stdout, to be piped into a secret store


@keys_app.command("list")
def list_keys() -> None:
    """The keys, without their secrets, oldest first."""
    from service.keys import KeyStore

    table = Table("key", "scopes", "note", "made", "revoked")
    for key in KeyStore(Home.from_environment()).all():
        made, revoked = (
            "" if ms is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(ms / 1000))
            for ms in (key.created_at, key.revoked_at)
        )
        table.add_row(key.key_id, ", ".join(sorted(key.scopes)), escape(key.note), made, revoked)
    console.print(table)


@keys_app.command("revoke")
def revoke_key(key_id: Annotated[str, typer.Argument(metavar="KEY", help="Its id, as `list` shows it.")]) -> None:
    """Have a key refused, by running services too, within seconds."""
    from service.keys import KeyStore

    KeyStore(Home.from_environment()).revoke(key_id)
    console.print("revoked")


@app.command()
def demo(
    source: Annotated[
        Path | None, typer.Argument(metavar="[SOURCE]", help="A KuaiRand folder; default: simulated logs.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1_000, help="Impressions to simulate.")] = 100_000,
    days: Annotated[
        int | None, typer.Option(min=1, help="Let simulated users use it for so many days; it retrains every night.")
    ] = None,
) -> None:
    """The whole loop, small: logs, training, a report, and one slate from a real server."""
    home, started = Home.from_environment(), time.monotonic()
    if days is not None:
        if source is not None:
            raise ConfigError("--days simulates its users: expected no SOURCE with it")
        demo_days(home, days)
        return
    settings = read_config("tiny" if source is None else "kuairand")
    if source is None:  # a data set of its own, that mixes with no other
        settings = settings.model_copy(update={"name": "demo", "dataset": f"demo_{rows}"})
    quiet_tensorflow()
    from data.ingest import ingest as run_ingest
    from data.log import list_days
    from service.trial import borrowed_key, post, print_slate, running_server
    from training.run import train as run_train

    with logged("demo", home, console, dataset=settings.dataset):
        if source is None:
            console.rule("1. Simulate a product")
            source = home.root / "demo" / f"{rows}-rows"
            write_world(source, rows, DEMO_DAYS, DEMO_SEED)
        console.rule("2. Ingest its logs")
        run_ingest(settings, [source], home, console).print(console)
        last = list_days(home, settings.dataset)[-1]
        console.rule(f"3. Train up to the day before {last}")
        version = run_train(settings, home, None, last - timedelta(days=1), True, console)
        console.rule(f"4. Report on {last}, which the bundle has not seen")
        page = write_reports(settings, home, (last, last), version)
        console.rule("5. Serve, and ask for a slate")
        request = sample_request(settings, home, last)
        command = [sys.executable, str(Path(__file__).resolve()), "serve", "--name", settings.name]
        with borrowed_key(home) as key, running_server(command, home, console) as address:
            print_slate(request, post(f"{address}/v1/recommend", request, key), console)
        console.rule(f"Done in {time.monotonic() - started:.0f} s")
        print_next_steps(home, settings, page)


def print_next_steps(home: Home, config: "Config", page: Path) -> None:
    for what, where in (
        ("the report", page),
        ("the bundle", home.registry(config.name)),
        ("what was run when", home.root / "watchnext.log"),
        ("serve it", f"watchnext serve --name {config.name}, then GET /openapi.json"),
        ("your own logs", 'README.md, "Your own logs"'),
    ):
        console.print(f"[bold]{what:>18}[/]  {where}", highlight=False, soft_wrap=True)


def sample_request(config: "Config", home: Home, day: date) -> dict[str, Any]:
    """The request of an impression of ``day``, as a product would have sent it: the first with a query video, if any."""
    from data.columns import StringLists, Strings
    from data.log import read_day

    rows = read_day(home, config, day)
    queries = rows.strings("query_video_id").tolist() if "query_video_id" in rows else []
    row = next((i for i, query in enumerate(queries) if query is not None), 0)
    context: dict[str, Any] = {}
    for name in config.log.context:
        column = rows[name]
        value = column.tolist()[row] if isinstance(column, Strings | StringLists) else float(column[row])
        context[name] = None if value != value else value
    request = {"user_id": rows.strings("user_id").tolist()[row], "timestamp": int(rows.numbers("timestamp")[row])}
    return {**request, **({"query_video_id": queries[row]} if queries else {}), "context": context, "limit": 10}


def write_reports(config: "Config", home: Home, days: tuple[date, date] | None, version: int | None) -> Path:
    """Write ``reports/<name>-<version>-<first>..<last>.html`` and ``.json``; returns the page's path.

    Without ``days`` it is on the days after the bundle's window; where there are none, on those of its training, each
    of which was scored before it was trained on.
    """
    from data.log import list_days
    from models.registry import Registry
    from training.evaluate import evaluate as run
    from training.report import write_report

    bundle = Registry(home).open(config.name, version)
    later = [day for day in list_days(home, config.dataset) if day > bundle.manifest.window.last_day]
    if days is None and later:
        days = later[0], later[-1]
    progressive = json.loads(bundle.metrics.read_text(encoding="utf-8"))
    figures, name = {"bundle": bundle.version, **progressive}, "progressive"
    if days is not None:
        figures = {**run(config, home, *days, bundle.version, console), "progressive": progressive}
        name = f"{days[0]}..{days[1]}"
    elif "objectives" not in progressive:
        raise LogError(
            f"nothing to report: bundle {bundle.version} was trained on its fit days only, and no later day is there"
        )
    stem = f"{config.name}-{bundle.version}-{name}"
    page, numbers = home.reports / f"{stem}.html", home.reports / f"{stem}.json"
    home.reports.mkdir(parents=True, exist_ok=True)
    write_report(figures, config, page, numbers)
    console.print(f"report written to {page}", highlight=False, soft_wrap=True)
    return page


def read_config(text: str) -> "Config":
    """The configuration in the file ``text``, or the preset of that name."""
    from data.config import load_config

    preset = PRESETS / f"{text}.toml"
    if Path(text).exists():
        return load_config(Path(text))
    if preset.parent == PRESETS and preset.is_file():
        return load_config(preset)
    known = ", ".join(sorted(path.stem for path in PRESETS.glob("*.toml")))
    raise ConfigError(f"no configuration {text!r}: expected a TOML file or one of the presets {known}")


def parse_days(text: str) -> tuple[date, date]:
    """``FIRST..LAST``, both inclusive."""
    first, dots, last = text.partition("..")
    if not dots:
        raise ConfigError(f"expected days as FIRST..LAST, such as 2022-05-03..2022-05-05, got {text!r}")
    days = parse_day(first), parse_day(last)
    if days[0] > days[1]:
        raise ConfigError(f"expected FIRST..LAST with the earlier day first, got {text!r}")
    return days


def read_service_settings(name: str | None, workers: int | None = None) -> Any:
    """The settings of the environment; ``name`` overrides ``WATCHNEXT_NAME``, ``workers`` ``WATCHNEXT_WORKERS``."""
    from pydantic import ValidationError

    from service.settings import Settings

    try:
        given: dict[str, Any] = {"name": name, "workers": workers}
        return Settings(**{key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        lines = [f"  WATCHNEXT_{str(d['loc'][0]).upper()}: {d['msg']}, got {d['input']!r}" for d in error.errors()]
        raise ConfigError("\n".join(["the service's settings are not valid:", *lines])) from None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise WatchNextError(f"cannot write {path}: {error.strerror}") from None


def quiet_tensorflow() -> None:
    """Import TensorFlow without the notes that its C++ side writes while it loads, before any log level applies."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from models.threads import one_thread_an_operation

    one_thread_an_operation()
    screen, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        import tensorflow  # noqa: F401
    finally:
        os.dup2(screen, 2)
        os.close(screen)
        os.close(nowhere)


@app.command()
def export(config: ConfigText) -> None:
    """Publish the final days of what was served as day partitions, and forget what need not be kept any longer.

    Running it twice changes nothing; a day is published again when more of its labels have closed.
    """
    from data.feedback.export import export_days
    from data.feedback.retention import retain
    from models.collect import live_from
    from models.registry import Registry

    settings, home = read_config(config), Home.from_environment()
    with logged("export", home, console, dataset=settings.dataset) as facts:
        now = int(time.time() * 1000)
        done = export_days(settings, home, now, console)
        removed = retain(settings, home, now, live_from(Registry(home), settings.name))
        facts["days"] = [str(exported.day) for exported in done]
    console.print(f"{len(done)} days exported; {removed.requests:,} old requests forgotten", highlight=False)


experiment_app = typer.Typer(help="Experiments: arms of users, compared by user.", no_args_is_help=True)
app.add_typer(experiment_app, name="experiment")

ExperimentFile = Annotated[Path, typer.Argument(metavar="EXPERIMENT", help="The experiment's TOML file.")]
ConfigOption = Annotated[
    str | None, typer.Option("--config", metavar="CONFIG", help="Default: the configuration of the champion that it serves.")
]
NowOption = Annotated[int | None, typer.Option("--now", metavar="MS", help="The time, for replays. Default: the clock's.")]


@experiment_app.command("report")
def report_experiment(
    experiment: ExperimentFile,
    until: Annotated[str | None, typer.Option(metavar="DAY", help="Default: its last final day so far.")] = None,
    config: ConfigOption = None,
    now: NowOption = None,
) -> None:
    """Compare an experiment's arms, day by day if you like; writes a page and JSON into reports/."""
    from data.experiments import load_experiment
    from training.experiment_commands import open_source, report
    from training.experiment_report import tables, write_report

    chosen, home = load_experiment(experiment), Home.from_environment()
    last = None if until is None else parse_day(until)
    with logged("experiment report", home, console, experiment=chosen.name):
        source = open_source(chosen, home, None if config is None else read_config(config), now)
        page = home.reports / f"experiment-{chosen.name}.html"
        figures = report(chosen, source, last, page.with_name(f"{page.stem}-power.json"))
        write_report(figures, page, page.with_suffix(".json"))
    for table in tables(figures):
        console.print(table)
    console.print(figures["says"], highlight=False, markup=False)
    console.print(f"report written to {page}", highlight=False, soft_wrap=True)


@experiment_app.command("power")
def announce_power(
    experiment: ExperimentFile,
    effect: Annotated[float, typer.Option(min=1e-6, help="A relative effect: 0.02 is 2%.")] = 0.02,
    users: Annotated[int | None, typer.Option(min=1, help="That come on its days. Default: as many as before.")] = None,
    config: ConfigOption = None,
    now: NowOption = None,
) -> None:
    """Announce what an experiment can find, from the days of the log before it."""
    from data.experiments import load_experiment
    from training.experiment_commands import open_source, power
    from training.experiment_report import power_table

    chosen, home = load_experiment(experiment), Home.from_environment()
    with logged("experiment power", home, console, experiment=chosen.name):
        figures = power(
            chosen, open_source(chosen, home, None if config is None else read_config(config), now), effect, users
        )
        path = home.reports / f"experiment-{chosen.name}-power.json"
        write_json(path, figures)
    console.print(power_table(figures))
    console.print(f"figures written to {path}", highlight=False, soft_wrap=True)


GridFile = Annotated[Path, typer.Argument(metavar="GRID", help="The grid's TOML file.")]
SpaceFile = Annotated[Path, typer.Argument(metavar="SPACE", help="The space's TOML file.")]


@app.command()
def compare(
    grid: GridFile,
    jobs: Annotated[
        int | None,
        typer.Option(min=0, help="Trainings beside each other; 0: one by one in this process. Default: the cores."),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Only the first so many of the grid's seeds.")] = None,
) -> None:
    """Train designs x seeds on the same days and compare them on one page. Interrupted, it goes on where it was."""
    home = Home.from_environment()
    quiet_tensorflow()
    from training.compare import compare_grid, read

    with logged("compare", home, console, grid=str(grid)):
        page = compare_grid(grid, home, jobs, console, seeds)
    for sentence in read(page)["says"]:
        console.print(sentence, highlight=False, markup=False)
    console.print(f"comparison written to {page}", highlight=False, soft_wrap=True)


@app.command()
def tune(
    space: SpaceFile,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Finished ones, with those of before. Default: the file's.")
    ] = None,
) -> None:
    """Search a space of configurations, judged on days after those trained on. Interrupted, it goes on where it was."""
    home = Home.from_environment()
    quiet_tensorflow()
    from training.tune import tune as run

    with logged("tune", home, console, space=str(space)):
        best = run(space, home, trials, console)
    console.print(f"best configuration written to {best}", highlight=False, soft_wrap=True)


@app.command("tune-weights")
def tune_weights(
    config: ConfigText,
    days: Annotated[str | None, typer.Option(metavar="FIRST..LAST", help="Default: all in the database.")] = None,
    settings: Annotated[int, typer.Option(min=2, max=1000, help="Weights to look at.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Of the settings: the same one gives the same numbers.")] = 1,
    requests: Annotated[int, typer.Option(min=1, help="Sampled requests to judge on, at most.")] = 20_000,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Of a slate. Default: as many as half of the slates have.")
    ] = None,
    depends: Annotated[
        Literal["above", "slot"], typer.Option(help="What a slot's outcome may depend on; docs/ranking_weights.md.")
    ] = "above",
    explore: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of the new slots that explore. Default: as was served.")
    ] = None,
    axes: Annotated[str | None, typer.Option(metavar="A,B", help="Two objectives to trade. Default: one a family.")] = None,
    choose: Annotated[int | None, typer.Option(metavar="NUMBER", help="Write this setting as a weights file.")] = None,
    maximise: Annotated[str | None, typer.Option(metavar="OBJECTIVE", help="Choose by rule: the most of it,")] = None,
    keep: Annotated[
        list[str] | None, typer.Option(metavar="OBJECTIVE=SHARE", help="and no more lost of this one, as like=-0.01.")
    ] = None,
    now: NowOption = None,
) -> None:
    """What other ranking weights would have brought, from logged requests: a page to choose from, and a weights file."""
    from training.tune_weights_page import table, write_page
    from training.tune_weights_run import Wish, tune

    chosen, home = read_config(config), Home.from_environment()
    if (maximise is not None or keep) if choose is not None else (keep and maximise is None):
        raise ConfigError("expected --choose NUMBER alone, or --maximise with any --keep")
    first, comma, second = (axes or "").partition(",")
    if axes is not None and not (first and second):
        raise ConfigError(f"expected two objectives as A,B, got {axes!r}")
    wish = Wish(
        days=None if days is None else parse_days(days),
        settings=settings,
        seed=seed,
        requests=requests,
        slots=slots,
        depends=depends,
        explore=explore,
        axes=(first, second) if comma else None,
        choose=choose,
        maximise=maximise,
        keep=dict(parse_share(text) for text in keep or ()),
    )
    with logged("tune-weights", home, console, name=chosen.name):
        figures, path = tune(chosen, home, wish, clock(now))
        page = home.reports / f"{chosen.name}-weights.html"
        write_page(figures, page, page.with_suffix(".json"))
    console.print(table(figures))
    if path is not None:
        console.print(f"weights written to {path}", highlight=False, soft_wrap=True)
    console.print(f"report written to {page}", highlight=False, soft_wrap=True)


def parse_share(text: str) -> tuple[str, float]:
    """``OBJECTIVE=SHARE``."""
    name, _, share = text.partition("=")
    try:
        return name, float(share)
    except ValueError:
        raise ConfigError(f"expected OBJECTIVE=SHARE, such as like=-0.01, got {text!r}") from None


@app.command()
def retrain(
    config: ConfigText,
    full: Annotated[bool, typer.Option("--full", help="Have a network that starts anew compete.")] = False,
    schedule: Annotated[
        str | None, typer.Option(metavar="CRON", help='Keep running, at these times, such as "30 3 * * *".')
    ] = None,
    now: NowText = None,
) -> None:
    """Learn from what was served, and promote what passes the gate. One JSON line on stdout; docs/retraining.md."""
    if schedule is None:
        raise typer.Exit(retrain_once(config, full, now))
    from training.schedule import keep_running

    command = [sys.executable, str(Path(__file__).resolve()), "retrain", config, *(["--full"] if full else [])]
    keep_running(command, schedule, read_config(config).timezone, errors)


def retrain_once(config: str, full: bool, now: int | None) -> int:
    """One night; returns its exit code, and says what it came to in one line of JSON on stdout."""
    started = time.monotonic()
    facts: dict[str, Any] = {"command": "retrain", "config": config}
    try:
        settings, home = read_config(config), Home.from_environment()
        facts["name"] = settings.name
        from data.memory import keep_freed

        keep_freed()
        quiet_tensorflow()
        from training.lock import AlreadyRunningError
        from training.nights import EXIT_CODES
        from training.retrain import retrain as run

        try:
            with logged("retrain", home, errors, name=settings.name) as journal:
                outcome = run(settings, home, full, clock(now), errors)
                journal.update(outcome.summary())
            facts |= outcome.summary()
        except AlreadyRunningError as error:
            facts |= {"status": "running", "reason": str(error), "exit_code": EXIT_CODES["running"]}
    except WatchNextError as error:
        facts |= {"status": "error", "reason": str(error), "exit_code": 2}
    except BaseException as error:
        code = 130 if isinstance(error, KeyboardInterrupt) else 1
        facts |= {"status": "error", "reason": f"{type(error).__name__}: {error}", "exit_code": code}
        raise
    finally:
        print(json.dumps({**facts, "seconds": round(time.monotonic() - started, 1)}, default=str), flush=True)
    style = "red" if facts["status"] in ("error", "running") else None
    says = f"watchnext: {facts['status']}: {facts['reason']}"
    errors.print(says, style=style, markup=False, highlight=False, soft_wrap=True)
    return int(facts["exit_code"])


@app.command()
def refresh(config: ConfigText, now: NowText = None) -> None:
    """Bring the champion's counts of videos up to this morning, without training."""
    settings, home = read_config(config), Home.from_environment()
    quiet_tensorflow()
    from training.refresh import refresh as run

    with logged("refresh", home, console, name=settings.name) as facts:
        facts["version"] = version = run(settings, home, clock(now))
    says = f"{settings.name} {version} is the champion" if version else "nothing new: the counts are as of this morning"
    console.print(says, highlight=False)


@quarantine_app.command("list")
def list_quarantine(config: ConfigText) -> None:
    """The days that the nightly job holds back, with the reasons."""
    from training.quarantine import Quarantine

    settings = read_config(config)
    held = [day for day in Quarantine(Home.from_environment(), settings.name).days().values() if day.status == "quarantined"]
    table = Table("day", "why")
    for day in held:
        table.add_row(str(day.day), "\n".join(day.reasons))
    console.print(table if held else f"no day of {settings.name!r} is in quarantine")


@quarantine_app.command("release")
def release_day(config: ConfigText, day: Annotated[str, typer.Argument(metavar="DAY")]) -> None:
    """Take a day as it is: the next retrain judges on it, or learns from it."""
    from training.quarantine import Quarantine

    settings = read_config(config)
    released = Quarantine(Home.from_environment(), settings.name).release(parse_day(day), clock(None))
    console.print(f"{released.day} of {settings.name!r} is released")


def demo_days(home: Home, days: int) -> None:
    """The closed loop: a first champion, then days of simulated users and nights of retraining; what came of it."""
    import shutil

    from service.closed_loop import Plan, table

    started, folder = time.monotonic(), home.root / "demo" / "loop"
    if folder.exists():
        console.print(f"the loop of an earlier demo, {folder}, is removed", highlight=False, soft_wrap=True)
        shutil.rmtree(folder)
    result = closed_loop(Plan(days, DEMO_SEED), folder, console)
    console.print(table(result))
    last, gain = result["sides"]["retrained"]["last"], result["differences"]["trained once"]
    closed = (
        "there is no gap" if last["closed"] is None else f"{last['closed']:.0%} of the gap from popularity to oracle closed"
    )
    console.print(
        f"Last {len(result['last_days'])} days: {closed}; {gain['utility']:+.4f} a request against the model trained once, "
        f"on {gain['requests']:,} visits of the same users",
        highlight=False,
    )
    console.rule(f"Done in {time.monotonic() - started:.0f} s")
    live = Home(folder / "retrained")
    for what, where in (
        ("the decisions", live.registry("loop") / "decisions"),
        ("all figures", folder / "loop.json"),
        ("what was run when", live.root / "watchnext.log"),
        ("its report", f"WATCHNEXT_HOME={live.root} watchnext report {live.root / 'loop.toml'}"),
        ("what it means", "docs/closed_loop.md"),
    ):
        console.print(f"[bold]{what:>18}[/]  {where}", highlight=False, soft_wrap=True)


def closed_loop(plan: "Plan", folder: Path, said: Console, sides: Sequence[str] = ("retrained", "trained once")) -> Any:
    """Run a closed loop in ``folder``, which is made; returns its figures, also in ``loop.json``.

    Raises:
        WatchNextError: a step failed.
    """
    import shutil

    from data.database import URL_VARIABLE
    from data.simulator.warm_up import earnings, write_warm_up
    from service.closed_loop import Side, run_sides, summary
    from service.drive import Popularity

    if os.environ.get(URL_VARIABLE):
        raise ConfigError(f"the closed loop makes databases of its own: expected {URL_VARIABLE} to be unset")
    world, first, began = plan.world(), folder / "retrained", time.monotonic()
    first.mkdir(parents=True)
    text = (PRESETS / "loop.toml").read_text(encoding="utf-8")
    (first / "loop.toml").write_text(text.replace("\nseed = 1\n", f"\nseed = {plan.seed + 1}\n"), encoding="utf-8")
    seen = write_warm_up(folder / "logs", world, plan.warm_up)
    said.print(f"{len(seen):,} impressions of {plan.warm_up} days before", highlight=False)
    command = [sys.executable, str(Path(__file__).resolve())]
    for words in (["ingest", str(first / "loop.toml"), str(folder / "logs")], ["train", str(first / "loop.toml")]):
        done = subprocess.run(
            [*command, *words], env={**os.environ, "WATCHNEXT_HOME": str(first)}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise WatchNextError(
                f"`watchnext {' '.join(words)}` ended with code {done.returncode}: {done.stdout}{done.stderr}"
            )
    said.print(f"the first champion is trained, after {time.monotonic() - began:.0f} s", highlight=False)
    products, popularity = [], {}
    for name in sides:
        root = folder / name.replace(" ", "_")
        if root != first:
            shutil.copytree(first, root)
        products.append(Side(name, Home(root), root / "loop.toml"))
        popularity[name] = Popularity(plan.videos)
        popularity[name].add(seen.video, seen.video[seen.click > 0], *earnings(world, seen))
    run_sides(products, world, plan, popularity, command, said)
    result = {**summary(products, world, plan), "seconds": round(time.monotonic() - began, 1), "cores": os.cpu_count()}
    write_json(folder / "loop.json", result)
    return result


def clock(now: int | None) -> int:
    """The given time or the clock's, ms since the epoch, UTC."""
    return int(time.time() * 1000) if now is None else now


def main() -> None:
    app(prog_name="watchnext")


if __name__ == "__main__":
    main()
