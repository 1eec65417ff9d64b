"""A report's plain tables, the same for every format. Pure; cells are clean text, not yet escaped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.console import duration
from pipeline.report.compile import ModelScore, Report
from pipeline.report.table import Table, mapping
from pipeline.report.wording import clean, count, decimals_for, fixed, folded_parents, place, plain, unique

_TRAIN = {
    "steps": "optimizer steps",
    "epochs": "epochs",
    "first_loss": "first loss",
    "last_loss": "last loss",
    "last_eval_loss": "last validation loss",
    "checkpoint": "checkpoint",
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
        parents = folded_parents(score.task for score in scores)
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
        ("task", "harness", "metric", "model", "n", "value"),
        tuple((clean(s.task), place(s.suite, s.harness), clean(s.metric), clean(s.model), plain(s.n),
               fixed(s.value, decimals_for([s.value], s.n))) for s in lone),
        numeric=(4, 5),
    )  # fmt: skip


def implementations(report: Report) -> Table:
    """What each score is of: a line per implementation within a suite, with the tasks and models it was used for."""
    groups: dict[tuple[str, str], list[ModelScore]] = {}
    for score in report.scores:
        groups.setdefault((score.suite, score.implementation.model_dump_json()), []).append(score)
    rows = []
    for (suite, _), scores in groups.items():
        what = scores[0].implementation
        shots = "not told" if what.n_shot is None else str(what.n_shot)
        rows.append((
            _some(unique(clean(s.task) for s in scores)), _some(unique(clean(s.metric) for s in scores)),
            _some(unique(clean(s.model) for s in scores)), f"{place(suite, what.harness)} {clean(what.version)}",
            *(clean(text) or plain(None) for text in
              (what.task_version, shots, what.scoring, what.chat_template, what.precision)),
        ))  # fmt: skip
    header = ("tasks", "metrics", "models", "harness", "task version", "shots", "scoring", "chat template", "precision")
    return Table(header, tuple(rows))


def _some(items: list[str], most: int = 6) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def train_facts(train: Mapping[str, Any] | None) -> Table:
    facts = train or {}
    known = [(name, plain(facts[key])) for key, name in _TRAIN.items() if facts.get(key) is not None]
    other = [(clean(key), plain(value)) for key, value in facts.items() if key not in _TRAIN and _scalar(value)]
    return Table(("what", "value"), tuple(known + other), numeric=(1,))


def stage_lines(report: Report) -> Table:
    rows = []
    for stage in report.stages:
        took = plain(None) if stage.seconds is None else duration(stage.seconds)
        rows.append((clean(stage.label), "done" if stage.done else "not yet", took, clean(stage.folder)))
    total = sum(stage.seconds or 0 for stage in report.stages)
    if total:
        rows.append(("all", "", duration(total), ""))
    return Table(("stage", "state", "time", "folder"), tuple(rows), numeric=(2,))


def auto_choices(report: Report) -> Table:
    rows = tuple(tuple(clean(choice.get(key, "")) for key in ("where", "value", "reason")) for choice in report.choices)
    return Table(("setting", "value", "why"), rows)


def provenance(report: Report) -> Table:
    rows = []
    for key, value in report.provenance.items():
        entries = mapping(value)
        rows += [(clean(name), plain(entry)) for name, entry in entries.items()]
        if not entries and value is not None:
            rows.append((clean(key), plain(value)))
    return Table(("what", "version or value"), tuple(rows))


def tiles(report: Report) -> list[tuple[str, str]]:
    """(what, value): the few numbers a reader looks for first."""
    data, train = report.data or {}, report.train or {}
    if not train and (losses := [p for p in report.curve if p.get("loss") is not None]):
        # Still training: what the curve says so far.
        train = {"steps": losses[-1]["step"], "first_loss": losses[0]["loss"], "last_loss": losses[-1]["loss"]}
    found = [
        ("training rows", plain(data["rows_train"]) if "rows_train" in data else ""),
        ("rejected rows", plain(data["rows_rejected"]) if "rows_rejected" in data else ""),
        ("rows with evaluation items", plain(hit) if (hit := _training_rows_hit(report)) is not None else ""),
        ("rows over max_length", _over(report)),
        ("optimizer steps", plain(train["steps"]) if "steps" in train else ""),
        ("training loss", _from_to(train.get("first_loss"), train.get("last_loss"))),
        ("validation loss", plain(train["last_eval_loss"]) if train.get("last_eval_loss") is not None else ""),
        ("time", duration(sum(s.seconds or 0 for s in report.stages)) if any(s.seconds for s in report.stages) else ""),
    ]
    waiting = sum(1 for stage in report.stages if not stage.done)
    found.append(("not done yet", count(waiting, "stage") if waiting else ""))
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
