"""For torch.hub: the four networks, with the weights in this repository.

>>> import torch
>>> network = torch.hub.load("OWNER/REPOSITORY", "attention_unet", pretrained=True)  # doctest: +SKIP

Each entry point returns a `torch.nn.Module` in evaluation mode that takes (B, 3, H, W) float32, H and W
divisible by 16, and gives logits (B, 1, H, W). The channels are T1 before contrast, FLAIR and T1 after
contrast of an axial slice, each normalised to 0..1 over the patient's whole volume, as
`brainseg.preprocess.Preprocess` does. A probability is the sigmoid of a logit divided by the temperature on
the weights' card, and tumour is where it reaches the card's threshold. `brainseg.load(name)` gives network,
card and preprocessing together, and `brainseg.segment(folder)` does all of it for a patient.

Research use only, not a medical device. The weights are licensed CC BY-NC-SA 4.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brainseg.models.base import Network

dependencies = ["torch", "numpy", "cv2", "safetensors", "huggingface_hub"]


def unet(pretrained: bool = True) -> Network:
    """U-Net (Ronneberger 2015, arXiv:1505.04597).

    Shape: (B, 3, H, W) in 0..1, normalised by `brainseg.preprocess.Preprocess` -> logits (B, 1, H, W); a
    probability is the sigmoid of a logit, divided by the temperature on the card first.

    Args:
        pretrained: with the released weights; else freshly initialised, of the same width.
    """
    return _network("unet", pretrained)


def attention_unet(pretrained: bool = True) -> Network:
    """Attention U-Net (Oktay 2018, arXiv:1804.03999).

    Shape: (B, 3, H, W) in 0..1, normalised by `brainseg.preprocess.Preprocess` -> logits (B, 1, H, W); a
    probability is the sigmoid of a logit, divided by the temperature on the card first.

    Args:
        pretrained: with the released weights; else freshly initialised, of the same width.
    """
    return _network("attention_unet", pretrained)


def unetpp(pretrained: bool = True) -> Network:
    """U-Net++ (Zhou 2018, arXiv:1807.10165; 2020, arXiv:1912.05074).

    Shape: (B, 3, H, W) in 0..1, normalised by `brainseg.preprocess.Preprocess` -> logits (B, 1, H, W); a
    probability is the sigmoid of a logit, divided by the temperature on the card first.

    Args:
        pretrained: with the released weights; else freshly initialised, of the same width.
    """
    return _network("unetpp", pretrained)


def attention_unetpp(pretrained: bool = True) -> Network:
    """Attention U-Net++ (Li 2020, doi 10.1109/ICIP40778.2020.9190761).

    Shape: (B, 3, H, W) in 0..1, normalised by `brainseg.preprocess.Preprocess` -> logits (B, 1, H, W); a
    probability is the sigmoid of a logit, divided by the temperature on the card first.

    Args:
        pretrained: with the released weights; else freshly initialised, of the same width.
    """
    return _network("attention_unetpp", pretrained)


def _network(name: str, pretrained: bool) -> Network:
    # torch.hub asks for `dependencies` first, and says what is missing.
    from brainseg.checkpoint import bundled_card, load  # noqa: PLC0415
    from brainseg.models import build  # noqa: PLC0415

    return load(name).network if pretrained else build(bundled_card(name).spec).eval()
