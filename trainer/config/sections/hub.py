"""The `hub:` section: where the model goes on the Hugging Face Hub, and details for its card."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from trainer.config.sections.section import Section, refuse

REPO_ID = re.compile(
    r"(?!.*(--|\.\.))[A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9_][A-Za-z0-9._-]{0,95}(?<!\.git)(?<![.-])"
)
"""The repository names that the Hub accepts: `user/name`."""

Language = Annotated[str, Field(pattern=r"^([a-z]{2,3}|code|multilingual)$")]


class HubSection(Section):
    """Whether and how the trained model is pushed to the Hugging Face Hub."""

    push: bool = False
    """Upload the model, its card and its pictures when the run is finished. The access token comes
    from the environment variable HF_TOKEN or from `hf auth login`."""
    repo_id: str | None = None
    """Repository on the Hub: `user/name`."""
    private: bool = True
    """Create the repository as private. A push to an existing public repository is then refused."""
    revision: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")
    """Branch to push to, which is created if it does not exist. Default: main."""
    commit_message: str = Field(default="Upload classifier trained with equipoise", min_length=1)
    """Commit message."""
    every: Literal["end", "save"] = "end"
    """`end`: upload the finished model. `save`: during training, also upload the model of each
    checkpoint in the background. A newer checkpoint replaces one that still waits."""
    timeout_minutes: float = Field(default=60.0, gt=0)
    """Maximum minutes for one upload including its retries. After that the upload is given up; you
    can repeat it with `equipoise push`."""
    language: Language | list[Language] | None = None
    """Language of the texts, for the card: an ISO 639 code such as `en`, or a list of codes."""
    license: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9.+-]*$")
    """License of the trained model, for the card: an identifier from
    https://hf.co/docs/hub/repositories-licenses, such as `apache-2.0`."""

    @field_validator("repo_id")
    @classmethod
    def _names_a_repository(cls, repo_id: str | None) -> str | None:
        if repo_id is not None and not REPO_ID.fullmatch(repo_id):
            raise ValueError(
                f"'{repo_id}' is not a repository name; needed: user/name of letters, digits"
                " and -, in the name also _ and . ; no '--', no '..', no '.git' at its end, at most"
                " 96 characters"
            )
        return repo_id

    @model_validator(mode="after")
    def _is_complete(self) -> "HubSection":
        refuse(
            (self.push and self.repo_id is None, "push needs repo_id: user/name"),
            (self.every == "save" and not self.push, "every: save needs push: true"),
        )
        return self
