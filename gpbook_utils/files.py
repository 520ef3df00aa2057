"""Files that are written whole; imports nothing that is slow to start."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

PACKAGE = Path(__file__).parent


def replace_file(path: str | Path, content: str | bytes) -> None:
    """Write ``content`` to ``path`` completely or not at all: a reader sees the old or the new content.

    A file that has this content already is not touched, so that its date still says when it changed.
    """
    path = Path(path).resolve()
    content = content.encode("utf-8") if isinstance(content, str) else content
    if path.exists() and path.read_bytes() == content:
        return
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")  # its own name: no two write one file
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
