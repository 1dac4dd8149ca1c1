"""Large answers as JSON, written without holding up the other requests."""

import asyncio
import json
import time
from collections.abc import Iterable
from typing import Any

TURN_SECONDS = 0.001
"""After this long the event loop has its turn.

A thread would be no better: it would hold the interpreter's lock for 5 ms at a time, and the event
loop asks for that lock several times a request.
"""


async def json_list(items: Iterable[Any]) -> bytes:
    """Return the JSON of a list whose items may be computed one by one, giving other requests their turn."""
    parts: list[str] = []
    begun = time.perf_counter()
    for item in items:
        parts.append(json.dumps(item, allow_nan=False))
        if time.perf_counter() - begun > TURN_SECONDS:
            await asyncio.sleep(0)
            begun = time.perf_counter()
    return f"[{', '.join(parts)}]".encode()
