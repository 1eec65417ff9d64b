"""Pictures of a report, taken with headless Chromium: desktop and phone width, light and dark, English and Chinese.

    python scripts/report_shot.py runs/demo/report.html OUT_DIR [--height 5000] [--at items] [--only phone-dark-zh]

Writes OUT_DIR/<width>-<theme>-<language>.png. Every request is sent to a closed port, so what is seen needs none; a
report that is wider than its window is named. Needs a `chromium` on PATH, and Pillow, which ms-swift brings.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

WIDTHS = {"desktop": 1280, "phone": 390}
THEMES = {"light": (), "dark": ("--blink-settings=preferredColorScheme=0",)}
LANGUAGES = ("en", "zh")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--proxy-server=127.0.0.1:1",  # nobody listens there
    "--proxy-bypass-list=<-loopback>",
    "--virtual-time-budget=5000",
)
_CSP = re.compile(r"<meta http-equiv=.Content-Security-Policy.[^>]*>")


def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        raise SystemExit("chromium is not on PATH: apt-get install chromium")
    return found


def framed(report: Path, width: int, height: int, query: str, folder: Path) -> Path:
    """A page with the report in a frame of that width: a window of Chromium is never narrower than 500 pixels."""
    page = folder / "frame.html"
    page.write_text(
        "<!doctype html><meta name='color-scheme' content='light dark'>"
        "<style>body { margin: 0 } iframe { border: 0; display: block }</style>"
        f"<iframe src='{report.resolve().as_uri()}?lang={query}' width={width} height={height}></iframe>"
        "<script>addEventListener('message', (event) => { document.body.dataset.wide = event.data; });</script>",
        encoding="utf-8",
    )
    return page


def measured(report: Path, width: int, language: str) -> int:
    """How wide the page gets in a frame of that width: more would have to be scrolled sideways.

    Measured in a copy without its Content-Security-Policy, which would stop the measuring script.
    """
    probe = "<script>parent.postMessage(document.documentElement.scrollWidth, '*')</script>"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.html"
        copy.write_text(_CSP.sub("", report.read_text(encoding="utf-8")) + probe, encoding="utf-8")
        page = framed(copy, width, 800, language, Path(folder))
        command = [chromium(), *FLAGS, f"--user-data-dir={folder}/profile", "--dump-dom", page.as_uri()]
        done = subprocess.run(
            command, check=True, timeout=120, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    found = re.search(r'data-wide="(\d+)"', done.stdout)
    if found is None:
        raise SystemExit("chromium did not run the page's script")
    return int(found[1])


def shoot(report: Path, picture: Path, *, width: int, height: int, theme: str, query: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        page = framed(report, width, height, query, Path(folder))
        own = [f"--user-data-dir={folder}/profile", f"--window-size={max(width, 500)},{height}", *THEMES[theme]]
        command = [chromium(), *FLAGS, *own, f"--screenshot={picture}", page.as_uri()]
        subprocess.run(command, check=True, timeout=120, stderr=subprocess.DEVNULL)
    with Image.open(picture) as taken:
        taken.crop((0, 0, width, height)).save(picture, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--height", type=int, default=6000, help="pixels of the report that are seen (default: 6000)")
    parser.add_argument("--at", help="a section to begin with: comparison, flips, items, ...")
    parser.add_argument("--only", help="names of pictures, separated by commas")
    options = parser.parse_args()
    options.out_dir.mkdir(parents=True, exist_ok=True)
    wanted = set(re.split(r",\s*", options.only)) if options.only else None
    for size, width in WIDTHS.items():
        for theme in THEMES:
            for language in LANGUAGES:
                name = f"{size}-{theme}-{language}"
                if wanted is None or name in wanted:
                    picture = (options.out_dir / f"{name}.png").resolve()
                    query = f"{language}#{options.at}" if options.at else language
                    shoot(options.report, picture, width=width, height=options.height, theme=theme, query=query)
                    print(picture)
        if (wide := max(measured(options.report, width, language) for language in LANGUAGES)) > width:
            raise SystemExit(f"{options.report}: {wide} pixels wide in a window of {width}")


if __name__ == "__main__":
    main()
