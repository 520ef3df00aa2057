"""The wheel of ``gpbook_utils``, which the built book carries: ``python -m book.wheel FOLDER`` writes it into a folder.

It is built offline from a copy of the sources, since setuptools leaves a folder behind in which a module that went
lives on. The same sources give the same bytes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "LICENSE", "gpbook_utils")
DAWN = "315532800"  # 1980, in seconds: the oldest date of a zip


def build(folder: str | Path, root: str | Path = ROOT) -> Path:
    """Build the wheel of the repository ``root`` into ``folder``, instead of any other there, and return its path.

    Raises:
        RuntimeError: if pip can't build it; the message ends with what pip said.
    """
    folder = Path(folder)
    with tempfile.TemporaryDirectory() as temporary:
        source, built = Path(temporary, "source"), Path(temporary, "built")
        source.mkdir()
        for name in SOURCES:
            _copy(Path(root, name), source / name)
        result = subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index",
             "--wheel-dir", built, source],
            env={**os.environ, "SOURCE_DATE_EPOCH": DAWN, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            umask=0o022, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        if result.returncode:
            raise RuntimeError(f"pip could not build the wheel of {Path(root).resolve()}:\n{result.stdout}")
        (wheel,) = built.glob("*.whl")
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("gpbook-*.whl"):
            old.unlink()
        return Path(shutil.move(wheel, folder / wheel.name))


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a folder without what Python leaves behind, with fixed permissions, since a wheel stores them."""
    if source.is_dir():
        target.mkdir(mode=0o755)
        for path in source.iterdir():
            if path.name != "__pycache__":
                _copy(path, target / path.name)
    else:
        target.write_bytes(source.read_bytes())
        target.chmod(0o644)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Usage: python -m book.wheel FOLDER")
    print(f"The package alone: {build(sys.argv[1])}")
