"""The routes of the server and the model behind them."""

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

from trainer import __version__
from trainer.data.cleaning.missing_values import MISSING_TEXTS
from trainer.delivery.predicting.saved_model import CHARACTERS_PER_TOKEN
from trainer.delivery.serving.answers import json_list
from trainer.delivery.serving.card_html import card_html
from trainer.delivery.serving.guard import OPEN_PATHS, Refused
from trainer.delivery.serving.schema import (
    ClassificationRequest,
    Info,
    PredictedText,
    PredictRequest,
    Problem,
    Score,
    State,
    read_request,
    scores,
)
from trainer.delivery.serving.service import Service
from trainer.display.pages import template

HERE = Path(__file__).parent
DESCRIPTION = """Text classification in the format of the Hugging Face Inference API:
huggingface_hub.InferenceClient(model=...).text_classification(...) works as it is."""
PROBLEMS = {
    400: "The request is no JSON.",
    401: "The bearer token is missing or wrong.",
    408: "The request did not arrive in time.",
    413: "The request is too large, or holds too many texts.",
    415: "The content type is not application/json.",
    421: "The Host header names another server.",
    422: "The request is JSON, but not of this form.",
    429: "The queue is full; Retry-After says when to come again.",
    500: "The model failed on a text of this request; the message says on which.",
    503: "The model is still loading; Retry-After says when to come again.",
    504: "The answer took too long.",
}
EXAMPLES = {
    "one text": {"inputs": "What a lovely day!"},
    "several texts": {"inputs": ["What a lovely day!", "It rains again."]},
}


def create_app(service: Service, *, card: Path | None = None, asks_token: bool = False) -> FastAPI:
    """The routes; what guards them is `guard.Guard`.

    Args:
        card: README.md to show.
        asks_token: whether the documentation says so.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(service.run())
        yield
        running.cancel()
        service.thread.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(
        title="Text classifier",
        version=__version__,
        description=DESCRIPTION,
        openapi_url=None,
        lifespan=lifespan,
    )
    app.add_exception_handler(Refused, _refused)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _http_error)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, _unexpected_error)
    _add_model_routes(app, service)
    _add_state_routes(app, service)
    _add_pages(app, card, _openapi(app, asks_token=asks_token), asks_token=asks_token)
    return app


def _add_model_routes(app: FastAPI, service: Service) -> None:
    @app.post(
        "/",
        summary="Classify texts",
        **_documented(
            ClassificationRequest,
            list[list[Score]],
            {"the best label alone": {"inputs": "I agree.", "parameters": {"top_k": 1}}},
        ),
    )
    async def classify(request: Request) -> Response:
        """The Inference API's text classification: of each text its labels, best first, as many as top_k says.

        The first label is the one that the model decided, thresholds and costs included, as every other way of predicting gives it; the
        others follow by score. Without thresholds and costs that is the order of the scores.
        """
        classifier = service.loaded()
        wanted, texts = read_request(
            await _body(request), ClassificationRequest, service.limits.texts_per_request
        )
        function = wanted.parameters and wanted.parameters.function_to_apply
        with_logits = function not in (None, "sigmoid" if classifier.is_multi_label else "softmax")
        if with_logits and len(classifier.models) > 1:
            raise Refused(
                422,
                f"function_to_apply is '{function}', but several models vote here, which have no logits in common. Leave it out.",
            )
        answers = await service.answer(request, texts)
        found = (
            scores(prediction, wanted.parameters, logits_C if with_logits else None)
            for prediction, logits_C in answers
        )
        return Response(await json_list(found), media_type="application/json")

    @app.post(
        "/predict",
        summary="Decided label and all probabilities",
        **_documented(PredictRequest, list[PredictedText], {}),
    )
    async def predict(request: Request) -> Response:
        """Of each text the decided label, its probability and those of all labels; of a model that may give several labels all that it gives."""
        service.loaded()
        _, texts = read_request(
            await _body(request), PredictRequest, service.limits.texts_per_request
        )
        answers = await service.answer(request, texts)
        found = (
            {
                "label": p.label,
                "labels": p.labels,
                "score": p.score,
                "probabilities": p.probabilities,
            }
            for p, _ in answers
        )
        return Response(await json_list(found), media_type="application/json")


def _add_state_routes(app: FastAPI, service: Service) -> None:
    problems: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem, "description": PROBLEMS[status]} for status in (401, 421, 503)
    }

    @app.get(
        "/info",
        summary="The model and what the server takes on",
        response_description="The model is loaded.",
        responses=problems,
    )
    async def info() -> Info:
        """Name and labels of the model, and how much a request may hold."""
        classifier, limits = service.loaded(), service.limits
        return Info(
            name=Path(classifier.name).name,
            labels=classifier.labels,
            is_multi_label=classifier.is_multi_label,
            max_texts=limits.texts_per_request,
            max_body_bytes=limits.max_body_bytes,
            max_characters=CHARACTERS_PER_TOKEN
            * max(model.max_length for model in classifier.models),
            missing_texts=MISSING_TEXTS,
        )

    @app.get(
        "/health",
        summary="Is the server alive",
        response_description="It is.",
        responses={421: problems[421]},
    )
    async def health() -> State:
        """Answers as long as the process does."""
        return State(status="alive")

    @app.get(
        "/ready",
        summary="Would a text be taken now",
        response_description="It would.",
        responses={status: problems[status] for status in (421, 503)},
    )
    async def ready() -> State:
        """503 while the model is loading, while the queue is full and after a stop signal."""
        if not service.is_ready:
            raise Refused(
                503,
                "Not ready: the model is loading, the queue is full, or the server is stopping.",
                {"retry-after": "1"},
            )
        return State(status="ready")

    @app.get(
        "/metrics",
        summary="Counts for Prometheus",
        response_description="Prometheus' text format.",
        response_class=PlainTextResponse,
        responses={status: problems[status] for status in (401, 421)},
    )
    async def metrics() -> Response:
        """Requests by route and status, their seconds, texts, texts that the model failed on, texts of a batch, texts that wait.

        The status is `aborted` where the client did not take the whole answer, and 499 where it left before.
        """
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _add_pages(app: FastAPI, card: Path | None, api: dict[str, Any], *, asks_token: bool) -> None:
    page = (HERE / "page.html").read_text(encoding="utf-8")

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(
            page, headers={"content-security-policy": content_security_policy(page)}
        )

    @app.get("/card", include_in_schema=False)
    def show_card() -> HTMLResponse:  # in a thread: it reads files
        return HTMLResponse(
            card_html(card)
            if card
            else "<p>There is no model card (README.md) beside this model.</p>"
        )

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return _json(api)

    @app.get("/docs", include_in_schema=False)
    def docs(request: Request) -> HTMLResponse:  # in a thread: it renders a template
        text = template(HERE / "docs.html").render(
            api=api, asks_token=asks_token, address=str(request.base_url).rstrip("/")
        )
        return HTMLResponse(
            text, headers={"content-security-policy": content_security_policy(text)}
        )


def content_security_policy(page: str) -> str:
    """A policy that runs the inline script and style of this page alone, and reaches this server alone."""
    allowed = {
        kind: [
            base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            for text in re.findall(f"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        ]
        for kind in ("script", "style")
    }
    sources = {
        kind: " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
        for kind, digests in allowed.items()
    }
    return (
        f"default-src 'none'; script-src {sources['script']}; style-src {sources['style']}; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _documented(
    kind: type[PredictRequest], answer: Any, examples: dict[str, Any]
) -> dict[str, Any]:
    """What OpenAPI says of a route that reads its body itself."""
    examples = {name: {"value": value} for name, value in (EXAMPLES | examples).items()}
    body = {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": f"#/components/schemas/{kind.__name__}"},
                "examples": examples,
            }
        },
    }
    responses = {
        status: {"model": Problem, "description": words} for status, words in PROBLEMS.items()
    }
    return {
        "response_model": answer,
        "response_description": "One answer a text, in their order.",
        "responses": responses,
        "openapi_extra": {"requestBody": body},
    }


def _openapi(app: FastAPI, *, asks_token: bool) -> dict[str, Any]:
    """What openapi.json holds: of FastAPI, and the requests, which it does not read, and the token. Its own pages would load from elsewhere."""
    api: dict[str, Any] = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    _, requests = models_json_schema(
        [(kind, "validation") for kind in (ClassificationRequest, PredictRequest)],
        ref_template="#/components/schemas/{model}",
    )
    api["components"]["schemas"] |= requests["$defs"]
    if asks_token:
        api["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, methods in api["paths"].items():
            for method, route in methods.items():
                if method != "get" or path not in OPEN_PATHS:
                    route["security"] = [{"token": []}]
    return api


async def _body(request: Request) -> bytes:
    """The body, which `Request.body` would keep for as long as the request waits."""
    return b"".join([part async for part in request.stream()])


def _json(value: Any) -> Response:
    return Response(json.dumps(value, allow_nan=False), media_type="application/json")


async def _refused(request: Request, refused: Refused) -> Response:
    return _problem(refused.status, refused.message, refused.headers)


async def _http_error(request: Request, error: HTTPException) -> Response:
    return _problem(
        error.status_code, f"{request.method} {request.url.path}: {error.detail}.", error.headers
    )


async def _unexpected_error(request: Request, error: Exception) -> Response:
    return _problem(500, "The server failed; its log says why.")


def _problem(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps({"error": message}), status, headers, "application/json")
