"""A captioner: a BLIP model that describes the pictures nothing else describes."""

import os
from typing import Any

from PIL import Image

from nulltext.data.text import one_line
from nulltext.errors import UserError


class Captioner:
    """A BLIP model that says what a picture shows; loaded when the first picture needs it.

    Args:
        model: Hub id or folder of a ``BlipForConditionalGeneration``, such as
            Salesforce/blip-image-captioning-base.
    """

    def __init__(self, model: str) -> None:
        self.model = os.path.expanduser(model)
        self._parts: tuple[Any, Any, Any] | None = None

    def __call__(self, image: Image.Image) -> str:
        """A caption for an RGB image.

        Raises:
            UserError: There is no such model, or it is no BLIP captioner.
        """
        self._parts = self._parts or self._load()
        network, tokenizer, processor = self._parts
        inputs = processor(images=image, return_tensors="pt")
        tokens = network.generate(pixel_values=inputs["pixel_values"], max_new_tokens=40)
        return one_line(tokenizer.decode(tokens[0], skip_special_tokens=True))

    def _load(self) -> tuple[Any, Any, Any]:
        from transformers import AutoTokenizer, BlipForConditionalGeneration
        from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

        try:
            network = BlipForConditionalGeneration.from_pretrained(self.model, use_safetensors=True)
            tokenizer = AutoTokenizer.from_pretrained(self.model)
            processor = BlipImageProcessorPil.from_pretrained(self.model)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"cannot load the captioner {self.model}: give the id or the folder of a BLIP captioning "
                f"model in safetensors form ({str(error).splitlines()[0][:120]})"
            ) from error
        return network.eval(), tokenizer, processor
