"""Writes compressed layers into a graph, small on disk and in memory; runs in the command line's process."""

from tidemill.compress.emit.layer import emit as emit
from tidemill.compress.emit.patch import Emission as Emission
