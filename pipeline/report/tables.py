"""A report's plain tables, the same for every format. Pure; cells are clean text, not yet escaped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.compare import owners
from pipeline.console import duration
from pipeline.paired import SEED
from pipeline.report.compile import Report
from pipeline.report.model_score import ModelScore
from pipeline.report.phrases import count, say
from pipeline.report.table import Table, mapping
from pipeline.report.training_tables import speed
from pipeline.report.wording import NONE, clean, decimals_for, fixed, folded_parents, place, plain, unique

_TRAIN = {
    "steps": say("optimizer steps"),
    "epochs": say("epochs"),
    "first_loss": say("first loss"),
    "last_loss": say("last loss"),
    "last_eval_loss": say("last validation loss"),
    "checkpoint": say("checkpoint"),
}


def boards(report: Report) -> list[Board]:
    """Scores side by side, a column per model, for suites that are not (only) a comparison of base and tuned."""
    result = []
    compared = {row.suite for row in report.rows}
    for suite in unique(score.suite for score in report.scores):
        scores = [score for score in report.scores if score.suite == suite]
        models = unique(score.model for score in scores)
        if suite in compared and set(models) <= {"base", "tuned"}:
            continue
        parents = folded_parents((score.task for score in scores), owners(scores))
        lines: dict[tuple[str, str, str], list[ModelScore]] = {}
        for score in scores:
            lines.setdefault((score.task, score.harness, score.metric), []).append(score)
        shown = [_board_line(group, models) for key, group in lines.items() if key[0] not in parents]
        folded = [_board_line(group, models) for key, group in lines.items() if key[0] in parents]
        result.append(Board(clean(suite), tuple(map(clean, models)), tuple(shown), tuple(folded)))
    return result


def _board_line(scores: list[ModelScore], models: list[str]) -> BoardLine:
    first = scores[0]
    by_model = {score.model: score for score in scores}
    decimals = decimals_for([score.value for score in scores], max(score.n for score in scores))
    cells = []
    for model in models:
        found = by_model.get(model)
        error = f" ± {fixed(found.stderr, decimals)}" if found and found.stderr is not None else ""
        cells.append(f"{fixed(found.value, decimals)}{error}" if found else fixed(None, 0))
    dumps = [score.implementation.model_dump() for score in scores]
    differs = [key for key in dumps[0] if any(dump[key] != dumps[0][key] for dump in dumps)]
    values = [score.value for score in scores]
    best = max(values) if first.higher_is_better else min(values)
    leaders = [i for i, model in enumerate(models) if model in by_model and by_model[model].value == best]
    sizes = unique(plain(score.n) for score in scores)
    return BoardLine(
        task=clean(first.task),
        harness=place(first.suite, first.harness),
        metric=clean(first.metric),
        lower_is_better=not first.higher_is_better,
        n=" / ".join(sizes),
        cells=tuple(cells),
        # No leader where scores are not of the same thing, or where all are equal.
        leaders=() if differs or len(leaders) == len(models) else tuple(leaders),
        differs=tuple(differs),
    )


def unmatched(report: Report) -> Table:
    """Scores of a compared suite that only one of base and tuned has."""
    rows = {(row.suite, row.task, row.metric) for row in report.rows}
    suites = {row.suite for row in report.rows}
    lone = [
        s for s in report.scores
        if s.suite in suites and s.model in ("base", "tuned") and (s.suite, s.task, s.metric) not in rows
    ]  # fmt: skip
    return Table(
        (say("task"), say("harness"), say("metric"), say("model"), "n", say("value")),
        tuple((clean(s.task), place(s.suite, s.harness), clean(s.metric), clean(s.model), plain(s.n),
               fixed(s.value, decimals_for([s.value], s.n))) for s in lone),
        numeric=(4, 5),
    )  # fmt: skip


def implementations(report: Report) -> Table:
    """What each score is of: a line per implementation within a suite, with the tasks and models it was used for.

    Tasks that differ only in their prompts and items (the subjects of one benchmark) share a line.
    """
    groups: dict[tuple[str, str], list[ModelScore]] = {}
    for score in report.scores:
        same = score.implementation.model_dump_json(exclude={"prompt", "data"})
        groups.setdefault((score.suite, same), []).append(score)
    rows = []
    for (suite, _), scores in groups.items():
        what = scores[0].implementation
        shots = say("not told") if what.n_shot is None else str(what.n_shot)
        seeded = say("{n}, seed {seed}", n=shots, seed=what.shot_seed) if what.shot_seed is not None else shots
        rows.append((
            *(_some(unique(clean(getattr(s, key)) for s in scores)) for key in ("task", "metric", "model")),
            f"{place(suite, what.harness)} {clean(what.version)}", clean(what.task_version) or plain(None), seeded,
            *(clean(text) or plain(None) for text in
              (what.scoring, what.normalisation, what.chat_template, what.precision, what.backend)),
            *(_some(unique(clean(getattr(s.implementation, key)) or NONE for s in scores), most=3)
              for key in ("prompt", "data")),
        ))  # fmt: skip
    header = (
        say("tasks"), say("metrics"), say("models"), say("harness"), say("task version"), say("shots"), say("scoring"),
        say("normalisation"), say("chat template"), say("precision"), say("backend"), say("prompt hash"),
        say("items hash"),
    )  # fmt: skip
    return Table(header, tuple(rows))


def _some(items: list[str], most: int = 6) -> str:
    shown = ", ".join(items[:most])
    return say("{names} and {n} more", names=shown, n=len(items) - most) if len(items) > most else shown


def train_facts(train: Mapping[str, Any] | None) -> Table:
    facts = train or {}
    known: list[tuple[str, str]] = [
        (name, plain(facts[key])) for key, name in _TRAIN.items() if facts.get(key) is not None
    ]
    other = [(clean(key), plain(value)) for key, value in facts.items() if key not in _TRAIN and _scalar(value)]
    return Table((say("what"), say("value")), tuple(known + other), numeric=(1,))


def stage_lines(report: Report) -> Table:
    rows: list[tuple[str, ...]] = []
    for stage in report.stages:
        took = plain(None) if stage.seconds is None else duration(stage.seconds)
        rows.append((clean(stage.label), say("done") if stage.done else say("not yet"), took, clean(stage.folder)))
    total = sum(stage.seconds or 0 for stage in report.stages)
    if total:
        rows.append((say("all"), "", duration(total), ""))
    return Table((say("stage"), say("state"), say("time"), say("folder")), tuple(rows), numeric=(2,))


def auto_choices(report: Report) -> Table:
    rows = tuple(tuple(clean(choice.get(key, "")) for key in ("where", "value", "reason")) for choice in report.choices)
    return Table((say("setting"), say("value"), say("why")), rows)


def seeds(report: Report) -> Table:
    """Every seed of the recipe, where it stands, and those of the statistics."""
    rows = [(clean(where), plain(value)) for where, value in _seeds(yaml.safe_load(report.recipe_yaml) or {}, "")]
    if report.rows:
        rows.append((say("resampling of the statistics"), plain(SEED)))
    return Table((say("setting"), say("seed")), tuple(rows))


def _seeds(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            place = f"{where}.{key}" if where else str(key)
            if str(key).endswith("seed") and _scalar(inner):
                yield place, inner
            yield from _seeds(inner, place)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _seeds(inner, f"{where}.{number}")


def provenance(report: Report) -> Table:
    rows = []
    for key, value in report.provenance.items():
        entries = mapping(value)
        rows += [(clean(name), plain(entry)) for name, entry in entries.items()]
        if not entries and value is not None:
            rows.append((clean(key), plain(value)))
    return Table((say("what"), say("version or value")), tuple(rows))


def tiles(report: Report) -> list[tuple[str, str]]:
    """(what, value): the few numbers a reader looks for first."""
    data, train = report.data or {}, report.train or {}
    if not train and (losses := [p for p in report.curve if p.get("loss") is not None]):
        # Still training: what the curve says so far.
        train = {"steps": losses[-1]["step"], "first_loss": losses[0]["loss"], "last_loss": losses[-1]["loss"]}
    found = [
        (say("training rows"), plain(data["rows_train"]) if "rows_train" in data else ""),
        (say("rejected rows"), plain(data["rows_rejected"]) if "rows_rejected" in data else ""),
        (say("rows with evaluation items"), plain(hit) if (hit := _training_rows_hit(report)) is not None else ""),
        (say("rows over max_length"), _over(report)),
        (say("optimizer steps"), plain(train["steps"]) if "steps" in train else ""),
        (say("training loss"), _from_to(train.get("first_loss"), train.get("last_loss"))),
        (say("validation loss"), plain(train["last_eval_loss"]) if train.get("last_eval_loss") is not None else ""),
        (say("tokens/s"), speed(report)),
        (
            say("time"),
            duration(sum(s.seconds or 0 for s in report.stages)) if any(s.seconds for s in report.stages) else "",
        ),
    ]
    waiting = sum(1 for stage in report.stages if not stage.done)
    found.append((say("not done yet"), count(waiting, "stage") if waiting else ""))
    return [(name, value) for name, value in found if value]


def _training_rows_hit(report: Report) -> int | None:
    value = mapping(mapping(report.contamination).get("rows_hit")).get("train")
    return value if isinstance(value, int) else None


def _over(report: Report) -> str:
    share = mapping(mapping(mapping(report.tokens).get("train")).get("over_max_length")).get("share")
    return f"{100 * share:.3g}%" if isinstance(share, int | float) else ""


def _from_to(first: Any, last: Any) -> str:
    return f"{plain(first)} → {plain(last)}" if first is not None and last is not None else ""


def _scalar(value: Any) -> bool:
    return isinstance(value, str | int | float)


@dataclass(frozen=True)
class BoardLine:
    task: str
    harness: str
    metric: str
    lower_is_better: bool
    n: str
    cells: tuple[str, ...]
    leaders: tuple[int, ...]
    """Columns with the best value."""
    differs: tuple[str, ...]
    """Fields of the implementation in which the models' scores differ."""


@dataclass(frozen=True)
class Board:
    suite: str
    models: tuple[str, ...]
    lines: tuple[BoardLine, ...]
    folded: tuple[BoardLine, ...]
