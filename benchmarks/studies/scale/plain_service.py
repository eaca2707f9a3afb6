"""A plain service to compare with: FastAPI and a pipeline of transformers. MODEL and THREADS are in the environment."""

import os

import torch
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

MODEL = os.environ["MODEL"]
torch.set_num_threads(int(os.environ.get("THREADS", "1")))
tokenizer = AutoTokenizer.from_pretrained(MODEL, trust_remote_code=False)
network = AutoModelForSequenceClassification.from_pretrained(MODEL, trust_remote_code=False)
classify = pipeline("text-classification", model=network, tokenizer=tokenizer)
LONGEST = min(tokenizer.model_max_length, 512)
app = FastAPI()


class Text(BaseModel):
    """The body of a request, as that of `hbt serve`."""

    text: str


@app.post("/predict")
def predict(body: Text) -> dict[str, object]:
    """Return the most probable label; FastAPI calls it in a thread of a pool."""
    return {"version": "plain", "predictions": classify(body.text, truncation=True, max_length=LONGEST)}
