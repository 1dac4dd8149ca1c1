"""What tells one content of a file from another, for the keys of caches and for work that is resumed."""

import random
from functools import lru_cache
from pathlib import Path

import xxhash

BLOCK_BYTES = 1 << 16
NUM_INNER_BLOCKS = 6
WHOLE_BYTES = BLOCK_BYTES * (NUM_INNER_BLOCKS + 3)
"""Files up to this size are hashed as a whole: half a megabyte."""


def file_identity(path: Path) -> str:
    """Return the place of a file and its state."""
    return f"{path.resolve()}:{file_state(path)}"


def file_state(path: Path) -> str:
    """Return a text that changes when the file is changed, in whatever way; at most WHOLE_BYTES are read.

    Size and time of modification are not enough: `rsync -t`, `cp -p` and `tar` set the time back, and some file systems count
    whole seconds. The time of the last change of the inode (ctime) cannot be set by programs; a sample of the content also
    tells files apart where a file system has no such time.
    """
    stat = path.stat()
    return (
        f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}:{content_sample(path, stat.st_size)}"
    )


def content_sample(path: Path, size: int) -> str:
    """Return the XXH3 digest of a small file, or of the first, middle and last block of a large one and of some between."""
    digest = xxhash.xxh3_128()
    last = max(0, size - BLOCK_BYTES)
    starts = (
        [
            0,
            last // 2,
            last,
            *(random.Random(size).randrange(last) for _ in range(NUM_INNER_BLOCKS)),
        ]
        if size > WHOLE_BYTES
        else [0]
    )
    with path.open("rb") as file:
        for start in sorted(starts):
            file.seek(start)
            digest.update(file.read(BLOCK_BYTES if size > WHOLE_BYTES else -1))
    return digest.hexdigest()


def content_digest(path: Path) -> str:
    """Return the XXH3 digest of a file's whole content, read once for each state of the file in this process."""
    stat = path.stat()
    return _content_digest(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@lru_cache(maxsize=1024)
def _content_digest(path: Path, size: int, mtime_ns: int, ctime_ns: int) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()
