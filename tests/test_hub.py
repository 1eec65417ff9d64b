"""pipeline.hub against loopback stand-ins of both hubs: the real client libraries, each run in its own process."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import PreflightError
from pipeline.hub import shared, snapshots
from tests.hubs import COMMIT, HuggingFace, ModelScope, serving

HUBS = ("huggingface", "modelscope")
KINDS = ("model", "dataset")
TOKEN = "canary-5e0c9a7d41b2"
WEIGHTS = random.Random(1).randbytes(3_000_000)
ROWS = random.Random(2).randbytes(3_000_000)
FILES = {
    "model": {
        "config.json": b'{"model_type": "llama"}',
        "model.safetensors": WEIGHTS,
        "pytorch_model.bin": b"\x80\x04pickled" * 200_000,
        "nested/tokenizer.json": "{“é”}".encode(),
    },
    "dataset": {"README.md": b"# data\n", "data/train.jsonl": ROWS, "data/empty.txt": b""},
}
BIG = {"model": "model.safetensors", "dataset": "data/train.jsonl"}


class Site:
    """A stand-in hub and a client machine with caches of its own."""

    def __init__(self, name: str, root: Path) -> None:
        self.name, self.root, self.endpoint = name, root, ""
        repositories = {(kind, f"own.er/Some-{kind}.v1"): FILES[kind] for kind in KINDS}
        self.hub = HuggingFace(repositories) if name == "huggingface" else ModelScope(repositories)

    def environment(self, **extra: str) -> dict[str, str]:
        keep = {name: os.environ[name] for name in ("PATH", "LANG", "VIRTUAL_ENV") if name in os.environ}
        hosts = "127.0.0.1,localhost"
        return keep | {
            "HOME": str(self.root / "home"),
            "HF_HOME": str(self.root / "hf"),
            "MODELSCOPE_CACHE": str(self.root / "ms"),
            "HF_ENDPOINT": self.endpoint,
            "MODELSCOPE_DOMAIN": self.endpoint,
            "HF_TOKEN": TOKEN,
            "MODELSCOPE_API_TOKEN": TOKEN,
            "NO_PROXY": hosts,
            "no_proxy": hosts,
            **extra,
        }

    def command(self, kind: str, *arguments: str, name: str | None = None) -> list[str]:
        name = name or f"own.er/Some-{kind}.v1"
        return [sys.executable, "-m", "pipeline.hub", kind, self.name, name, "--out", str(self.out), *arguments]

    @property
    def out(self) -> Path:
        return self.root / "out"

    def run(
        self, kind: str, *arguments: str, name: str | None = None, **extra: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(kind, *arguments, name=name),
            env=self.environment(**extra),
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def check(self, kind: str, done: subprocess.CompletedProcess[str]) -> dict[str, object]:
        """The run succeeded, and everything published is exactly what the hub holds."""
        assert done.returncode == 0, done.stderr
        link = self.out / f"Some-{kind}.v1"
        assert done.stdout == f"{link}\n"
        expected = {path: content for path, content in FILES[kind].items() if path != "pytorch_model.bin"}
        assert {path: (link / path).read_bytes() for path in expected} == expected
        assert not (link / "pytorch_model.bin").exists()
        record: dict[str, object] = json.loads((self.out / "snapshot.json").read_text())
        assert record["files"] == [{"path": path, "size": len(content)} for path, content in sorted(expected.items())]
        assert record["bytes"] == sum(map(len, expected.values()))
        assert (record["hub"], record["kind"], record["id"]) == (self.name, kind, f"own.er/Some-{kind}.v1")
        assert link.is_symlink() and str(link.readlink()) == record["folder"]
        assert TOKEN not in done.stdout + done.stderr
        return record


@pytest.fixture(params=HUBS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    site = Site(request.param, tmp_path)
    with serving(site.hub) as site.endpoint:
        yield site


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_download_goes_on_and_then_works_offline(site: Site, kind: str) -> None:
    big = BIG[kind]
    site.hub.faults[big] = "cut"
    record = site.check(kind, site.run(kind))
    assert record["revision"] == (COMMIT if site.name == "huggingface" else None)
    assert record["revision_asked"] is None
    assert site.hub.starts(big) == [0, len(FILES[kind][big]) // 2]
    assert site.hub.sent(big) == len(FILES[kind][big])
    assert site.hub.tokens == {TOKEN}

    transfers = len(site.hub.transfers)
    site.check(kind, site.run(kind))
    assert len(site.hub.transfers) == transfers, "a complete snapshot was downloaded again"

    asked = len(site.hub.asked)
    site.check(kind, site.run(kind, HF_HUB_OFFLINE="1"))
    assert len(site.hub.asked) == asked, "offline, yet the hub was asked"


def test_a_killed_download_goes_on_in_the_next_process(site: Site) -> None:
    site.hub.faults["model.safetensors"] = "stall"
    with subprocess.Popen(
        site.command("model"), env=site.environment(), cwd=Path(__file__).parents[1], stderr=subprocess.DEVNULL
    ) as first:
        assert site.hub.stalled.wait(60)
        wait_for_bytes(site.root, len(WEIGHTS) // 3)
        first.kill()
    assert not (site.out / "snapshot.json").exists()
    offline = site.run("model", HF_HUB_OFFLINE="1")
    assert offline.returncode == 3
    assert "network access" in offline.stderr
    site.check("model", site.run("model"))
    first_start, second_start = site.hub.starts("model.safetensors")
    assert first_start == 0 < second_start <= len(WEIGHTS) // 2


def test_wrong_bytes_are_refused_by_name(site: Site) -> None:
    site.hub.faults["model.safetensors"] = "corrupt"
    done = site.run("model")
    assert done.returncode == 3
    assert "error: model own.er/Some-model.v1" in done.stderr
    assert "content of model.safetensors is not what the hub's checksum says" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (site.out / "snapshot.json").exists()
    assert not [path for path in site.root.rglob("*") if path.is_file() and path.stat().st_size == len(WEIGHTS)]
    site.hub.faults.clear()
    site.check("model", site.run("model"))


def test_a_small_file_with_wrong_bytes_is_refused_by_name(site: Site) -> None:
    site.hub.faults["config.json"] = "corrupt"
    done = site.run("model")
    assert done.returncode == 3
    assert "content of config.json is not" in done.stderr
    site.hub.faults.clear()
    site.check("model", site.run("model"))


def test_a_file_damaged_in_the_cache_is_fetched_again(site: Site) -> None:
    site.check("model", site.run("model"))
    path = site.out / "Some-model.v1" / "model.safetensors"
    path.write_bytes(b"x" + WEIGHTS[1:])
    done = site.run("model")
    if site.name == "huggingface":  # refused and removed at first: the library itself never looks again
        assert (done.returncode, "content of model.safetensors" in done.stderr) == (3, True)
        done = site.run("model")
    site.check("model", done)


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_offline_with_a_damaged_copy_names_the_file_and_the_remedy(site: Site, damage: str) -> None:
    site.check("model", site.run("model"))
    path = site.out / "Some-model.v1" / "model.safetensors"
    path.unlink() if damage == "missing" else path.write_bytes(WEIGHTS[:-1])
    done = site.run("model", HF_HUB_OFFLINE="1")
    assert done.returncode == 3
    assert "is incomplete: model.safetensors. Run `python -m pipeline.hub model" in done.stderr
    assert not (site.out / "snapshot.json").exists()


def test_offline_without_a_copy_says_how_to_get_one(site: Site) -> None:
    done = site.run("dataset", HF_HUB_OFFLINE="1")
    assert done.returncode == 3
    assert "HF_HUB_OFFLINE is set, and there is no snapshot" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_network_uses_the_complete_copy(site: Site) -> None:
    site.check("dataset", site.run("dataset"))
    site.endpoint = "http://127.0.0.1:9"  # discard: nothing listens
    done = site.run("dataset", MODELSCOPE_REPO_TREE_PAGE_MAX_ATTEMPTS="1")
    site.check("dataset", done)
    assert "hub not reached, looking into the cache" in done.stderr


def test_a_proxy_is_used(site: Site) -> None:
    proxy, site.endpoint = site.endpoint, "http://hub.invalid"
    site.check("model", site.run("model", http_proxy=proxy, NO_PROXY="", no_proxy=""))
    assert any(" http://hub.invalid/" in line for line in site.hub.asked)


def test_an_unknown_id_or_revision_is_one_clear_line_without_the_token(site: Site) -> None:
    site.hub.echo_token = True
    for arguments in ({"name": "nobody/nothing"}, {}):
        done = site.run("model", *([] if arguments else ["--revision", "v9"]), **arguments)
        assert done.returncode == 3
        assert done.stderr.count("error: ") == 1
        assert "no such" in done.stderr
        assert ("nobody/nothing" if arguments else "@v9") in done.stderr
        assert TOKEN not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    assert site.hub.tokens == {TOKEN}


def test_a_refusal_quotes_the_hub_but_not_the_token(site: Site) -> None:
    site.hub.echo_token = site.hub.denied = True
    done = site.run("model")
    assert done.returncode == 3
    assert "refused" in done.stderr and "no access for Bearer ***" in done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert site.hub.tokens == {TOKEN}


def test_a_commit_is_reported_as_the_revision(site: Site) -> None:
    other = {"MODELSCOPE_DOMAIN": "127.0.0.1:9", "MODELSCOPE_ENDPOINT": site.endpoint}  # the newer name wins
    record = site.check("model", site.run("model", "--revision", COMMIT, **other))
    assert record["revision"] == record["revision_asked"] == COMMIT


def test_a_folder_in_the_way_is_kept(site: Site) -> None:
    (site.out / "Some-model.v1").mkdir(parents=True)
    done = site.run("model")
    assert done.returncode == 3
    assert "in the way" in done.stderr
    assert not site.hub.asked


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["--help"], {"torch", "transformers", "modelscope", "swift", "httpx", "requests"}),
        (["model", "modelscope", "a/b", "--out", "x"], {"torch", "transformers", "modelscope", "swift"}),
        (["model", "huggingface", "a/b", "--out", "x"], {"torch", "transformers", "modelscope", "swift"}),
    ],
)
def test_no_heavy_import(arguments: list[str], heavy: set[str], tmp_path: Path) -> None:
    code = (
        "import atexit, sys; from pipeline import hub\n"
        f"atexit.register(lambda: print('LOADED', sorted({heavy!r} & set(sys.modules)), file=sys.stderr))\n"
        f"hub.main({arguments!r})"
    )
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path), "PYTHONPATH": root}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "LOADED []" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("hub_name", "name", "revision"),
    [
        ("modelscope", "../x", None),
        ("modelscope", "gpt2", None),
        ("huggingface", "-x/y", None),
        ("huggingface", "a/b/c", None),
        ("modelscope", "a/b", "../../x"),
        ("modelscope", "a/b", "/x"),
        ("huggingface", "a/b", "--x"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(hub_name: str, name: str, revision: str | None) -> None:
    with pytest.raises(PreflightError, match="expected"):
        snapshots.fetch(hub_name, "model", name, revision)  # type: ignore[arg-type]


def test_a_snapshot_of_another_tool_is_judged_by_its_index_and_leftovers(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "x.safetensors", "b": "y.st"}}')
    (tmp_path / "x.safetensors").write_bytes(b"x")
    (tmp_path / "rows.jsonl.incomplete").write_bytes(b"x")
    listing = shared.found(tmp_path)
    assert shared.absent(tmp_path, listing.entries) == ["rows.jsonl", "y.st"]


def wait_for_bytes(root: Path, count: int) -> None:
    """Wait until a partial file has that many bytes: what the server sent is not yet what the client wrote."""
    for _ in range(600):
        if any(path.stat().st_size >= count for path in root.rglob("*") if path.is_file()):
            return
        time.sleep(0.05)
    pytest.fail(f"no partial file of {count} bytes appeared")
