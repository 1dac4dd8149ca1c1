"""The `augment:` section: new training rows for rare classes, written by a language model."""

import re
from string import Formatter
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from trainer.config.sections.labels import LabelList
from trainer.config.sections.section import Section, refuse

PLACEHOLDERS = ("label", "examples")
BRACES = "Write {{ and }} for braces that are part of the text"


class AugmentSection(Section):
    """New training rows for rare classes. A language model writes them from training rows of the
    same class, and they are marked as synthetic.
    """

    generator: Literal["none", "local", "endpoint"] = "none"
    """What writes the rows. `none`: no rows are written. `local`: a causal language model or chat
    model that runs through transformers. `endpoint`: an OpenAI-compatible server, to which training
    rows are sent."""
    model: str | None = None
    """`local`: Hub id, folder, GGUF file or `package:<distribution>[==version]/<path>`.
    `endpoint`: the name of the model on the server."""
    revision: str | None = None
    """Branch, tag or commit of a Hub model."""
    base_url: str | None = None
    """`endpoint`: the address without `/chat/completions`, such as `http://127.0.0.1:8000/v1`."""
    api_key_env: str | None = None
    """`endpoint`: name of the environment variable that contains the API key, never the key itself.
    By default, no key is sent."""
    target_rows: int | None = Field(default=None, ge=2)
    """Every class with fewer training rows than this is filled up to this number."""
    labels: LabelList | None = None
    """Classes to fill up. Default: all."""
    prompt: str = Field(
        default='Write one text of the category "{label}". Answer with the text alone.',
        min_length=1,
    )
    """The prompt. `{label}` is replaced by the class, and `{examples}` by the examples as a list.
    Without `{examples}`, each example is an earlier turn of the conversation."""
    examples: int = Field(default=4, ge=0, le=64)
    """Number of training rows of the class that a prompt shows. They are drawn again for each
    prompt."""
    example_characters: int = Field(default=500, ge=1)
    """Examples are truncated to this number of characters."""
    temperature: float = Field(default=0.7, gt=0, le=2)
    """Sampling temperature. Small models become incoherent above 0.7; large models vary more at
    1."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Nucleus sampling: only the most probable tokens are sampled, whose probabilities together
    reach this value."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Maximum length of an answer in tokens."""
    batch_size: int = Field(default=8, ge=1, le=1024)
    """Number of prompts at a time: rows of a batch (`local`), or concurrent requests
    (`endpoint`)."""
    max_attempts: int = Field(default=10, ge=1)
    """Maximum number of prompts for a class, per row that it lacks. If rows are still missing after
    that, the run continues with a warning."""
    min_characters: int | None = Field(default=None, ge=1)
    """Minimum length of a new text in characters. Default: half the 5 % quantile of the lengths in
    its class."""
    max_characters: int | None = Field(default=None, ge=1)
    """Maximum length of a new text in characters. Default: the 95 % quantile of the lengths in its
    class, but at least 200."""
    similarity: float = Field(default=0.7, ge=0.3, le=1)
    """A new text is rejected as a near duplicate if the Jaccard index of its 5-character pieces
    with those of another text reaches this value. With 1, only exact duplicates are rejected."""
    min_agreement: float | None = Field(default=None, ge=0, le=1)
    """Minimum probability that a classifier of the real training rows gives to the class of a new
    text. By default, the class must be its first choice; 0 turns this filter off."""
    timeout_seconds: float = Field(default=120.0, gt=0)
    """`endpoint`: seconds without a response from the server after which a request has failed."""
    retries: int = Field(default=4, ge=0, le=20)
    """`endpoint`: how many times a failed request is sent again, after the server's `Retry-After`
    or after 0.5, 1, 2 ... seconds (at most 8). An unusable answer is requested again at once."""

    @field_validator("prompt")
    @classmethod
    def _placeholders(cls, prompt: str) -> str:
        try:
            parts = [part for part in Formatter().parse(prompt) if part[1] is not None]
        except ValueError as error:
            raise ValueError(f"is no template ({error}). {BRACES}") from error
        unknown = sorted({str(name) for _, name, _, _ in parts} - set(PLACEHOLDERS))
        known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        refuse(
            (unknown, f"holds {{{''.join(unknown[:1])}}}; known: {known}. {BRACES}"),
            (
                any(spec or conversion for _, _, spec, conversion in parts),
                "formats a placeholder with : or !; write {label} and {examples} as they are."
                f" {BRACES}",
            ),
        )
        return prompt

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(  # without the value, which may be the key itself
                "is no name of an environment variable (letters, digits, underscore);"
                " put the key in a variable and give the name of the variable"
            )
        return name

    @field_validator("base_url")
    @classmethod
    def _is_an_address(cls, base_url: str | None) -> str | None:
        if base_url is not None:
            refuse(
                (
                    not re.match(r"https?://[^\s/]", base_url),
                    f"is '{base_url}'; needed: an http or https address such as"
                    " http://127.0.0.1:8000/v1",
                ),
                (
                    "@" in urlsplit(base_url).netloc,
                    "holds a user or password, which the run folder would keep; put the key in"
                    " a variable and set api_key_env to its name",
                ),
            )
        return base_url

    @model_validator(mode="after")
    def _is_complete(self) -> "AugmentSection":
        if self.generator == "none":
            return self
        needed = ["model", "target_rows", *["base_url"] * (self.generator == "endpoint")]
        missing = [name for name in needed if getattr(self, name) is None]
        shortest, longest = self.min_characters, self.max_characters
        refuse(
            (missing, f"generator {self.generator} needs {', '.join(missing)}"),
            (
                self.generator == "local" and (self.base_url or self.api_key_env),
                "generator local has no base_url and no api_key_env; set generator: endpoint,"
                " or remove them",
            ),
            (
                shortest and longest and shortest > longest,
                f"min_characters {shortest} is more than max_characters {longest}",
            ),
        )
        return self
