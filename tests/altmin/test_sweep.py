"""Sweeps against a naive transcription of the methods, with samples as columns as in the papers."""

import pytest
import torch
from torch import Tensor

from openwork.altmin import (
    AMTrainer,
    Band,
    Coupling,
    Exact,
    MajorizedWeights,
    QuadraticPenalty,
    Squared,
)
from tests.altmin.tasks import labelled, network, targets

P = [(0.0, 0.0, 0.0), (0.5, 0.5, 0.0), (0.6, 0.2, 0.0), (0.0, 0.0, 0.5), (0.4, 0.5, 0.3)]


class Transcription:
    """The inertial block steps with samples as columns, every residual computed from scratch."""

    def __init__(self, trainer: AMTrainer, coupling: str, rho: float, mu: float, nu: float, eps: float) -> None:
        problem = trainer._started()[0].problem
        self.coupling, self.rho, self.mu, self.nu, self.eps = coupling, rho, mu, nu, eps
        self.x, self.y = problem.x.T, problem.y if problem.y.ndim == 1 else problem.y.T
        self.now: dict[str, Tensor] = {}
        for i, layer in enumerate(problem.layers):
            assert layer.bias is not None
            self.now[f"W{i}"], self.now[f"b{i}"] = layer.weight.now, layer.bias.now[:, None]
            self.now[f"z{i}"] = layer.z.now.T
            if layer.a is not None:
                self.now[f"a{i}"] = layer.a.now.T
        self.layers = len(problem.layers)
        self.before = dict(self.now)

    def read(self, i: int, name: str) -> Tensor:
        return self.now[f"{name}{i}"]

    def input(self, i: int) -> Tensor:
        return self.x if i == 0 else self.now[f"a{i - 1}"]

    def sweep(self, p: tuple[float, float, float], theta: list[float], tau: list[float]) -> None:
        p1, p2, p3 = p
        following: dict[str, Tensor] = {}

        def ahead(key: str, q: float) -> Tensor:
            return self.now[key] + q * (self.now[key] - self.before[key])

        def put(key: str, bar: Tensor) -> None:
            following[key] = self.now[key]
            self.now[key] = bar + p3 * (bar - self.now[key])

        def clip(key: str, low: Tensor, high: Tensor) -> None:
            self.now[key] = torch.minimum(torch.maximum(self.now[key], low), high)

        for i in range(self.layers):
            a = self.input(i)
            W, b, z = f"W{i}", f"b{i}", f"z{i}"
            gradient = self.rho * (ahead(W, p2) @ a + self.now[b] - self.now[z]) @ a.T + self.mu * ahead(W, p2)
            put(W, ahead(W, p1) - gradient / theta[i])
            shift = (p1 - p2) * (self.now[b] - self.before[b])
            put(b, (self.now[z] - self.now[W] @ a).mean(1, keepdim=True) + shift)
            c = self.now[W] @ a + self.now[b]
            shifted = c + (p1 - p2) * (self.now[z] - self.before[z])
            if i == self.layers - 1:
                put(z, (self.y + self.rho * shifted) / (1 + self.rho))
                break
            key, next_W, next_b, next_z = f"a{i}", self.now[f"W{i + 1}"], self.now[f"b{i + 1}"], self.now[f"z{i + 1}"]
            pull = self.rho * next_W.T @ (next_W @ ahead(key, p2) + next_b - next_z)
            v = ahead(key, p1) - pull / tau[i + 1]
            if self.coupling == "exact":
                put(z, relu_fit(shifted, v, self.rho, tau[i + 1]))
                following[key] = self.now[key]
                self.now[key] = self.now[z].clamp(min=0)
            elif self.coupling == "penalty":
                put(z, relu_fit(shifted, self.now[key], self.rho, self.nu))
                h = self.now[z].clamp(min=0)
                put(key, (tau[i + 1] * v + self.nu * h) / (tau[i + 1] + self.nu))
            else:
                low, high = self.now[key] - self.eps, self.now[key] + self.eps
                low = torch.where(low > 0, low, torch.full_like(low, -torch.inf))
                high = high.clamp(min=0)
                put(z, torch.minimum(torch.maximum(shifted, low), high))
                clip(z, low, high)
                h = self.now[z].clamp(min=0)
                put(key, torch.minimum(torch.maximum(v, h - self.eps), h + self.eps))
                clip(key, h - self.eps, h + self.eps)
        self.before = following


class Defaults(Transcription):
    """What ``AMTrainer`` does by default: cross-entropy, exact weights, pulls by the link of the last sweep."""

    def __init__(self, trainer: AMTrainer, rho: float, mu: float) -> None:
        super().__init__(trainer, "exact", rho, mu, 0, 0)

    def sweep(self, p: tuple[float, float, float], theta: list[float], tau: list[float]) -> None:
        p1, p2, p3 = p
        now, before, last = self.now, self.before, dict(self.now)

        def put(key: str, bar: Tensor) -> None:
            now[key] = bar + p3 * (bar - now[key]) + (1 + p3) * (p1 - p2) * (last[key] - before[key])

        for i in range(self.layers):
            a, W, b, z = self.input(i), f"W{i}", f"b{i}", f"z{i}"
            left = self.rho * a @ a.T + self.mu * torch.eye(len(a), dtype=a.dtype)
            put(W, torch.linalg.solve(left, self.rho * a @ (now[z] - now[b]).T).T)
            put(b, (now[z] - now[W] @ a).mean(1, keepdim=True))
            c = now[W] @ a + now[b] + (p1 - p2) * (now[z] - before[z])
            if i == self.layers - 1:
                bar = entropy_fit(c, self.y, self.rho)
                now[z] = bar + p3 * (bar - now[z])
                break
            key, after = f"a{i}", f"W{i + 1}"
            change = now[key] - before[key]
            residual = now[after] @ now[key] + now[f"b{i + 1}"] - now[f"z{i + 1}"] + p2 * before[after] @ change
            d = now[key] + p1 * change - self.rho * now[after].T @ residual / tau[i + 1]
            bar = relu_fit(c, d, self.rho, tau[i + 1])
            now[z] = bar + p3 * (bar - now[z])
            now[key] = now[z].clamp(min=0)
        self.before = last


def entropy_fit(c: Tensor, labels: Tensor, rho: float) -> Tensor:
    """Newton's method with dense Hessians."""
    wanted, eye = torch.nn.functional.one_hot(labels, len(c)), torch.eye(len(c), dtype=c.dtype)
    z = start = c.T
    for _ in range(100):
        q = z.softmax(1)
        hessian = q.diag_embed() - q[:, :, None] * q[:, None] + rho * eye
        change = torch.linalg.solve(hessian, q - wanted + rho * (z - start))
        # Shorter where a full step may go too far.
        z = z - change / (change.abs().amax(1, keepdim=True) / 2).clamp(min=1)
    return z.T


def relu_fit(c: Tensor, d: Tensor, r: float, k: float) -> Tensor:
    def cost(z: Tensor) -> Tensor:
        return r / 2 * (z - c) ** 2 + k / 2 * (z.clamp(min=0) - d) ** 2

    on, off = ((r * c + k * d) / (r + k)).clamp(min=0), c.clamp(max=0)
    return torch.where(cost(on) <= cost(off), on, off)


def couplings(fresh: bool) -> dict[str, Coupling]:
    return {
        "exact": Exact(fresh=fresh),
        "penalty": QuadraticPenalty(0.7, fresh=fresh),
        "band": Band(0.4, factor=1.0, fresh=fresh),
    }


@pytest.mark.parametrize("name", ["exact", "penalty", "band"])
@pytest.mark.parametrize("p", P)
def test_sweeps_equal_the_transcription(name: str, p: tuple[float, float, float]) -> None:
    x, y = targets()
    trainer = AMTrainer(
        network(),
        loss=Squared(),
        coupling=couplings(fresh=True)[name],
        rho=0.3,
        mu=0.2,
        inertia=p,
        safeguard="none",
        w_solver=MajorizedWeights(fresh=True),
        balance=0,
    )
    trainer.start(x, y)
    naive = Transcription(trainer, name, rho=0.3, mu=0.2, nu=0.7, eps=0.4)
    layers = trainer._started()[0].problem.layers
    for _ in range(6):
        measured = trainer.sweep()
        naive.sweep(p, measured.theta, measured.tau)
        for i, layer in enumerate(layers):
            assert layer.bias is not None
            torch.testing.assert_close(layer.weight.now, naive.read(i, "W"), rtol=1e-9, atol=1e-11)
            torch.testing.assert_close(layer.bias.now, naive.read(i, "b")[:, 0], rtol=1e-9, atol=1e-11)
            torch.testing.assert_close(layer.z.now.T, naive.read(i, "z"), rtol=1e-9, atol=1e-11)
            if layer.a is not None:
                torch.testing.assert_close(layer.a.now.T, naive.read(i, "a"), rtol=1e-9, atol=1e-11)
            torch.testing.assert_close(
                layer.residual.T,
                naive.read(i, "W") @ naive.input(i) + naive.read(i, "b") - naive.read(i, "z"),
                rtol=1e-9,
                atol=1e-11,
            )


@pytest.mark.parametrize("p", [None, (0.5, 0.2, 0.3)])
def test_default_sweeps_equal_the_transcription(p: tuple[float, float, float] | None) -> None:
    # Without repeats, which the transcription has not.
    trainer = AMTrainer(network(), safeguard="none")
    if p is not None:
        trainer = AMTrainer(network(), safeguard="none", inertia=p)
    trainer.start(*labelled())
    inertia = (0.633, 0.633, 0.5) if p is None else p
    naive = Defaults(trainer, rho=0.1, mu=4e-4 * 40)
    for _ in range(4):
        measured = trainer.sweep()
        naive.sweep(inertia, measured.theta, measured.tau)
        for i, layer in enumerate(trainer._started()[0].problem.layers):
            assert layer.bias is not None
            torch.testing.assert_close(layer.weight.now, naive.read(i, "W"), rtol=1e-6, atol=1e-7)
            torch.testing.assert_close(layer.bias.now, naive.read(i, "b")[:, 0], rtol=1e-6, atol=1e-7)
            torch.testing.assert_close(layer.z.now.T, naive.read(i, "z"), rtol=1e-6, atol=1e-7)
