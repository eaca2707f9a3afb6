"""The service as an ASGI application: routes, limits, and one thread that scores texts."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from toolkit.evaluation.reliability.scope import COLUMN
from toolkit.serving import perspective
from toolkit.serving.errors import Refused, error_body
from toolkit.serving.metrics import Metrics
from toolkit.serving.models import Models, Served, loaded
from toolkit.serving.settings import ServeSettings
from toolkit.utils.console import printable, say

Handler = Callable[[Request], Awaitable[Response]]
MAX_BUFFERED = 64 * 2**20
"""Bytes of bodies that a worker holds at a time; more is 503."""


def create_app(settings: ServeSettings, served: Sequence[Served] | None = None) -> Starlette:
    """Return the application of one worker.

    served: the packages, already loaded; None loads them.
    """
    if served is None:
        served = [loaded(name, folder) for name, folder in settings.packages]
    service = Service(settings, served)
    routes = [
        Route("/predict", service.counted("/predict", service.predict), methods=["POST"]),
        Route("/predict/{package}", service.counted("/predict", service.predict), methods=["POST"]),
        Route(perspective.ROUTE, service.counted(perspective.ROUTE, service.analyze), methods=["POST"]),
        Route("/packages", service.list_packages),
        Route("/healthz", service.health),
        Route("/metrics", service.show_metrics),
    ]
    handlers = {Refused: _refused, HTTPException: _http_error, Exception: _bug}
    app = Starlette(routes=routes, lifespan=service.life, exception_handlers=handlers)
    app.state.service = service
    return app


class Service:
    """The state of a worker. All of it is used on the event loop, but for scoring and loading."""

    def __init__(self, settings: ServeSettings, served: Sequence[Served]) -> None:
        self.settings, self.limits = settings, settings.limits
        self.models = Models(served, self._check)
        self.metrics = Metrics()
        self.scoring = ThreadPoolExecutor(1, "scoring")
        self.in_work = self.buffered = 0
        self.clients: Counter[str] = Counter()
        self._check(served[0])

    def _check(self, served: Served) -> None:
        if served.name == self.settings.packages[0][0]:
            perspective.attribute_labels(self.settings.attributes, served.labels)

    @asynccontextmanager
    async def life(self, app: Starlette) -> AsyncIterator[None]:
        """Look for new packages as long as the service runs."""
        watching = asyncio.create_task(self._watch()) if self.limits.reload_seconds else None
        yield
        if watching is not None:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        self.scoring.shutdown(wait=False, cancel_futures=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.limits.reload_seconds)
            await self.refresh()

    async def refresh(self) -> None:
        """Replace each package of which there is a new one."""
        for each in self.models.all():
            found = await asyncio.to_thread(self.models.refresh, each.name)
            if found:
                refused = isinstance(found, str)
                self.metrics.reloads.labels(each.name, "refused" if refused else "replaced").inc()
                what = f"refused, the old one stays: {found}" if refused else f"replaced by the one in {each.folder}"
                say(printable(f"{each.name}: {what}"))

    def counted(self, route: str, handler: Handler) -> Handler:
        """Return a handler whose requests are limited and counted."""

        async def handle(request: Request) -> Response:
            started, status = time.perf_counter(), 500
            client = request.client.host if request.client else ""
            self.clients[client] += 1
            self.metrics.waiting.inc()
            try:
                most = self.limits.max_client_requests
                if most and self.clients[client] > most:
                    raise Refused(429, f"more than {most} requests of one client at a time; wait for the answers")
                response = await handler(request)
                status = response.status_code
                return response
            except Refused as refused:
                status = refused.code
                raise
            except ClientDisconnect:
                status = 499
                return Response(status_code=400)  # nobody reads it
            finally:
                self.clients[client] -= 1
                if not self.clients[client]:
                    del self.clients[client]
                self.metrics.waiting.dec()
                self.metrics.requests.labels(route, str(status)).inc()
                self.metrics.seconds.labels(route).observe(time.perf_counter() - started)

        return handle

    async def predict(self, request: Request) -> Response:
        """Answer {"text": …} or {"texts": […]} with label, probability and flags of each text."""
        served = self._served(request.path_params.get("package"))
        body = await self._body(request)
        one, many = body.get("text"), body.get("texts")
        if (one is None) == (many is None):
            raise Refused(400, 'give either "text" or "texts"')
        texts = self._texts([one] if many is None else many)
        predictions = await self._score(served, served.predict, texts)
        for each in predictions:
            if each.get(COLUMN):
                self.metrics.out_of_scope.labels(served.name, each[COLUMN]).inc()
        return JSONResponse({"package": served.name, "version": served.version[:12], "predictions": predictions})

    async def analyze(self, request: Request) -> Response:
        """Answer as Perspective's comments:analyze, with the first package."""
        served = self._served(None)
        body = await self._body(request)
        text = self._texts([perspective.comment_of(body)])[0]
        places = perspective.attribute_labels(self.settings.attributes, served.labels)
        thresholds = perspective.attributes_of(body, places)
        (row,) = await self._score(served, served.probabilities, [text])
        scores = {name: round(float(sum(row[place] for place in places[name])), 6) for name in thresholds}
        return JSONResponse(perspective.answer(body, text, scores, thresholds))

    async def list_packages(self, request: Request) -> Response:
        """Return what is served."""
        shown = [{"name": each.name, "version": each.version, "labels": each.labels} for each in self.models.all()]
        return JSONResponse({"packages": shown})

    async def health(self, request: Request) -> Response:
        """Return 200 as long as requests are answered."""
        return JSONResponse({"status": "ok", "packages": {each.name: each.version for each in self.models.all()}})

    async def show_metrics(self, request: Request) -> Response:
        """Return the counters for Prometheus."""
        text, kind = self.metrics.text()
        return Response(text, headers={"content-type": kind})

    def _served(self, name: str | None) -> Served:
        served = self.models.get(name)
        if served is None:
            known = ", ".join(each.name for each in self.models.all())
            raise Refused(404, f"no package {(name or '')[:100]!r}; served: {known}")
        return served

    def _texts(self, texts: Any) -> list[str]:
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise Refused(400, "a text is a string, and texts are a list of at least one")
        if len(texts) > self.limits.max_texts:
            raise Refused(413, f"{len(texts)} texts, more than {self.limits.max_texts}; send several requests")
        longest = max(map(len, texts))
        if longest > self.limits.max_characters:
            raise Refused(413, f"a text of {longest} characters, more than {self.limits.max_characters}; cut it")
        return texts

    async def _score(self, served: Served, score: Callable[[list[str]], Any], texts: list[str]) -> Any:
        """Score texts in the thread for it, unless too many requests wait for it already."""
        if self.in_work >= self.limits.max_requests:
            raise Refused(503, f"{self.in_work} requests wait already; try again later")
        self.in_work += 1
        try:
            found = await asyncio.get_running_loop().run_in_executor(self.scoring, score, texts)
        finally:
            self.in_work -= 1
        self.metrics.texts.labels(served.name).inc(len(texts))
        return found

    async def _body(self, request: Request) -> dict[str, Any]:
        """Return the JSON object of a request. Raises: Refused if it is too large, too slow or something else."""
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                raw = await self._read(request)
        except TimeoutError:
            seconds = self.limits.body_seconds
            raise Refused(408, f"the body took more than {seconds:g} s; send it at once", unread=True) from None
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError):
            raise Refused(400, "the body is not JSON in UTF-8") from None
        if not isinstance(body, dict):
            raise Refused(400, "the body is not a JSON object")
        return body

    async def _read(self, request: Request) -> bytes:
        most, stated = self.limits.max_body, request.headers.get("content-length", "0")
        too_large = Refused(413, f"a body of more than {most} bytes; send less at a time", unread=True)
        if stated.isdecimal() and int(stated) > most:
            raise too_large
        parts: list[bytes] = []
        size = 0
        try:
            async for part in request.stream():
                size += len(part)
                self.buffered += len(part)
                if size > most:
                    raise too_large
                if self.buffered > MAX_BUFFERED:
                    raise Refused(503, "too many bodies at a time; try again later", unread=True)
                parts.append(part)
            return b"".join(parts)
        finally:
            self.buffered -= size


async def _refused(request: Request, refused: Any) -> Response:
    headers = {"retry-after": "1"} if refused.code in (429, 503) else {}
    if refused.unread:
        headers["connection"] = "close"
    return JSONResponse(error_body(refused.code, refused.message), refused.code, headers)


async def _http_error(request: Request, error: Any) -> Response:
    return JSONResponse(error_body(error.status_code, error.detail), error.status_code, error.headers)


async def _bug(request: Request, error: Exception) -> Response:
    return JSONResponse(error_body(500, "the service failed; its log says why"), 500)
