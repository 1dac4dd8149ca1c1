"""Requests and answers of the server, in the format of the Hugging Face Inference API."""

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StrictInt,
    Tag,
    ValidationError,
)
from pydantic_core import from_json
from scipy.special import expit, softmax

from trainer.arrays import Floats
from trainer.delivery.predicting.predict import Prediction, Text
from trainer.delivery.serving.guard import Refused
from trainer.errors import did_you_mean

Function = Literal["softmax", "sigmoid", "none"]
FUNCTIONS = {"softmax": softmax, "sigmoid": expit, "none": np.asarray}
TEXT, PAIR, TEXTS = "(text)", "(pair)", "(texts)"
"""Kinds of input; the brackets distinguish them from keys of the same name."""
Sentence = Annotated[str, Field(pattern=r"\S")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Pair(_Strict):
    """Two texts that are classified together."""

    text: Sentence
    text_pair: Sentence


def _kind(value: Any) -> str | None:
    kinds = {str: TEXT, dict: PAIR, Pair: PAIR, list: TEXTS}
    return next((kind for type_, kind in kinds.items() if isinstance(value, type_)), None)


ONE = Discriminator(_kind, custom_error_type="kind", custom_error_message="not a text")
ANY = Discriminator(
    _kind, custom_error_type="kind", custom_error_message="neither a text nor a list of texts"
)
OneText = Annotated[Annotated[Sentence, Tag(TEXT)] | Annotated[Pair, Tag(PAIR)], ONE]
Texts = Annotated[list[OneText], Field(min_length=1, fail_fast=True)]
Inputs = Annotated[
    Annotated[Sentence, Tag(TEXT)] | Annotated[Pair, Tag(PAIR)] | Annotated[Texts, Tag(TEXTS)], ANY
]


class Parameters(_Strict):
    """Options for the scores.

    By default, `top_k` returns all labels, and `function_to_apply` is the model's own function:
    sigmoid for multi-label models, else softmax. `none` returns logits.
    """

    top_k: Annotated[StrictInt, Field(ge=1)] | None = None
    function_to_apply: Function | None = None


class PredictRequest(_Strict):
    """Texts to classify."""

    inputs: Inputs


class ClassificationRequest(PredictRequest):
    """Texts to classify, as the Inference API takes them; `options` has no effect."""

    parameters: Parameters | None = None
    # dropped, so that a waiting request keeps only its texts in memory
    options: Annotated[dict[str, Any] | None, AfterValidator(lambda options: None)] = None


class Score(BaseModel):
    """One label of a text, with its score."""

    label: str
    score: float


class PredictedText(BaseModel):
    """The prediction for one text.

    `label` is the decided label, with thresholds and costs applied. For multi-label models, `label`
    is the most probable label, and `labels` are all labels of the text.
    """

    label: str
    labels: list[str]
    score: float
    probabilities: dict[str, float]


class LabelRule(BaseModel):
    """How a multi-label model gives labels: from which probability, and how many to a text."""

    thresholds: dict[str, float]
    at_least_one: bool
    at_most: int | None


class Info(BaseModel):
    """The model, and the limits of a request. Only the first `max_characters` of a text are read.

    `label_rule` is null for one label a text, and if several models vote.

    In a file, an empty field or one of `missing_texts` is a missing text. In a request, it is a
    text like any other.
    """

    name: str
    labels: list[str]
    is_multi_label: bool
    label_rule: LabelRule | None
    max_texts: int
    max_body_bytes: int
    max_characters: int
    missing_texts: list[str]


class State(BaseModel):
    """The state of the server."""

    status: str


class Problem(BaseModel):
    """The reason of an error."""

    error: str


def read_request(body: bytes, kind: type[PredictRequest], max_texts: int) -> tuple[Any, list[Text]]:
    """Return the request in a body, and its texts.

    Raises:
        Refused: the body is not JSON (400), has too many texts (413) or another form (422).
    """
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Refused(400, f"The request is not JSON: {error}.") from error
    inputs = value.get("inputs") if isinstance(value, dict) else None
    if isinstance(inputs, list) and len(inputs) > max_texts:
        raise Refused(
            413,
            f"inputs holds {len(inputs):,} texts; at most {max_texts:,} are allowed per request"
            " (--max-texts).",
        )
    try:
        request = kind.model_validate(value)
    except ValidationError as error:
        raise Refused(422, _sentence(error, kind)) from error
    texts = request.inputs if isinstance(request.inputs, list) else [request.inputs]
    return request, [text if isinstance(text, str) else text.model_dump() for text in texts]


def _sentence(error: ValidationError, kind: type[PredictRequest]) -> str:
    """Return the first error as a sentence, an unknown key before one that is missing."""
    faults = error.errors(include_url=False, include_input=False)
    fault = min(faults, key=lambda fault: fault["type"] != "extra_forbidden")
    place = [part for part in fault["loc"] if part not in (TEXT, PAIR, TEXTS)]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    where = path.lstrip(".") or "The request"
    if fault["type"] == "extra_forbidden":
        inner = Parameters if "parameters" in place else Pair if "inputs" in place else kind
        known = [*inner.model_fields]
        return f"{where} is unknown; known: {', '.join(known)}.{did_you_mean(place[-1], known)}"
    words = {
        "missing": "is missing",
        "string_pattern_mismatch": "is empty; needed: a text",
        "too_short": "is empty; needed: at least one text",
        "string_type": "is not a text",
        "kind": f"is {fault['msg']}",
        "union_tag_invalid": "is not a text",
        "model_type": "is not a JSON object",
        "model_attributes_type": "is not a JSON object",
        "int_type": "is not an integer",
        "greater_than_equal": "is below 1",
        "literal_error": "is unknown; known: softmax, sigmoid, none",
    }
    if fault["type"] not in words:
        return f"{where}: {fault['msg']}."
    return f"{where} {words[fault['type']]}."


def scores(
    prediction: Prediction, parameters: Parameters | None, logits_C: Floats | None
) -> list[dict[str, Any]]:
    """Return up to top_k labels of a text: first the decided labels, then the others by score.

    Args:
        logits_C: logits for `function_to_apply`, with the decision's prior and temperature; None if
            the probabilities are the scores.
    """
    values = prediction.probabilities
    if logits_C is not None and parameters is not None:
        found_C = FUNCTIONS[parameters.function_to_apply or "softmax"](logits_C)
        values = dict(zip(values, found_C.tolist(), strict=True))
    given = set(prediction.labels)
    ordered = sorted(values, key=lambda label: (label not in given, -values[label]))
    return [
        {"label": label, "score": values[label]}
        for label in ordered[: parameters.top_k if parameters else None]
    ]
