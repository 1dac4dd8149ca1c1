"""Requests and answers of the server: the Hugging Face Inference API's text classification, and the whole prediction."""

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

from trainer.arrays import Floats
from trainer.delivery.predicting.predict import Prediction, Text
from trainer.delivery.serving.guard import Refused
from trainer.errors import did_you_mean

Function = Literal["softmax", "sigmoid", "none"]
TEXT, PAIR, TEXTS = (
    "(text)",
    "(pair)",
    "(texts)",
)  # kinds of input, told apart from keys of that name
Sentence = Annotated[str, Field(pattern=r"\S")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Pair(_Strict):
    """Two texts that are judged together."""

    text: Sentence
    text_pair: Sentence


def _kind(value: Any) -> str | None:
    kinds = {str: TEXT, dict: PAIR, Pair: PAIR, list: TEXTS}
    return next((kind for type_, kind in kinds.items() if isinstance(value, type_)), None)


ONE = Discriminator(_kind, custom_error_type="kind", custom_error_message="no text")
ANY = Discriminator(
    _kind, custom_error_type="kind", custom_error_message="neither a text nor a list of texts"
)
OneText = Annotated[Annotated[Sentence, Tag(TEXT)] | Annotated[Pair, Tag(PAIR)], ONE]
Texts = Annotated[list[OneText], Field(min_length=1, fail_fast=True)]
Inputs = Annotated[
    Annotated[Sentence, Tag(TEXT)] | Annotated[Pair, Tag(PAIR)] | Annotated[Texts, Tag(TEXTS)], ANY
]


class Parameters(_Strict):
    """How scores are shown.

    Left out, `top_k` gives all labels, and `function_to_apply` the model's own function: sigmoid where a text may have any number of labels,
    else softmax. `none` gives logits.
    """

    top_k: Annotated[StrictInt, Field(ge=1)] | None = None
    function_to_apply: Function | None = None


class PredictRequest(_Strict):
    """Texts to judge."""

    inputs: Inputs


class ClassificationRequest(PredictRequest):
    """Texts to judge, as the Inference API takes them; `options` is accepted and changes nothing."""

    parameters: Parameters | None = None
    options: Annotated[dict[str, Any] | None, AfterValidator(lambda options: None)] = (
        None  # a request that waits holds its texts alone
    )


class Score(BaseModel):
    """One label of one text."""

    label: str
    score: float


class PredictedText(BaseModel):
    """All that is said of one text.

    `label` is the decided one, thresholds and costs included; of a model that gives any number of labels the most probable, and `labels` all
    that are given.
    """

    label: str
    labels: list[str]
    score: float
    probabilities: dict[str, float]


class Info(BaseModel):
    """The model, and how much one request may hold; of a text no more than `max_characters` are read.

    A cell of a file that is empty or one of `missing_texts` is a missing text; a text that is sent is a text, whatever it says.
    """

    name: str
    labels: list[str]
    is_multi_label: bool
    max_texts: int
    max_body_bytes: int
    max_characters: int
    missing_texts: list[str]


class State(BaseModel):
    """How the server is."""

    status: str


class Problem(BaseModel):
    """Why there is no other answer."""

    error: str


def read_request(body: bytes, kind: type[PredictRequest], max_texts: int) -> tuple[Any, list[Text]]:
    """The request of a body, and its texts.

    Raises:
        Refused: no JSON (400), too many texts (413), not of this form (422).
    """
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Refused(400, f"The request is no JSON: {error}.") from error
    if (
        isinstance(value, dict)
        and isinstance(value.get("inputs"), list)
        and len(value["inputs"]) > max_texts
    ):
        raise Refused(
            413,
            f"inputs holds {len(value['inputs']):,} texts; at most {max_texts:,} a request (--max-texts).",
        )
    try:
        request = kind.model_validate(value)
    except ValidationError as error:
        raise Refused(422, _sentence(error, kind)) from error
    inputs = request.inputs if isinstance(request.inputs, list) else [request.inputs]
    return request, [
        text if isinstance(text, str) else {"text": text.text, "text_pair": text.text_pair}
        for text in inputs
    ]


def _sentence(error: ValidationError, kind: type[PredictRequest]) -> str:
    """The first fault in words."""
    fault = error.errors(include_url=False, include_input=False)[0]
    place = [part for part in fault["loc"] if part not in (TEXT, PAIR, TEXTS)]
    where = (
        "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
        or "The request"
    )
    if fault["type"] == "extra_forbidden":
        known = (
            [*Parameters.model_fields]
            if "parameters" in place
            else [*Pair.model_fields]
            if "inputs" in place
            else [*kind.model_fields]
        )
        return f"{where} is unknown; known: {', '.join(known)}.{did_you_mean(place[-1], known)}"
    words = {
        "missing": "is missing",
        "string_pattern_mismatch": "is empty; needed: a text",
        "too_short": "is empty; needed: at least one text",
        "string_type": "is no text",
        "kind": f"is {fault['msg']}",
        "union_tag_invalid": "is no text",
        "model_type": "is no JSON object",
        "model_attributes_type": "is no JSON object",
        "int_type": "is no whole number",
        "greater_than_equal": "is below 1",
        "literal_error": "is unknown; known: softmax, sigmoid, none",
    }
    return (
        f"{where} {words[fault['type']]}."
        if fault["type"] in words
        else f"{where}: {fault['msg']}."
    )


def scores(
    prediction: Prediction, parameters: Parameters | None, logits_C: Floats | None
) -> list[dict[str, Any]]:
    """The labels of a text as the Inference API gives them: what was decided first, then by score; cut at top_k.

    Args:
        logits_C: for `function_to_apply`, the decision's prior and temperature included; None where the probabilities are the scores.
    """
    values = prediction.probabilities
    if logits_C is not None and parameters is not None:
        values = dict(
            zip(values, _apply(parameters.function_to_apply, logits_C).tolist(), strict=True)
        )
    given = set(prediction.labels)
    ordered = sorted(values, key=lambda label: (label not in given, -values[label]))
    return [
        {"label": label, "score": values[label]}
        for label in ordered[: parameters.top_k if parameters else None]
    ]


def _apply(function: Function | None, logits_C: Floats) -> Floats:
    if function == "none":
        return logits_C
    if function == "sigmoid":
        return np.asarray(np.exp(-np.logaddexp(0, -logits_C)))
    exponentials_C = np.exp(logits_C - logits_C.max())
    return np.asarray(exponentials_C / exponentials_C.sum())
