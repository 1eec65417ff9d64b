"""Pictures of the local SwanLab dashboard: its table and the charts of one experiment, taken with headless Chromium.

    python scripts/dashboard_shot.py LOG_DIR OUT_DIR [--experiment 1]

LOG_DIR is the folder of the local experiments (the one `make dashboard` opens). Writes OUT_DIR/table.png and
OUT_DIR/charts.png. Needs `swanlab[dashboard]` and a `chromium` on PATH; nothing but the loopback is used.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--hide-scrollbars",
    "--virtual-time-budget=12000",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_up(url: str, board: subprocess.Popen[bytes], seconds: float = 60) -> None:
    """Raises SystemExit if the dashboard ends or does not answer in time."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    until = time.monotonic() + seconds
    while board.poll() is None and time.monotonic() < until:
        try:
            direct.open(url, timeout=5).close()
        except OSError:
            time.sleep(0.3)
        else:
            return
    raise SystemExit(f"the dashboard did not come up at {url}: is swanlab[dashboard] installed?")


def take(chromium: str, url: str, picture: Path, size: str) -> None:
    """A new profile for each picture; Chromium's clock runs ahead until the charts have drawn themselves."""
    with tempfile.TemporaryDirectory() as profile:
        own = [f"--user-data-dir={profile}", f"--window-size={size}", f"--screenshot={picture}", url]
        subprocess.run([chromium, *CHROMIUM_FLAGS, *own], check=True, timeout=120, stderr=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log_dir", type=Path)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--experiment", type=int, default=1, help="number in the dashboard's address (default: 1)")
    parser.add_argument("--table-size", default="2600,700")
    parser.add_argument("--charts-size", default="1600,2400")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("chromium is not on PATH: apt-get install chromium")
    options.out_dir.mkdir(parents=True, exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    swanlab = Path(sys.executable).with_name("swanlab")
    command = [str(swanlab), "watch", str(options.log_dir.resolve()), "-h", "127.0.0.1", "-p", str(port)]
    board = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_up(url, board)
        take(chromium, url, options.out_dir / "table.png", options.table_size)
        charts = f"{url}/experiment/{options.experiment}/chart"
        take(chromium, charts, options.out_dir / "charts.png", options.charts_size)
    finally:
        board.terminate()
        board.wait(timeout=10)


if __name__ == "__main__":
    main()
