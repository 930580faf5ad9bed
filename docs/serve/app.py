"""Answers images over HTTP with an exported file: uvicorn app:app

It needs fastapi, uvicorn and what reader.py needs (`regard export --snippet > reader.py`): no PyTorch.
"""

import os
from io import BytesIO
from threading import Lock

import reader
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from PIL import Image, UnidentifiedImageError

LARGEST = 20 * 2**20  # bytes of a file
Image.MAX_IMAGE_PIXELS = 64_000_000  # more than twice as many are an error

app = FastAPI(title="A model of Regard")
run, contract = reader.open_model(os.environ.get("MODEL", "model.onnx"))
one_at_a_time = Lock()  # an answer takes all cores


@app.get("/health")
def health() -> dict[str, object]:
    return {"task": contract["task"], "classes": contract["class_names"], "precision": contract["precision"]}


@app.post("/predict")
async def predict(request: Request) -> dict[str, object]:
    """The body is an image file: curl --data-binary @photo.jpg http://localhost:8000/predict"""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > LARGEST:
            raise HTTPException(413, f"at most {LARGEST:,} bytes")
    try:
        return {"answer": await run_in_threadpool(_answer, bytes(data))}
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise HTTPException(400, f"this image cannot be read: {error}") from None


def _answer(data: bytes) -> object:
    with one_at_a_time:
        return reader.answer(run, contract, BytesIO(data))
