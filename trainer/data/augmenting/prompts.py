"""The prompts that ask a language model for new rows, and the completions that answer them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from string import Formatter

from trainer.arrays import Ints
from trainer.config.sections.augment import AugmentSection
from trainer.data.balancing.balance import stage_generator

Messages = list[dict[str, str]]
"""A conversation as chat templates and servers take it: dicts with a role and a content."""


@dataclass(frozen=True)
class Request:
    """One prompt.

    Attributes:
        attempt: number of the prompt within its class.
        seed: seed of the sampling, in [0, 2**31).
    """

    attempt: int
    messages: Messages
    seed: int


@dataclass(frozen=True)
class Refused:
    """The answer of a server that refuses a prompt, for example by a content filter."""

    words: str


Completion = str | Refused
Generate = Callable[[list[Request]], Iterable[tuple[Request, Completion]]]
"""A generator: it takes requests and yields each with its completion, in any order."""


@dataclass(frozen=True)
class Sources:
    """The training rows of one class, in an order that depends on their texts alone."""

    label: str
    label_id: int
    row_ids: Ints
    texts: list[str]

    def request(self, attempt: int, augment: AugmentSection, seed: int) -> tuple[Request, Ints]:
        """Return a prompt with examples drawn for this attempt, and the examples' row ids."""
        generator = stage_generator(seed, "augment", self.label, attempt)
        num_examples = min(augment.examples, len(self.texts))
        drawn = generator.choice(len(self.texts), size=num_examples, replace=False)
        examples = [self.texts[i][: augment.example_characters] for i in drawn]
        messages = build_prompt(augment.prompt, self.label, examples)
        return Request(attempt, messages, int(generator.integers(2**31))), self.row_ids[drawn]


def build_prompt(template: str, label: str, examples: list[str]) -> Messages:
    """Return the conversation that asks for one text.

    If the template contains {examples}, they are listed there. Otherwise each example is an
    earlier answer to the same question. Small models follow that form far better: with a list,
    SmolLM2-135M mostly talks about the list; with earlier answers it continues them.
    """
    listed = "\n".join(f"- {example}" for example in examples)
    question = {"role": "user", "content": template.format(label=label, examples=listed)}
    if "examples" in {name for _, name, _, _ in Formatter().parse(template)}:
        return [question]
    answers = [{"role": "assistant", "content": example} for example in examples]
    return [*(turn for answer in answers for turn in (question, answer)), question]
