"""What the components that embed have in common: the model's arguments, when it is loaded, and how they are stored."""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Mapping
from typing import Any, Self

from haystack import default_from_dict, default_to_dict
from haystack.utils import ComponentDevice, Secret
from haystack.utils.hf import deserialize_hf_model_kwargs, serialize_hf_model_kwargs

from .. import arguments, tiny
from ..checkpoint.configuration import Verify
from ..checkpoint.resolving import PUBLISHED
from ..checkpoint.stored import check_stored, other_keywords
from ..encoder import ALM2VecEncoder
from ..errors import InputError

DEFAULT_TOKEN = Secret.from_env_var(["HF_API_TOKEN", "HF_TOKEN"], strict=False)
"""As in Haystack's own components: the first of these variables that is set, read when the model is loaded."""

_COMMON = (
    "model",
    "device",
    "token",
    "revision",
    "trust_remote_code",
    "local_files_only",
    "dtype",
    "model_kwargs",
    "batch_size",
    "max_batch_seconds",
    "batching",
    "verify",
)


class EmbeddingComponent:
    """A component with a model behind it, which other components of equal configuration share.

    Nothing is loaded before `warm_up`, and `close` lets go of it.
    """

    model: str
    device: ComponentDevice | None
    token: Secret | None
    trust_remote_code: bool | None
    revision: str | None
    local_files_only: bool
    verify: Verify
    model_kwargs: dict[str, Any] | None
    _core: ALM2VecEncoder | None
    _from_storage: bool

    def _keep(self, *, root_path: str | os.PathLike[str] | None = None, **given: Any) -> None:
        """Store the arguments, as basic types where a pipeline is to be written down.

        Raises:
            InputError: an argument has the wrong type or value.
        """
        if given["device"] is not None and not isinstance(given["device"], ComponentDevice):
            raise InputError(f"device must be a ComponentDevice or None, got {given['device']!r}")
        if given["token"] is not None and not isinstance(given["token"], Secret):
            raise InputError(
                f"token must be a Secret or None, got {type(given['token']).__name__}: Secret.from_token(…)"
            )
        size = given["batch_size"]
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise InputError(f"batch_size must be a whole number of 1 or more, got {size!r}")
        given["model"] = arguments.model_name(given["model"])
        if given["dtype"] is not None:
            given["dtype"] = str(given["dtype"]).removeprefix("torch.")
        for name in _COMMON:
            setattr(self, name, given[name])
        self._root_path = as_path("root_path", root_path)
        self._core = None
        self._from_storage = False
        # Its constructor looks at every argument and loads nothing. The token is read when the model is.
        ALM2VecEncoder(**self._encoder_arguments())

    def _encoder_arguments(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in _COMMON}
        del given["token"]
        given["max_batch_items"] = given.pop("batch_size")
        device: ComponentDevice | None = given.pop("device")
        kwargs = dict(given["model_kwargs"]) if isinstance(given["model_kwargs"], Mapping) else given["model_kwargs"]
        if device is not None and device.has_multiple_devices:
            if kwargs and "device_map" in kwargs:
                raise InputError("device and model_kwargs both say which devices: leave one of them out")
            kwargs = {**(kwargs or {}), "device_map": device.to_hf()}
        elif device is not None:
            given["device"] = device.to_torch_str()
        given["model_kwargs"] = kwargs
        given["allowed_audio_roots"] = None if self._root_path is None else [self._root_path]
        return given

    def _encoder(self) -> ALM2VecEncoder:
        """The encoder, made at the first need.

        Raises:
            CheckpointUnavailableError: the component comes from a stored pipeline, whose word for code is not taken.
            InputError: the stored pipeline says what a file may not say.
        """
        if self._core is None:
            given = self._encoder_arguments()
            token = None if self.token is None else self.token.resolve_value()
            if self._from_storage:
                self._check_stored(token)
                if given["trust_remote_code"]:
                    given["trust_remote_code"] = None
            self._core = ALM2VecEncoder(token=token, **given)
        return self._core

    async def _encoder_async(self) -> ALM2VecEncoder:
        """`_encoder` off the event loop: for a stored revision it may ask the hub."""
        return await asyncio.to_thread(self._encoder)

    def _check_stored(self, token: str | None) -> None:
        """Raise unless a file may say what this component's said; the file's trust_remote_code is not looked at."""
        if others := other_keywords(self.model_kwargs):
            raise InputError(
                f"model_kwargs in a stored pipeline hold what a file may not say: {others}: they can load code or "
                "weights from elsewhere. Leave them out of the file, or make the component in Python"
            )
        if self.verify != "full":
            raise InputError(
                f"verify is {self.verify!r} in a stored pipeline, and no file lowers that guard: leave it out of the "
                "file, or make the component in Python"
            )
        check_stored(self.model, self.revision, token=token, cache_dir=None, local_files_only=self.local_files_only)

    # Haystack's lifecycle

    def warm_up(self) -> None:
        """Load the model, unless it is there.

        Raises:
            CheckpointError: it cannot be loaded, or its code is not trusted.
        """
        _ = self._encoder().dim

    async def warm_up_async(self) -> None:
        """`warm_up` without blocking the event loop."""
        await asyncio.to_thread(self.warm_up)

    def close(self) -> None:
        """Let go of the model; its memory is freed when no other component holds it. A later run loads it again."""
        if self._core is not None:
            self._core.close()

    async def close_async(self) -> None:
        """`close` without blocking the event loop."""
        await asyncio.to_thread(self.close)

    def _get_telemetry_data(self) -> dict[str, Any]:
        """What Haystack's telemetry may send: the name of a public model, and nothing of the user's own."""
        return {"model": self.model if self.model in (*PUBLISHED, tiny.NAME) else "other"}

    # Storing

    def _to_dict(self, **own: Any) -> dict[str, Any]:
        kwargs = copy.deepcopy(self.model_kwargs)
        if kwargs is not None:
            serialize_hf_model_kwargs(kwargs)
        common = {name: getattr(self, name) for name in _COMMON} | {"model_kwargs": kwargs}
        return default_to_dict(self, **common, **own)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The component that `to_dict` wrote down; what no file may say is refused when the model would be loaded.

        Args:
            data: as `to_dict` gives it; it is left as it is.

        Raises:
            InputError: an argument has the wrong type or value.
        """
        parameters = dict(data.get("init_parameters", {}))
        if parameters.get("model_kwargs") is not None:
            parameters["model_kwargs"] = copy.deepcopy(parameters["model_kwargs"])
            deserialize_hf_model_kwargs(parameters["model_kwargs"])
        made = default_from_dict(cls, {**data, "init_parameters": parameters})
        made._from_storage = True
        return made


def as_path(name: str, value: Any) -> str | None:
    """A folder as text, which YAML can hold.

    Raises:
        InputError: it is none.
    """
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else value
    if text is not None and (not isinstance(text, str) or not text):
        raise InputError(f"{name} must be a folder or None, got {value!r}")
    return text
