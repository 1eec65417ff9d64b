"""From rows to optimizer steps, as ms-swift 4.6.0 and transformers 5.19.0 count them, and what is wrong with them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.training.settings import accumulation
from pipeline.training.spec import TrainSpec

FEW_STEPS = 10
"""A training of fewer is hardly one: warm-up and decay alone want more."""
MOST = 0.5
"""Share of rows dropped or cut from which on `max_length` is taken for a mistake."""
PACKED_TOGETHER = 1000
"""Rows that swift packs at a time: with more of them their random order bears on the number of packed rows."""


@dataclass(frozen=True)
class Rows:
    """The training data as the trainer will see them; None where nobody has counted tokens."""

    rows: int
    """In train.jsonl."""
    kept: int
    """Those that training sees: not too long (under `delete`), not beyond the template, with something to learn."""
    dropped: int
    cut: int
    """Kept, but without what is beyond max_length."""
    failed: int = 0
    """Among those dropped: rows that the template cannot encode."""
    tokens: int | None = None
    """Of one epoch."""
    packed: int | None = None
    longest: int | None = None
    """Tokens of the longest kept row; None unless every row was measured."""
    exact: bool = False
    """Whether every row was measured: everything else is in proportion to a sample."""
    val_rows: int = 0
    val_tokens: int | None = None

    def units(self, train: TrainSpec) -> int | None:
        """What batches are made of: packed rows where rows are packed."""
        return self.packed if train.packing is True else self.kept

    def steps_exact(self, train: TrainSpec) -> bool:
        return self.exact and (train.packing is not True or self.kept <= PACKED_TOGETHER)


def uncounted(rows: int, val_rows: int) -> Rows:
    """Of data whose tokens nobody has counted."""
    return Rows(rows=rows, kept=rows, dropped=0, cut=0, val_rows=val_rows)


def counted(tokens: Mapping[str, Any]) -> Rows:
    """Of a tokens.json (data_prep/lengths.py), which was made for the same max_length, truncation and packing."""
    split, val = tokens["train"], tokens.get("val")
    rows, exact = split["rows"], split["exact"]
    scale = rows / split["sampled"]
    failed = split["failed"]["rows"]["sampled_rows"] if split["failed"] else 0
    over, unlearned = (split[name]["sampled_rows"] for name in ("over_max_length", "unlearned"))
    deletes = tokens["truncation"] == "delete"
    dropped = _dropped(split, deletes=deletes)
    return Rows(
        rows=rows,
        kept=rows - dropped,
        dropped=dropped,
        failed=round(failed * scale),
        cut=0 if deletes else round(max(over - unlearned, 0) * scale),
        tokens=split["epoch"]["tokens"],
        packed=split["epoch"]["packed_rows"],
        longest=split["epoch"]["longest"] if exact else None,
        exact=exact,
        val_rows=val["rows"] - _dropped(val, deletes=deletes) if val else 0,
        val_tokens=round(val["tokens"]["mean"] * val["rows"]) if val else None,
    )


def _dropped(split: Mapping[str, Any], *, deletes: bool) -> int:
    failed = split["failed"]["rows"]["sampled_rows"] if split["failed"] else 0
    over = split["over_max_length"]["sampled_rows"] if deletes else 0
    count: int = failed + over + split["unlearned"]["sampled_rows"]
    return round(count * split["rows"] / split["sampled"]) if count else 0


def steps_per_epoch(units: int, train: TrainSpec) -> int:
    """Optimizer steps in one pass over that many rows (packed rows).

    Every process gets rows // processes of them, what is left over is dropped (swift/dataloader/shard.py), in batches
    of which the last may be short; then transformers' `set_initial_training_values`.
    """
    assert isinstance(train.micro_batch_size, int)
    mine = units // train.processes
    whole = train.extra_args.get("dataloader_drop_last") is True
    batches = mine // train.micro_batch_size if whole else math.ceil(mine / train.micro_batch_size)
    return max(math.ceil(batches / accumulation(train)), 1)


def total_steps(units: int, train: TrainSpec) -> int:
    return train.max_steps or math.ceil((train.epochs or 1.0) * steps_per_epoch(units, train))


def problems(data: Rows, train: TrainSpec) -> Iterator[str]:
    """Why training on these rows is not what anybody wants, each with a remedy."""
    limit = train.max_length
    units = data.units(train)
    if data.kept == 0 or (units is not None and units < train.processes):
        yield (
            f"train.max_length: of {data.rows} training rows {data.kept} are left"
            f"{f', {units} when packed' if train.packing is True else ''}, for {train.processes} process(es); "
            f"{_remedy(data, train)}"
        )
        return
    if data.failed > MOST * data.rows:
        yield f"data: {data.failed} of {data.rows} rows cannot be encoded and would be left out; see data.tokens' log"
    elif data.dropped > MOST * data.rows:
        yield (
            f"train.max_length: {limit} tokens with truncation: delete drops {_share(data.dropped, data)}; raise it, "
            "or set truncation: right"
            if train.truncation == "delete"
            else f"train.max_length: {limit} tokens leave nothing to learn of {_share(data.dropped, data)}; raise it"
        )
    if data.cut > MOST * data.rows:
        yield f"train.max_length: {limit} tokens cut {_share(data.cut, data)}; raise it, or split the rows"
    if units is not None and train.max_steps is None and total_steps(units, train) < FEW_STEPS:
        yield _few(data, units, train)


def remarks(data: Rows, train: TrainSpec) -> Iterator[str]:
    if data.tokens is None:
        yield "data.tokens is off: tokens, dropped rows and packed rows are not known"
    if 0 < data.dropped <= MOST * data.rows:
        yield f"{_share(data.dropped, data)} will be left out: too long, not to be encoded, or with nothing to learn"
    if 0 < data.cut <= MOST * data.rows:
        yield f"{_share(data.cut, data)} will be cut at {train.max_length} tokens"
    units = data.units(train)
    if train.max_steps and units and units >= train.processes:
        passes = train.max_steps / steps_per_epoch(units, train)
        if passes > 10:
            yield f"max_steps: {train.max_steps} steps go {passes:.0f} times over the data"


def _remedy(data: Rows, train: TrainSpec) -> str:
    if not data.dropped:
        return "give more rows"
    return "raise max_length" + (" or set truncation: right" if train.truncation == "delete" else "")


def _share(count: int, data: Rows) -> str:
    return f"{'' if data.exact else 'about '}{count} of {data.rows} rows ({count / data.rows:.0%})"


def _few(data: Rows, units: int, train: TrainSpec) -> str:
    steps = total_steps(units, train)
    packed = f", packed into {units}" if train.packing is True else ""
    ways = list(_more_steps(data, units, train))
    return (
        f"train.epochs: {data.kept} rows{packed}, in batches of {train.global_batch_size}, make {steps} optimizer "
        f"step{'s' if steps > 1 else ''} in all; "
        + (f"set {', or '.join(ways)}; " if ways else "")
        + "or give max_steps, if so few are meant"
    )


def _more_steps(data: Rows, units: int, train: TrainSpec) -> Iterator[str]:
    """Settings, each of which alone makes at least FEW_STEPS steps."""
    if train.packing is True:
        unpacked = train.model_copy(update={"packing": False})
        steps = total_steps(data.kept, unpacked)
        if steps >= FEW_STEPS:
            yield f"packing: false ({steps} steps)"
    batch = train.global_batch_size // 2
    while batch >= train.processes:
        if batch % train.processes == 0:
            micro = math.gcd(batch // train.processes, _micro(train))
            smaller = train.model_copy(update={"global_batch_size": batch, "micro_batch_size": micro})
            steps = total_steps(units, smaller)
            if steps >= FEW_STEPS:
                yield f"global_batch_size: {batch} ({steps} steps)"
                break
        batch //= 2
    epochs = math.ceil(FEW_STEPS / steps_per_epoch(units, train))
    longer = train.model_copy(update={"epochs": float(epochs)})
    yield f"epochs: {epochs} ({total_steps(units, longer)} steps)"


def _micro(train: TrainSpec) -> int:
    assert isinstance(train.micro_batch_size, int)
    return train.micro_batch_size
