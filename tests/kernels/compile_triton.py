"""Compile every kernel that fused steps on a device launch, for a device that is not here; a program for a test."""

import sys
from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
from torch import nn
from triton.backends.compiler import GPUTarget  # pyright: ignore[reportMissingImports]
from triton.compiler import ASTSource  # pyright: ignore[reportMissingImports]
from triton.runtime.jit import JITFunction  # pyright: ignore[reportMissingImports]

from openwork.kernels import cuda
from openwork.optim import RAMDA, RMDA, FactorizedSGD, ProxAdamW, fused
from openwork.penalties import L1, GroupLasso

TYPES = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.int64: "*i64",
    torch.int32: "*i32",
    torch.uint8: "*u8",
}
OPTIONS = {"num_warps", "enable_fp_fusion"}

target = GPUTarget("cuda", int(sys.argv[1]), 32)
known: set[str] = set()


def compile_instead(kernel: Any, grid: tuple[int, ...]) -> Any:
    """What ``kernel[grid]`` is meanwhile: it compiles for the arguments, and runs nothing."""

    def launch(*args: Any, **named: Any) -> None:
        given = dict(zip((p.name for p in kernel.params), args, strict=False)) | named
        constants = {p.name: given[p.name] for p in kernel.params if p.is_constexpr}
        signature = {p.name: "constexpr" if p.is_constexpr else TYPES[given[p.name].dtype] for p in kernel.params}
        key = f"{kernel.__name__} {signature} {constants}"
        if key not in known:
            known.add(key)
            source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
            options = {name: given[name] for name in OPTIONS & given.keys()}
            assert triton.compile(source, target=target, options=options).asm["cubin"]
            print(kernel.__name__, flush=True)

    return launch


kernel_type: Any = JITFunction
kernel_type.__getitem__ = compile_instead
kernels = cuda.CUDAKernels()
fused.fused_kernels = lambda device: kernels

dtype = getattr(torch, sys.argv[2])
for kind in (RAMDA, RMDA, ProxAdamW):
    for penalty in (GroupLasso(0.1), L1(0.1)):
        param = nn.Parameter(torch.zeros(2, 2, dtype=dtype))
        param.grad = torch.zeros_like(param)
        kind([param], penalty=penalty, fused=True).step()
for depth in (2, 3, 4):
    for momentum, nesterov in ((0.9, False), (0.0, False), (0.9, True))[: 3 if depth == 2 else 2]:
        param = nn.Parameter(torch.ones(2, 2, dtype=dtype))
        optimizer = FactorizedSGD([param], depth=depth, momentum=momentum, nesterov=nesterov, fused=True)
        param.grad = torch.zeros_like(param)
        optimizer.step()
