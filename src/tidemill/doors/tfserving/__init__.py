"""The door that speaks TensorFlow Serving."""

from tidemill.doors.tfserving.dialect import DIALECT

__all__ = ["DIALECT"]
