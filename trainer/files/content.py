"""Digests of files, for the keys of caches and to check before work is resumed."""

import hashlib
import random
from functools import lru_cache
from pathlib import Path

import xxhash

BLOCK_BYTES = 1 << 16
NUM_INNER_BLOCKS = 6
WHOLE_BYTES = BLOCK_BYTES * (NUM_INNER_BLOCKS + 3)
"""Files up to this size (half a megabyte) are hashed completely."""


def file_identity(path: Path) -> str:
    """Return the path of a file and its state."""
    return f"{path.resolve()}:{file_state(path)}"


def file_state(path: Path) -> str:
    """Return a text that changes whenever the file changes; it reads at most WHOLE_BYTES.

    Size and modification time are not enough: `rsync -t`, `cp -p` and `tar` reset the time, and
    some file systems count whole seconds. Programs cannot set the time of the last change of the
    inode (ctime). Where a file system lacks it, a sample of the content distinguishes files.
    """
    stat = path.stat()
    return (
        f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}:{content_sample(path, stat.st_size)}"
    )


def content_sample(path: Path, size: int) -> str:
    """Return the XXH3 digest of a small file, or of 9 blocks of a large one.

    The blocks are the first, the middle and the last one, and some between.
    """
    digest = xxhash.xxh3_128()
    is_large, last = size > WHOLE_BYTES, max(0, size - BLOCK_BYTES)
    inner = (random.Random(size).randrange(last) for _ in range(NUM_INNER_BLOCKS * is_large))
    starts = [0, last // 2, last, *inner] if is_large else [0]
    with path.open("rb") as file:
        for start in sorted(starts):
            file.seek(start)
            digest.update(file.read(BLOCK_BYTES if is_large else -1))
    return digest.hexdigest()


def content_digest(path: Path) -> str:
    """Return the XXH3 digest of a file. A process reads an unchanged file only once."""
    stat = path.stat()
    return _content_digest(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@lru_cache(maxsize=1024)
def _content_digest(path: Path, size: int, mtime_ns: int, ctime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()
