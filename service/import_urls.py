"""Files in object storage that may be imported: those whose URL begins with a configured one.

Such a file is fetched into the job's folder first, then read like an upload: a job that is resumed
reads the same bytes, whatever became of the object. fsspec knows the protocols; it is the extra
`remote`, and a protocol may need a package of its own, such as s3fs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .errors import ImportFileError, ValidationError
from .import_files import safe_name

__all__ = ["check_url", "fetched", "is_url"]

PART = 1 << 20
MAX_URL = 4096


def is_url(path: str) -> bool:
    """Whether a path of a request names an object rather than a file."""
    return "://" in path


def check_url(roots: Sequence[str], url: str) -> None:
    """Raise ValidationError unless `url` lies under one of `roots`.

    Nothing that a server or a library could take for another place is let through: no `..`, no
    escapes, no chained protocols.
    """
    if not roots:
        raise ValidationError.of(
            "path", "is refused: no import_urls are configured; upload the file instead"
        )
    for root in roots:
        base = root.rstrip("/") + "/"
        inside = url.removeprefix(base)
        parts = inside.split("/")
        plain = inside.isprintable() and not set(inside) & set("%?#\\") and "::" not in inside
        if inside != url and plain and not {"", ".", ".."} & set(parts) and len(url) <= MAX_URL:
            return
    raise ValidationError.of("path", "is no file under the server's import_urls")


def fetched(url: str, folder: Path, most: int, check: Callable[[], None]) -> Path:
    """The object as a file in `folder`, fetched unless it is there already.

    `most` bounds its bytes; `check` is called now and then and may raise. Raises ImportFileError.
    """
    path = folder / f"fetched-{safe_name(url.rsplit('/', 1)[1])}"
    if path.exists():
        return path
    part = folder / "fetching"
    try:
        with _opened(url) as source, part.open("wb") as file:
            size = 0
            while chunk := source.read(PART):
                check()
                size += len(chunk)
                if size > most:
                    raise ImportFileError(f"it has more than max_import_bytes ({most})")
                file.write(chunk)
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _opened(url: str) -> Any:
    try:
        import fsspec
    except ImportError:
        raise ImportFileError(
            "object storage needs the extra: pip install closeby[remote]"
        ) from None
    try:
        return fsspec.open(url, "rb").open()
    except ImportError as error:
        raise ImportFileError(f"its protocol needs a package: {error}") from error
    except FileNotFoundError as error:
        raise ImportFileError("there is no such object") from error
    # Each protocol raises what it likes; the reason may hold credentials, its kind does not.
    except Exception as error:
        raise ImportFileError(f"it cannot be fetched: {type(error).__name__}") from error
