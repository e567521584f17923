"""The door that speaks KServe V2, as Triton does."""

from tidemill.doors.kserve.dialect import DIALECT

__all__ = ["DIALECT"]
