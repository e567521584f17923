"""A language model through the whole service, beside the bare engine and beside llama.cpp's server: SmolLM2 Q4_1.

Claims, each a ratio within one round, of which the median is told:

speed     prompts of 128 tokens, 64 new, at 1, 8 and 32 in flight, streamed over HTTP with key, charge and usage: tokens
          a second at least 0.95 of openvino-genai's own pipeline's with the same weights, and 1.0, 2.2 and 4.5 times
          llama.cpp's server's on the same file, with as many slots as requests; the first token at 32 within a tenth of
          llama.cpp's (p50). Beside the pipeline, which streams nothing, also in whole answers
prefix    the first token after a repeated beginning of 512 tokens comes at least 4 times sooner
beside    the p99 of a request to a small model of the same service, while 32 generate, is at most 3 times its idle one
recovery  a process that generates and is killed under load is back within 10 s, each time

The service and the pipeline run what `tidemill compile` builds of the file, llama.cpp's server the file; with
`--weights file` all run the file. All have the same threads, and take turns. `make bench-llm` builds llama.cpp's server
first; without it, its ratios are left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import httpx
import numpy as np
import uvloop
from common import HERE, Tidemill, kit_models, leave_on_sigterm, tidemill
from llm_latency import beside, prefix
from llm_recovery import recovery
from llm_sides import (
    KV_BYTES,
    MODEL,
    OpenAIServer,
    Prompts,
    Side,
    bare,
    compiled,
    llama_cpp,
    llama_cpp_version,
)
from llm_speed import IN_FLIGHT, speed
from llm_told import Found, keep, markdown, plain, write
from report import CHECK_REFUSED, origin

from tidemill.client.bench import words

ROOT = HERE.parent
PARTS = ("speed", "prefix", "beside", "recovery")
PROMPT_TOKENS, OWN_TOKENS = 128, 8


class Prompting:
    """Prompts of the tokens of a text. Each begins with some of its own, so that none is read from a cache."""

    def __init__(self, known: Sequence[int]) -> None:
        self._known = np.array(known)
        self._random = np.random.default_rng(3)

    def __call__(self, count: int, tokens: int = PROMPT_TOKENS) -> Prompts:
        own = self._random.choice(self._known, (count, OWN_TOKENS))
        rest = np.resize(self._known, tokens - OWN_TOKENS)
        return [[*each.tolist(), *rest.tolist()] for each in own]


def prompting(service: Tidemill) -> Prompting:
    asked = {"model": MODEL, "prompt": words.TEXT}
    answer = httpx.post(f"{service.url}/v1/tokenize", json=asked, headers=service.headers, timeout=30)
    return Prompting(answer.raise_for_status().json()["tokens"])


async def measure(flags: argparse.Namespace) -> dict[str, Found]:
    found: dict[str, Found] = {}
    with ExitStack() as stack:
        models = stack.enter_context(kit_models(flags.models, MODEL, "half"))
        file = models / MODEL / "1" / "model.gguf"
        loaded = compiled(file) if flags.weights == "int8" else file
        serving = ("--kv-cache-bytes", str(KV_BYTES), "--threads", str(flags.threads))
        service = stack.enter_context(tidemill(models, [MODEL, "half"], *serving, "--export-weights", flags.weights))
        ours = OpenAIServer("Tidemill", service.url, service.headers, service.server)
        unstreamed = replace(ours, name="Tidemill, not streamed", streams=False)
        prompts = prompting(service)
        if "speed" in flags.only:
            with ExitStack() as others:
                alone = others.enter_context(bare(loaded, flags.threads, max(IN_FLIGHT)))
                llama: dict[int, Side] = {}
                if flags.llama_cpp.is_file():
                    for count in IN_FLIGHT:
                        llama[count] = others.enter_context(llama_cpp(flags.llama_cpp, file, flags.threads, count))
                else:
                    print(f"{flags.llama_cpp} is not there: make bench-llm builds it")
                found["speed"] = await speed(alone, ours, unstreamed, llama, prompts, flags.rounds, flags.tokens)
        if "prefix" in flags.only:
            found["prefix"] = await prefix(ours, prompts, flags.rounds)
        if "beside" in flags.only:
            found["beside"] = await beside(service, ours, prompts, flags.rounds, flags.tokens, flags.seconds)
        if "recovery" in flags.only:
            found["recovery"] = await recovery(service, ours, prompts, flags.kills, flags.apart)
    return found


def flags_given() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=PARTS, help="only this part; may be repeated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64, help="new ones of an answer")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--weights", choices=("int8", "file"), default="int8",
        help="the service's and the pipeline's: as `tidemill compile` builds them of the file, or the file's own",
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=6.0, help="of `beside`: idle, and again while others generate")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--apart", type=float, default=8.0, help="seconds between a recovery and the next kill")
    parser.add_argument("--llama-cpp", type=Path, default=ROOT / ".venvs/peer-llamacpp/bin/llama-server")
    parser.add_argument("--models", type=Path, help="repository to keep the kit's models in, instead of a new one")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder for llm.json")
    parser.add_argument("--no-write", action="store_true", help="only print")
    flags = parser.parse_args()
    if min(flags.rounds, flags.tokens, flags.threads, flags.kills) < 1:
        parser.error("--rounds, --tokens, --threads and --kills must be at least 1")
    flags.only = flags.only or list(PARTS)
    return flags


def main() -> int:
    leave_on_sigterm()
    flags = flags_given()
    found = uvloop.run(measure(flags))
    about = origin()
    about["versions"] = {**about["versions"], "openvino-genai": version("openvino-genai")}
    if flags.llama_cpp.is_file():
        about["versions"]["llama.cpp"] = llama_cpp_version(flags.llama_cpp)
    settings = {
        "speed": ("rounds", "tokens", "threads", "weights"),
        "prefix": ("rounds", "threads", "weights"),
        "beside": ("rounds", "seconds", "threads", "weights"),
        "recovery": ("kills", "apart", "threads", "weights"),
    }
    parts = {
        name: plain(each, about, {word: getattr(flags, word) for word in settings[name]})
        for name, each in found.items()
    }
    print(markdown(parts))
    if not flags.no_write:
        known = keep(flags.results / "llm.json", parts)
        write({name: known[name] for name in PARTS if name in known}, ROOT / "docs" / "benchmarks.md")
    return 0 if all(claim.holds for each in found.values() for claim in each.claims) else CHECK_REFUSED


if __name__ == "__main__":
    sys.exit(main())
