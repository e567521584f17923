"""A Hugging Face language model to OpenVINO's IR, which the engine `generate` loads; in the command line's process.

The graph is traced by optimum-intel, with its cache of keys and values as a state; NNCF brings weights to int8, a scale
and a zero for each channel; the tokenizer becomes a graph too. No code that comes with a model is run, and no pickle is
read. What was exported is held against the source, token by token, before it is kept.
"""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from tidemill.compile.apart import PROBE, log_probabilities, nats
from tidemill.core.errors import MissingPart, RefusedExport, TidemillError
from tidemill.repository import huggingface
from tidemill.repository.genai import DETOKENIZER, MODEL, TOKENIZER
from tidemill.repository.huggingface import Source

REVISION: Final = "1"
"""Of what is written here; another one makes what was exported before stale."""
TASK: Final = "text-generation-with-past"
LIBRARIES: Final = ("optimum-intel", "optimum", "transformers", "torch", "nncf", "openvino", "openvino-tokenizers")
NEEDED: Final = ("torch", "transformers", "optimum", "nncf", "openvino", "openvino_tokenizers")
CARRIED: Final = ("config.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja")

Progress = Callable[[str, int, int], None]
"""(what is being done, steps done, steps in all)"""
STEPS: Final = (
    "reading the weights", "tracing the graph", "bringing the weights to {weights}", "writing the tokenizer",
    "holding it against the source",
)  # fmt: skip


def made_with() -> dict[str, str]:
    """What an export depends on besides the model. Raises `MissingPart`."""
    missing = [each for each in NEEDED if find_spec(each) is None]
    if missing:
        raise MissingPart(
            f"exporting a Hugging Face model needs {', '.join(missing)}: pip install 'tidemill[llm-export]', in an"
            " environment of its own (`make llm-export` makes .venvs/llm-export); what it exports is found by others"
        )
    return {"export": REVISION, **{each: version(each) for each in LIBRARIES}}


def check(source: Source) -> None:
    """What can be known to be wrong before anything heavy. Raises `RefusedExport`."""
    if "quantization_config" in source.config:
        how = source.config["quantization_config"]
        how = how.get("quant_method", "") if isinstance(how, dict) else ""
        raise RefusedExport(
            f"{source.folder} is quantised already ({how or 'it does not say how'}); export the model it came from"
        )
    if not (source.folder / huggingface.TOKENIZER).is_file():
        raise RefusedExport(
            f"{source.folder} has no {huggingface.TOKENIZER}: a language model needs its tokenizer; save it beside the"
            " weights (`tokenizer.save_pretrained` writes it)"
        )
    if not isinstance(source.config.get("model_type"), str):
        raise RefusedExport(f"{source.folder / huggingface.CONFIG} names no model_type")


def export(source: Source, weights: str, folder: Path, progress: Progress) -> dict[str, float]:
    """Write the model into `folder`, its weights in `weights` (int8, f16, f32); returns how far it is from the source:
    `nats`, the mean Kullback-Leibler divergence of its next token, over a sentence.

    Raises `RefusedExport`.
    """
    check(source)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ[name] = "1"
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        with _quiet():
            return _export(
                source, weights, folder, lambda step: progress(STEPS[step].format(weights=weights), step, len(STEPS))
            )
    except (TidemillError, MemoryError):
        raise
    except Exception as error:  # whatever torch, transformers, optimum and NNCF raise for a model that they do not like
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's own
        raise RefusedExport(f"{source.folder} cannot be exported: {_said(error)}") from error


def _export(source: Source, weights: str, folder: Path, step: Callable[[int], None]) -> dict[str, float]:
    import nncf
    import openvino
    import torch
    from optimum.exporters.openvino import export_from_model
    from optimum.intel.openvino.configuration import OVConfig

    step(0)
    tokenizer, model = _read(source)
    ids: list[int] = tokenizer(PROBE, add_special_tokens=False).input_ids
    with torch.no_grad():
        wanted = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0].float(), -1).numpy()
    step(1)
    traced = folder / "traced"
    export_from_model(
        model=model, output=traced, task=TASK, stateful=True, preprocessors=[tokenizer], trust_remote_code=False,
        ov_config=OVConfig(dtype="fp16" if weights == "f16" else "fp32"),
        patch_16bit_model=model.dtype in (torch.bfloat16, torch.float16),
    )  # fmt: skip
    del model
    gc.collect()
    step(2)
    if weights == "int8":
        graph = openvino.Core().read_model(traced / MODEL)
        graph = nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_ASYM)
        openvino.save_model(graph, folder / MODEL, compress_to_fp16=False)
        del graph
        gc.collect()
    else:
        for name in (MODEL, Path(MODEL).with_suffix(".bin").name):
            (traced / name).rename(folder / name)
    for name in CARRIED:
        if (traced / name).is_file():
            (traced / name).rename(folder / name)
    shutil.rmtree(traced)
    step(3)
    _write_tokenizer(tokenizer, folder)
    step(4)
    return {"nats": nats(log_probabilities(folder / MODEL, ids), wanted)}


def _read(source: Source) -> tuple[Any, Any]:
    """Tokenizer and model, ready to be traced. Raises `RefusedExport`."""
    import transformers
    from optimum.exporters.tasks import TasksManager
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = source.config["model_type"]
    speaking = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    if not speaking.intersection(source.architectures):
        named = ", ".join(source.architectures) or "of no architecture that it names"
        raise RefusedExport(f"{source.folder} is {named}; exported are language models, such as LlamaForCausalLM")
    try:
        tasks = TasksManager.get_supported_tasks_for_model_type(kind, exporter="openvino", library_name="transformers")
    except KeyError:
        tasks = {}
    if TASK not in tasks:
        raise RefusedExport(
            f"{source.folder} is of the type {kind!r}, which optimum-intel {version('optimum-intel')} does not export"
            " as a language model"
        )
    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = transformers.AutoTokenizer.from_pretrained(source.folder, **safe)
    model = transformers.AutoModelForCausalLM.from_pretrained(source.folder, use_safetensors=True, dtype="auto", **safe)
    return tokenizer, model.eval()


def _write_tokenizer(tokenizer: Any, folder: Path) -> None:
    import openvino
    from openvino_tokenizers import convert_tokenizer

    tokenizer.padding_side = tokenizer.truncation_side = "left"  # as those who generate want it
    forth, back = convert_tokenizer(tokenizer, with_detokenizer=True)
    openvino.save_model(forth, folder / TOKENIZER, compress_to_fp16=False)
    openvino.save_model(back, folder / DETOKENIZER, compress_to_fp16=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The libraries' bars, warnings and tables kept from stdout and stderr; what fails is told by its error."""
    import transformers

    level = logging.root.manager.disable
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # libraries lift what is set below as they are imported
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _said(error: BaseException, characters: int = 400) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {(lines or ['it does not say why'])[0][:characters]}"
