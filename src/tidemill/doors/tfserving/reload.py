"""TensorFlow Serving's `ModelServerConfig` as models to serve: pure; runs in the owner process."""

from __future__ import annotations

from pathlib import Path

from tidemill.core.errors import InvalidSetting, MalformedRequest
from tidemill.core.package import ModelEntry, VersionPolicy
from tidemill.doors.tfserving.tensor_proto import Message

VERSIONS_MAX = 1000


def entries(config: Message) -> list[ModelEntry]:
    """Raises `MalformedRequest` for a config of another kind than a list of models, `InvalidSetting` for a model that
    is told badly. What a file is, is read from its content: `model_platform` is not asked."""
    kind = config.WhichOneof("config")
    if kind != "model_config_list":
        raise MalformedRequest(f"the config is {kind or 'empty'}; expected a model_config_list")
    found = [_entry(each) for each in config.model_config_list.config]
    names = [entry.name for entry in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidSetting(f"model {twice[0]!r} is named twice; give each model once")
    return found


def _entry(config: Message) -> ModelEntry:
    name, base = config.name, config.base_path
    if not name:
        raise InvalidSetting("a model in the list has no name")
    if not base.startswith("/") or "\0" in base:
        raise InvalidSetting(f"model {name!r} has the base_path {base!r:.200}; expected an absolute path")
    return ModelEntry(name, Path(base), _policy(name, config.model_version_policy), dict(config.version_labels))


def _policy(name: str, policy: Message) -> VersionPolicy:
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return VersionPolicy(all_versions=True)
    if choice == "specific":
        versions = tuple(policy.specific.versions[:])
        if not versions or min(versions) < 0 or len(versions) > VERSIONS_MAX:
            raise InvalidSetting(f"model {name!r} asks for specific versions {list(versions)!r:.200}, expected some")
        return VersionPolicy(specific=versions)
    latest = policy.latest.num_versions or 1
    if latest > VERSIONS_MAX:
        raise InvalidSetting(f"model {name!r} asks for the latest {latest} versions, at most {VERSIONS_MAX} are served")
    return VersionPolicy(latest=latest)
