"""Which local files hold the items that a benchmark scores, by the layouts that lm-eval and EvalScope load."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.errors import InputError
from data_prep.sources import METADATA

_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
_SPLITS = {
    "test": "test",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "eval": "validation",
    "dev": "dev",
    "train": "train",
    "training": "train",
}
_SPLIT_WORD = re.compile(rf"(?<![a-z])({'|'.join(sorted(_SPLITS, key=len, reverse=True))})(?![a-z])")
_SHARD = re.compile(r"-\d+-of-\d+")
_SCORED = {
    # Their test labels are not public, or the harnesses chose so (lm-eval's packaged tasks, EvalScope's `eval_split`).
    "validation": (
        "boolq cb ceval cola commonsense_qa coqa copa drop general_mcq glue hellaswag mnli mrpc multirc mutual nq_open "
        "piqa qnli qqp record rte siqa social_iqa squad sst2 super_glue swag triviaqa truthfulqa wic winogrande wnli"
    ).split(),
    "train": ["ifeval", "aime"],  # published with this one split
}
_MAX_INCLUDES = 8


def eval_files(name: str, path: Path, split: str | None = None) -> list[EvalFile]:
    """The files with the items that benchmark ``name`` scores, found under ``path``, in a fixed order.

    ``path`` is a data file, which is taken whole; a folder with lm-eval task files, of which the one whose ``task`` is
    ``name`` says where its data are; a folder whose ``README.md`` declares ``configs``; or any other folder with data
    files, whose names and folders tell the split. Without ``split`` the test split is taken, else validation, else
    dev; the benchmarks of `_SCORED` know better. Raises InputError when nothing fits.
    """
    if path.is_file():
        return _task_files(name, path.parent, [path]) if _is_yaml(path) else [EvalFile(path.name, path)]
    if not path.is_dir():
        raise InputError(
            f"{path}: no such file or folder; give the benchmark {name} as NAME=PATH of its data file, its folder, or "
            f"the folder of its lm-eval task file"
        )
    tasks = sorted(file for file in path.rglob("*") if _is_yaml(file))
    if tasks and (found := _task_files(name, path, tasks, split)):
        return found
    order = _preference(name, split)
    configs = _readme_configs(path)
    found = _config_files(name, path, configs, order) if configs else _named_files(name, path, order)
    if not found:
        raise InputError(_nothing(name, path, order, tasks))
    return found


def _nothing(name: str, path: Path, order: Sequence[str], tasks: Sequence[Path]) -> str:
    there = [file.relative_to(path).as_posix() for file in sorted(path.rglob("*")) if file.is_file()]
    shown = ", ".join(there[:8]) + (", ..." if len(there) > 8 else "")
    known = sorted({str(task["task"]) for file in tasks if isinstance((task := _yaml(file)).get("task"), str)})
    also = f"; its task files define {', '.join(known[:8])}" if known else ""
    return (
        f"{path}: found no items of {name} (wanted a split called {' or '.join(order)}; there is: "
        f"{shown or 'nothing'}{also}). Name the data file itself: {name}=PATH/FILE"
    )


def _preference(name: str, split: str | None) -> list[str]:
    if split is not None:
        return [_SPLITS.get(split, split)]
    order = ["test", "validation", "dev"]
    known = name.lower().replace("-", "_")
    for first, names in _SCORED.items():
        if any(known == prefix or known.startswith(f"{prefix}_") for prefix in names):
            return [first, *(other for other in order if other != first)]
    return order


def _named_files(name: str, folder: Path, order: Sequence[str]) -> list[EvalFile]:
    """Data files by their names: of each subset (the path without its split) the first split of ``order`` it has."""
    subsets: dict[str, dict[str, list[EvalFile]]] = {}
    seen: set[str] = set()
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        label = path.relative_to(folder).as_posix()
        if label.startswith(".") or "/." in label or path.name in METADATA or not path.is_file():
            continue
        plain = label.lower().removesuffix(".gz")
        if not plain.endswith(_SUFFIXES):
            continue
        stem = _SHARD.sub("", plain.rpartition(".")[0])
        words = _SPLIT_WORD.findall(stem)
        # The last word names the split: high_school_test_prep/dev.jsonl is dev.
        split = _SPLITS[words[-1]] if words else ""
        seen.add(split)
        subset = re.sub(r"[^a-z0-9]+", "_", _SPLIT_WORD.sub("", stem)).strip("_")
        subsets.setdefault(subset, {}).setdefault(split, []).append(EvalFile(label, path))
    wanted = [split for split in order if split != "dev" or not seen.intersection(order) - {"dev"}]
    # A file without a split in its name counts where names tell nothing at all, and for EvalScope's own-data sets.
    if not seen.intersection(wanted) or name.startswith("general_"):
        wanted = [*wanted, ""]
    found = [next((splits[split] for split in wanted if split in splits), []) for splits in subsets.values()]
    return sorted(file for files in found for file in files)


def _readme_configs(folder: Path) -> list[Mapping[str, Any]]:
    """``configs`` out of the front matter of ``README.md``; none when there is no such thing."""
    readme = folder / "README.md"
    if not readme.is_file():
        return []
    text = readme.read_text(encoding="utf-8-sig", errors="replace")
    match = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    if match is None:
        return []
    import yaml

    try:
        front = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        raise InputError(f"{readme}: its front matter is not YAML ({_one_line(error)}): mend or remove it") from error
    configs = front.get("configs") if isinstance(front, dict) else None
    return [config for config in configs or () if isinstance(config, dict) and config.get("data_files")]


def _config_files(
    name: str, folder: Path, configs: Sequence[Mapping[str, Any]], order: Sequence[str]
) -> list[EvalFile]:
    """The files of the config that ``name`` ends with (mmlu_anatomy: anatomy), of all configs where none is meant."""
    known = _spelt(name)
    named = [config for config in configs if f"_{known}".endswith(f"_{_spelt(str(config.get('config_name')))}")]
    found: dict[Path, EvalFile] = {}
    for config in named or configs:
        files = config["data_files"]
        entries = files if isinstance(files, list) else [files]
        splits: dict[str, list[str]] = {}
        for entry in entries:
            pair = entry if isinstance(entry, dict) else {"split": "", "path": entry}
            declared = str(pair.get("split", ""))
            paths = pair.get("path", [])
            splits.setdefault(_SPLITS.get(declared, declared), []).extend([paths] if isinstance(paths, str) else paths)
        chosen = next((splits[split] for split in [*order, ""] if split in splits), [])
        for pattern in chosen:
            matched = sorted(folder.glob(pattern))
            if not matched:
                raise InputError(f"{folder / 'README.md'}: no file matches {pattern}, which its configs declare")
            found |= {path: EvalFile(path.relative_to(folder).as_posix(), path) for path in matched}
    return list(found.values())


def _task_files(name: str, folder: Path, tasks: Sequence[Path], split: str | None = None) -> list[EvalFile]:
    """The data of the lm-eval task (or group of tasks) ``name``; nothing when no file defines it."""
    for path in tasks:
        config = _yaml(path)
        if config.get("group") == name and isinstance(config.get("task"), list):
            members = [str(member) for member in config["task"] if isinstance(member, str) and member != name]
            found = {file.path: file for member in members for file in _task_files(member, folder, tasks, split)}
            return list(found.values())
        if config.get("task") == name:
            return list(_declared(name, folder, path, config, split))
    return []


def _declared(name: str, folder: Path, task: Path, config: Mapping[str, Any], split: str | None) -> Iterator[EvalFile]:
    kwargs = config.get("dataset_kwargs")
    files = kwargs.get("data_files") if isinstance(kwargs, dict) else None
    source = config.get("dataset_path")
    base = Path(kwargs["data_dir"]) if isinstance(kwargs, dict) and kwargs.get("data_dir") else Path()
    if not files:
        local = _existing(str(source), base, task, folder) if source else []
        if local:
            yield from eval_files(name, local[0], split or config.get("test_split") or config.get("validation_split"))
            return
        raise InputError(
            f"{task}: task {name} reads {source!r}, which is no local data, so its items cannot be compared. Download "
            f"the benchmark and name its folder: {name}=FOLDER"
        )
    splits = files if isinstance(files, dict) else {"train": files}  # what `datasets` calls files without a split
    order = [split, config.get("test_split"), config.get("validation_split"), *(() if len(splits) > 1 else splits)]
    scored = next((splits[key] for key in order if key in splits), None)
    if scored is None:
        raise InputError(f"{task}: data_files has the splits {', '.join(splits)}; set test_split to one of them")
    for file in [scored] if isinstance(scored, str) else scored:
        found = _existing(str(file), base, task, folder)
        if not found:
            raise InputError(
                f"{task}: data file {file} was found neither in the working directory {Path.cwd()} nor beside the "
                f"task file: start from where it is, or give its full path"
            )
        for path in found:
            yield EvalFile(path.name, path)


def _existing(file: str, base: Path, task: Path, folder: Path) -> list[Path]:
    """``file`` (or the files its glob matches) from the working directory, the task file's folder or ``folder``."""
    for start in (Path(), task.parent, folder):
        path = start / base / file
        if path.exists():
            return [path]
        if any(mark in file for mark in "*?["):
            parts = path.parts
            root = Path(path.anchor)
            matched = sorted(root.glob(str(Path(*parts[1:]))) if path.is_absolute() else Path().glob(str(path)))
            if matched:
                return matched
    return []


def _yaml(path: Path, depth: int = 0) -> dict[str, Any]:
    """A task file with what it includes; tags such as ``!function`` are read as nothing."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Of its own, so that the constructor below does not change `yaml.SafeLoader` for everybody."""

    Loader.add_multi_constructor("!", lambda *_: None)
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a YAML file ({_one_line(error)}): mend it, or move it elsewhere") from error
    if not isinstance(config, dict):
        return {}
    included = config.get("include")
    if isinstance(included, str) and depth < _MAX_INCLUDES and (path.parent / included).is_file():
        return {**_yaml(path.parent / included, depth + 1), **config}
    return config


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _is_yaml(path: Path) -> bool:
    return path.suffix.lower() in {".yaml", ".yml"} and path.is_file()


def _spelt(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


class EvalFile(NamedTuple):
    """One file with items: ``label`` is its name in reports, relative to what the user named."""

    label: str
    path: Path
