"""Whether the installed harnesses can do what the suites ask, as far as that shows before anything starts."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.catalog import local_data, lookup
from pipeline.catalog.entries import COLUMNS, ENTRIES
from pipeline.catalog.entry import HarnessName
from pipeline.catalog.installed import TASKS, Task, evalscope_set, known, lm_eval_task, names
from pipeline.catalog.task_index import Names, scan
from pipeline.harnesses.base import benchmarks
from pipeline.provenance import version
from pipeline.recipe import Recipe
from pipeline.settings import LOOPBACK
from pipeline.suites import Benchmark, EvalScopeSpec, LmEvalSpec

DISTRIBUTIONS: Mapping[HarnessName, str] = {"lm_eval": "lm-eval", "evalscope": "evalscope"}
CALLED: Mapping[HarnessName, str] = {"lm_eval": "lm-eval", "evalscope": "EvalScope"}
OWN_DATA = ("general_mcq", "general_qa")
"""EvalScope's data sets for the user's own files, which say themselves what they hold."""


@dataclass(frozen=True)
class Installed:
    """The names each installed harness knows; an empty list (not installed) is nobody's mistake here."""

    cache_dir: Path | None

    @cached_property
    def lm_eval(self) -> Names:
        return names("lm_eval", self.cache_dir)

    @cached_property
    def evalscope(self) -> Names:
        return names("evalscope", self.cache_dir)

    def of(self, suite: LmEvalSpec | EvalScopeSpec) -> Names:
        """Names that the suite's harness knows, with our tasks and those of the suite's own folder."""
        if isinstance(suite, EvalScopeSpec):
            return self.evalscope
        own = {**scan(TASKS), **(scan(suite.include_path) if suite.include_path else {})}
        if all(asked.name in own for asked in benchmarks(suite)):
            return own  # nothing of lm-eval's own is asked, so its 14,000 files need not be looked at
        return {**self.lm_eval, **own} if self.lm_eval else {}


def problems(recipe: Recipe, installed: Installed, env: Mapping[str, str]) -> Iterator[str]:
    """Everything the suites of a resolved recipe ask that their harness cannot do, with the remedy."""
    for index, suite in enumerate(recipe.eval):
        if suite.data_root and not suite.data_root.is_dir():
            yield f"eval[{index}].data_root: {suite.data_root}: no such folder"
    for where, suite, asked in _asked(recipe):
        found = installed.of(suite)
        if not found:
            continue
        if not (asked.name in found or (suite.harness == "lm_eval" and known(asked.name, found))):
            yield f"{where}: {_unknown(asked.name, suite.harness, installed)}"
            continue
        task = lm_eval_task(asked.name, found) if suite.harness == "lm_eval" else evalscope_set(asked.name)
        if task is None:
            continue
        yield from (f"{where}: {text}" for text in _needs(recipe, suite, asked, task, env))
        if asked.path and asked.path.is_dir() and asked.name not in OWN_DATA:
            wrong = (
                _lm_eval_folder(asked, task, asked.path, suite.num_fewshot)
                if isinstance(suite, LmEvalSpec)
                else _evalscope_folder(asked, task, asked.path)
            )
            yield from (f"{where}: {text}" for text in wrong)


def remarks(recipe: Recipe, installed: Installed) -> Iterator[str]:
    """What a `limit` comes to where a benchmark has several parts, each of which is limited."""
    for where, suite, asked in _asked(recipe):
        found = installed.of(suite)
        task = lm_eval_task(asked.name, found) if suite.harness == "lm_eval" else evalscope_set(asked.name)
        if suite.limit is None or task is None:
            continue
        parts = len(_subsets(asked, task))
        if parts > 1:
            kind = "tasks" if suite.harness == "lm_eval" else "subsets"
            yield f"{where}: limit {suite.limit} is for each of {parts} {kind}: up to {parts * suite.limit:,} questions"


def _asked(recipe: Recipe) -> Iterator[tuple[str, LmEvalSpec | EvalScopeSpec, Benchmark]]:
    for index, suite in enumerate(recipe.eval):
        section = "tasks" if suite.harness == "lm_eval" else "datasets"
        for asked in benchmarks(suite):
            if asked.name not in recipe.benchmarks:
                yield f"eval[{index}].{section}.{asked.name}", suite, asked


def _unknown(name: str, harness: HarnessName, installed: Installed) -> str:
    here, other = (installed.lm_eval, installed.evalscope)[:: 1 if harness == "lm_eval" else -1]
    there: HarnessName = "evalscope" if harness == "lm_eval" else "lm_eval"
    text = f"{CALLED[harness]} {version(DISTRIBUTIONS[harness])} has no such benchmark"
    named = lookup.find(name, there)
    own = name if name in other else named.entry.own(there) if named else None
    if named and named.entry.own(harness):
        text += f"; it is called {named.entry.name} here"
    elif own:
        text += f"; {CALLED[there]} has it: put it into a suite with `harness: {there}`"
    common = [entry.name for entry in ENTRIES.values() if entry.own(harness)]
    near = [word for offered in (common, list(here)) for word in difflib.get_close_matches(name, offered, 3, 0.4)]
    if near:
        text += f"; nearest in {CALLED[harness]}: {', '.join(list(dict.fromkeys(near))[:3])}"
    return text + f" (`python -m pipeline.benchmarks WORD --harness {harness}` searches)"


def _needs(
    recipe: Recipe, suite: LmEvalSpec | EvalScopeSpec, asked: Benchmark, task: Task, env: Mapping[str, str]
) -> Iterator[str]:
    served = [model for model in recipe.models if model.url]
    template = recipe.chat_template if suite.chat_template is None else suite.chat_template
    if "likelihood" in task.needs and any(template or not model.tokenizer for model in served):
        yield (
            "is scored by log-likelihoods, which a chat endpoint does not give; evaluate a local model (model.path), "
            "ask it in writing (EvalScope does), or, where the server echoes log-probabilities (vLLM), set "
            "`chat_template: false` and model.tokenizer"
        )
    if "code" in task.needs and not suite.unsafe_code and not {"sandbox", "use-sandbox"} & suite.extra_args.keys():
        yield "runs code that the model writes, on this machine; set `unsafe_code: true` on the suite to allow it"
    shots = asked.args.get("few_shot_num")
    without = task.examples_within and not (task.few_shot or asked.args.get("train_split"))
    if suite.harness == "evalscope" and shots and without:
        yield f"EvalScope has no split with examples for it, so few_shot_num can only be 0, and not {shots}"
    if "judge" in task.needs and isinstance(suite, EvalScopeSpec):
        if suite.judge is None:
            yield "is graded by a judge model; add `judge: {url: .../v1, model: NAME}` to the suite, its key by key_env"
        elif not env.get(suite.judge.key_env) and urlsplit(suite.judge.url).hostname not in LOOPBACK:
            yield f"no key for the judge in {suite.judge.key_env}; put it into .env or the environment"


def _lm_eval_folder(asked: Benchmark, task: Task, folder: Path, num_fewshot: int | None) -> Iterator[str]:
    declared = local_data.configs(folder)
    wanted = [name for name in task.configs if asked.args.get("dataset_name", name) == name]
    lacking = [name for name in wanted if name not in declared]
    if lacking:
        some = ", ".join(lacking[:3]) + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
        has = f"declares {', '.join(list(declared)[:5])}" if declared else "declares none"
        yield f"{folder}/README.md {has}, but {some} would be read; see docs/benchmarks.md"
        return
    there = local_data.splits(folder, wanted[0] if wanted else None)
    if not there:
        yield f"{folder}: no data files that can be read (JSONL, CSV, TSV, Parquet)"
        return
    yield from _columns("lm_eval", asked.name, folder, wanted[0] if wanted else None)
    split = {key: asked.args.get(f"{key}_split", default) for key, default in task.splits.items()}
    question = split.get("test") or split.get("validation")
    if question not in there:
        yield f"{folder} has {_list(there)}, and none of the splits that are asked: {_list(set(task.splits.values()))}"
    shots = task.few_shot if num_fewshot is None else num_fewshot
    # lm-eval takes the examples out of the first of these that is given, of the questions themselves if none is.
    source = split.get("fewshot") or split.get("training") or split.get("validation")
    if shots and not task.examples_within and (source not in there or source == question):
        yield _no_examples(shots, folder, there, "num_fewshot: 0")


def _evalscope_folder(asked: Benchmark, task: Task, folder: Path) -> Iterator[str]:
    declared = local_data.configs(folder)
    # A data set that is cut into subsets after loading has one configuration for all of them ("all", "main").
    lacking = [name for name in _subsets(asked, task) if name not in declared]
    if set(task.subsets) & declared.keys() and "all" not in declared and lacking:
        yield (
            f"{folder}/README.md declares {', '.join(list(declared)[:5])}, but not {', '.join(lacking[:3])}; "
            "name the subsets to be asked by `args: {subset_list: [...]}`"
        )
        return
    there = local_data.splits(folder)
    if not there:
        yield f"{folder}: no data files that can be read (JSONL, CSV, TSV, Parquet)"
        return
    yield from _columns(
        "evalscope", asked.name, folder, next((s for s in _subsets(asked, task) if s in declared), None)
    )
    question = asked.args.get("eval_split", task.splits.get("test"))
    if question not in there:
        yield f"{folder} has {_list(there)}, but split {question} is asked; name another by `args: {{eval_split: ...}}`"
    shots = asked.args.get("few_shot_num", task.few_shot)
    source = asked.args.get("train_split", task.splits.get("fewshot"))
    if shots and source and source not in there:
        yield _no_examples(shots, folder, there, "args: {few_shot_num: 0}")


def _columns(harness: HarnessName, name: str, folder: Path, config: str | None) -> Iterator[str]:
    named = lookup.find(name, harness)
    wanted = COLUMNS[harness].get(named.entry.name, "").split() if named else []
    there = local_data.columns(folder, config)
    lacking = [column for column in wanted if column not in there]
    if there and lacking:
        yield (
            f"{folder} has the columns {_list(there)}, but {CALLED[harness]} reads {', '.join(wanted)}; "
            f"add {', '.join(lacking)}"
        )


def _no_examples(shots: object, folder: Path, there: set[str], remedy: str) -> str:
    return (
        f"{shots} examples in each prompt are asked for, but {folder} has {_list(there)} and no split to take them "
        f"from; set `{remedy}`, or add the split"
    )


def _list(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _subsets(asked: Benchmark, task: Task) -> list[str]:
    chosen = asked.args.get("subset_list")
    return [str(name) for name in chosen] if isinstance(chosen, list) else list(task.subsets)
