"""The queue of the server: which texts are computed together, refused and dropped."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from trainer.delivery.serving.batches import TURN, QueueFull, ServingQueue, TextFailed


class Model:
    """Doubles numbers, remembers its batches, and computes nothing while its gate is shut."""

    def __init__(self):
        self.batches, self.gate, self.begun = [], threading.Event(), threading.Event()
        self.gate.set()

    def __call__(self, numbers):
        self.begun.set()
        assert self.gate.wait(30)
        self.batches.append(list(numbers))
        if 13 in numbers:
            raise ZeroDivisionError("thirteen")
        return [2 * number for number in numbers]

    async def shut(self, queue):
        """Let the queue begin with one text and hold it there."""
        self.gate.clear()
        self.begun.clear()
        first = asyncio.ensure_future(queue.answer([0]))
        while not self.begun.is_set():
            await asyncio.sleep(0.001)
        return first


def in_queue(scenario, *, max_waiting=100, max_batch_tokens=1000, max_wait_seconds=0.0):
    """Run `scenario(queue, model)` beside the queue; a number n has max(1, n) tokens."""

    async def main():
        model = Model()
        with ThreadPoolExecutor(1) as thread:
            limits = {
                "max_waiting": max_waiting,
                "max_batch_tokens": max_batch_tokens,
                "max_wait_seconds": max_wait_seconds,
            }
            queue = ServingQueue(model, lambda number: max(1, number), thread, **limits)
            running = asyncio.ensure_future(queue.run())
            try:
                await asyncio.wait_for(scenario(queue, model), 30)
            finally:
                model.gate.set()
                running.cancel()

    asyncio.run(main())


def test_requests_that_wait_together_are_computed_together_and_answered_apart():
    async def scenario(queue, model):
        first = await model.shut(queue)
        others = [
            asyncio.ensure_future(queue.answer(numbers)) for numbers in ([1, 2], [3], [4, 5, 6])
        ]
        await asyncio.sleep(0.01)
        assert queue.num_waiting == 6
        model.gate.set()
        assert await first == [0]
        assert await asyncio.gather(*others) == [[2, 4], [6], [8, 10, 12]]
        assert model.batches == [[0], [1, 2, 3, 4, 5, 6]]
        assert queue.num_waiting == 0

    in_queue(scenario)


def test_a_batch_holds_no_more_tokens_than_it_may_but_at_the_least_one_text():
    async def scenario(queue, model):
        first = await model.shut(queue)
        others = [asyncio.ensure_future(queue.answer([number])) for number in (4, 5, 3, 50, 2)]
        await asyncio.sleep(0.01)
        model.gate.set()
        assert await asyncio.gather(first, *others) == [[0], [8], [10], [6], [100], [4]]
        assert model.batches == [[0], [4, 5], [3], [50], [2]]

    in_queue(scenario, max_batch_tokens=10)


def test_a_long_request_leaves_room_for_a_short_one():
    async def scenario(queue, model):
        first = await model.shut(queue)
        long = asyncio.ensure_future(queue.answer([1] * 3 * TURN))
        await asyncio.sleep(0)
        short = asyncio.ensure_future(queue.answer([2]))
        await asyncio.sleep(0.01)
        model.gate.set()
        assert await first == [0]
        assert await short == [4]
        assert await long == [2] * 3 * TURN
        assert model.batches[1] == [1] * TURN + [2]

    in_queue(scenario, max_batch_tokens=TURN + 2)


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again():
    async def scenario(queue, model):
        first = await model.shut(queue)
        waiting = asyncio.ensure_future(queue.answer([1, 2, 3]))
        await asyncio.sleep(0.01)
        with pytest.raises(QueueFull, match="3 texts are waiting already") as refused:
            await queue.answer([4, 5])
        assert 1 <= refused.value.retry_seconds <= 60
        model.gate.set()
        assert await asyncio.gather(first, waiting) == [[0], [2, 4, 6]]
        assert await queue.answer([4, 5]) == [8, 10]

    in_queue(scenario, max_waiting=4)


def test_what_waits_of_a_cancelled_request_is_never_computed():
    async def scenario(queue, model):
        first = await model.shut(queue)
        gone, stays = (
            asyncio.ensure_future(queue.answer([7, 8])),
            asyncio.ensure_future(queue.answer([9])),
        )
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0.01)
        assert queue.num_waiting == 1
        model.gate.set()
        assert await asyncio.gather(first, stays) == [[0], [18]]
        assert model.batches == [[0], [9]]

    in_queue(scenario)


def test_an_error_of_the_model_ends_the_requests_of_its_batch_alone():
    async def scenario(queue, model):
        with pytest.raises(TextFailed, match="text 1 of 32") as failed:
            await queue.answer([13] * 2 * TURN)
        assert isinstance(failed.value.__cause__, ZeroDivisionError)
        assert queue.num_waiting == 0
        assert await queue.answer([1]) == [2]

    in_queue(scenario, max_batch_tokens=20)


def test_of_a_batch_that_fails_the_guilty_request_alone_fails():
    async def scenario(queue, model):
        first = await model.shut(queue)
        other, *others = (
            asyncio.ensure_future(queue.answer(numbers))
            for numbers in ([6], [1, 2], [7, 13, 8], [3])
        )
        await asyncio.sleep(0.01)
        model.gate.set()
        found = await asyncio.gather(first, other, *others, return_exceptions=True)
        assert found[:3] == [[0], [12], [2, 4]]
        assert (found[3].number, found[3].num_texts) == (2, 3)
        assert found[4] == [6]
        assert model.batches == [
            [0],
            [6, 1, 2, 7, 13, 8, 3],
            [6],
            [1, 2],
            [7, 13, 8],
            [7],
            [13],
            [3],
        ]

    in_queue(scenario)


def test_texts_that_fail_only_together_are_answered_one_by_one():
    async def scenario(queue, model):
        queue.compute = lambda numbers: 1 / (len(numbers) == 1) and model(numbers)
        assert await queue.answer([1, 2, 3]) == [2, 4, 6]
        assert model.batches == [[1], [2], [3]]

    in_queue(scenario)


def test_a_client_that_is_alone_does_not_wait_for_others():
    async def scenario(queue, model):
        assert await asyncio.wait_for(queue.answer([1]), 5) == [2]  # the pause would be 20 seconds
        assert await asyncio.wait_for(queue.answer([2]), 5) == [4]

    in_queue(scenario, max_wait_seconds=20.0)


def test_clients_that_come_again_are_computed_together_again():
    async def scenario(queue, model):
        first = await model.shut(queue)
        others = [asyncio.ensure_future(queue.answer([number])) for number in (1, 2)]
        await asyncio.sleep(0.01)
        model.gate.set()
        await asyncio.gather(first, *others)
        one = asyncio.ensure_future(queue.answer([3]))
        await asyncio.sleep(0.05)  # it alone would be computed by now
        other = asyncio.ensure_future(queue.answer([4]))
        assert await asyncio.gather(one, other) == [[6], [8]]
        assert model.batches == [[0], [1, 2], [3, 4]]

    in_queue(scenario, max_wait_seconds=20.0)
