"""`Engine` on TensorFlow itself, for the SavedModels that nothing else reads; blocks the thread of its lane.

The session of TensorFlow 1, because that is how TensorFlow Serving runs a SavedModel of any age: `tf.saved_model.load`
fails on old ones. https://www.tensorflow.org/api_docs/python/tf/compat/v1/saved_model/load
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Else TensorFlow tells on stderr what it found in the machine, and of a request that fails what was asked. An
# operator's own wish stays.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from tidemill.core.errors import EngineFailed, RefusedByEngine, RefusedModel
from tidemill.core.package import ModelPackage
from tidemill.core.tensor import Array, Tensors
from tidemill.repository import saved_model

v1 = tf.compat.v1
CALLABLES_MAX = 16
"""Choices of outputs that are kept compiled; one more takes the place of them all."""
REFUSALS = (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError, tf.errors.NotFoundError)


def load(package: ModelPackage, threads: int) -> TensorFlowEngine:
    """Raises `RefusedModel`, also for a model that is no SavedModel."""
    if package.format != "savedmodel":
        raise RefusedModel(f"{package.path} is a {package.format} model; the engine `tensorflow` reads SavedModels")
    config = v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=1)
    session = v1.Session(graph=tf.Graph(), config=config)
    try:
        with session.graph.as_default():
            meta = v1.saved_model.load(session, [saved_model.SERVING_TAG], str(package.path))
    except (tf.errors.OpError, RuntimeError, ValueError, KeyError, OSError) as error:
        session.close()
        raise RefusedModel(f"TensorFlow cannot load {package.path}: {_reason(error)}") from error
    chosen = saved_model.choose(package.path, meta.signature_def, package.config.signature)
    return TensorFlowEngine(session, package.path, meta.signature_def, chosen)


class TensorFlowEngine:
    """The signature `name` of a loaded SavedModel; `definitions` are TensorFlow's `SignatureDef`s by name. Raises
    `RefusedModel` for one that is not of tensors that are served."""

    def __init__(self, session: Any, path: Path, definitions: Mapping[str, Any], name: str) -> None:
        self._session = session
        self._path = path
        self._definitions = definitions
        self._definition = definitions[name]
        others = saved_model.others(definitions, name)
        self.signature = saved_model.specified(path, name, self._definition, others)
        self._inputs = [spec.name for spec in self.signature.inputs]
        self._outputs = tuple(spec.name for spec in self.signature.outputs)
        self._callables: dict[tuple[str, ...], Callable[..., list[Any]]] = {}

    def predict(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        names = tuple(outputs) or self._outputs
        call = self._callables.get(names) or self._compiled(names)
        try:
            arrays = call(*(inputs[name] for name in self._inputs))
        except REFUSALS as error:
            raise RefusedByEngine(f"the model refused these inputs: {_reason(error)}") from error
        except UnicodeDecodeError as error:  # TensorFlow quotes a value in its message, which is no text
            raise RefusedByEngine("the model refused these inputs; the value it names is no UTF-8") from error
        except (tf.errors.OpError, RuntimeError, ValueError, TypeError) as error:
            raise EngineFailed(f"TensorFlow failed: {_reason(error)}") from error
        return {name: _owned(array) for name, array in zip(names, arrays, strict=True)}

    def _compiled(self, names: tuple[str, ...]) -> Callable[..., list[Any]]:
        if len(self._callables) >= CALLABLES_MAX:
            self._callables.clear()
        graph = self._session.graph
        fetched = [graph.get_tensor_by_name(self._definition.outputs[name].name) for name in names]
        fed = [graph.get_tensor_by_name(self._definition.inputs[name].name) for name in self._inputs]
        made: Callable[..., list[Any]] = self._session.make_callable(fetched, fed)
        self._callables[names] = made
        return made

    def fork(self) -> TensorFlowEngine:
        """On the same session, whose `run` may be called from any number of threads."""
        return self.signed(self.signature.name)

    def signed(self, name: str) -> TensorFlowEngine:
        """As `fork`, for another signature."""
        return TensorFlowEngine(self._session, self._path, self._definitions, name)

    def close(self) -> None:
        del self._session, self._callables  # the session ends with the last engine on it


def _owned(value: Any) -> Array:
    """TensorFlow gives a scalar string as bytes, and arrays that may lie in memory of its own."""
    if isinstance(value, bytes):
        return np.array(value, dtype=object)
    return np.array(value, order="C", copy=True)


def _reason(error: BaseException, characters: int = 400) -> str:
    """TensorFlow's message without the places in the code that made the graph."""
    message = str(getattr(error, "message", None) or error)
    telling = message.rpartition("\nNode: ")[2].strip().split("\n")
    lines = [line.strip() for line in telling if not line.lstrip().startswith(("[[", "'", "Graph execution"))]
    return " ".join(line for line in lines if line)[:characters] or type(error).__name__
