"""The four networks, each with both norms, against plain functional code written from the papers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainseg.models import ARCHITECTURES, build
from brainseg.models.base import Network
from brainseg.models.blocks import GROUPS, AttentionGate, ConvBlock, GroupNorm
from brainseg.models.unet import UNet
from brainseg.models.unetpp import UNetPP
from brainseg.types import ModelSpec, WeightsError

NAMES = ("unet", "attention_unet", "unetpp", "attention_unetpp")
NORMS = ("batch", "group")
TWINS = {"attention_unet": "unet", "attention_unetpp": "unetpp"}
GATES = {"unet": 0, "attention_unet": 4, "unetpp": 0, "attention_unetpp": 4 * 1 + 3 * 2 + 2 * 3 + 1 * 4}
WIDTH = 16  # the narrowest GroupNorm of 16 groups allows
DEPTH = 4

every_network = pytest.mark.parametrize("name", NAMES)
every_norm = pytest.mark.parametrize("norm", NORMS)
State = dict[str, Tensor]


def make(
    name: str, norm: str = "batch", seed: int = 0, width: int = WIDTH, gate_norm: bool = False
) -> Network:
    torch.manual_seed(seed)
    return build(ModelSpec(name, width, norm, gate_norm=gate_norm))  # type: ignore[arg-type]


def lively(network: Network, seed: int = 1) -> Network:
    """Every tensor away from its initial value, so that no term of the forward pass can hide."""
    generator = torch.Generator().manual_seed(seed)
    state = network.state_dict()
    for key, value in state.items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 2.0, generator=generator)
        elif key.endswith("running_mean") or (value.ndim == 1 and value.is_floating_point()):
            value.add_(torch.randn(value.shape, generator=generator) * 0.3)
    state["head.weight"].normal_(0, 0.5, generator=generator)
    return network


def images(*shape: int, seed: int = 2) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def tensors(network: nn.Module) -> State:
    return {key: value.clone() for key, value in network.state_dict().items()}


# --- the networks once more, from the papers, in plain functions over the tensors ---


def reference_norm(x: Tensor, state: State, prefix: str) -> Tensor:
    weight, bias = state[f"{prefix}.weight"], state[f"{prefix}.bias"]
    if f"{prefix}.running_mean" in state:  # batch norm in evaluation: stored statistics, eps 1e-5
        mean, variance = state[f"{prefix}.running_mean"], state[f"{prefix}.running_var"]
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=1e-5)
    b, c, h, w = x.shape  # group norm, spelled out: 16 groups, each with its own mean and variance
    grouped = x.reshape(b, 16, -1)
    grouped = grouped - grouped.mean(2, keepdim=True)
    grouped = grouped / (grouped.pow(2).mean(2, keepdim=True) + 1e-5).sqrt()
    return grouped.reshape(b, c, h, w) * weight[:, None, None] + bias[:, None, None]


def reference_block(x: Tensor, state: State, prefix: str) -> Tensor:
    for convolution, norm in ((0, 1), (3, 4)):
        x = F.conv2d(x, state[f"{prefix}.{convolution}.weight"], padding=1)
        x = F.relu(reference_norm(x, state, f"{prefix}.{norm}"))
    return x


def reference_encoder(x: Tensor, state: State) -> list[Tensor]:
    features = [reference_block(x, state, "encoder.levels.0")]
    for level in range(1, DEPTH + 1):
        features.append(
            reference_block(F.max_pool2d(features[-1], 2), state, f"encoder.levels.{level}"),
        )
    return features


def reference_gate(skip: Tensor, below: Tensor, state: State, prefix: str) -> Tensor:
    if f"{prefix}.theta.weight" not in state:
        return skip
    theta = F.conv2d(skip, state[f"{prefix}.theta.weight"], stride=2)
    phi = F.conv2d(below, state[f"{prefix}.phi.weight"], state[f"{prefix}.phi.bias"])
    psi = F.conv2d(F.relu(theta + phi), state[f"{prefix}.psi.0.weight"], state[f"{prefix}.psi.0.bias"])
    if f"{prefix}.psi.1.weight" in state:  # over the positions of one slice
        psi = psi - psi.mean((2, 3), keepdim=True)
        psi = psi / (psi.pow(2).mean((2, 3), keepdim=True) + 1e-5).sqrt()
        psi = psi * state[f"{prefix}.psi.1.weight"] + state[f"{prefix}.psi.1.bias"]
    size = (skip.shape[2], skip.shape[3])
    return skip * F.interpolate(torch.sigmoid(psi), size=size, mode="bilinear", align_corners=False)


def reference_node(skips: list[Tensor], below: Tensor, state: State, prefix: str) -> Tensor:
    up = F.conv_transpose2d(below, state[f"{prefix}.up.weight"], state[f"{prefix}.up.bias"], stride=2)
    gated = [reference_gate(s, below, state, f"{prefix}.gates.{k}") for k, s in enumerate(skips)]
    return reference_block(torch.cat([*gated, up], 1), state, f"{prefix}.block")


def reference_head(x: Tensor, state: State) -> Tensor:
    return F.conv2d(x, state["head.weight"], state["head.bias"])


def reference_unet(x: Tensor, state: State) -> list[Tensor]:
    x0, x1, x2, x3, x4 = reference_encoder(x, state)
    y3 = reference_node([x3], x4, state, "decoder.3")
    y2 = reference_node([x2], y3, state, "decoder.2")
    y1 = reference_node([x1], y2, state, "decoder.1")
    y0 = reference_node([x0], y1, state, "decoder.0")
    return [reference_head(y0, state)]


def reference_unetpp(x: Tensor, state: State) -> list[Tensor]:
    def node(i: int, j: int, skips: list[Tensor], below: Tensor) -> Tensor:
        return reference_node(skips, below, state, f"nodes.{i}_{j}")

    x00, x10, x20, x30, x40 = reference_encoder(x, state)
    x01 = node(0, 1, [x00], x10)
    x11 = node(1, 1, [x10], x20)
    x21 = node(2, 1, [x20], x30)
    x31 = node(3, 1, [x30], x40)
    x02 = node(0, 2, [x00, x01], x11)
    x12 = node(1, 2, [x10, x11], x21)
    x22 = node(2, 2, [x20, x21], x31)
    x03 = node(0, 3, [x00, x01, x02], x12)
    x13 = node(1, 3, [x10, x11, x12], x22)
    x04 = node(0, 4, [x00, x01, x02, x03], x13)
    return [reference_head(column, state) for column in (x01, x02, x03, x04)]


REFERENCES = {
    "unet": reference_unet,
    "attention_unet": reference_unet,
    "unetpp": reference_unetpp,
    "attention_unetpp": reference_unetpp,
}


@every_network
@every_norm
@pytest.mark.parametrize("gate_norm", [False, True])
def test_wiring_equals_the_reference(name: str, norm: str, gate_norm: bool) -> None:
    """Logits, and the gradient of every parameter: nothing is cut off on the way back."""
    network = lively(make(name, norm, gate_norm=gate_norm)).double().eval()
    x, slope = images(2, 3, 48, 32).double(), images(2, 1, 48, 32, seed=3).double()
    buffers = dict(network.named_buffers())
    leaves = {key: value.detach().clone().requires_grad_() for key, value in network.named_parameters()}
    expected = REFERENCES[name](x, {**buffers, **leaves})
    logits = network(x)
    torch.testing.assert_close(logits, expected[-1])
    assert expected[-1].std() > 0.1  # a comparison of constants would prove nothing
    torch.testing.assert_close(network.deep_logits(x), expected)
    gradients = torch.autograd.grad((logits * slope).sum(), list(network.parameters()))
    wanted = torch.autograd.grad((expected[-1] * slope).sum(), list(leaves.values()))
    for key, gradient, reference in zip(leaves, gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, reference, msg=key)


# --- parameters ---


def convolutions(before: int, after: int) -> int:
    """Two 3x3 convolutions without bias, two norms with weight and bias."""
    return 9 * before * after + 9 * after * after + 2 * 2 * after


def gate(skip: int, below: int) -> int:
    """theta 2x2 without bias, phi 1x1 with bias, psi 1x1 to one channel with bias; inner = skip / 2."""
    inner = skip // 2
    return 4 * skip * inner + (below * inner + inner) + (inner + 1)


def counted(name: str, width: int) -> int:
    c: list[int] = [width * 2**level for level in range(5)]
    total = convolutions(3, c[0]) + sum(convolutions(c[k], c[k + 1]) for k in range(4)) + c[0] + 1
    nested = "pp" in name
    nodes = [(i, j) for j in range(1, 5) for i in range(5 - j)] if nested else [(i, 1) for i in range(4)]
    for i, skips in nodes:
        total += 4 * c[i + 1] * c[i] + c[i]  # transposed convolution 2x2 with bias
        total += convolutions((skips + 1) * c[i], c[i])
        total += skips * gate(c[i], c[i + 1]) if name in TWINS else 0
    return total


@every_norm
@pytest.mark.parametrize(
    ("name", "width", "count"),
    [
        ("unet", 16, 1_942_577),
        ("attention_unet", 16, 2_008_101),
        ("unetpp", 16, 2_263_713),
        ("attention_unetpp", 16, 2_376_533),
        ("unet", 32, 7_763_041),
        ("attention_unet", 32, 8_024_645),
        ("unetpp", 32, 9_045_825),
        ("attention_unetpp", 32, 9_495_701),
    ],
)
def test_parameter_counts(name: str, width: int, count: int, norm: str) -> None:
    """The numbers as stated to users; and, layer by layer, why they are these."""
    network = make(name, norm, width=width)
    assert sum(p.numel() for p in network.parameters()) == count
    assert counted(name, width) == count


@pytest.mark.parametrize("name", TWINS)
@every_norm
def test_gated_and_ungated_twins_differ_in_the_gates_alone(name: str, norm: str) -> None:
    gated = {key: value.shape for key, value in make(name, norm).state_dict().items()}
    plain = {key: value.shape for key, value in make(TWINS[name], norm).state_dict().items()}
    assert {key: shape for key, shape in gated.items() if ".gates." not in key} == plain
    assert len(gated) - len(plain) == 5 * GATES[name]  # theta, phi weight and bias, psi weight and bias


def test_the_four_architectures_in_order() -> None:
    assert tuple(ARCHITECTURES) == NAMES
    for name, architecture in ARCHITECTURES.items():
        network = make(name, width=4)
        gates = [module for module in network.modules() if isinstance(module, AttentionGate)]
        assert len(gates) == GATES[name]
        assert architecture.gated == bool(gates) == bool(network.gates())
        assert isinstance(network, UNetPP if "++" in architecture.title else UNet)


# --- forward, backward, seeds, state ---


@every_network
@every_norm
@pytest.mark.parametrize("size", [(32, 32), (48, 32), (16, 64)])
def test_logits_have_the_size_of_the_input(name: str, norm: str, size: tuple[int, int]) -> None:
    logits = make(name, norm).eval()(images(2, 3, *size))
    assert logits.shape == (2, 1, *size)
    assert logits.dtype == torch.float32
    assert (logits < 0).any()
    assert not ((logits >= 0) & (logits <= 1)).all()  # logits, not probabilities


@every_network
@every_norm
def test_every_parameter_gets_a_finite_gradient(name: str, norm: str) -> None:
    network = make(name, norm).train()
    # Not the sum of the logits: the norms would leave that with vanishing gradients.
    (network(images(2, 3, 48, 32)) * images(2, 1, 48, 32, seed=3)).sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.abs().max() > 0, key


@every_network
@every_norm
def test_the_seed_decides_weights_and_output(name: str, norm: str) -> None:
    one, same, other = make(name, norm, 5), make(name, norm, 5), make(name, norm, 6)
    x = images(1, 3, 32, 32)
    for (key, a), b, c in zip(
        one.state_dict().items(), same.state_dict().values(), other.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), key
        if a.ndim == 4:  # all that is drawn at random; norms and biases start at constants
            assert not torch.equal(a, c), key
    assert torch.equal(one.eval()(x), same.eval()(x))
    assert not torch.equal(one(x), other.eval()(x))


@every_network
def test_starts_at_the_share_of_tumour_with_gates_nearly_open(name: str) -> None:
    network = make(name).train()
    with seen_gates(network) as seen, torch.no_grad():
        probability = torch.sigmoid(network(images(2, 3, 32, 32)))
    assert probability.mean().item() == pytest.approx(0.01, rel=0.2)
    assert all(0.7 < coefficients.mean() < 0.97 for coefficients in seen)


@every_network
@every_norm
def test_training_forward_leaves_nothing_but_batch_norm_buffers(name: str, norm: str) -> None:
    network = make(name, norm).train()

    def attributes() -> dict[tuple[str, str], int]:
        return {
            (path, key): id(value) for path, m in network.named_modules() for key, value in vars(m).items()
        }

    before, state = attributes(), tensors(network)
    network(images(2, 3, 32, 32))
    assert attributes() == before
    changed = {key for key, value in network.state_dict().items() if not torch.equal(value, state[key])}
    buffers = {key for key, _ in network.named_buffers()}
    assert changed == buffers
    assert bool(buffers) == (norm == "batch")
    assert all(key.endswith(("running_mean", "running_var", "num_batches_tracked")) for key in buffers)


@every_network
@every_norm
def test_channels_last_gives_the_same_result(name: str, norm: str) -> None:
    network = lively(make(name, norm)).eval()
    x = images(2, 3, 32, 48)
    with torch.no_grad():
        expected = network(x)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        result = network(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


@every_network
def test_samples_do_not_see_each_other_in_evaluation(name: str) -> None:
    network = lively(make(name)).eval()
    x = images(3, 3, 32, 32)
    with torch.no_grad():
        singly = torch.cat([network(sample[None]) for sample in x])
        torch.testing.assert_close(network(x), singly, rtol=1e-4, atol=1e-4)


def four_slices() -> tuple[Tensor, Tensor]:
    """Discs of four sizes, the last of none, a little brighter than noise in one channel."""
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    discs = [(12, 10, 6), (20, 20, 8), (8, 22, 4), (0, 0, 0)]
    masks = torch.stack([((y - a) ** 2 + (x - b) ** 2 < r**2).float() for a, b, r in discs])[:, None]
    batch = images(4, 3, 32, 32) * 0.5
    batch[:, 1:2] += 0.5 * masks
    return batch, masks


@every_network
@every_norm
def test_overfits_four_slices(name: str, norm: str) -> None:
    network = make(name, norm, width=16 if norm == "group" else 8)
    batch, masks = four_slices()
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    wrong = 4 * 32 * 32
    for step in range(1, 121):
        network.train()
        loss = F.binary_cross_entropy_with_logits(network(batch), masks)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 10 == 0:
            with torch.no_grad():
                wrong = int(((network.eval()(batch) > 0) != masks.bool()).sum())
            if not wrong:
                break
    assert wrong == 0


@every_network
def test_dropout_drops_in_training_alone(name: str) -> None:
    torch.manual_seed(0)
    network = build(ModelSpec(name, 16, "batch", dropout=0.3))
    assert {m.p for m in network.modules() if isinstance(m, nn.Dropout2d)} == {0.3}
    x = images(2, 3, 32, 32)
    assert not torch.equal(network.train()(x), network(x))
    assert torch.equal(network.eval()(x), network(x))


def test_dropout_takes_whole_channels_after_the_block() -> None:
    torch.manual_seed(0)
    block = ConvBlock(3, 32, "batch", 0.5).train()
    empty = (block(images(1, 3, 16, 16)) == 0).flatten(2).all(2)
    assert 4 < empty.sum() < 28


# --- gates ---


@contextmanager
def seen_gates(network: nn.Module) -> Iterator[list[Tensor]]:
    """What comes out of every Sigmoid submodule, in the order of the calls."""
    seen: list[Tensor] = []
    sigmoids = [module for module in network.modules() if isinstance(module, nn.Sigmoid)]
    handles = [m.register_forward_hook(lambda _m, _i, out: seen.append(out.clone())) for m in sigmoids]
    yield seen
    for handle in handles:
        handle.remove()


@every_network
def test_a_hook_reads_each_gate_in_0_to_1(name: str) -> None:
    network = lively(make(name)).eval()
    with seen_gates(network) as seen, torch.no_grad():
        network(images(2, 3, 48, 32))
    assert len(seen) == GATES[name]
    for coefficients in seen:
        assert coefficients.shape[:2] == (2, 1)
        assert 0 < coefficients.min() < coefficients.max() < 1
    widths = sorted(coefficients.shape[3] for coefficients in seen)
    per_level = {
        "attention_unet": [2, 4, 8, 16],
        "attention_unetpp": [2] + 3 * [4] + 6 * [8] + 10 * [16],
    }
    assert widths == per_level.get(name, [])


GATE_NAMES = {
    "attention_unet": ["x0", "x1", "x2", "x3"],
    "attention_unetpp": [
        *("x0_1.skip0", "x0_2.skip0", "x0_2.skip1", "x0_3.skip0", "x0_3.skip1", "x0_3.skip2"),
        *("x0_4.skip0", "x0_4.skip1", "x0_4.skip2", "x0_4.skip3"),
        *("x1_1.skip0", "x1_2.skip0", "x1_2.skip1", "x1_3.skip0", "x1_3.skip1", "x1_3.skip2"),
        *("x2_1.skip0", "x2_2.skip0", "x2_2.skip1", "x3_1.skip0"),
    ],
}


@every_network
def test_gates_are_named_finest_first_and_each_stands_at_its_level(name: str) -> None:
    network = make(name, width=4).eval()
    assert [gate.name for gate in network.gates()] == GATE_NAMES.get(name, [])
    widths: dict[str, int] = {}
    for gate in network.gates():
        gate.coefficients.register_forward_hook(
            lambda _m, _i, out, key=gate.name: widths.update({key: out.shape[-1]})
        )
    network(images(1, 3, 32, 32))
    # A gate works on the grid of its gating signal, half as fine as the skip it gates.
    assert widths == {gate.name: 32 // 2 ** (gate.level + 1) for gate in network.gates()}


@pytest.mark.parametrize("name", TWINS)
@every_norm
def test_open_gates_make_the_ungated_twin(name: str, norm: str) -> None:
    gated = lively(make(name, norm)).eval()
    plain = make(TWINS[name], norm).eval()
    plain.load_state_dict({key: v for key, v in gated.state_dict().items() if ".gates." not in key})
    x = images(2, 3, 32, 32)
    with torch.no_grad():
        expected = plain(x)
        assert (gated(x) - expected).abs().max() > 1e-3  # closed a little, the gates matter
        for module in gated.modules():
            if isinstance(module, nn.Sigmoid):
                module.register_forward_hook(lambda _m, _i, out: torch.ones_like(out))
        torch.testing.assert_close(gated(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", TWINS)
def test_normed_gates_start_around_a_half_and_use_their_range(name: str) -> None:
    network = make(name, "group", gate_norm=True)
    with seen_gates(network) as seen, torch.no_grad():
        network(images(2, 3, 96, 96))
    for coefficients in seen:
        assert 0.4 < coefficients.mean() < 0.6
        assert coefficients.std() > 0.15


# --- deep supervision ---


@pytest.mark.parametrize("name", ["unetpp", "attention_unetpp"])
@every_norm
def test_deep_logits_end_with_forward(name: str, norm: str) -> None:
    network = lively(make(name, norm)).eval()
    x = images(2, 3, 32, 48)
    with torch.no_grad():
        columns = network.deep_logits(x)
        assert torch.equal(columns[-1], network(x))
    assert [tuple(column.shape) for column in columns] == 4 * [(2, 1, 32, 48)]
    assert not any(torch.equal(a, b) for a, b in pairwise(columns))


# --- bad input ---


@every_network
@pytest.mark.parametrize(
    "shape", [(1, 3, 40, 32), (1, 3, 32, 33), (1, 1, 32, 32), (1, 4, 32, 32), (3, 32, 32), (1, 1, 3, 32, 32)]
)
def test_another_shape_is_refused(name: str, shape: tuple[int, ...]) -> None:
    network = make(name, width=4).eval()
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\) with H and W divisible by 16, not \("):
        network(torch.zeros(shape))
    with pytest.raises(ValueError, match="divisible by 16"):
        network.deep_logits(torch.zeros(shape))


@every_network
@pytest.mark.parametrize("width", [8, 24])
def test_group_norm_refuses_other_widths(name: str, width: int) -> None:
    with pytest.raises(ValueError, match=f"divisible by 16, not {width}"):
        make(name, "group", width=width)


@every_network
def test_unknown_norm_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="norm must be 'batch' or 'group', not 'layer'"):
        make(name, "layer")


def test_unknown_architecture_names_the_four() -> None:
    with pytest.raises(WeightsError, match=r"'vnet' is not known; choose one of unet, .*attention_unetpp"):
        make("vnet")


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_group_norm_is_that_of_torch_in_the_layout_it_is_given(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    own, theirs = GroupNorm(GROUPS, 32), nn.GroupNorm(GROUPS, 32)
    theirs.load_state_dict(own.state_dict())
    x = torch.randn(2, 32, 6, 5).to(memory_format=layout).requires_grad_()
    twin = x.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    out, expected = own(x), theirs(twin)
    assert out.is_contiguous(memory_format=layout)
    torch.testing.assert_close(out, expected)
    weights = torch.randn_like(expected)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x.grad, twin.grad)
    torch.testing.assert_close(own.weight.grad, theirs.weight.grad)
