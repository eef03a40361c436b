"""The list of networks: what each row says is so, and a fifth network is one file and one row."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
import torch
from skimage.color import deltaE_ciede2000, rgb2lab
from streamlit.testing.v1 import AppTest
from torch import Tensor, nn

import brainseg
from brainseg.checkpoint import hub, load, save
from brainseg.cli import main
from brainseg.models import ARCHITECTURES, Architecture, build
from brainseg.models.base import Gate, Network
from brainseg.overlay import FALSE_NEGATIVE, FALSE_POSITIVE, PREDICTION, REFERENCE, TRUE_POSITIVE, rgb
from brainseg.types import ModelSpec, Source, Study, WeightsCard
from brainseg.ui.streamlit.server import SCRIPT

ROOT = Path(__file__).resolve().parent.parent
# Machado, Oliveira, Fernandes 2009, severity 1, for linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


def seen(colours: list[tuple[int, int, int]], vision: str) -> npt.NDArray[np.float64]:
    """CIELAB of colours as a viewer perceives them."""
    c = np.array(colours) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ VISION[vision].T, 0, 1)
    c = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    lab: npt.NDArray[np.float64] = rgb2lab(c[None])[0]
    return lab


def test_every_architecture_has_its_own_colour_and_line() -> None:
    colours = [row.colour for row in ARCHITECTURES.values()]
    reserved = {REFERENCE, TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE}
    assert len({*colours, *reserved}) == 8
    assert len({row.dash for row in ARCHITECTURES.values()}) == 4
    assert ARCHITECTURES["unet"].colour == PREDICTION


@pytest.mark.parametrize("vision", VISION)
def test_model_colours_are_told_apart_by_colour_blind_viewers(vision: str) -> None:
    models = seen([rgb(row.colour) for row in ARCHITECTURES.values()], vision)
    others = [rgb(c) for c in (REFERENCE, TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE)]
    greys = [(g, g, g) for g in range(30, 250, 10)]
    for a, b in itertools.combinations(models, 2):
        assert deltaE_ciede2000(a, b) > 10
    for a, b in itertools.product(models, seen(others + greys, vision)):
        assert deltaE_ciede2000(a, b) > 10


# --- what a row says ---


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_row_says_what_its_network_is(name: str) -> None:
    row, network = ARCHITECTURES[name], build(ModelSpec(name, 4)).eval()
    assert isinstance(network, Network)
    assert row.network == f"{type(network).__module__}:{type(network).__name__}"
    assert row.gated == bool(network.gates())
    with torch.no_grad():
        outputs = network.deep_logits(torch.rand(1, 3, 16, 16))
    assert row.nested == (len(outputs) > 1)
    assert any(identifier in row.paper for identifier in ("arXiv:", "doi "))


def test_reading_the_list_loads_no_torch() -> None:
    code = "import sys, brainseg.models; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_network_without_forward_says_so() -> None:
    with pytest.raises(NotImplementedError, match="Network does not write forward"):
        Network()(torch.zeros(1, 3, 16, 16))


# --- a fifth network ---


class Toy(Network):
    """One convolution and one gate: what a network must have, and no more."""

    def __init__(self, width: int, norm: str, dropout: float) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, width, 3, padding=1)
        self.gate = nn.Sequential(nn.Conv2d(width, 1, 2, stride=2), nn.Sigmoid())
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.features(x)
        opened = nn.functional.interpolate(self.gate(features), scale_factor=2)
        logits: Tensor = self.head(features * opened)
        return logits

    def gates(self) -> tuple[Gate, ...]:
        return (Gate("only", 0, self.gate),)


@pytest.fixture
def fifth(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The toy as one file and one row, with weights of its own beside copies of none of the others."""
    module = ModuleType("toy_network")
    module.Toy = Toy  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_network", module)
    row = Architecture("Toy net", "Nobody 2026, arXiv:0000.00000", "toy_network:Toy", "#FFFFFF", (1, 1))
    monkeypatch.setitem(ARCHITECTURES, "toy", row)
    spec = ModelSpec("toy", 4)
    card = WeightsCard("toy", spec, {"size": 32}, 0.5, "all", "", "CC0-1.0")
    torch.manual_seed(0)
    save(tmp_path / "toy", build(spec), card)
    monkeypatch.setattr(hub, "BUNDLED", tmp_path)
    return tmp_path / "toy"


def test_a_fifth_network_is_built_saved_loaded_and_predicts(fifth: Path) -> None:
    torch.manual_seed(0)
    fresh, loaded = build(ModelSpec("toy", 4)), load("toy")
    assert isinstance(loaded.network, Toy)
    state = loaded.network.state_dict()
    assert all(torch.allclose(state[k], v, atol=1e-3) for k, v in fresh.state_dict().items())
    slices = np.random.default_rng(0).integers(0, 255, (3, 40, 30, 3), dtype=np.uint8)
    study = Study(slices, "P_1", Source("test", (), ""), (1, 2, 3))
    found = brainseg.Predictor(loaded, "cpu").predict(study)
    assert found.probability.shape == (3, 40, 30)
    assert found.architecture == "toy"
    [attention] = found.attention
    assert (attention.gate, attention.level, attention.coefficients.shape) == ("only", 0, (3, 16, 16))


def test_a_fifth_network_is_listed_by_the_command_line(
    fifth: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as code:
        main(["models", "--json"])
    assert code.value.code == 0
    row = json.loads(capsys.readouterr().out)["models"]["toy"]
    assert row["title"] == "Toy net"
    assert row["bundled"]
    assert row["parameters"] == sum(p.numel() for p in load("toy").network.parameters())


def test_a_fifth_network_is_offered_by_the_page(fifth: Path) -> None:
    page = AppTest.from_file(str(SCRIPT), default_timeout=60).run()
    page.button(key="sample").click().run()
    assert [box.label for box in page.checkbox if "Toy" in box.label] == ["Toy net"]
    assert not page.exception
