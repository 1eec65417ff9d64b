"""Name the prebuilt flash-attn wheel for this Python, torch, CUDA and C++ ABI, and check whether flash-attn imports.

    python scripts/flash_attn_wheel.py [VERSION]

PyPI has flash-attn 2 as source only (a compile of an hour); its prebuilt wheels lie with the releases at
github.com/Dao-AILab/flash-attention, one file per combination, and a wheel for another combination installs but does
not import. Nothing is downloaded here: behind a proxy or offline the name is what you need to ask for.
"""

from __future__ import annotations

import platform
import subprocess
import sys

RELEASES = "https://github.com/Dao-AILab/flash-attention/releases/download"
FACTS = (
    "import torch; print(torch.__version__.split('+')[0]); print(torch.version.cuda or '');"
    "print(torch._C._GLIBCXX_USE_CXX11_ABI);"
    "print(torch.cuda.get_device_capability()[0] if torch.cuda.is_available() else '')"
)


def wheel(version: str, python: tuple[int, int], torch: str, cuda: str, abi: str) -> str:
    """File name as the project's releases spell it: CUDA by its major version, torch by major.minor."""
    tag = f"cp{python[0]}{python[1]}"
    short = ".".join(torch.split(".")[:2])
    machine = "aarch64" if platform.machine() in ("aarch64", "arm64") else "x86_64"
    build = f"cu{cuda.split('.', maxsplit=1)[0]}torch{short}cxx11abi{abi.upper()}"
    return f"flash_attn-{version}+{build}-{tag}-{tag}-linux_{machine}.whl"


def imports(code: str) -> str:
    """'' if the import works, else the last line of its error."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def main(version: str) -> int:
    done = subprocess.run([sys.executable, "-c", FACTS], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"torch does not import: {done.stderr.strip().splitlines()[-1]}")
        return 3
    torch, cuda, abi, capability = done.stdout.split("\n")[:4]
    print(f"Python {sys.version_info[0]}.{sys.version_info[1]}, torch {torch}, CUDA {cuda or 'none'}, C++11 ABI {abi}")
    if not cuda:
        print("this torch has no CUDA: flash-attention cannot be used here, attention is sdpa")
        return 0
    problem = imports("import torch, flash_attn, flash_attn_2_cuda")
    if not problem:
        print("flash-attn imports: nothing to do")
        return 0
    name = wheel(version, sys.version_info[:2], torch, cuda, abi)
    print(f"flash-attn does not import ({problem}). The wheel for this environment:")
    print(f"  {RELEASES}/v{version}/{name}")
    print("No such file there? Take another release, or compile: pip install flash-attn --no-build-isolation")
    if capability and int(capability) >= 9:
        print("On Hopper and newer, flash-attn-4 needs no compile: pip install --pre flash-attn-4")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "2.8.3"))
