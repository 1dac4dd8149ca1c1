"""The `hub:` section: where the model goes on the Hugging Face Hub, and what its card says of it."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from trainer.config.sections.training import Section

REPO_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
"""What the Hub takes for `user/name`, but for what `HubSection` words by itself."""

Language = Annotated[str, Field(pattern=r"^([a-z]{2,3}|code|multilingual)$")]


class HubSection(Section):
    """Pushing the model to the Hugging Face Hub after training."""

    push: bool = False
    """Upload model, card and pictures when the run is finished. The token comes from HF_TOKEN or the login."""
    repo_id: str | None = None
    """`user/name` on the Hub."""
    private: bool = True
    """Create the repository as private; a push to one that is public is refused."""
    revision: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")
    """Branch to push to, made where it is missing; left out: main."""
    commit_message: str = Field(default="Upload classifier trained with equipoise", min_length=1)
    """Message of the commit."""
    every: Literal["end", "save"] = "end"
    """`save`: while the model trains, the model of each checkpoint goes up too, in the background; a newer one takes the place of one that waits."""
    timeout_minutes: float = Field(default=60.0, gt=0)
    """Longest time of one upload with its retries; then it is given up, and can be repeated."""
    language: Language | list[Language] | None = None
    """Language of the texts, for the card: ISO 639 code such as `en`, or a list of them."""
    license: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9.+-]*$")
    """License of the trained model, for the card: an id of https://hf.co/docs/hub/repositories-licenses such as `apache-2.0`."""

    @field_validator("repo_id")
    @classmethod
    def _names_a_repository(cls, repo_id: str | None) -> str | None:
        if repo_id is not None and (
            not REPO_ID.fullmatch(repo_id)
            or "--" in repo_id
            or ".." in repo_id
            or repo_id.endswith((".git", ".", "-"))
        ):
            words = "needed: user/name of letters, digits and -, in the name also _ and . ; no '--', no '..', no '.git' at its end, at most 96 characters"
            raise ValueError(f"'{repo_id}' names no repository; {words}")
        return repo_id

    @model_validator(mode="after")
    def _named(self) -> "HubSection":
        if self.push and self.repo_id is None:
            raise ValueError("push needs repo_id: user/name")
        if self.every == "save" and not self.push:
            raise ValueError("every: save needs push: true")
        return self
