"""Every kind of model at its full width: half of all units zeroed at random, then shrunk exactly, saved and loaded.

For each model: couplings that can lose units and the share of parameters they cover, what blocks the rest, the time of
inspecting and of shrinking, the largest difference of outputs, and whether it saves, loads, and trains a further step.
Weights are random; for the models of `transformers`, made from their configurations.

And latency: the shrunk network beside the same architecture built by hand at those widths, interleaved.
"""

import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from readme_table import Cell
from record import remembered, write_table
from torch import Tensor, nn
from torch.utils import _pytree as pytree

sys.path.insert(0, str(Path(__file__).parents[1]))  # the small models of the tests, at larger widths

from openwork import models
from openwork.shrinking import load, save, shrink
from openwork.wiring import Side, Wiring, inspect
from tests.shrinking.zeros import zero_units
from tests.wiring import zoo

NAME = "zoo"


def image(size: int, channels: int = 3) -> Tensor:
    """Two images."""
    return torch.randn(2, channels, size, size)


def tokens(vocabulary: int) -> dict[str, Tensor]:
    """Two sequences."""
    return {"input_ids": torch.randint(0, vocabulary, (2, 16))}


def hugging_face(name: str) -> tuple[nn.Module, Any]:
    """A model of `transformers` at the sizes of its configuration's defaults, or smaller where those are billions."""
    import transformers as hf

    match name:
        case "BERT base":
            return hf.BertForSequenceClassification(hf.BertConfig()), tokens(30000)
        case "ViT base":
            return hf.ViTForImageClassification(hf.ViTConfig()), {"pixel_values": image(224)}
        case "GPT-2 124M":
            return hf.GPT2LMHeadModel(hf.GPT2Config()), tokens(50000)
        case "Swin tiny":
            return hf.SwinForImageClassification(hf.SwinConfig()), {"pixel_values": image(224)}
        case "Llama, 32 layers":
            llama = hf.LlamaConfig(
                hidden_size=512, num_hidden_layers=32, num_attention_heads=8, num_key_value_heads=4,
                intermediate_size=1376, tie_word_embeddings=True,
            )  # fmt: skip
            return hf.LlamaForCausalLM(llama), tokens(30000)
        case _:
            sizes: dict[str, Any] = {"hidden_size": 256, "num_hidden_layers": 4, "vocab_size": 8000}
            heads: dict[str, Any] = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 32}
            experts: dict[str, Any] = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 192}
            moe = hf.Qwen3MoeConfig(**sizes, **heads, **experts)
            return hf.Qwen3MoeForCausalLM(moe), tokens(8000)


def recurrent(kind: str) -> tuple[nn.Module, Any]:
    """Recurrent layers with attention over time."""
    return zoo.Recurrent(24) if kind == "LSTM" else GRU(), torch.randint(0, 20, (2, 30))


class GRU(nn.Module):
    """A GRU of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.gru = nn.Embedding(20, 96), nn.GRU(96, 128, 2, batch_first=True)
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """From tokens ``(N, T)`` to ``(N, 10)``."""
        return self.head(self.gru(self.embed(x))[0].mean(dim=1))


def encoder() -> nn.Module:
    """Six layers of torch's own transformer."""
    layer = nn.TransformerEncoderLayer(256, 8, 1024, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)


MODELS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "MLP 784-512-256-10": lambda: (models.mlp((784, 512, 256, 10)), torch.randn(2, 784)),
    "LeNet-5 (20-50)": lambda: (models.lenet5((20, 50)), image(28, 1)),
    "VGG19-BN": lambda: (models.vgg19_bn(), image(32)),
    "ResNet-18": lambda: (models.resnet18(), image(32)),
    "ResNet-50": lambda: (models.resnet50(), image(32)),
    "DenseNet style": lambda: (zoo.Dense(32), image(32)),
    "MobileNet style, squeeze-excite": lambda: (zoo.Mobile(32), image(32)),
    "U-Net style": lambda: (zoo.UNet(16), image(32)),
    "ShuffleNet style": lambda: (zoo.Shuffle(16), image(32)),
    "grouped and transposed": lambda: (zoo.Grouped(16), torch.randn(2, 3, 33)),
    "LSTM (2 layers, both ways) + GRU + attention": lambda: recurrent("LSTM"),
    "GRU (2 layers)": lambda: recurrent("GRU"),
    "nn.TransformerEncoder, 6 layers": lambda: (encoder(), torch.randn(2, 20, 256)),
    **{
        name: lambda name=name: hugging_face(name)
        for name in ("BERT base", "ViT base", "GPT-2 124M", "Llama, 32 layers", "Qwen3-MoE", "Swin tiny")
    },
}


def described(name: str, side: Side) -> dict[str, Any]:
    """All numbers of one model."""
    torch.manual_seed(0)
    model, inputs = MODELS[name]()
    model.eval()
    begin = time.perf_counter()
    wiring = inspect(model, inputs)
    inspected = time.perf_counter() - begin
    zero_units(model, wiring, side)
    begin = time.perf_counter()
    shrunk = shrink(model, inputs, low_rank=False)
    taken = time.perf_counter() - begin
    small = shrunk.model
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "small.safetensors"
        save(shrunk, path)
        again = load(path, deepcopy(model))
        same = all(torch.equal(a, b) for a, b in zip(outputs(small, inputs), outputs(again, inputs), strict=True))
    return {
        "couplings": len(wiring.removable),
        "units": sum(c.width for c in wiring.removable),
        "covered": covered(model, wiring),
        "blocked": blocked(wiring),
        "params": shrunk.report.params,
        "inspect_s": inspected,
        "shrink_s": taken,
        "difference": shrunk.report.certificate.difference,
        "predictions": shrunk.report.certificate.predictions,
        "loads": same,
        "trains": trains(small, inputs),
    }


def covered(model: nn.Module, wiring: Wiring) -> float:
    """Share of the parameters that lie in a unit of a removable coupling."""
    masks = {name: torch.zeros(p.shape, dtype=torch.bool) for name, p in model.named_parameters()}
    for coupling in wiring.removable:
        for part in coupling.slices():
            if part.name in masks:
                known = (part.units >= 0).view([-1 if d == part.dim else 1 for d in range(len(part.shape))])
                masks[part.name] |= known
    return sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())


def blocked(wiring: Wiring) -> list[str]:
    """Reasons, without where, most units first."""
    units: dict[str, int] = {}
    for coupling in wiring.blocked:
        for reason in coupling.reasons[:1]:
            words = reason.partition(" in ")[0].partition(" (")[0].partition(", since it meets")[0]
            units[words] = units.get(words, 0) + coupling.width
    return [f"{words}: {count} units" for words, count in sorted(units.items(), key=lambda item: -item[1])]


def outputs(model: nn.Module, inputs: Any) -> list[Tensor]:
    """All tensors that a model gives, caches aside."""
    result = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    result = getattr(result, "logits", result)
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]


def trains(model: nn.Module, inputs: Any) -> bool:
    """Whether one step of SGD changes the outputs, and every parameter gets a gradient."""
    model = deepcopy(model)
    before = outputs(model, inputs)
    sum((x.square().mean() for x in before), torch.zeros(())).backward()
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    with torch.no_grad():
        after = outputs(model, inputs)
    every = all(p.grad is not None for p in model.parameters())
    return every and any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def main() -> None:
    """Do what is missing, and write the table."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    rows: list[list[Cell]] = []
    for name in MODELS:
        part = "".join(c if c.isalnum() else "-" for c in name)
        print(name, file=sys.stderr, flush=True)
        found = remembered(NAME, part, lambda name=name: described(name, "consumers"))
        before, after = found["params"]
        rows.append([
            name,
            found["couplings"],
            found["units"],
            f"{100 * found['covered']:.1f}",
            f"{before / 1e6:.3g}",
            f"{100 * after / before:.1f}",
            f"{found['inspect_s']:.1f}",
            f"{found['shrink_s']:.1f}",
            f"{found['difference']:.1e}",
            "yes" if found["loads"] and found["trains"] else "NO",
            "; ".join(found["blocked"]),
        ])  # fmt: skip
    columns = ["model", "couplings", "units", "parameters covered, %", "parameters, M", "left, %", "inspect, s",
               "shrink, s", "largest difference", "saves, loads, trains", "blocked"]  # fmt: skip
    note = (
        "Random weights (seed 0), float32. All that reads half of the units of every coupling is zeroed, at random, "
        "and they are removed. Covered are parameters in a unit of a coupling that can lose units. The difference is "
        "max |difference| / max |output| over the example and fresh inputs of batch sizes 1, 3 and 5. Saved, loaded "
        "into the original class, and trained by one further step. Blocked: reasons, and the units they hold (outputs "
        "and inputs of the model among them)."
    )
    write_table(NAME, "The zoo at full width: half of all units removed, exactly", columns, rows, note)


if __name__ == "__main__":
    main()
