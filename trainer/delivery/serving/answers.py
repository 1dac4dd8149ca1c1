"""Write large answers as JSON without blocking other requests."""

import asyncio
import json
import time
from collections.abc import Iterable
from typing import Any

TURN_SECONDS = 0.001
"""After this time, other requests have their turn.

A thread would be no better: it would keep the interpreter's lock for 5 ms at a time, and the event
loop needs the lock several times per request.
"""


async def json_list(items: Iterable[Any]) -> bytes:
    """Return a list as JSON; its items may be computed one by one."""
    parts: list[str] = []
    begun = time.perf_counter()
    for item in items:
        parts.append(json.dumps(item, allow_nan=False))
        if time.perf_counter() - begun > TURN_SECONDS:
            await asyncio.sleep(0)
            begun = time.perf_counter()
    return f"[{', '.join(parts)}]".encode()
