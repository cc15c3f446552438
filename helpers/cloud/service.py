"""SageMaker's wire protocol over the loopback interface: boto3 can't tell it apart (notebook 12).

The control plane speaks AWS JSON 1.1 (`POST /` with X-Amz-Target), the runtime REST, its streams AWS' event streams.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from helpers.cloud.control_plane import ControlPlane
from helpers.cloud.event_stream import CONTENT_TYPE, payload_part, stream_error
from helpers.cloud.faults import ACCOUNT, ServiceFault, arn
from helpers.cloud.local_endpoint import LocalServer
from helpers.cloud.store import LocalStore
from helpers.errors import CourseError
from helpers.serving.run import running_app

MAX_BODY = 25 << 20  # bytes of an invocation
TIMEOUT = httpx.Timeout(600, connect=10)


def make_service(plane: ControlPlane) -> FastAPI:
    """The application over a control plane."""
    app = FastAPI(title="SageMaker, locally")

    @app.exception_handler(ServiceFault)
    async def fault(request: Request, error: ServiceFault) -> Response:
        body = {"__type": error.kind, "message": str(error), "Message": str(error)} | error.more
        return JSONResponse(body, error.status, headers={"x-amzn-ErrorType": error.kind})

    @app.exception_handler(CourseError)
    async def refused(request: Request, error: CourseError) -> Response:
        return await fault(request, ServiceFault("ValidationException", str(error)))

    @app.post("/")
    async def control(request: Request) -> Response:
        operation = request.headers.get("x-amz-target", "").removeprefix("SageMaker.")
        try:
            body = json.loads(await request.body() or b"{}")
        except ValueError as reason:
            raise ServiceFault("SerializationException", f"The body is no JSON: {reason}.") from None
        return JSONResponse(plane.call(operation, body), media_type="application/x-amz-json-1.1")

    @app.post("/endpoints/{name}/invocations")
    async def invoke(name: str, request: Request) -> Response:
        server = _server_of(plane, name, request)
        async with httpx.AsyncClient(timeout=TIMEOUT) as client:
            answer = await client.post(f"{server.address}/invocations", content=await _body(request), headers=JSON)
        if answer.status_code != 200:
            raise _model_error(name, answer.status_code, answer.text)
        kind = answer.headers["content-type"]
        return Response(answer.content, media_type=kind, headers={"x-Amzn-Invoked-Production-Variant": "AllTraffic"})

    @app.post("/endpoints/{name}/invocations-response-stream")
    async def invoke_stream(name: str, request: Request) -> Response:
        server = _server_of(plane, name, request)
        client = httpx.AsyncClient(timeout=TIMEOUT)
        asked = client.build_request(
            "POST", f"{server.address}/invocations", content=await _body(request), headers=JSON
        )
        answer = await client.send(asked, stream=True)
        if answer.status_code != 200:
            text = (await answer.aread()).decode(errors="replace")
            await client.aclose()
            raise _model_error(name, answer.status_code, text)
        headers = {
            "X-Amzn-SageMaker-Content-Type": answer.headers["content-type"],
            "x-Amzn-Invoked-Production-Variant": "AllTraffic",
        }
        return StreamingResponse(_events(client, answer), media_type=CONTENT_TYPE, headers=headers)

    return app


JSON = {"Content-Type": "application/json"}


async def _events(client: httpx.AsyncClient, answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in answer.aiter_bytes():
            yield payload_part(piece)
    except httpx.HTTPError as reason:
        yield stream_error("ModelStreamError", f"The container's answer broke off: {reason}")
    finally:
        await client.aclose()


async def _body(request: Request) -> bytes:
    body = await request.body()
    if len(body) > MAX_BODY:
        raise ServiceFault("ValidationError", f"An invocation has {MAX_BODY:,} bytes at most.", 413)
    return body


def _server_of(plane: ControlPlane, name: str, request: Request) -> LocalServer:
    if name not in plane.endpoints:
        raise ServiceFault("ValidationError", f"Endpoint {name} of account {ACCOUNT} not found.")
    part = request.headers.get("x-amzn-sagemaker-inference-component")
    servers = {key[1]: server for key, server in plane.servers.items() if key[0] == name}
    if part is not None and part not in plane.components:
        raise ServiceFault("ValidationError", f"Inference Component Name {part} of account {ACCOUNT} not found.")
    if part is None and any(key in plane.components for key in servers):
        raise ServiceFault("ValidationError", "Inference Component Name header is required for this endpoint.")
    server = servers[part] if part else next(iter(servers.values()))
    if server.status != "InService":
        raise ServiceFault("ValidationError", f"Endpoint {name} of account {ACCOUNT} is not in service.")
    return server


def _model_error(name: str, status: int, text: str) -> ServiceFault:
    sentence = f'Received client error ({status}) from primary with message "{text}".'
    return ServiceFault(
        "ModelError", sentence, 424, OriginalStatusCode=status, OriginalMessage=text, LogStreamArn=arn("endpoint", name)
    )


@contextmanager
def local_service(folder: Path, store: LocalStore) -> Iterator[str]:
    """The service for as long as the block lasts; gives its address. What it has started ends with it."""
    plane = ControlPlane(folder, store)
    try:
        with running_app(make_service(plane)) as url:
            yield url
    finally:
        plane.close()
