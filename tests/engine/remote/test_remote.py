"""What becomes of a request when its upstreams fail: small true servers that break as they are told."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from authority import Authority
from tidemill.core.errors import (
    CallerError,
    DeadlineExceeded,
    ModelNotReady,
    NotOffered,
    Overloaded,
    RefusedByEngine,
    RefusedModel,
    UpstreamFailed,
)
from tidemill.core.generation import CallDelta, Calling, Embed, Generate, Tokenise
from tidemill.core.package import ModelConfig, ModelPackage, Remote
from tidemill.core.package import Upstream as Wish
from tidemill.core.request import InferenceRequest, Piece, Predict, Usage
from tidemill.core.settings import Settings
from tidemill.engine import remote
from tidemill.engine.remote.model import RemoteModel
from upstreams import DONE, SAID, STREAM, USAGE, Upstream, chunk, ok, reply, upstream, word

GENERATE = Generate(prompt="The tide")
BROKEN = [STREAM, word("mill")]


def request(work: Any = GENERATE, seconds: float = 20.0) -> InferenceRequest:
    return InferenceRequest("m", 1, work, "r", "c", time.monotonic() + seconds)


async def said(model: RemoteModel, work: Any = GENERATE, seconds: float = 20.0) -> tuple[str, Piece]:
    async with model.run(request(work, seconds)) as pieces:
        found = [piece async for piece in pieces]
    assert [piece.usage is None for piece in found] == [True] * (len(found) - 1) + [False]
    return "".join(delta.text for piece in found for delta in piece.deltas), found[-1]


@asynccontextmanager
async def gateway(
    count: int = 2, folder: Path = Path(), **wish: Any
) -> AsyncIterator[tuple[RemoteModel, list[Upstream]]]:
    """A model before `count` upstreams, which say `SAID` until they are told otherwise."""
    async with AsyncExitStack() as stack:
        every = [await stack.enter_async_context(upstream()) for _ in range(count)]
        for each in every:
            each.says = SAID
        places = tuple(Wish(each.url) for each in every)
        wished = Remote(**{"protocol": "openai", "upstream": places, "health_s": 0.0, **wish})
        model = await loaded(wished, folder)
        for place in model.places:
            place.standing.credit = 0  # the look at loading was the first's turn
        try:
            yield model, every
        finally:
            assert model.under_way == 0
            await model.close()


async def loaded(wish: Remote, folder: Path = Path()) -> RemoteModel:
    return await remote.load(ModelPackage("m", 1, folder, "remote", 0, ModelConfig(remote=wish)), Settings())


async def test_words_and_usage_are_the_upstreams_own() -> None:
    async with gateway(1, model="other/name") as (model, (one,)):
        text, last = await said(model)
        assert (text, last.usage) == ("mills", Usage(prompt_tokens=5, completion_tokens=2))
        (heard,) = one.heard
        assert (heard.path, b'"model":"other/name"' in heard.body) == ("/v1/completions", True)


async def test_requests_are_shared_out_by_weight() -> None:
    async with gateway(2) as (model, (one, two)):
        for place, weight in zip(model.places, (3, 1), strict=True):
            place.standing.weight = weight
        for _ in range(8):
            await said(model)
        assert (one.asked, two.asked) == (6, 2)


@pytest.mark.parametrize(
    "says",
    [
        pytest.param(b"", id="hangs up"),
        pytest.param(b"HTTP/1.1 200 x\r\n", id="cut in the head"),
        pytest.param(b"no http\r\n\r\n", id="no HTTP"),
        pytest.param(reply(500, b""), id="500"),
        pytest.param(reply(502, b"<html>"), id="502"),
        pytest.param(reply(429, b""), id="429"),
        pytest.param(reply(401, b"{}"), id="401"),
        pytest.param(reply(302, b"", "location: http://127.0.0.1:1/"), id="redirect"),
        pytest.param([STREAM], id="no event"),
        pytest.param([STREAM, b'data: {"error": {"message": "x"}}\n\n'], id="error for the first event"),
        pytest.param([STREAM, b"data: <html>\n\n"], id="no JSON"),
        pytest.param(reply(200, b"x", "content-encoding: gzip"), id="packed"),
    ],
)
async def test_before_the_first_token_another_upstream_answers(says: Any) -> None:
    async with gateway(2) as (model, (one, two)):
        one.says = says
        assert (await said(model))[0] == "mills"
        assert (one.asked, two.asked) == (1, 1)


async def test_upstream_that_is_not_there_is_passed_over() -> None:
    async with gateway(1) as (model, (one,)):
        gone = "http://127.0.0.1:1"
        other = await loaded(Remote("openai", (Wish(gone), Wish(one.url)), health_s=0.0))
        assert (await said(other))[0] == "mills"
        await other.close()
        assert model.speaks is not None


async def test_silent_upstream_is_given_up_in_time_for_another() -> None:
    async with gateway(2, read_ms=100) as (model, (one, _)):
        one.says = None
        assert (await said(model))[0] == "mills"
        await asyncio.wait_for(one.left.wait(), 10)


async def test_after_the_first_token_nobody_else_is_asked_and_the_break_is_told() -> None:
    async with gateway(2) as (model, (one, two)):
        one.says = BROKEN
        heard = []
        async with model.run(request()) as pieces:
            heard.append((await anext(pieces)).deltas[0].text)
            with pytest.raises(UpstreamFailed, match="upstream 1 of model 'm' ended in the middle of its answer"):
                await anext(pieces)
        assert heard == ["mill"]
        assert two.asked == 0


async def test_a_call_that_has_begun_is_said_as_words_are() -> None:
    """Goal: no call is made twice. Method: both upstreams break off, before a call and within it."""
    begun = chunk(tool_calls=[{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}}])
    work = Generate(messages=({"role": "user", "content": "hi"},), calling=Calling())
    async with gateway(2) as (model, (one, two)):
        one.says = [STREAM, chunk(role="assistant", content=None)]
        two.says = [STREAM, begun]
        async with model.run(request(work)) as pieces:
            (delta,) = (await anext(pieces)).deltas
            assert delta.calls == (CallDelta(0, "a", "f", "{"),)
            with pytest.raises(UpstreamFailed, match="upstream 2 of model 'm' ended in the middle of its answer"):
                await anext(pieces)
        assert (one.asked, two.asked) == (1, 1)


async def test_refusal_is_the_callers_and_is_not_asked_again() -> None:
    async with gateway(2, failures_max=1) as (model, (one, two)):
        one.says = reply(400, b'{"error": {"message": "temperature is odd"}}')
        for _ in range(2):
            one.heard.clear()
            model.places[0].standing.credit = 9
            with pytest.raises(RefusedByEngine, match="upstream 1 of model 'm' refused: 'temperature is odd'"):
                await said(model)
        assert (one.asked, two.asked) == (1, 0)


async def test_no_upstream_left_tells_the_last_failure() -> None:
    async with gateway(2) as (model, every):
        for each in every:
            each.says = reply(429, b"", "retry-after: 7")
        with pytest.raises(Overloaded) as caught:
            await said(model)
        assert caught.value.retry_after_s == 7.0


async def test_retries_have_a_budget() -> None:
    async with gateway(2, retry_share=0.0) as (model, (one, two)):
        one.says = reply(500, b"")
        ends = [await asyncio.gather(said(model), return_exceptions=True) for _ in range(4)]
        assert sum(isinstance(end, UpstreamFailed) for (end,) in ends) == 2
        assert (one.asked, two.asked) == (2, 2)


async def test_closed_connection_of_the_only_upstream_is_tried_once_more() -> None:
    async with gateway(1, failures_max=9) as (model, (one,)):
        one.says = b""
        with pytest.raises(UpstreamFailed, match="broke off"):
            await said(model)
        assert one.asked == 3


async def test_closed_connection_of_the_only_one_that_is_well_is_tried_once_more_too() -> None:
    async with gateway(2, failures_max=9) as (model, (one, two)):
        model.places[0].standing.paused_until = float("inf")
        two.says = b""
        with pytest.raises(UpstreamFailed, match="broke off"):
            await said(model)
        assert (one.asked, two.asked) == (0, 3)


async def test_sick_upstream_is_left_alone_until_it_is_well_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with gateway(2, failures_max=2, health_s=0.02) as (model, (one, two)):
        one.says, one.health = reply(502, b""), 503
        for _ in range(8):
            assert (await said(model))[0] == "mills"
        assert one.asked <= 2
        assert two.asked == 8
        one.says, one.health = SAID, 200
        async with asyncio.timeout(10):
            while model.places[0].standing.paused_until:  # noqa: ASYNC110 - it knows no events
                await asyncio.sleep(0.01)
        before = one.asked
        for _ in range(4):
            await said(model)
        assert one.asked - before == 2
    told = " ".join(record.message for record in caplog.records)
    assert "upstream 1 of model 'm' is left alone" in told
    assert "upstream 1 of model 'm' is back" in told


async def test_when_all_are_sick_nobody_is_asked_and_the_caller_learns_when_to_come_back() -> None:
    async with gateway(1, failures_max=1, pause_s=50.0, tries_max=1) as (model, (one,)):
        one.says = reply(502, b"")
        for wanted in ("status 502", "all 1 upstreams of model 'm' have failed lately"):
            with pytest.raises(UpstreamFailed, match=wanted) as caught:
                await said(model)
        assert one.asked == 1
        assert caught.value.retry_after_s == 50.0


async def test_pause_that_is_over_lets_one_request_try() -> None:
    async with gateway(1, failures_max=1, pause_s=0.0, tries_max=1) as (model, (one,)):
        one.says = reply(502, b"")
        with pytest.raises(UpstreamFailed):
            await said(model)
        one.says = SAID
        assert (await said(model))[0] == "mills"


async def test_caller_that_leaves_closes_the_upstreams_connection() -> None:
    async with gateway(1) as (model, (one,)):
        one.says = [STREAM, word("mill"), None]
        async with model.run(request()) as pieces:
            await anext(pieces)
            assert not one.left.is_set()
        await asyncio.wait_for(one.left.wait(), 10)


async def test_caller_that_is_cancelled_before_the_first_word_closes_it_too() -> None:
    async with gateway(1, failures_max=1) as (model, (one,)):
        one.says = None
        task = asyncio.ensure_future(said(model))
        async with asyncio.timeout(10):
            while not one.asked:  # noqa: ASYNC110 - it knows no events
                await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(one.left.wait(), 10)
        assert model.places[0].standing.open(0.0)


@pytest.mark.parametrize("says", [None, [STREAM, word("mill"), None]])
async def test_deadline_ends_it_before_and_after_the_first_word_and_is_no_fault_of_the_upstream(says: Any) -> None:
    async with gateway(1, failures_max=1) as (model, (one,)):
        one.says = says
        with pytest.raises(DeadlineExceeded):
            await said(model, seconds=0.2)
        await asyncio.wait_for(one.left.wait(), 10)
        assert model.places[0].standing.open(0.0)


async def test_closing_the_model_ends_what_runs() -> None:
    async with gateway(1) as (model, (one,)):
        one.says = [STREAM, word("mill"), None]
        async with model.run(request()) as pieces:
            await anext(pieces)
            waiting = asyncio.ensure_future(anext(pieces))
            await asyncio.sleep(0)
            await model.close()
            with pytest.raises(ModelNotReady):
                await waiting


async def test_usage_that_is_missing_is_counted_here_by_bytes_and_said_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with gateway(1) as (model, (one,)):
        one.says = [STREAM, word("mill"), word("s", "stop"), DONE]
        for _ in range(2):
            _, last = await said(model)
            assert last.usage == Usage(prompt_tokens=2, completion_tokens=2)
        assert sum("tells no usage" in record.message for record in caplog.records) == 1


async def test_usage_that_is_missing_is_counted_by_the_tokenizer_beside_the_model(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "The": 1, "tide": 2, "mills": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "words.json"))
    async with gateway(1, tmp_path, tokenizer="words.json") as (model, (one,)):
        one.says = [STREAM, word("mills grind", "stop"), DONE]
        assert (await said(model))[1].usage == Usage(prompt_tokens=2, completion_tokens=2)
        tokens = (await said(model, Tokenise(text="The tide")))[1].tensors["tokens"]
        assert tokens.tolist() == [1, 2]
        assert (await said(model, Tokenise(tokens=(2,))))[0] == "tide"
        with pytest.raises(NotOffered) as refused:
            await said(model, Tokenise(messages=({"role": "user", "content": "x"},)))
        assert refused.value.param == "messages"
        assert model.speaks is not None
        assert model.speaks.vocabulary == 4


async def test_tokens_are_asked_for_where_vllm_has_them_and_nobody_is_sick_for_it() -> None:
    async with gateway(1, tokenizes=True, failures_max=1) as (model, (one,)):
        one.knows = {"/tokenize", "/detokenize", "/v1/completions"}
        one.says = ok({"tokens": [1, 2], "count": 2})
        for _ in range(2):
            assert (await said(model, Tokenise(text="The tide")))[1].tensors["tokens"].tolist() == [1, 2]
        assert [heard.path for heard in one.heard] == ["/v1/tokenize", "/tokenize", "/tokenize"]
        one.says = SAID
        assert (await said(model))[0] == "mills"


@pytest.mark.parametrize(
    ("work", "param"),
    [
        (Tokenise(text="The tide"), "prompt"),
        (Tokenise(messages=({"role": "user", "content": "x"},)), "messages"),
        (Tokenise(tokens=(1, 99)), "tokens"),
    ],
)
async def test_refusal_of_tokens_names_the_field_that_was_sent(work: Tokenise, param: str) -> None:
    async with gateway(1, tokenizes=True) as (model, (one,)):
        for body, told in (({"message": "no"}, param), ({"message": "no", "param": "extra"}, "extra")):
            one.says = reply(400, orjson.dumps({"error": body}))
            with pytest.raises(CallerError, match="refused: 'no'") as refused:
                await said(model, work)
            assert refused.value.param == told
    async with gateway(1) as (model, _):
        with pytest.raises(NotOffered, match="no tokenizer is known") as unknown:
            await said(model, work)
        assert unknown.value.param == "model"


async def test_tokens_that_are_nowhere_are_not_told() -> None:
    async with gateway(1, tokenizes=True) as (model, (one,)):
        one.knows = {"/v1/completions"}
        with pytest.raises(UpstreamFailed, match="404"):
            await said(model, Tokenise(text="The tide"))


async def test_messages_are_tokenised_as_their_template_has_them() -> None:
    async with gateway(1, tokenizes=True) as (model, (one,)):
        one.says = ok({"tokens": [1]})
        await said(model, Tokenise(messages=({"role": "user", "content": "x"},)))
        assert b"add_special_tokens" not in one.heard[0].body


async def test_vectors_come_from_whoever_answers_and_missing_usage_is_counted() -> None:
    async with gateway(2, embeds=True, dimensions=2) as (model, (one, two)):
        one.says = reply(200, b"{}")
        two.says = ok({"data": [{"index": 0, "embedding": [0.5, 1.0]}]})
        _, last = await said(model, Embed(("eight by",)))
        assert last.tensors["embedding"].tolist() == [[0.5, 1.0]]
        assert last.usage == Usage(rows=1, prompt_tokens=2)


async def test_what_the_model_is_not_for_is_refused_without_asking() -> None:
    async with gateway(1, chats=False) as (model, (one,)):
        for work in (Embed(("a",)), Predict({}), Generate(messages=({"role": "user", "content": "a"},)), Tokenise("a")):
            with pytest.raises(NotOffered):
                await said(model, work)
        assert one.asked == 0


async def test_answer_larger_than_is_taken_is_refused() -> None:
    async with gateway(1, answer_bytes_max=1024, tries_max=1) as (model, (one,)):
        one.says = [STREAM, b": " + b"x" * 2000]
        with pytest.raises(UpstreamFailed, match="more bytes than are taken"):
            await said(model)


async def test_key_is_sent_and_told_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: no log and no error holds the key. Method: every log at debug, an upstream that quotes it."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("KEY_OF_TESTS", "sk-environment")
    (tmp_path / "key").write_text("sk-file\n")
    async with upstream() as one, upstream() as two:
        places = (Wish(one.url), Wish(two.url, key_file="key"))
        model = await loaded(Remote("openai", places, key_env="KEY_OF_TESTS", health_s=0.01), tmp_path)
        for each in (one, two):
            each.says = reply(401, b'{"error": {"message": "Incorrect API key: sk-environment sk-file"}}')
        with pytest.raises(UpstreamFailed, match="refuses our key") as caught:
            await said(model)
        (tmp_path / "key").write_text("sk-new\n")
        place = model.places[1]
        async with asyncio.timeout(10):
            while place.key != "sk-new":  # noqa: ASYNC110 - it knows no events
                await asyncio.sleep(0.01)
        await model.close()
        assert [each.heard[0].headers["authorization"] for each in (one, two)] == [
            "Bearer sk-environment",
            "Bearer sk-file",
        ]
    for secret in ("sk-environment", "sk-file", "sk-new"):
        assert secret not in caplog.text + repr(caught.value) + str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        ({"upstream": (Wish("ftp://host"),)}, "expected to be http"),
        ({"upstream": (Wish("http://sk-secret@host"),)}, "a key goes into key_env"),
        ({"upstream": (Wish("http://host:99999"),)}, "expected to be http"),
        ({"key_env": "NOT_SET_ANYWHERE"}, "its key is expected in the environment's NOT_SET_ANYWHERE"),
        ({"key_file": "missing"}, "its key cannot be read from the file"),
        ({"ca_file": "missing.pem"}, "ca_file = 'missing.pem' cannot be read"),
        ({"tokenizer": "missing.json"}, "missing.json"),
        ({"generates": False}, "neither generates nor embeds"),
        ({"protocol": "v2"}, "no upstream tells what the model takes"),
    ],
)
async def test_remote_that_cannot_be_is_refused_with_the_reason(tmp_path: Path, wish: dict[str, Any], why: str) -> None:
    wished = Remote(**{"protocol": "openai", "upstream": (Wish("http://127.0.0.1:1"),), "health_s": 0.0, **wish})
    with pytest.raises(RefusedModel, match=why) as caught:
        await loaded(wished, tmp_path)
    assert "sk-secret" not in caught.value.message


async def test_certificate_of_an_upstream_is_checked(tmp_path: Path) -> None:
    """Goal: the key goes to nobody but whom the operator trusts. Method: a stranger's certificate, then the right."""
    ours, stranger = Authority(tmp_path / "ours"), Authority(tmp_path / "stranger")
    pair = ours.sign("server")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair.cert, pair.key)
    (tmp_path / "key").write_text("sk-file")
    async with upstream(tls) as one:
        one.says = SAID
        for ca_file in ("", str(stranger.ca), str(ours.ca)):
            wish = Remote("openai", (Wish(one.url),), key_file="key", ca_file=ca_file, health_s=0.0, failures_max=9)
            model = await loaded(wish, tmp_path)
            if ca_file == str(ours.ca):
                assert (await said(model))[0] == "mills"
            else:
                with pytest.raises(UpstreamFailed, match="cannot be reached"):
                    await said(model)
                assert one.asked == 0
            await model.close()


async def test_no_proxy_and_no_netrc_of_the_environment_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("default login somebody password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with gateway(1) as (model, (one,)):
        assert (await said(model))[0] == "mills"
        assert "authorization" not in one.heard[0].headers


async def test_context_is_what_the_upstream_says_where_that_is_less() -> None:
    async with gateway(1) as (model, _):
        assert model.speaks is not None
        assert model.speaks.context_tokens == 131_072


assert USAGE in SAID
