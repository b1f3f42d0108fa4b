"""An app like vLLM's behind the guard, on uvicorn: `python guarded.py PORT h11|httptools|open`, in vLLM's environment.

It answers every path and method, so that whatever passes the guard is seen by the word ANSWERED. Without the guard if
HONE_GUARD is not set.
"""

import asyncio
import os
import sys

import uvicorn
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import PlainTextResponse, StreamingResponse

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)


@app.get("/health")
async def health() -> PlainTextResponse:
    """As vLLM's: empty."""
    return PlainTextResponse("")


@app.get("/metrics")
async def metrics() -> PlainTextResponse:
    """What only Prometheus may read."""
    return PlainTextResponse("ANSWERED_total 1\n")


@app.websocket("/{path:path}")
async def websocket(socket: WebSocket) -> None:
    """Any WebSocket."""
    await socket.accept()
    await socket.send_text("ANSWERED")


@app.api_route("/{path:path}", methods=METHODS)
async def anything(request: Request) -> StreamingResponse:
    """Every other path: how many bytes came, in three pieces, as a stream comes."""
    size = len(await request.body())
    own = request.headers.get("authorization", "")

    async def pieces() -> object:
        for piece in ("ANSWERED ", f"{size} ", own):
            yield piece
            await asyncio.sleep(0)

    return StreamingResponse(pieces(), media_type="text/plain", headers={"x-app": "ANSWERED"})  # type: ignore[arg-type]


if __name__ == "__main__":
    if "HONE_GUARD" in os.environ:
        import hone_guard

        app.add_middleware(hone_guard.Guard)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), http=sys.argv[2], log_level="warning", access_log=False)
