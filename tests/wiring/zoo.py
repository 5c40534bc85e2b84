"""Small models of many kinds, each with example inputs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from openwork import models


class LeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 8, 5)
        self.fc1, self.fc2 = nn.Linear(8 * 5 * 5, 12), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.max_pool2d(relu(self.conv1(x)), 2)
        x = torch.max_pool2d(relu(self.conv2(x)), 2)
        return self.fc2(relu(self.fc1(torch.flatten(x, 1))))


class Residual(nn.Module):
    """A basic block and a bottleneck with a downsampling branch, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.basic = nn.Sequential(
            nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.ReLU(),
            nn.Conv2d(5, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6),
        )  # fmt: skip
        self.bottleneck = nn.Sequential(
            nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4), nn.ReLU(),
            nn.Conv2d(4, 7, 3, stride=2, padding=1), nn.BatchNorm2d(7), nn.ReLU(),
            nn.Conv2d(7, 9, 1), nn.BatchNorm2d(9),
        )  # fmt: skip
        self.down = nn.Sequential(nn.Conv2d(6, 9, 1, stride=2), nn.BatchNorm2d(9))
        self.head = nn.Linear(9, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = relu(x + self.basic(x))
        x = relu(self.bottleneck(x) + self.down(x))
        return self.head(x.mean(dim=(2, 3)))


class Dense(nn.Module):
    """DenseNet: layers read all that came before, concatenated."""

    def __init__(self, k: int = 1) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4 * k, 3), nn.Conv2d(4 * k, 5 * k, 3, padding=1)
        self.conv3 = nn.Conv2d(9 * k, 6 * k, 3)
        self.norm = nn.BatchNorm2d(9 * k)
        self.head = nn.Linear(6 * k, 3)

    def forward(self, x: Tensor) -> Tensor:
        a = relu(self.conv1(x))
        b = self.conv2(a)
        x = relu(self.norm(torch.cat([a, b], dim=1)))
        return self.head(self.conv3(x).amax(dim=(2, 3)))


class Mobile(nn.Module):
    """Depthwise convolution with squeeze and excitation."""

    def __init__(self, k: int = 1) -> None:
        super().__init__()
        self.expand, self.norm = nn.Conv2d(3, 8 * k, 1, bias=False), nn.BatchNorm2d(8 * k)
        self.depthwise = nn.Conv2d(8 * k, 8 * k, 3, padding=1, groups=8 * k)
        self.squeeze, self.excite = nn.Conv2d(8 * k, 4 * k, 1), nn.Conv2d(4 * k, 8 * k, 1)
        self.project = nn.Conv2d(8 * k, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.silu(self.depthwise(nn.functional.hardswish(self.norm(self.expand(x)))))
        gate = torch.sigmoid(self.excite(relu(self.squeeze(nn.functional.adaptive_avg_pool2d(x, 1)))))
        return self.project(x * gate)


class Shuffle(nn.Module):
    """ShuffleNet: half of the channels pass by, then both halves are shuffled."""

    def __init__(self, k: int = 1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12 * k, 1)
        self.branch = nn.Sequential(nn.Conv2d(6 * k, 7 * k, 1), nn.ReLU(), nn.Conv2d(7 * k, 6 * k, 1))
        self.head = nn.Conv2d(12 * k, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.stem(x).chunk(2, dim=1)
        x = torch.cat([left, self.branch(right)], dim=1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(relu(x))


class UNet(nn.Module):
    """A skip connection around a transposed convolution."""

    def __init__(self, k: int = 1) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(3, 6 * k, 3, padding=1), nn.Conv2d(6 * k, 7 * k, 3, padding=1)
        self.up = nn.ConvTranspose2d(7 * k, 5 * k, 2, stride=2)
        self.head = nn.Conv2d(11 * k, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = relu(self.down(x))
        b = relu(self.deep(torch.max_pool2d(a, 2)))
        return self.head(torch.cat([a, self.up(b)], dim=1))


class Grouped(nn.Module):
    """Grouped convolutions, one of them transposed, and GroupNorm."""

    def __init__(self, k: int = 1) -> None:
        super().__init__()
        self.conv1, self.norm = nn.Conv1d(3, 12 * k, 1), nn.GroupNorm(4 * k, 12 * k)
        self.conv2, self.conv3 = nn.Conv1d(12 * k, 8 * k, 3), nn.Conv1d(8 * k, 12 * k, 3, groups=2)
        self.conv4 = nn.ConvTranspose1d(12 * k, 6 * k, 3, groups=2)
        self.head = nn.Conv1d(6 * k, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.norm(self.conv1(x)))
        return self.head(relu(self.conv4(relu(self.conv3(relu(self.conv2(x)))))))


class GatedRMS(nn.Module):
    """RMSNorm and a gated MLP with one fused projection."""

    def __init__(self, k: int = 1) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(4, 6 * k), nn.RMSNorm(6 * k)
        self.fused, self.down, self.head = nn.Linear(6 * k, 16 * k), nn.Linear(8 * k, 6 * k), nn.Linear(6 * k, 3)
        self.scale = nn.Parameter(torch.randn(6 * k))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        gate, up = self.fused(self.norm(x)).chunk(2, dim=-1)
        return self.head(x + self.scale * self.down(nn.functional.silu(gate) * up))


class Recurrent(nn.Module):
    """A bidirectional LSTM of two layers, a GRU, and attention over time."""

    def __init__(self, k: int = 1) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 6 * k)
        self.lstm = nn.LSTM(6 * k, 5 * k, 2, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(10 * k, 6 * k, batch_first=True)
        self.score, self.head = nn.Linear(6 * k, 1), nn.Linear(6 * k, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x, _ = self.lstm(self.embed(tokens))
        x, _ = self.gru(x)
        return self.head((self.score(x).softmax(dim=1) * x).sum(dim=1))


class Nested(nn.Module):
    """Arguments in containers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, inputs: dict[str, list[Tensor]], scale: float = 1.0) -> dict[str, Tensor]:
        return {"out": self.b(relu(self.a(inputs["x"][0])) * scale)}


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))


def vgg() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(32, 7), nn.ReLU(), nn.Dropout(), nn.Linear(7, 3),
    )  # fmt: skip


def transformer(name: str) -> tuple[nn.Module, Any]:
    """A tiny model of `transformers` with random weights."""
    import transformers as hf

    tokens = {"input_ids": torch.randint(0, 30, (2, 5))}
    small: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 12,
    }
    ends: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 1}
    if name == "gpt2":
        gpt2 = hf.GPT2Config(n_embd=16, n_layer=2, n_head=4, n_inner=10, vocab_size=32, n_positions=8, **ends)
        return hf.GPT2LMHeadModel(gpt2), tokens
    if name == "llama":
        llama = hf.LlamaConfig(**small, num_key_value_heads=2, vocab_size=32, tie_word_embeddings=True, **ends)
        return hf.LlamaForCausalLM(llama), tokens
    if name == "bert":
        bert = hf.BertConfig(**small, vocab_size=32, max_position_embeddings=8)
        return hf.BertForSequenceClassification(bert), tokens
    if name == "qwen3_moe":
        experts: dict[str, Any] = {
            "head_dim": 4,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 6,
        }
        moe = hf.Qwen3MoeConfig(**small, **experts, num_key_value_heads=2, vocab_size=32, **ends)
        model = hf.Qwen3MoeForCausalLM(moe)
        model.set_experts_implementation("eager")  # the default has no float64
        return model, tokens
    if name == "swin":
        swin = hf.SwinConfig(
            image_size=16, patch_size=2, embed_dim=8, depths=[1, 2], num_heads=[2, 4], window_size=4, mlp_ratio=2.0
        )
        return hf.SwinForImageClassification(swin), {"pixel_values": torch.randn(2, 3, 16, 16)}
    vit = hf.ViTConfig(**small, image_size=16, patch_size=8)
    return hf.ViTForImageClassification(vit), {"pixel_values": torch.randn(2, 3, 16, 16)}


def encoders(width: int, heads: int, hidden: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(width, heads, hidden, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def image(channels: int = 3, size: int = 8) -> Tensor:
    return torch.randn(2, channels, size, size)


ZOO: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "mlp": lambda: (mlp(), torch.randn(2, 4)),
    "lenet": lambda: (LeNet(), image(1, 28)),
    "vgg": lambda: (vgg(), image()),
    "residual": lambda: (Residual(), image()),
    "dense": lambda: (Dense(), image()),
    "mobile": lambda: (Mobile(), image()),
    "shuffle": lambda: (Shuffle(), image()),
    "unet": lambda: (UNet(), image()),
    "grouped": lambda: (Grouped(), torch.randn(2, 3, 9)),
    "gated_rms": lambda: (GatedRMS(), torch.randn(2, 3, 4)),
    "nested": lambda: (Nested(), {"inputs": {"x": [torch.randn(2, 4)]}, "scale": 0.5}),
    "recurrent": lambda: (Recurrent(), torch.randint(0, 20, (2, 7))),
    "encoder": lambda: (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.randn(3, 5, 8)),
    "encoders": lambda: (encoders(8, 2, 16), torch.randn(3, 5, 8)),
    "our_gpt": lambda: (models.gpt(20, 8, 8, 2, 2), torch.randint(0, 20, (2, 5))),
    **{name: lambda name=name: transformer(name) for name in ("gpt2", "llama", "bert", "vit", "qwen3_moe", "swin")},
}  # fmt: skip
