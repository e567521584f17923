"""Language models on openvino-genai: a pipeline in a child process that batches every answer under way, step by step.

`load` runs in the owner process and needs no library of the child's; `__main__` is the child.
"""

from __future__ import annotations

from tidemill.engine.generate.generator import load

__all__ = ["load"]
