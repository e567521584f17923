"""Tensors sent to a language model are refused with the place where it is asked."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from fakes import KEY
from speaking import SpeakingServer


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/models/mill/infer", {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}]}),
        ("/v2/models/mill/infer", {"inputs": []}),
        ("/v1/models/mill:predict", {"instances": [1]}),
        ("/v1/models/mill:predict", {"inputs": {"x": [1]}}),
    ],
)
def test_a_language_model_says_where_it_is_asked(mill: SpeakingServer, path: str, body: Any) -> None:
    answer = httpx.post(mill.url + path, json=body, headers={"Authorization": f"Bearer {KEY}"})
    assert answer.status_code in (400, 501)
    assert answer.json()["code"] == "request.not_offered"
    assert "/v1/chat/completions" in answer.json()["error"]
