"""Streams a run directory to one SwanLab experiment; a process of its own, and the only module that touches swanlab.

    python -m pipeline.tracking RUN_DIR     follow RUN_DIR until standard input says `end ok` or `end failed`
    python -m pipeline.tracking --check     can the tracker be used at all? exit 3 and one line if not

Settings arrive as JSON in PIPELINE_TRACKING (`process.Settings`), the key in SWANLAB_API_KEY. A bare end of
file on standard input means that the pipeline died: the experiment ends as crashed. What became of it is in
RUN_DIR/tracking.json, what swanlab printed in RUN_DIR/tracking.log. A tracker that fails says so in one line and exits
with 0: it never costs a run.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

from pipeline.tracking import pictures, process, store, view
from pipeline.tracking.process import Mode, Settings

POLL_S = 1.0
FINISH_LIMIT_S = {"online": 120.0, "local": 1800.0, "offline": 300.0}
"""After `end`: what hangs longer is given up, and the next call sends the rest. Local mode stores some 500 values/s."""
CHECK_LIMIT_S = 10.0
_TOO_SLOW = {"state": "error", "error": "not finished in time; the next call sends the rest"}
_REMEDY = "check network and proxy, or set tracking.mode to local or offline"
_KEPT_VARIABLES = frozenset(f"SWANLAB_{name}" for name in ("API_KEY", "API_HOST", "WEB_HOST", "ROOT", "SAVE_DIR"))


def main(argv: list[str]) -> int:
    if len(argv) != 1:
        sys.exit("usage: python -m pipeline.tracking RUN_DIR | --check")
    if argv[0] == "--check":
        if problem := login_problem(Settings.from_environment().mode, CHECK_LIMIT_S):
            print(problem)
        return 3 if problem else 0
    run_dir = Path(argv[0]).resolve()
    process.ignore_stop_signals()
    with process.output_to(run_dir / "tracking.log") as complain:
        try:
            follow(run_dir, Settings.from_environment())
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in the tracker must not cost a run
            message = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            store.update(run_dir, {"error": message, "state": "error"})
            complain(f"tracking stopped, the run goes on: {message} (details: {run_dir / 'tracking.log'})")
    return 0


def follow(run_dir: Path, settings: Settings) -> None:
    """Log what is there, poll for what is new, finish when standard input ends. Raises whatever swanlab raises."""
    before = store.read(run_dir)
    session = int(before.get("sessions", 0))
    _prepare_process(settings)
    # Asked first, because swanlab.init retries for 15 s and then blames the key, whatever it was.
    if problem := login_problem(settings.mode, CHECK_LIMIT_S):
        raise ConnectionError(problem)
    run_id = store.resumable_id(before, _folders(run_dir))
    superseded = store.superseded_by(before, settings.mode, run_id)
    experiment = Experiment.start(settings, run_id, session)
    run = experiment.run
    record = {
        "mode": settings.mode,
        "id": run.id,
        "url": run.url if settings.mode == "online" else None,
        "log_dir": str(settings.log_dir),
        "runs": {**(before.get("runs") or {}), settings.mode: str(run.dir)},
        "dashboard": experiment.how_to_look(),
        "state": "running",
        "error": None,
        "sessions": session + 1,
        "stages": _folders(run_dir),
        "superseded": superseded,
    }
    store.update(run_dir, record)
    try:
        ending = _stream(run_dir, experiment)
    finally:
        if run.alive:  # something failed: not to be taken for a finished one
            run.finish(state="crashed", error="the tracker failed")
    left = [path for path in superseded if not store.remove_experiment(Path(path))]
    if settings.mode == "local":
        store.rename_experiment(run.dir, settings.experiment)
        store.arrange_dashboard(run.dir)
    state = "finished" if ending == "ok" else "crashed"
    store.update(run_dir, {"state": state, "stages": _folders(run_dir), "superseded": left})


def _stream(run_dir: Path, experiment: Experiment) -> process.Ending:
    ending = None
    while ending is None:
        began = time.monotonic()
        if experiment.mode == "local":
            store.arrange_dashboard(experiment.run.dir)
        experiment.log(run_dir, final=False)
        # A long curve takes longer to read: never more than a tenth of one core.
        ending = process.wait_for_end(max(POLL_S, 10 * (time.monotonic() - began)))
    with process.deadline(FINISH_LIMIT_S[experiment.mode], lambda: store.update(run_dir, _TOO_SLOW)):
        experiment.log(run_dir, final=True)
        experiment.finish(ending, run_dir)
    return ending


def _folders(run_dir: Path) -> dict[str, str]:
    return {stage.label: stage.directory.name for stage in view.stages(run_dir)}


def login_problem(mode: str, timeout_s: float) -> str | None:
    """What keeps this mode from working, in one line; None if nothing does. Takes at most `timeout_s` seconds."""
    if mode == "local" and find_spec("swanboard") is None:  # swanlab would go on, and show nothing
        return "the local SwanLab dashboard is not installed: pip install 'swanlab[dashboard]'"
    if mode != "online":
        return None
    answer: list[str | None] = []
    # In a thread, because looking up a name knows no timeout.
    (thread := threading.Thread(target=lambda: answer.append(_try_login(timeout_s)), daemon=True)).start()
    thread.join(timeout_s)
    return answer[0] if answer else f"SwanLab did not answer within {timeout_s:g} s: {_REMEDY}"


def _try_login(timeout_s: float) -> str | None:
    _drop_variables()
    settings = importlib.import_module("swanlab").Settings(_env_file=None)
    if not settings.api_key:
        return "SWANLAB_API_KEY is not set: put it into .env, or set tracking.mode to local or offline"
    host = settings.api_host
    session = importlib.import_module("swanlab.sdk.internal.pkg.client.session")
    errors = importlib.import_module("swanlab.exceptions")
    try:
        with session.create(timeout=timeout_s, default_retry=0) as client:
            client.post(f"{host}/api/login/api_key", headers={"authorization": settings.api_key}, log_error=False)
    except errors.ApiError as error:
        status = getattr(error.response, "status_code", None)
        if status in (400, 401, 403):
            return f"{host} refuses SWANLAB_API_KEY (HTTP {status}): copy the key again from SwanLab's settings page"
        return f"{host} answers HTTP {status}: the service has a problem; {_REMEDY}"
    except OSError as error:  # what requests raises
        return f"no connection to {host} ({type(error).__name__}): {_REMEDY}"
    return None


def _prepare_process(settings: Settings) -> None:
    """Keep other settings out: SWANLAB_PROJECT=x, in the environment or a .env here, ends swanlab.init in an error."""
    _drop_variables()
    settings.log_dir.mkdir(parents=True, exist_ok=True)
    os.chdir(settings.log_dir)


def _drop_variables() -> None:
    variables = os.environ  # noqa: TID251 - swanlab reads its settings there and nowhere else
    for name in [name for name in variables if name.startswith("SWANLAB_")]:
        if name not in _KEPT_VARIABLES or not variables[name]:
            del variables[name]


@dataclass
class Experiment:
    """One SwanLab run and what it has been told already."""

    swanlab: Any
    run: Any
    mode: Mode
    session: int
    logged: dict[tuple[str, int], float] = field(default_factory=dict)
    noted: dict[str, view.Note] = field(default_factory=dict)

    @staticmethod
    def start(settings: Settings, run_id: str | None, session: int) -> Experiment:
        swanlab = importlib.import_module("swanlab")
        run = swanlab.init(
            mode=settings.mode,
            log_dir=str(settings.log_dir),
            project=settings.project,
            workspace=settings.workspace,
            name=settings.experiment,
            description=(settings.description or "")[:1024] or None,
            tags=[*settings.tags][:30],
            group=settings.group,
            id=run_id,
            resume="allow" if run_id else None,
            # Below one key: each top-level key becomes a column of the dashboard, before the metrics.
            config={"recipe": settings.config},
            settings=swanlab.Settings(
                interactive=False, _env_file=None, probe={"git": False}, terminal={"proxy_type": "none"}
            ),
        )
        _number_columns_from_zero(run)
        return Experiment(swanlab, run, settings.mode, session)

    def how_to_look(self) -> str:
        if self.mode == "online":
            return str(self.run.url)
        return "make dashboard" if self.mode == "local" else f"swanlab sync --id {self.run.id} {self.run.dir}"

    def log(self, run_dir: Path, *, final: bool) -> None:
        """Tell what is new. The report counts only in the final pass; before, the file may be the last call's."""
        points = view.points(run_dir, with_report=final)
        new = [point for point in points if self.logged.get((point.key, point.step)) != point.value]
        for step, group in groupby(new, key=lambda point: point.step):
            numbers = {point.key: point.value for point in group}
            self.run.log(numbers, step=step)
            self.logged |= {(key, step): value for key, value in numbers.items()}
        for note in view.notes(run_dir, with_report=final):
            if self.noted.get(note.key) != note:
                rows = [self.swanlab.Text(text, caption=caption) for caption, text in note.rows]
                self.run.log({note.key: rows}, step=self._media_step(note.key))
                self.noted[note.key] = note
        if final:
            self._log_pictures(run_dir)

    def finish(self, ending: process.Ending, run_dir: Path) -> Any:
        if ending == "ok":
            return self.run.finish()
        failed = [stage.label for stage in view.stages(run_dir) if stage.status == "failed"] or ["the pipeline"]
        return self.run.finish(state="crashed", error=f"{ending}: {', '.join(failed)}")

    def _media_step(self, key: str) -> int:
        # Online a step that is there already is not replaced, so a later call's report needs a step of its own.
        return self.session if self.mode == "online" and key.startswith("report/") else 0

    def _log_pictures(self, run_dir: Path) -> None:
        # Pictures, since the local dashboard shows neither echarts nor HTML.
        for key, picture in pictures.pictures(run_dir):
            self.run.log({key: self.swanlab.Image(picture)}, step=self._media_step(key))


def _number_columns_from_zero(run: Any) -> None:
    """Put right the dashboard's table, where each column shows the value of the one before it.

    swanlab 0.10.3 numbers the folders of metrics from 1, swanboard 0.1.10b2 looks them up by a number from 0. Without
    such a counter nothing is touched.
    """
    manager = getattr(getattr(run, "_ctx", None), "callbacker", None)
    for callback in getattr(manager, "registered_callbacks", ()):
        if getattr(callback, "_next_kid", None) == 1:
            callback._next_kid = 0  # noqa: SLF001 - see above; a test watches what the dashboard then shows
