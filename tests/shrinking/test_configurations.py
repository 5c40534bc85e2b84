"""Uniform shrinks of Hugging Face models: the configuration says how wide they are, and gives them back."""

from pathlib import Path
from typing import Any

import pytest
import torch

import openwork as ow
from openwork.shrinking import NotEqual, verify
from openwork.shrinking.configurations import check_configuration
from openwork.wiring import inspect
from tests.wiring.zoo import transformer

FAMILIES = ["gpt2", "bert", "vit", "llama", "qwen3_moe"]


def zeroed(name: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """A model of which a third of the units of every coupling is zero, or half if there are few; others per layer."""
    model, x = transformer(name)
    tensors = dict(model.named_parameters())
    with torch.no_grad():
        for coupling in inspect(model, x).removable:
            dead = torch.randperm(coupling.width)[: max(coupling.width // 3, int(coupling.width < 3))]
            for part in coupling.slices():
                if part.name in tensors:
                    tensors[part.name].index_fill_(part.dim, torch.isin(part.units, dead).nonzero().flatten(), 0)
    return model.eval(), x


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("gpt2", {"n_inner": 7}),
        ("bert", {"intermediate_size": 8}),
        ("vit", {"intermediate_size": 8}),
        (
            "llama",
            {
                "hidden_size": 12,  # a multiple of the heads
                "rms_norm_eps": 1e-6 * 16 / 12,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "intermediate_size": 8,
            },
        ),
        ("qwen3_moe", {"num_attention_heads": 2, "num_key_value_heads": 1, "moe_intermediate_size": 4}),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_small_model_goes_through_its_library_s_own_files(name: str, fields: dict[str, Any], tmp_path: Path) -> None:
    model, x = zeroed(name)
    before = model.config.to_dict()
    shrunk = ow.shrink(model, x, uniform=True)
    assert shrunk.plan.configuration == fields
    assert model.config.to_dict() == before
    small: Any = shrunk.model
    assert {key: getattr(small.config, key) for key in fields} == fields
    assert all(module.config is small.config for module in small.modules() if hasattr(module, "config"))

    small.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    shapes = {key: tuple(tensor.shape) for key, tensor in small.state_dict().items()}
    assert {key: tuple(tensor.shape) for key, tensor in loaded.state_dict().items()} == shapes
    assert torch.equal(loaded(**x)[0], small(**x)[0])
    assert verify(model, loaded, x).difference < 1e-5
    if name == "llama":
        assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


@pytest.mark.parametrize("name", ["gpt2", "vit"])
def test_what_the_configuration_cannot_say_stays_whole_and_is_named(name: str) -> None:
    model, x = zeroed(name)
    shrunk = ow.shrink(model, x, uniform=True)
    heads = {
        "gpt2": "transformer.h.0.attn.c_attn.weight, transformer.h.1.attn.c_attn.weight",
        "vit": "vit.layers.0.attention.q_proj.weight, vit.layers.1.attention.q_proj.weight",
    }[name]
    assert f"the configuration has no field for the widths of {heads}, which stay whole" in shrunk.report.notes
    attention = [width for width in shrunk.report.widths if "att" in width.name]
    assert len(attention) == 2
    assert all(width.before == width.after for width in attention)


def test_widths_can_be_multiples() -> None:
    model, x = zeroed("bert")
    assert ow.shrink(model, x, uniform=True, round_to=4).plan.configuration == {"intermediate_size": 8}
    model, x = zeroed("gpt2")
    assert ow.shrink(model, x, uniform=True, round_to=4).plan.configuration == {"n_inner": 8}


def test_a_saved_model_brings_its_configuration_along(tmp_path: Path) -> None:
    model, x = zeroed("llama")
    shrunk = ow.shrink(model, x, uniform=True)
    ow.save(shrunk, tmp_path / "small.safetensors")
    config = model.config
    loaded: Any = ow.load(tmp_path / "small.safetensors", into=lambda: type(model)(config))
    assert config.hidden_size == 16  # the caller's own
    assert loaded.config.hidden_size == loaded.model.layers[0].self_attn.config.hidden_size == 12
    assert torch.equal(loaded.eval()(**x)[0], shrunk.model(**x)[0])


def test_without_uniform_the_configuration_is_left_alone() -> None:
    model, x = zeroed("gpt2")
    shrunk = ow.shrink(model, x)
    assert shrunk.plan.configuration == {}
    assert shrunk.report.params[1] < ow.shrink(model, x, uniform=True).report.params[1]


def test_a_configuration_of_another_model_is_noticed() -> None:
    model, x = zeroed("llama")
    small: Any = ow.shrink(model, x, uniform=True).model
    check_configuration(small, x, dtype=None, seed=0)
    small.config.rms_norm_eps = 0.5
    with pytest.raises(
        NotEqual, match=r"a LlamaForCausalLM built from the new configuration: shrink with uniform=False"
    ):
        check_configuration(small, x, dtype=None, seed=0)
    small.config.intermediate_size = 12
    with pytest.raises(NotEqual, match=r"configuration of LlamaForCausalLM cannot say how wide its layers have become"):
        check_configuration(small, x, dtype=None, seed=0)
