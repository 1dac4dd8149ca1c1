"""The prompts that ask a language model for new rows, and the completions that answer them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from string import Formatter

import numpy as np

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
        label_ids: the labels that the text shall have.
        source_rows: row ids of the examples.
    """

    attempt: int
    messages: Messages
    seed: int
    label_ids: tuple[int, ...] = ()
    source_rows: Ints = field(default_factory=lambda: np.zeros(0, np.int64), compare=False)


@dataclass(frozen=True)
class Refused:
    """The answer of a server that refuses a prompt, for example by a content filter."""

    words: str


Completion = str | Refused
Generate = Callable[[list[Request]], Iterable[tuple[Request, Completion]]]
"""A generator: it takes requests and yields each with its completion, in any order."""


@dataclass(frozen=True)
class Sources:
    """The training rows of one class, in an order that depends on their texts alone.

    Attributes:
        set_ids_R: a number for the labels of each row, equal for rows with the same labels.
        label_sets: {such a number: label ids}; one set if each row has one label.
        names: names of all labels.
    """

    label: str
    row_ids: Ints
    texts: list[str]
    set_ids_R: Ints
    label_sets: dict[int, tuple[int, ...]]
    names: list[str]

    def request(self, attempt: int, augment: AugmentSection, seed: int) -> Request:
        """Return a prompt with examples drawn for this attempt. All have the same labels."""
        generator = stage_generator(seed, "augment", self.label, attempt)
        num_examples = min(augment.examples, len(self.texts))
        drawn = generator.choice(len(self.texts), size=num_examples, replace=False)
        source = int(drawn[0]) if num_examples else 0
        if len(self.label_sets) > 1:
            source = source if num_examples else int(generator.integers(len(self.texts)))
            like = np.flatnonzero(self.set_ids_R == self.set_ids_R[source])
            others = generator.permutation(like[like != source])
            drawn = np.r_[source, others][:num_examples]
        label_ids = self.label_sets[int(self.set_ids_R[source])]
        examples = [self.texts[i][: augment.example_characters] for i in drawn]
        label = ", ".join(self.names[label_id] for label_id in label_ids)
        messages = build_prompt(augment.prompt, label, examples)
        seed_of_sampling = int(generator.integers(2**31))
        return Request(attempt, messages, seed_of_sampling, label_ids, self.row_ids[drawn])


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
