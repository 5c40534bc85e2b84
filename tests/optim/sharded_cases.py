"""Training of small models whose parameters are divided among processes, and the same in one process."""

import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor, nn

from openwork.factorizations import Split
from openwork.optim import (
    RAMDA,
    RMDA,
    FactorizedSGD,
    OriginalProxSGD,
    ParamGroups,
    ProxAdamW,
    ProximalOptimizer,
    ProxSGD,
    regularize,
    strength_max,
)
from openwork.partitions import Blocks, Elements, Heads, Partition, Slices
from openwork.penalties import (
    L0,
    L1,
    Coupled,
    GroupL0,
    GroupLasso,
    GroupMCP,
    GroupPenalty,
    GroupSCAD,
    LHalf,
    Nonnegative,
    NuclearNorm,
    Penalty,
    ProximalGradient,
    SparseGroupLasso,
    Target,
    Zero,
)
from openwork.sharding import Division, Ranks, division, full, local
from openwork.shrinking import shrink
from openwork.wiring import Side

STEPS = 3
NOISE = 0.1
INPUTS = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TARGETS = torch.randint(5, (8,), generator=torch.Generator().manual_seed(2))
Mesh = Literal["one axis", "two axes"]


def network() -> nn.Sequential:
    """Rows that no number of processes divides, a flattened channel, and more processes than rows."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 6, 2), nn.ReLU(), nn.Flatten(), nn.Linear(54, 10), nn.ReLU(), nn.Linear(10, 5))
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(5, 5, bias=False)).double().to(device())


def device() -> torch.device:
    """Of this process: a GPU of its own where processes talk by nccl."""
    by_nccl = dist.is_initialized() and dist.get_backend() == "nccl"
    return torch.device("cuda", dist.get_rank()) if by_nccl else torch.device("cpu")


def batch(samples: slice = slice(None)) -> tuple[Tensor, Tensor]:
    """Inputs and targets on the device of this process."""
    return INPUTS[samples].to(device()), TARGETS[samples].to(device())


@dataclass(frozen=True)
class Case:
    """One training.

    Args:
        optimizer: Of the param groups.
        penalty: Whose partition is that of each layer unless ``groups`` is given.
        groups: One partition for all weights of two axes.
        side: Of couplings, if these are penalized.
        mesh: Of the processes.
        dim: Axis along which the weights are divided, of those that it divides evenly; 0 for all.
        whole: Names of parameters that every process has as a whole, where the model does not run.
        traced: Whether the model runs, after ``fully_shard``, on couplings that are found anew; else it only has
            parameters, with noise for gradients, which is much faster.
    """

    optimizer: Callable[[ParamGroups], ProximalOptimizer]
    penalty: Penalty
    groups: Partition | None = None
    side: Side | None = None
    mesh: Mesh = "one axis"
    dim: int = 0
    whole: tuple[str, ...] = ()
    traced: bool = False


# Whether a model runs.
FORWARD = WeakKeyDictionary[nn.Module, bool]()

ramda, rmda = partial(RAMDA, lr=0.1), partial(RMDA, lr=0.5)
adamw, sgd = partial(ProxAdamW, lr=0.02), partial(ProxSGD, lr=0.5)

CASES: dict[str, Case] = {
    "lasso": Case(ramda, L1(5e-3)),
    "lasso, rmda": Case(rmda, L1(3e-2)),
    "group lasso": Case(ramda, GroupLasso(4e-3), traced=True),
    "group lasso, rmda": Case(rmda, GroupLasso(6e-2)),
    "group lasso, prox sgd": Case(sgd, GroupLasso(1e-1)),
    "group lasso, prox adamw": Case(adamw, GroupLasso(2e-2)),
    "group lasso, original prox sgd": Case(partial(OriginalProxSGD, lr=0.06), GroupLasso(4e-3)),
    "group lasso, replicas": Case(ramda, GroupLasso(4e-3), mesh="two axes", traced=True),
    "group lasso, columns divided": Case(ramda, GroupLasso(3e-2), dim=1),
    "rows": Case(ramda, GroupLasso(4e-3), Slices(0), traced=True),
    "rows, columns divided": Case(ramda, GroupLasso(3e-2), Slices(0), dim=1),
    "heads across processes": Case(ramda, GroupLasso(6e-2), Heads(5, 0)),
    "heads of columns": Case(ramda, GroupLasso(6e-2), Heads(5, 1)),
    "blocks": Case(ramda, GroupLasso(4e-3), Blocks((5, 1))),
    "elements": Case(ramda, GroupLasso(4e-3), Elements()),
    "sparse group lasso": Case(ramda, SparseGroupLasso(3e-2)),
    "sparse group lasso, rmda": Case(rmda, SparseGroupLasso(6e-2)),
    "mcp": Case(adamw, GroupMCP(2e-2)),
    "mcp, not convex": Case(ramda, GroupMCP(3e-2)),
    "scad": Case(adamw, GroupSCAD(2e-2)),
    "scad, rmda": Case(rmda, GroupSCAD(6e-2)),
    "l0": Case(adamw, L0(1e-4)),
    "l1/2": Case(adamw, LHalf(2e-3)),
    "group l0": Case(adamw, GroupL0(1e-3)),
    "group l0, rmda": Case(rmda, GroupL0(3e-3)),
    "nonnegative": Case(ramda, Nonnegative(GroupLasso(2e-3))),
    "nonnegative lasso": Case(adamw, Nonnegative(L1(1e-3))),
    "nonnegative sparse group lasso": Case(rmda, Nonnegative(SparseGroupLasso(2e-2))),
    "target": Case(ramda, Target(GroupLasso(1.0), 0.4)),
    "target, rows": Case(rmda, Target(GroupLasso(1.0), 0.4), Slices(0)),
    "target, lasso": Case(adamw, Target(L1(1.0), 0.6)),
    "nuclear norm": Case(ramda, NuclearNorm(2e-2)),
    "nuclear norm, full": Case(ramda, NuclearNorm(2e-2, metric="full", max_iterations=20)),
    "nuclear norm, rmda": Case(rmda, NuclearNorm(2e-2)),
    "proximal gradient": Case(ramda, ProximalGradient(GroupLasso(3e-2), max_iterations=20)),
    "consumers": Case(ramda, GroupLasso(4e-3), side="consumers", traced=True),
    "producers": Case(ramda, GroupLasso(6e-3), side="producers", traced=True),
    "consumers, replicas": Case(ramda, GroupLasso(3e-2), side="consumers", mesh="two axes"),
    "consumers, columns divided": Case(ramda, GroupLasso(3e-2), side="consumers", dim=1),
    "consumers, a weight in every process": Case(adamw, GroupMCP(8e-2), side="consumers", whole=("5.weight",)),
    "group lasso, a weight in every process": Case(rmda, GroupLasso(6e-2), whole=("3.weight", "5.weight")),
    "target, a weight in every process": Case(rmda, Target(GroupLasso(1.0), 0.4), Slices(0), whole=("3.weight",)),
    "consumers, sparse": Case(rmda, SparseGroupLasso(8e-2), side="consumers"),
    "producers, sparse": Case(rmda, SparseGroupLasso(8e-2), side="producers"),
    "consumers, mcp": Case(adamw, GroupMCP(8e-2), side="consumers"),
    "producers, scad": Case(adamw, GroupSCAD(8e-2), side="producers"),
    "producers, group l0": Case(adamw, GroupL0(1e-2), side="producers"),
    "consumers, nonnegative": Case(ramda, Nonnegative(GroupLasso(2e-3)), side="consumers"),
    "consumers, target": Case(ramda, Target(GroupLasso(1.0), 0.5), side="consumers"),
    "producers, target": Case(ramda, Target(GroupLasso(1.0), 0.5), side="producers"),
}


# What four processes do not do again: each costs seconds.
BY_TWO_ONLY = {
    *("lasso, rmda", "group lasso, prox sgd", "group lasso, prox adamw", "group lasso, original prox sgd", "elements"),
    *("sparse group lasso, rmda", "mcp, not convex", "scad, rmda", "group l0, rmda", "nonnegative lasso"),
    *("nonnegative sparse group lasso", "target, lasso", "nuclear norm, rmda", "consumers, sparse"),
    *("consumers, mcp", "producers, group l0", "consumers, nonnegative", "producers, target", "two factors", "tied"),
}
RESUMED = ("rows", "consumers")


def param_groups(case: Case, model: nn.Module) -> ParamGroups:
    """The groups of a case, before the model is divided."""
    if case.side is not None:
        target = case.penalty if isinstance(case.penalty, Target) else None
        penalty: Any = case.penalty if target is None else target.penalty
        found = regularize(model, penalty, batch()[0], case.side) if case.traced else coupled(case.side, penalty)
        if target is None:
            return found
        fraction = target.zero_fraction
        return replaced(found, lambda own: own if isinstance(own, Zero) else Target(own, fraction))
    found = regularize(model, case.penalty)
    if case.groups is None:
        return found
    penalty = case.penalty.regroup(case.groups)
    choices = [replace(c, penalty=penalty if fits(penalty, c.parameter) else Zero()) for c in found.choices]
    return ParamGroups(choices)


@cache
def traced(side: Side) -> ParamGroups:
    """Tracing takes a while, and gives the same couplings each time."""
    return regularize(network(), GroupLasso(1.0), batch()[0], side)


def coupled(side: Side, penalty: GroupPenalty) -> ParamGroups:
    """The couplings of a side with another penalty."""
    return replaced(traced(side), lambda own: replace(own, penalty=penalty) if isinstance(own, Coupled) else own)


def replaced(groups: ParamGroups, other: Callable[[Any], Penalty]) -> ParamGroups:
    """Groups with other penalties; one for all weights that shared one."""
    penalties = {c.penalty: other(c.penalty) for c in groups.choices}
    return ParamGroups([replace(c, penalty=penalties[c.penalty]) for c in groups.choices])


def fits(penalty: Penalty, parameter: Tensor) -> bool:
    try:
        penalty.check(parameter)
    except ValueError:
        return False
    return parameter.ndim == 2


@cache
def mesh_of(kind: Mesh) -> Any:
    from torch.distributed.device_mesh import init_device_mesh

    size = dist.get_world_size()
    if kind == "one axis":
        return init_device_mesh(device().type, (size,), mesh_dim_names=("shard",))
    replicas = min(2, size)
    return init_device_mesh(device().type, (replicas, size // replicas), mesh_dim_names=("replicate", "shard"))


def divide(
    model: nn.Module, mesh: Mesh = "one axis", dim: int = 0, whole: tuple[str, ...] = (), *, fsdp: bool = True
) -> None:
    """Divide a model among all processes, by ``fully_shard`` or only its parameters."""
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Replicate, Shard

    device_mesh = mesh_of(mesh)
    parts = device_mesh.size(device_mesh.ndim - 1)

    def placement(param: nn.Parameter) -> Shard:
        return Shard(dim if param.ndim > dim and param.shape[dim] % parts == 0 else 0)

    if fsdp:
        fully_shard(model, mesh=device_mesh, shard_placement_fn=placement)
        return
    for name, param in [(name, param) for name, param in model.named_parameters() if name not in whole]:
        placements = (*(Replicate() for _ in range(device_mesh.ndim - 1)), placement(param))
        how = Division(
            device_mesh, placements, tuple(param.shape), placements[-1].dim, Ranks(device_mesh.get_group(-1))
        )
        owner, _, local_name = name.rpartition(".")
        part = how.wrap(how.here(param.detach()).clone(), how.shape, how.dim)
        setattr(model.get_submodule(owner), local_name, nn.Parameter(part))


def backward(model: nn.Module, step: int) -> None:
    """Gradients of the mean over all samples, of which a process sees its own; noise where there is only parameters."""
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    if FORWARD.get(model, True):
        mine = slice(rank * 8 // size, (rank + 1) * 8 // size)
        inputs, targets = batch(mine)
        nn.functional.cross_entropy(model(inputs), targets).backward()
        return
    generator = torch.Generator().manual_seed(step)
    for param in model.parameters():
        grad = NOISE * torch.randn(param.shape, generator=generator, dtype=param.dtype)
        grad *= torch.rand(param.shape[-1], generator=generator, dtype=param.dtype)
        grad = grad.to(param.device)
        how = division(param)
        param.grad = grad if how is None else how.wrap(how.here(grad), how.shape, how.dim)


def train(model: nn.Module, optimizer: ProximalOptimizer, steps: int = STEPS) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        backward(model, step)
        optimizer.step()


def whole(x: Tensor) -> Tensor:
    """A parameter or its state as a plain tensor."""
    return full(x.detach()).clone()


def summary(model: nn.Module, optimizer: ProximalOptimizer) -> dict[str, Any]:
    """What a training leaves: weights, structured weights, structures and read-out."""
    structures = optimizer.structures()
    with optimizer.structured():
        held = [whole(p) for p in model.parameters()]
    found = [structures[p].kept if p in structures else torch.zeros(0) for p in model.parameters()]
    return {
        "weights": [whole(p) for p in model.parameters()],
        "structured": held,
        "kept": found,
        "read_out": vars(optimizer.read_out()),
    }


def prepared(case: Case, divided: bool) -> tuple[nn.Module, ProximalOptimizer]:
    model = network()
    FORWARD[model] = case.traced
    groups = param_groups(case, model)
    if divided:
        divide(model, case.mesh, case.dim, case.whole, fsdp=case.traced)
    return model, case.optimizer(groups.onto(model))


def trained(case: Case, divided: bool, steps: int = STEPS) -> dict[str, Any]:
    model, optimizer = prepared(case, divided)
    train(model, optimizer, steps)
    return summary(model, optimizer)


def resumed(name: str, load: Path | None, save: Path | None, divided: bool) -> dict[str, Any]:
    """Two more steps of a case after those of a checkpoint, and another checkpoint."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    model, optimizer = prepared(CASES[name], divided)
    if load is not None:
        weights, state = get_state_dict(model, optimizer)
        both = {"model": weights, "optimizer": state}
        with warnings.catch_warnings():
            if not divided:
                warnings.filterwarnings("ignore", "torch.distributed is disabled")  # which is what no_dist says
            dcp.load(both, checkpoint_id=load / name, no_dist=not divided)
        set_state_dict(model, optimizer, model_state_dict=both["model"], optim_state_dict=both["optimizer"])
    train(model, optimizer, 2)
    if save is not None:
        weights, state = get_state_dict(model, optimizer)
        dcp.save({"model": weights, "optimizer": state}, checkpoint_id=save / name)
    return summary(model, optimizer)


FACTORS: dict[str, dict[str, Any]] = {
    "two factors": {"depth": 2},
    "three factors": {"depth": 3, "nesterov": True},
    "tied": {"tied": True, "init": Split(imbalance=0.0)},
}


def factorized(options: dict[str, Any], divided: bool) -> dict[str, Any]:
    """A training whose factors are in the optimizer, settled at the end, and what is written behind its back."""
    model = network()
    if divided:
        divide(model)
    torch.manual_seed(3)
    optimizer = FactorizedSGD(model.parameters(), lr=0.5, lam=1e-3, threshold=1e-3, **options)
    for _ in range(STEPS):
        optimizer.zero_grad()
        backward(model, 0)
        optimizer.step()
    found = {
        "weights": [whole(p) for p in model.parameters()],
        "kept": [structure.kept for structure in optimizer.structures().values()],
        "read_out": vars(optimizer.read_out()),
        "penalty": optimizer.diagnostics().mean_penalty,
    }
    optimizer.settle_()
    found["settled"] = [whole(p) for p in model.parameters()]
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    found["refused"] = message(optimizer.step)
    return found


def message(act: Callable[[], object]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            act()
        except (TypeError, ValueError, UserWarning) as error:
            return f"{type(error).__name__}: {error}"
    return "no error"


def not_finite(divided: bool) -> dict[str, Any]:
    """A step in which one process has a gradient that is not finite, between others."""
    model, optimizer = prepared(CASES["rows"], divided)
    train(model, optimizer, 1)
    before = summary(model, optimizer)
    optimizer.zero_grad()
    backward(model, 1)
    if not divided or dist.get_rank() == min(1, dist.get_world_size() - 1):
        grad = next(p.grad for p in model.parameters() if p.grad is not None and p.ndim == 2)
        local(grad).fill_(float("nan"))
    optimizer.step()
    return {"before": before, **summary(model, optimizer)}


def _reshard(model: nn.Module) -> None:
    from torch.distributed.fsdp import FSDPModule

    if isinstance(model, FSDPModule):
        model.reshard()


def read_outs(divided: bool) -> dict[str, Any]:
    """What other parts of the package say of a model."""
    from openwork.metrics import sparsity, support

    model, optimizer = prepared(CASES["group lasso"], divided)
    loss, (inputs, targets) = nn.functional.cross_entropy, batch()
    strength = strength_max(model, loss, (inputs, targets), GroupLasso(1.0), optimizer=partial(RMDA, lr=0.1))
    lasso = strength_max(model, loss, (inputs, targets), L1(1.0), optimizer=partial(RAMDA, lr=0.1))
    before = [whole(p) for p in model.parameters()]
    train(model, optimizer)
    structures = {
        name: optimizer.structures()[p] for name, p in model.named_parameters() if p in optimizer.structures()
    }
    outputs: list[Tensor] = []
    with torch.no_grad():
        model(inputs)  # which collects the weights that are held now
        with optimizer.structured():
            _reshard(model)
            outputs.append(model(inputs))
        _reshard(model)
        outputs.append(model(inputs))
        _reshard(model)
    with optimizer.structured():
        found = sparsity(model, structures).record()
        bare = [support(p, Slices(1)).kept for p in model.parameters() if p.ndim == 2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # averaging is not 1 yet, which is not the point here
        optimizer.settle_()
    return {
        "strengths": torch.tensor([strength, lasso], dtype=torch.float64),
        "weights": before,
        "sparsity": found,
        "bare": bare,
        "outputs": outputs,
        "settled": [whole(p) for p in model.parameters()],
    }


def refusals() -> dict[str, str]:
    """Messages of what does not go, in all processes alike; those of two meshes need four."""
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Shard, distribute_tensor

    model, optimizer = prepared(CASES["group lasso"], divided=True)
    train(model, optimizer, 1)
    found = {
        "compile": message(lambda: RAMDA(model.parameters(), penalty=L1(1.0), compile=True)),
        "fused": message(lambda: RAMDA(model.parameters(), fused=True)),
        "traced": message(lambda: regularize(model, GroupLasso(1.0), INPUTS)),
        "shrink": message(lambda: shrink(model, INPUTS)),
    }
    if dist.get_world_size() < 4:
        return found
    two_axes = mesh_of("two axes")
    tiles = nn.Parameter(distribute_tensor(torch.ones(4, 4), two_axes, [Shard(0), Shard(1)]))
    found["tiles"] = message(lambda: RMDA([tiles], penalty=GroupLasso(1.0)))
    other, replicated = prepared(replace(CASES["group lasso"], mesh="two axes"), divided=True)
    train(other, replicated, 1)
    before = summary(model, optimizer)
    found["another mesh"] = message(lambda: optimizer.load_state_dict(replicated.state_dict()))
    after = summary(model, optimizer)
    unchanged = all(torch.equal(a, b) for a, b in zip(before["weights"], after["weights"], strict=True))
    found["nothing has changed"] = str(unchanged and before["read_out"] == after["read_out"])
    spanning = network()
    groups = param_groups(CASES["producers"], spanning)
    fully_shard(spanning[3], mesh=two_axes)
    fully_shard(spanning)
    found["two meshes"] = message(lambda: RAMDA(groups.onto(spanning)))
    return found


def checks(folder: Path) -> dict[str, Callable[[], Any]]:
    """All that processes do, in order; four go on with the checkpoints of two."""
    size = dist.get_world_size()
    found: dict[str, Callable[[], Any]] = {name: partial(trained, case, divided=True) for name, case in CASES.items()}
    found |= {"not finite": partial(not_finite, divided=True), "read-outs": partial(read_outs, divided=True)}
    if device().type == "cuda":
        return found
    found |= {name: partial(factorized, options, divided=True) for name, options in FACTORS.items()}
    load, save = (None if size == 2 else folder / "from 2"), folder / f"from {size}"
    found |= {f"resumed {name}": partial(resumed, name, load, save, divided=True) for name in RESUMED}
    kept = {name: check for name, check in found.items() if size == 2 or name not in BY_TWO_ONLY}
    return {**kept, "refused": refusals}


def main(folder: Path, backend: str = "gloo", *names: str) -> None:
    if backend == "nccl":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(backend, timeout=timedelta(seconds=120))
    all_checks = checks(folder)
    results = {name: all_checks[name]() for name in names or all_checks}
    torch.save(results, folder / f"{dist.get_world_size()}-{dist.get_rank()}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), *sys.argv[2:])
