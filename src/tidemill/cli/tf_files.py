"""What the files of TensorFlow Serving's start line ask for, as settings; runs in the command line's process."""

from __future__ import annotations

from pathlib import Path

from tidemill.cli.tf_words import StartLine


def read(line: StartLine) -> StartLine:
    """`line` with what its files say; a flag of the line itself has the last word. Raises `InvalidSetting`."""
    from tidemill.repository import tf_config

    flags, notes = dict(line.flags), list(line.notes)
    if place := line.files.get("batching_parameters_file"):
        said, untold = tf_config.read_batching(Path(place))
        flags, notes = {**said, **flags}, [*notes, *untold]
    if place := line.files.get("monitoring_config_file"):
        flags = {"metrics_path": tf_config.read_metrics_path(Path(place)), **flags}
    return line._replace(flags=flags, notes=notes, files={})
