"""`Sampling` and `Constraint` in vLLM's words; runs in the child."""

from __future__ import annotations

from typing import Any, Final

from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

from tidemill.core.errors import NotOffered
from tidemill.core.generation import Constraint, Generate
from tidemill.engine.generate import constraint as constraints
from tidemill.engine.generate import ranges

SEEDS: Final = 2**63


def params(work: Generate, tokens_max: int, ours: bool) -> SamplingParams:
    """`ours` says that what must fit is compiled by xgrammar, for which schemas that we know whole become grammars of
    ours. Raises `WrongValue`, and what vLLM does for what it refuses."""
    sampling, constraint = work.sampling, work.constraint
    ranges.check(sampling, work.choices)
    return SamplingParams(
        n=work.choices,
        max_tokens=tokens_max,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        seed=None if sampling.seed is None else sampling.seed % SEEDS,  # -1 would be none
        stop=list(sampling.stop),
        logit_bias=dict(sampling.logit_bias) or None,
        logprobs=sampling.logprobs,
        ignore_eos=sampling.ignore_eos and constraint is None,
        structured_outputs=None if constraint is None else StructuredOutputsParams(**_must_fit(constraint, ours)),
        output_kind=RequestOutputKind.DELTA,
    )


def _must_fit(constraint: Constraint, ours: bool) -> dict[str, Any]:
    if constraint.calls and not ours:
        raise NotOffered(
            "calls beside an answer of a form are held by xgrammar alone, which was not chosen", param=constraints.PARAM
        )
    if constraint.kind == "json" and not constraint.calls:
        return {"json_object": True}
    said = constraints.words(constraint) if ours else {constraint.kind: constraint.text}
    return {"json" if kind == "json_schema" else kind: text for kind, text in said.items()}
