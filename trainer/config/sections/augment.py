"""The `augment:` section: new training rows for rare classes, checked without touching a model or a server."""

import re
from string import Formatter
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from trainer.config.sections.labels import LabelList
from trainer.config.sections.training import Section

PLACEHOLDERS = ("label", "examples")


class AugmentSection(Section):
    """New training rows for classes with very few, written by a language model from their own training rows and marked as synthetic."""

    generator: Literal["none", "local", "endpoint"] = "none"
    """`none`; `local`, a causal or chat model through transformers; `endpoint`, an OpenAI-compatible server, which then sees training rows."""
    model: str | None = None
    """local: Hub id, folder, GGUF file, or `package:<distribution>[==version]/<path>`. endpoint: the server's name of the model."""
    revision: str | None = None
    """Branch, tag or commit of a Hub model."""
    base_url: str | None = None
    """endpoint: address before `/chat/completions`, e.g. http://127.0.0.1:8000/v1."""
    api_key_env: str | None = None
    """endpoint: name of the environment variable that holds the key, never the key; left out: none is sent."""
    target_rows: int | None = Field(default=None, ge=2)
    """Every class with fewer training rows is filled up to so many."""
    labels: LabelList | None = None
    """Classes to fill; left out: all."""
    prompt: str = Field(
        default='Write one text of the category "{label}". Answer with the text alone.',
        min_length=1,
    )
    """What the model is asked. {label}: the class; {examples}: the examples as a list. Without {examples} each is an earlier turn of the conversation."""
    examples: int = Field(default=4, ge=0, le=64)
    """Training rows of the class shown in each prompt, drawn anew for each."""
    example_characters: int = Field(default=500, ge=1)
    """Examples are cut at so many characters."""
    temperature: float = Field(default=0.7, gt=0, le=2)
    """Sampling temperature; small models lose the thread above 0.7, large ones vary more with 1."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Nucleus sampling: the most probable tokens that together have this probability."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Longest answer in tokens."""
    batch_size: int = Field(default=8, ge=1, le=1024)
    """Prompts at a time: rows of a batch (local), requests under way at once (endpoint)."""
    max_attempts: int = Field(default=10, ge=1)
    """Most prompts of a class for each row it lacks; then it stays short, with a warning."""
    min_characters: int | None = Field(default=None, ge=1)
    """Shortest text kept; left out: half the 5 % quantile of the class's own texts."""
    max_characters: int | None = Field(default=None, ge=1)
    """Longest text kept; left out: the 95 % quantile of the class's own texts, or 200 where that is less."""
    similarity: float = Field(default=0.7, ge=0.3, le=1)
    """Texts whose sets of 5-character pieces have this Jaccard index or more are near duplicates; 1: exact duplicates alone are rejected."""
    min_agreement: float | None = Field(default=None, ge=0, le=1)
    """Least probability of the class by a classifier of the real training rows; left out: the class must be its first choice; 0: no such filter."""
    timeout_seconds: float = Field(default=120.0, gt=0)
    """endpoint: longest silence of the server before the try counts as failed."""
    retries: int = Field(default=4, ge=0, le=20)
    """endpoint: how often a failed request is sent again, after the server's `Retry-After` or after
    0.5, 1, 2 ... seconds (8 at most). An unusable answer is requested again at once."""

    @field_validator("prompt")
    @classmethod
    def _placeholders(cls, prompt: str) -> str:
        try:
            names = [name for _, name, _, _ in Formatter().parse(prompt) if name is not None]
        except ValueError as error:
            raise ValueError(
                f"is no template ({error}); write {{{{ and }}}} for braces that are part of the text"
            ) from error
        unknown = sorted(set(names) - set(PLACEHOLDERS))
        if unknown:
            known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            raise ValueError(
                f"holds {{{unknown[0]}}}; known: {known}. Write {{{{ and }}}} for braces that are part of the text"
            )
        if any(spec or conversion for _, _, spec, conversion in Formatter().parse(prompt)):
            raise ValueError(
                "formats a placeholder with : or !; write {label} and {examples} as they are, {{ and }} for braces of the text"
            )
        return prompt

    @field_validator("api_key_env")
    @classmethod
    def _name_alone(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(
            r"[A-Za-z_][A-Za-z0-9_]*", name
        ):  # it may be the key itself: not to be repeated
            raise ValueError(
                "is no name of an environment variable (letters, digits, underscore); put the key in a variable and give its name"
            )
        return name

    @field_validator("base_url")
    @classmethod
    def _address(cls, base_url: str | None) -> str | None:
        if base_url is not None and not re.match(r"https?://[^\s/]", base_url):
            raise ValueError(
                f"is '{base_url}'; needed: an http or https address such as http://127.0.0.1:8000/v1"
            )
        if base_url and "@" in urlsplit(base_url).netloc:
            raise ValueError(
                "holds a user or password, which the run folder would keep; put the key in a variable and name it in api_key_env"
            )
        return base_url

    @model_validator(mode="after")
    def _complete(self) -> "AugmentSection":
        if self.generator == "none":
            return self
        needed = (
            ("model", "target_rows", "base_url")
            if self.generator == "endpoint"
            else ("model", "target_rows")
        )
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"generator {self.generator} needs {', '.join(missing)}")
        if self.generator == "local" and (self.base_url or self.api_key_env):
            raise ValueError(
                "generator local has no base_url and no api_key_env; set generator: endpoint, or remove them"
            )
        if (
            self.min_characters
            and self.max_characters
            and self.min_characters > self.max_characters
        ):
            raise ValueError(
                f"min_characters {self.min_characters} is more than max_characters {self.max_characters}"
            )
        return self
