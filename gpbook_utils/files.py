"""Files that are written whole, and the hash of this package's own; imports nothing that is slow to start."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from pathlib import Path

PACKAGE = Path(__file__).parent


def package_hash(package: str | Path = PACKAGE) -> str:
    """SHA-256 of the modules and tables of ``package``, in hexadecimal; line endings do not count."""
    package = Path(package)
    files = {*package.rglob("*.py"), *(path for path in package.glob("tables/**/*") if path.is_file())}
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.relative_to(package).as_posix()):
        if path.name.startswith("."):  # litter of editors and file managers
            continue
        content = path.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{path.relative_to(package).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


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
