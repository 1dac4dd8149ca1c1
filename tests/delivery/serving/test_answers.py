"""Large answers: what they hold, and that other requests have their turn while they are written."""

import asyncio
import json
import time

import pytest

from trainer.delivery.serving.answers import TURN_SECONDS, json_list
from trainer.delivery.serving.guard import PIECE_BYTES, pieces


def test_a_list_is_the_json_that_json_dumps_gives():
    items = [[{"label": 'a "quoted" ü', "score": 0.1}], [], {"x": 1e-300}]
    for given in (items, items[:1], []):
        assert asyncio.run(json_list(iter(given))).decode() == json.dumps(given)
    with pytest.raises(ValueError, match="not JSON compliant"):
        asyncio.run(json_list([float("nan")]))


def test_others_have_their_turn_while_a_list_is_written():
    async def main():
        turns = 0

        async def take_turns():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(take_turns())
        await json_list(time.sleep(2 * TURN_SECONDS) for _ in range(20))
        other.cancel()
        return turns

    assert asyncio.run(main()) >= 20


@pytest.mark.parametrize(
    "size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES, 3 * PIECE_BYTES - 1]
)
def test_a_body_is_sent_in_pieces_that_make_it_up_and_the_last_ends_it_as_before(size):
    body = bytes(n % 251 for n in range(size))
    for more in (False, True):
        found = list(pieces({"type": "http.response.body", "body": body, "more_body": more}))
        assert b"".join(message["body"] for message in found) == body
        assert [message["more_body"] for message in found] == [True] * (len(found) - 1) + [more]
        assert max(len(message["body"]) for message in found) <= PIECE_BYTES
        assert len(found) == max(1, -(-size // PIECE_BYTES))
