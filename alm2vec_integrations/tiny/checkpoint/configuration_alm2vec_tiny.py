"""Configuration of the ALM2Vec stand-in (remote code, loaded by transformers from this folder)."""

from typing import Any

from transformers import PretrainedConfig, Qwen2Config


class ALM2VecTinyConfig(PretrainedConfig):
    """Sizes of the three trained parts; the mel front-end has none to choose.

    Args:
        audio_width: width of the audio encoder.
        audio_depth: number of its blocks.
        audio_heads: attention heads per block.
        audio_mlp: width of its feed-forward layers.
        text_config: the decoder's `Qwen2Config`, or its fields as a dict.
    """

    model_type = "alm2vec_tiny"
    sub_configs = {"text_config": Qwen2Config}  # noqa: RUF012 - the base class's own form

    def __init__(
        self,
        audio_width: int = 64,
        audio_depth: int = 2,
        audio_heads: int = 4,
        audio_mlp: int = 256,
        text_config: Qwen2Config | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.audio_width = audio_width
        self.audio_depth = audio_depth
        self.audio_heads = audio_heads
        self.audio_mlp = audio_mlp
        if text_config is None:
            text_config = {}
        self.text_config = Qwen2Config(**text_config) if isinstance(text_config, dict) else text_config
        super().__init__(**kwargs)
