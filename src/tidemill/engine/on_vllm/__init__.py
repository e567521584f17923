"""The engine `vllm`: language models on vLLM's asynchronous engine, which batches every answer under way.

`load` runs in the owner process and needs nothing of vLLM's; `process` is the child that holds vLLM's front, whose
engine and workers are processes below that one. What is not vLLM's (the link, restarts, deadlines) is as in
`engine/generate`.
"""

from __future__ import annotations

from tidemill.engine.on_vllm.model import load

__all__ = ["load"]
