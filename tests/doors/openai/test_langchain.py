"""A second client, langchain's: it fills in other fields, and reads other parts of the answers."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from fakes import KEY
from speaking import DIMENSIONS, SpeakingServer, vector


class Beast(BaseModel):
    """A beast."""

    name: str
    legs: int


@pytest.fixture
def asked(mill: SpeakingServer) -> dict[str, Any]:
    return {"base_url": f"{mill.url}/v1", "api_key": SecretStr(KEY), "max_retries": 0, "model": "mill"}


def test_chat_whole_and_streamed(asked: dict[str, Any]) -> None:
    model = ChatOpenAI(**asked, temperature=0, stream_usage=True)
    whole = model.invoke("hello")
    assert whole.content
    assert isinstance(whole, AIMessage)
    assert whole.usage_metadata is not None
    chunks = list(model.stream("hello"))
    assert "".join(str(chunk.content) for chunk in chunks) == whole.content
    assert (
        sum((chunk.usage_metadata or {}).get("output_tokens", 0) for chunk in chunks)
        == (whole.usage_metadata["output_tokens"])
    )


def test_tools_and_what_came_of_them(asked: dict[str, Any]) -> None:
    model = ChatOpenAI(**asked, temperature=0).bind_tools([Beast], tool_choice="any")
    first = model.invoke("a beast")
    assert isinstance(first, AIMessage)
    (call,) = first.tool_calls
    assert (call["name"], call["args"]) == ("Beast", {"name": "mill", "legs": 7})
    answer = ToolMessage("it swims", tool_call_id=call["id"])
    assert ChatOpenAI(**asked).invoke([HumanMessage("a beast"), first, answer]).content


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(asked: dict[str, Any], method: Any) -> None:
    assert convert_to_openai_tool(Beast)["function"]["name"] == "Beast"
    model = ChatOpenAI(**asked).with_structured_output(Beast, method=method)
    assert model.invoke("a beast") == Beast(name="mill", legs=7)


def test_responses(asked: dict[str, Any]) -> None:
    model = ChatOpenAI(**asked, use_responses_api=True, temperature=0)
    whole = model.invoke("hello")
    assert whole.text
    assert "".join(chunk.text for chunk in model.stream("hello")) == whole.text


def test_completions(asked: dict[str, Any]) -> None:
    said = OpenAI(**asked, temperature=0, max_tokens=9).batch(["tide", "mill"])
    assert all(said)


def test_embeddings(asked: dict[str, Any]) -> None:
    model = OpenAIEmbeddings(**asked | {"model": "vectors"}, check_embedding_ctx_length=False)
    assert model.embed_query("tide") == pytest.approx(vector("tide").tolist(), rel=1e-6)
    assert [len(each) for each in model.embed_documents(["tide", "mill"])] == [DIMENSIONS, DIMENSIONS]
