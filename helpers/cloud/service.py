"""SageMaker's wire protocol over the loopback interface: boto3 can't tell it apart (notebook 12).

The control plane and the logs speak AWS JSON 1.1 (`POST /` with X-Amz-Target), the runtime REST, and its streams AWS'
event streams.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from helpers.cloud.control_plane import ControlPlane
from helpers.cloud.event_stream import CONTENT_TYPE, payload_part, stream_error
from helpers.cloud.faults import ACCOUNT, ServiceFault
from helpers.cloud.kinds import COMPONENT, ENDPOINT
from helpers.cloud.local_endpoint import LocalServer
from helpers.cloud.local_logs import read_logs
from helpers.cloud.store import LocalStore
from helpers.errors import CourseError
from helpers.serving.run import running_app

MAX_BODY = 25 << 20  # bytes of an invocation
TIMEOUT = httpx.Timeout(600, connect=10)
VARIANT = "x-Amzn-Invoked-Production-Variant"


def make_service(plane: ControlPlane) -> FastAPI:
    """The application over a control plane."""
    containers = httpx.AsyncClient(timeout=TIMEOUT, limits=httpx.Limits(max_connections=None))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with containers:
            yield

    app = FastAPI(title="SageMaker, locally", lifespan=lifespan)

    @app.exception_handler(ServiceFault)
    async def fault(request: Request, error: ServiceFault) -> Response:
        body = {"__type": error.kind, "message": str(error), "Message": str(error)} | error.more
        return JSONResponse(body, error.status, headers={"x-amzn-ErrorType": error.kind})

    @app.exception_handler(CourseError)
    async def refused(request: Request, error: CourseError) -> Response:
        return await fault(request, ServiceFault("ValidationException", str(error)))

    @app.post("/")
    async def control(request: Request) -> Response:
        service, _, operation = request.headers.get("x-amz-target", "").partition(".")
        try:
            body = json.loads(await request.body() or b"{}")
        except ValueError as reason:
            raise ServiceFault("SerializationException", f"The body is no JSON: {reason}.") from None
        if service.startswith("Logs"):
            answer = read_logs(plane, operation, body)
        else:  # what it starts and ends takes its time, and streams go on meanwhile
            answer = await asyncio.to_thread(plane.call, operation, body)
        return JSONResponse(answer, media_type="application/x-amz-json-1.1")

    @app.post("/endpoints/{name}/invocations")
    async def invoke(name: str, request: Request) -> Response:
        variant, answer = await asked(name, request)
        try:
            await answer.aread()
        except httpx.TransportError as reason:
            raise _model_error(500, f"The container's answer broke off: {reason!r}") from None
        headers = {VARIANT: variant}
        return Response(answer.content, media_type=answer.headers["content-type"], headers=headers)

    @app.post("/endpoints/{name}/invocations-response-stream")
    async def invoke_stream(name: str, request: Request) -> Response:
        variant, answer = await asked(name, request)
        headers = {"X-Amzn-SageMaker-Content-Type": answer.headers["content-type"], VARIANT: variant}
        return StreamingResponse(_events(answer), media_type=CONTENT_TYPE, headers=headers)

    async def asked(name: str, request: Request) -> tuple[str, httpx.Response]:
        """The container's answer to a request's body, begun; and the variant that it is of."""
        variant, server = _server_of(plane, name, request.headers.get("x-amzn-sagemaker-inference-component"))
        body = await request.body()
        if len(body) > MAX_BODY:
            raise ServiceFault("ValidationError", f"An invocation has {MAX_BODY:,} bytes at most.", 413)
        kind = {"Content-Type": request.headers.get("content-type", "application/json")}
        built = containers.build_request("POST", f"{server.address}/invocations", content=body, headers=kind)
        try:
            answer = await containers.send(built, stream=True)
        except httpx.TransportError as reason:
            raise _model_error(500, f"The container doesn't answer: {reason!r}") from None
        if answer.status_code != 200:
            text = (await answer.aread()).decode(errors="replace")
            raise _model_error(answer.status_code, text)
        return variant, answer

    return app


async def _events(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in answer.aiter_bytes():
            yield payload_part(piece)
    except httpx.HTTPError as reason:
        yield stream_error("ModelStreamError", f"The container's answer broke off: {reason}")
    finally:
        await answer.aclose()


def _server_of(plane: ControlPlane, name: str, component: str | None) -> tuple[str, LocalServer]:
    """What answers for an endpoint, or for a component of it; and its name."""
    if name not in plane.resources[ENDPOINT]:
        raise ServiceFault("ValidationError", f"Endpoint {name} of account {ACCOUNT} not found.")
    servers = plane.resources[ENDPOINT][name].servers
    if component is not None:
        found = plane.resources[COMPONENT].get(component)
        if found is None or found.request["EndpointName"] != name:
            raise ServiceFault("ValidationError", f"Inference Component Name {component} of {name} not found.")
        servers = found.servers
    if not servers:
        raise ServiceFault("ValidationError", "Inference Component Name header is required for this endpoint.")
    [(variant, server)] = servers.items()
    if server.status != "InService":
        raise ServiceFault("ValidationError", f"Endpoint {name} of account {ACCOUNT} is not in service.")
    return variant, server


def _model_error(status: int, text: str) -> ServiceFault:
    whose = "client" if status < 500 else "server"
    sentence = f'Received {whose} error ({status}) from primary with message "{text}".'
    return ServiceFault("ModelError", sentence, 424, OriginalStatusCode=status, OriginalMessage=text)


@contextmanager
def local_service(folder: Path, store: LocalStore) -> Iterator[str]:
    """The service for as long as the block lasts; gives its address. What it has started ends with it."""
    plane = ControlPlane(folder, store)
    try:
        with running_app(make_service(plane)) as url:
            yield url
    finally:
        plane.close()
