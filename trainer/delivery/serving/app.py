"""The routes of the server."""

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

from trainer import __version__
from trainer.data.cleaning.missing_values import MISSING_TEXTS
from trainer.delivery.predicting.predict import Classifier
from trainer.delivery.predicting.saved_model import CHARACTERS_PER_TOKEN
from trainer.delivery.serving.answers import json_list
from trainer.delivery.serving.card_html import card_html
from trainer.delivery.serving.guard import OPEN_PATHS, Refused
from trainer.delivery.serving.schema import (
    ClassificationRequest,
    Info,
    LabelRule,
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
from trainer.evaluation.decisions.multi_label_decision import MultiLabelDecision
from trainer.evaluation.scores import THRESHOLD

HERE = Path(__file__).parent
DESCRIPTION = """Text classification in the format of the Hugging Face Inference API:
huggingface_hub.InferenceClient(model=...).text_classification(...) works as it is."""
PROBLEMS = {
    400: "The request is not JSON.",
    401: "The bearer token is missing or wrong.",
    408: "The request did not arrive in time.",
    413: "The request is too large, or holds too many texts.",
    415: "The content type is not application/json.",
    421: "The Host header names another server.",
    422: "The request is JSON of another form.",
    429: "The queue is full; Retry-After says when to try again.",
    500: "The model failed on a text of this request; the message says which.",
    503: "The model is still loading; Retry-After says when to try again.",
    504: "The answer took too long.",
}
EXAMPLES = {
    "one text": {"inputs": "What a lovely day!"},
    "several texts": {"inputs": ["What a lovely day!", "It rains again."]},
}


def create_app(service: Service, *, card: Path | None = None, asks_token: bool = False) -> FastAPI:
    """Return the app with all routes, which `guard.Guard` protects.

    Args:
        card: README.md to show on the page.
        asks_token: document that the server needs a token.
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
    _add_info_routes(app, service)
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
        """Text classification of the Inference API: for each text up to top_k labels, best first.

        The first label is the decided label, with thresholds and costs applied, as all other ways
        of predicting return it. The other labels follow by score.
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
                f"function_to_apply is '{function}', but several models vote here, which have no"
                " common logits. Omit it.",
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
        """For each text the decided label or labels, and the probabilities of all labels."""
        service.loaded()
        _, texts = read_request(
            await _body(request), PredictRequest, service.limits.texts_per_request
        )
        answers = await service.answer(request, texts)
        names = PredictedText.model_fields
        found = ({name: getattr(prediction, name) for name in names} for prediction, _ in answers)
        return Response(await json_list(found), media_type="application/json")


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of errors."""
    return {status: {"model": Problem, "description": PROBLEMS[status]} for status in statuses}


def _add_info_routes(app: FastAPI, service: Service) -> None:
    @app.get(
        "/info",
        summary="The model, and the limits of a request",
        response_description="The model is loaded.",
        responses=_problems(401, 421, 503),
    )
    async def info() -> Info:
        """Name and labels of the model, and the limits of a request."""
        classifier, limits = service.loaded(), service.limits
        return Info(
            name=Path(classifier.name).name,
            labels=classifier.labels,
            is_multi_label=classifier.is_multi_label,
            label_rule=label_rule(classifier),
            max_texts=limits.texts_per_request,
            max_body_bytes=limits.max_body_bytes,
            max_characters=CHARACTERS_PER_TOKEN
            * max(model.max_length for model in classifier.models),
            missing_texts=MISSING_TEXTS,
        )

    @app.get(
        "/metrics",
        summary="Counts for Prometheus",
        response_description="Prometheus' text format.",
        response_class=PlainTextResponse,
        responses=_problems(401, 421),
    )
    async def metrics() -> Response:
        """Counts and seconds of requests, and texts: computed, failed, per batch and waiting.

        The status is `aborted` if the client did not receive the whole answer, and 499 if it left
        before the answer.
        """
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def label_rule(classifier: Classifier) -> LabelRule | None:
    """Return how a single multi-label model gives labels; None for other models."""
    decision = classifier.models[0].decision
    if len(classifier.models) > 1 or not isinstance(decision, MultiLabelDecision):
        return None
    thresholds = dict.fromkeys(classifier.labels, THRESHOLD)
    if decision.thresholds_C is not None:
        values = decision.thresholds_C.tolist()
        thresholds = dict(zip(classifier.models[0].labels, values, strict=True))
    return LabelRule(
        thresholds=thresholds, at_least_one=decision.at_least_one, at_most=decision.at_most
    )


def _add_state_routes(app: FastAPI, service: Service) -> None:
    @app.get(
        "/health",
        summary="Is the server alive",
        response_description="It is.",
        responses=_problems(421),
    )
    async def health() -> State:
        """Answers as long as the process runs."""
        return State(status="alive")

    @app.get(
        "/ready",
        summary="Does the server accept texts now",
        response_description="It does.",
        responses=_problems(421, 503),
    )
    async def ready() -> State:
        """503 while the model is loading, while the queue is full and after a stop signal."""
        if not service.is_ready:
            words = "Not ready: the model is loading, the queue is full, or the server is stopping."
            raise Refused(503, words, {"retry-after": "1"})
        return State(status="ready")


def _add_pages(app: FastAPI, card: Path | None, api: dict[str, Any], *, asks_token: bool) -> None:
    page = (HERE / "page.html").read_text(encoding="utf-8")

    @app.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return _page(page)

    @app.get("/card", include_in_schema=False)
    def show_card() -> HTMLResponse:  # in a thread: it reads files
        missing = "<p>There is no model card (README.md) beside this model.</p>"
        return HTMLResponse(card_html(card) if card else missing)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return JSONResponse(api)

    @app.get("/docs", include_in_schema=False)
    def docs(request: Request) -> HTMLResponse:  # in a thread: it renders a template
        address = str(request.base_url).rstrip("/")
        docs_page = template(HERE / "docs.html")
        return _page(docs_page.render(api=api, asks_token=asks_token, address=address))


def _page(text: str) -> HTMLResponse:
    return HTMLResponse(text, headers={"content-security-policy": content_security_policy(text)})


def content_security_policy(page: str) -> str:
    """Return a policy that allows only the page's own script and style, and only this server."""

    def sources(kind: str) -> str:
        texts = re.findall(f"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()) for text in texts)
        return " ".join(f"'sha256-{digest.decode()}'" for digest in digests) or "'none'"

    return (
        f"default-src 'none'; script-src {sources('script')}; style-src {sources('style')};"
        " img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    )


def _documented(
    kind: type[PredictRequest], answer: Any, examples: dict[str, Any]
) -> dict[str, Any]:
    """Return the documentation of a route that reads its body itself."""
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
    return {
        "response_model": answer,
        "response_description": "One answer per text, in order.",
        "responses": _problems(*PROBLEMS),
        "openapi_extra": {"requestBody": body},
    }


def _openapi(app: FastAPI, *, asks_token: bool) -> dict[str, Any]:
    """Return openapi.json: FastAPI's routes, the requests that they read themselves, the token."""
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
    """Return the body, which `Request.body` would keep in memory while the request waits."""
    return b"".join([part async for part in request.stream()])


async def _refused(request: Request, refused: Refused) -> Response:
    return _problem(refused.status, refused.message, refused.headers)


async def _http_error(request: Request, error: HTTPException) -> Response:
    words = f"{request.method} {request.url.path}: {error.detail}."
    return _problem(error.status_code, words, error.headers)


async def _unexpected_error(request: Request, error: Exception) -> Response:
    return _problem(500, "The server failed; its log says why.")


def _problem(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": message}, status, headers)
