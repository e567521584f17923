"""The door that speaks TensorFlow Serving."""

from tidemill.doors.tfserving.dialect import DIALECTS, PREDICT

__all__ = ["DIALECTS", "PREDICT"]
