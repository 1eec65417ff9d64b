"""Starts the tracker beside a run and ends it: a follower process that reads the run directory, see experiment.py."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PreflightError
from pipeline.files import read_json
from pipeline.recipe import Recipe
from pipeline.settings import child_env

END_TIMEOUT_S = 1860.0
"""The tracker has its own, shorter limits per mode; this one only guards against a bug in it."""
CHECK_TIMEOUT_S = 30.0
MODES = {"cloud": "online", "online": "online", "local": "local", "offline": "offline", "disabled": "disabled"}


@dataclass(frozen=True)
class Tracking:
    """Where the experiment goes; `remark` says why, where the user may wonder."""

    mode: str
    settings: Mapping[str, Any]
    remark: str = ""


def tracking(recipe: Recipe, runs: Path, env: Mapping[str, str]) -> Tracking:
    """Settings of the recipe, completed by SWANLAB_* in the environment or .env."""
    spec = recipe.tracking
    remark = ""
    mode: str = spec.mode
    has_key = bool(env.get("SWANLAB_API_KEY"))
    if mode == "auto":
        asked = env.get("SWANLAB_MODE", "").strip().lower()
        if asked and asked not in MODES:
            raise PreflightError(f"SWANLAB_MODE={asked}: should be one of online, local, offline, disabled")
        mode = MODES[asked] if asked else ("online" if has_key and not recipe.runtime.offline else "local")
        if not asked and not has_key:
            remark = "no SWANLAB_API_KEY is set: the experiment is kept on this machine (`make dashboard` shows it)"
    if mode == "online" and not has_key:
        mode, remark = "local", "tracking.mode is online but SWANLAB_API_KEY is not set: kept on this machine instead"
    settings = {
        "mode": mode,
        "project": spec.project or env.get("SWANLAB_PROJECT") or "finetune",
        "workspace": spec.workspace or env.get("SWANLAB_WORKSPACE"),
        "experiment": spec.experiment or recipe.name,
        "description": spec.description or recipe.description,
        "tags": list(spec.tags),
        "group": spec.group or env.get("SWANLAB_GROUP"),
        "log_dir": str(log_dir(runs)),
        "config": recipe.model_dump(mode="json", exclude_none=True),
    }
    return Tracking(mode, settings, remark)


def log_dir(runs: Path) -> Path:
    return runs / "swanlog"


class Follower:
    """At most one tracker process per pipeline call, started by the first stage that runs."""

    def __init__(self, tracking: Tracking, run_dir: Path, env: Mapping[str, str]) -> None:
        self._tracking = tracking
        self._run_dir = run_dir
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None

    def check(self) -> None:
        """PreflightError if online tracking cannot work: a wrong key, or no network."""
        if self._tracking.mode != "online":
            return
        done = subprocess.run(
            [sys.executable, "-m", "pipeline.tracking", "--check"],
            env=self._child_env(), capture_output=True, text=True, timeout=CHECK_TIMEOUT_S, check=False,
        )  # fmt: skip
        if done.returncode:
            raise PreflightError(f"SwanLab: {done.stdout.strip() or done.stderr.strip().splitlines()[-1:]}")

    def is_behind(self, folders: Mapping[str, str]) -> bool:
        """Whether no finished experiment holds these stages (folder name -> label): none yet, or one that failed."""
        state = read_json(self._run_dir / "tracking.json") or {}
        same = state.get("stages") == {label: name for name, label in folders.items()}
        return not (same and state.get("mode") == self._tracking.mode and state.get("state") == "finished")

    def start(self) -> None:
        if self._tracking.mode == "disabled" or self._process:
            return
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.tracking", str(self._run_dir)],
            env=self._child_env(), stdin=subprocess.PIPE,
        )  # fmt: skip

    def end(self, *, ok: bool) -> str | None:
        """Tell the tracker that the run is over, wait for it, and say where the experiment is (None: there is none)."""
        if self._process is None or self._process.stdin is None:
            return self._where()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(b"end ok\n" if ok else b"end failed\n")
            self._process.stdin.close()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return "SwanLab: the tracker did not finish in time and was ended; results are not affected"
        return self._where()

    def _where(self) -> str | None:
        state = read_json(self._run_dir / "tracking.json")
        if not state or self._tracking.mode == "disabled":
            return None
        if state.get("error"):
            return f"SwanLab: {state['error']} (results are not affected)"
        if state.get("url"):
            return f"SwanLab: {state['url']}"
        if self._tracking.mode == "offline":
            return f"SwanLab: kept offline in {log_dir_text(self._tracking)}; `swanlab sync` uploads it"
        return f"SwanLab: make dashboard   (swanlab watch {log_dir_text(self._tracking)})"

    def _child_env(self) -> dict[str, str]:
        env = child_env(self._env, ("SWANLAB_API_KEY",))
        return env | {"PIPELINE_TRACKING": json.dumps(self._tracking.settings)}


def log_dir_text(tracking: Tracking) -> str:
    """The log folder as the user would type it."""
    folder = Path(tracking.settings["log_dir"])
    with contextlib.suppress(ValueError):
        return str(folder.relative_to(Path.cwd()))
    return str(folder)
