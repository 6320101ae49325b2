"""faceage balance: the rare age groups of a dataset, filled with real people at other ages."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from faceage import hub
from faceage.ages import GROUP_NAMES
from faceage.cli.batch import load_ager
from faceage.cli.common import (
    AddressOption,
    DetectorOption,
    DeviceOption,
    EngineOption,
    MinScoreOption,
    QuietOption,
    WeightsOption,
    WorkersOption,
    command,
    is_quiet,
    note,
    say,
)
from faceage.cli.inputs import collect_items, leave_out_results
from faceage.cli.sharded import ShardOptions
from faceage.errors import DataError

if TYPE_CHECKING:
    from rich.table import Table

    from faceage.api import FaceAger
    from faceage.balance.plan import Goal, Needs, Planned
    from faceage.balance.rendering import Tools
    from faceage.balance.run import BalanceOptions, Balancer, Engine, Outcome, RealFaces
    from faceage.data.layouts import Sample

BAR = 22  # characters


@command
def balance(
    data: Annotated[
        str,
        typer.Option(
            metavar="NAME|DIR",
            help="ffhq-aging, a folder with labelled face crops, or a folder of photos.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder to write.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="COUNTS",
            help='Pictures of each group afterwards: uniform, "0-2=500,70+=500", or a csv with '
            "the columns age_group and count.",
        ),
    ] = "uniform",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan; write nothing.")
    ] = False,
    age_evaluator: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="age-v1.onnx, to judge the age of results instead of the model's classifier.",
        ),
    ] = None,
    identity_evaluator: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An ONNX face embedder, to judge the identity."),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(min=0, help="Years; largest difference of the judged from the target age."),
    ] = 10.0,
    min_similarity: Annotated[
        float, typer.Option(min=-1, max=1, help="Cosine similarity to the source, at least.")
    ] = 0.3,
    max_per_person: Annotated[
        int, typer.Option(min=1, help="Pictures made of one person, at most.")
    ] = 4,
    tries: Annotated[
        int,
        typer.Option(min=1, help="Results rendered for each picture that a group needs, at most."),
    ] = 4,
    size: Annotated[
        int, typer.Option(min=16, max=4096, help="Side of the crops from photos, px.")
    ] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Of all random choices.")] = 0,
    detector: DetectorOption = "yunet",
    min_score: MinScoreOption = 0.6,
    weights: WeightsOption = hub.DEFAULT,
    device: DeviceOption = "auto",
    engine: EngineOption = "local",
    address: AddressOption = None,
    workers: WorkersOption = None,
    quiet: QuietOption = False,
) -> int:
    """Fill the rare age groups of a dataset with real people rendered at these ages.

    The ages are those of the labels; in a folder of photos without labels they
    are predicted. Results whose age or identity differs too much from what was
    asked for are dropped, and others made instead. Each kept picture is
    labelled with the age that was judged.

    The folder is a dataset for faceage train: the real pictures, the synthetic
    ones, and manifest.csv. The same command resumes.
    """
    from faceage.balance.folder import open_folder
    from faceage.balance.photos import hash_photos
    from faceage.balance.plan import parse_goal
    from faceage.balance.rendering import ResultMaker
    from faceage.balance.run import BalanceOptions, Balancer, open_real
    from faceage.data.layouts import NoLabelsError

    goal = parse_goal(to)
    options = BalanceOptions(max_per_person, tries, seed)
    make_results = _choose_engine(engine, address, workers)
    photos: list[Path] = []
    errors: list[str] = []
    root = Path(data).expanduser()
    try:
        real = open_real(data)
        needs = _make_plan(real, goal, options, dry_run)  # checked before the model is loaded
        if dry_run:
            return 0
    except NoLabelsError:
        photos = _find_photos(root, out)
    load = partial(
        _load_tools,
        *(weights, device, detector, min_score),
        *(age_evaluator, identity_evaluator, tolerance, min_similarity),
    )
    if dry_run:
        ager = load_ager(weights, device, detector, min_score)
        real, errors = _read_photos(root, photos, ager, size, None)
        _make_plan(real, goal, options, dry_run)
        return _report_errors(errors)
    if not age_evaluator:
        note("ages are judged by the model's own classifier; --age-evaluator is independent of it.")
    if not identity_evaluator:
        note("identity is not checked: give --identity-evaluator.")
    tools = load()
    ager, gate = tools.ager, tools.gate
    choices = {
        "pictures": hash_photos(root, photos) if photos else real.fingerprint(),
        "to": "uniform" if goal is None else {GROUP_NAMES[g]: n for g, n in goal.items()},
        "weights": ager.weights_sha,
        "age judge": gate.judge.name,
        "identity evaluator": gate.identity.sha256 if gate.identity else "",
        "--tolerance": tolerance,
        "--min-similarity": min_similarity,
        "--max-per-person": max_per_person,
        "--tries": tries,
        "--seed": seed,
        "--detector": f"{detector}, {min_score:g}",
        "--size": size if photos else None,
    }
    with open_folder(out, choices) as folder:
        if photos:
            real, errors = _read_photos(root, photos, ager, size, folder)
            needs = _make_plan(real, goal, options, dry_run)
        if not needs:
            note("every group has these counts already.")
        maker = ResultMaker(real.train, load, tools)
        outcome = _run(Balancer(real, needs, folder, maker, options, make_results), needs)
    typer.echo(str(outcome.manifest))
    return _report(outcome, needs) | _report_errors(errors)


def _find_photos(root: Path, out: Path) -> list[Path]:
    """The photos of a folder without labels, without those that this program made.

    Raises:
        DataError: there are none.
    """
    items = collect_items([str(root)], recursive=True, exclude=out)
    photos = [item.path for item in leave_out_results(items, False) if not item.error]
    if not photos:
        raise DataError(f"{root} has neither labels nor photos.", "Name a folder of photos.")
    return photos


def _read_photos(
    root: Path, photos: "Sequence[Path]", ager: "FaceAger", size: int, out: Path | None
) -> "tuple[RealFaces, list[str]]":
    """The faces of photos, and the errors of those without a face.

    Raises:
        DataError: no photo has a face.
    """
    from faceage.balance.folder import REAL
    from faceage.balance.photos import PhotoReader
    from faceage.balance.run import RealFaces
    from faceage.data.datasets import Dataset
    from faceage.progress import progress_bar

    with progress_bar(shown=not is_quiet()) as bar:
        task = bar.add_task("finding faces", total=len(photos))
        found = PhotoReader(root, ager, size).read(photos, out, lambda: bar.advance(task))
    if not found.samples:
        raise DataError(f"No photo in {root} has a face.", "Try a lower --min-score.")
    folder = out / REAL if out else root
    return RealFaces(Dataset(root.name, folder, found.samples), {}), found.errors


def _choose_engine(engine: str, address: str | None, workers: int | None) -> "Engine | None":
    """What makes the results; None is this process.

    Raises:
        ConfigError: the options contradict each other, or Ray is not installed.
    """
    ShardOptions.from_options(None, None, engine, address, workers)
    if engine == "ray":
        from faceage.scale.optional import import_optional
        from faceage.scale.ray_engine import run_on_ray

        import_optional("ray.data", "ray")
        return partial(run_on_ray, workers=workers, address=address)
    if workers and workers > 1:
        from faceage.scale.engines import run_in_processes

        return partial(run_in_processes, count=lambda done: None, workers=workers)
    return None


def _load_tools(
    weights: str,
    device: str,
    detector: str,
    min_score: float,
    age_evaluator: Path | None,
    identity_evaluator: Path | None,
    tolerance: float,
    min_similarity: float,
) -> "Tools":
    from faceage.balance.gate import ClassifierJudge, EvaluatorJudge, Gate
    from faceage.balance.rendering import Tools
    from faceage.evaluation.evaluators import AgeEvaluator, IdentityEvaluator

    ager = load_ager(weights, device, detector, min_score)
    gate = Gate(
        EvaluatorJudge(AgeEvaluator(age_evaluator)) if age_evaluator else ClassifierJudge(ager),
        IdentityEvaluator(identity_evaluator) if identity_evaluator else None,
        tolerance,
        min_similarity,
    )
    return Tools(ager, gate)


def _make_plan(
    real: "RealFaces", goal: "Goal", options: "BalanceOptions", dry_run: bool
) -> "Needs":
    """Check and show the plan; returns how many pictures are to be made.

    Raises:
        ConfigError: it cannot be met.
    """
    from rich.console import Console

    from faceage.balance.plan import (
        check_sources,
        count_groups,
        plan_round,
        split_by_gender,
        wanted_counts,
    )

    samples = real.train.samples
    counts = count_groups(samples)
    wanted = wanted_counts(counts, goal)
    needs = split_by_gender(samples, wanted)
    planned = plan_round(samples, needs, (), {}, options.most, (options.seed, 0))
    if dry_run or not is_quiet():
        console = Console(stderr=not dry_run)
        console.print(_draw_table(counts, wanted))
        if planned:
            console.print(_summarise(planned, samples), highlight=False)
    check_sources(needs, planned, samples, options.most)
    return needs


def _draw_table(counts: "Sequence[int]", wanted: "Sequence[int]") -> "Table":
    """The counts of each group before and after, as numbers and bars."""
    from rich.table import Table

    table = Table(box=None)
    for name in ("group", "real", "to make", "after"):
        table.add_column(name, justify="left" if name == "group" else "right")
    for name in ("before", "after"):
        table.add_column(name, min_width=BAR)
    most = max(*wanted, 1)
    for name, before, after in zip(GROUP_NAMES, counts, wanted, strict=True):
        bars = ("█" * -(-BAR * count // most) for count in (before, after))
        table.add_row(name, f"{before}", f"{after - before}", f"{after}", *bars)
    table.add_row("all", f"{sum(counts)}", f"{sum(wanted) - sum(counts)}", f"{sum(wanted)}")
    return table


def _summarise(planned: "Sequence[Planned]", samples: "Sequence[Sample]") -> str:
    """Of how many people the pictures are made, and how far from their ages."""
    from collections import Counter
    from statistics import median

    from faceage.balance.plan import age_of, person_of

    uses = Counter(person_of(samples[item.index]) for item in planned)
    years = median(abs(item.target_age - age_of(samples[item.index])) for item in planned)
    return (
        f"{len(planned)} pictures of {len(uses)} people, at most {max(uses.values())} of one; "
        f"the median change is {years:.0f} years"
    )


def _run(balancer: "Balancer", needs: "Needs") -> "Outcome":
    from faceage.progress import progress_bar

    with progress_bar(shown=not is_quiet()) as bar:
        task = bar.add_task("balancing", total=sum(needs.values()))
        return balancer.run(lambda: bar.advance(task))


def _report(outcome: "Outcome", needs: "Needs") -> int:
    """Say what was dropped and what is missing; returns the exit code, 0 or 1."""
    if outcome.dropped:
        reasons = ", ".join(f"{count} by {why}" for why, count in outcome.dropped.most_common())
        note(f"kept {sum(outcome.made)} results; dropped {outcome.dropped.total()}: {reasons}.")
    if outcome.missing:
        parts = [
            f"{GROUP_NAMES[group]}{gender and f' {gender}'} {count} of {needs[group, gender]}"
            for (group, gender), count in outcome.missing.items()
        ]
        missing, needed = sum(outcome.missing.values()), sum(needs.values())
        say(
            f"error: {missing} of {needed} pictures could not be made ({', '.join(parts)}): the "
            "gate dropped too many results. Ask for less with --to, or use a new --out with a "
            "higher --tries, --max-per-person or --tolerance."
        )
    return 1 if outcome.missing else 0


def _report_errors(errors: "Sequence[str]") -> int:
    """Print the errors of photos; returns the exit code, 0 or 1."""
    if len(errors) > 1:
        say(f"{len(errors)} photos failed:")
    for error in errors:
        say(f"error: {error}")
    return 1 if errors else 0
