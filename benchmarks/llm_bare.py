"""openvino-genai's pipeline alone: answers waves of prompts as told on stdin, and says how long each took; a process
of its own.

One line of JSON in, `{"prompts": [[token, ...], ...], "new": tokens}`; one line out, the seconds. Whole answers are
asked for, and `generate()` lets go of the interpreter. Cache and threads are those of the service; the rest is as the
library has it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

# As in `engine/openvino.py`: else the import forks a process that reports it to an analytics service.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import numpy as np
import openvino
import openvino_genai


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--blocks", type=int, required=True, help="of the cache")
    parser.add_argument("--running-max", type=int, required=True)
    flags = parser.parse_args()
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.num_kv_blocks = flags.blocks
    scheduler.enable_prefix_caching = True
    scheduler.max_num_seqs = flags.running_max
    properties = {"INFERENCE_NUM_THREADS": flags.threads, "KV_CACHE_PRECISION": "u8"}
    pipeline = openvino_genai.ContinuousBatchingPipeline(str(flags.model), scheduler, "CPU", properties)
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos = asked["new"], True
        inputs = [openvino.Tensor(np.array([tokens], np.int64)) for tokens in asked["prompts"]]
        began = time.perf_counter()
        results = pipeline.generate(inputs, [config] * len(inputs))
        took_s = time.perf_counter() - began
        if any(len(each.m_generation_ids[0]) != asked["new"] for each in results):
            sys.exit("an answer is not as long as was asked for")
        print(took_s, flush=True)


if __name__ == "__main__":
    main()
