"""In the Trainer of Lightning."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from openwork.optim import RMDA, Stages, regularize
from openwork.penalties import GroupLasso

lightning = pytest.importorskip("lightning", reason="needs the dev extra: pip install 'openwork[dev]'")

# Lightning still uses what torch deprecates, and advises on loaders.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
]


class Classifier(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
        self.saved_stages: dict[str, Any] | None = None

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        return nn.functional.cross_entropy(self.layers(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = RMDA(regularize(self.layers, GroupLasso(0.02)), lr=0.5, averaging=0.5)
        self.stages = Stages(optimizer, [16], total=64)
        if self.saved_stages is not None:
            self.stages.load_state_dict(self.saved_stages)
        return optimizer

    # Lightning saves optimizers by itself; stages are one line each way.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["stages"] = self.stages.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.saved_stages = checkpoint["stages"]


@pytest.fixture
def loader() -> DataLoader[tuple[Tensor, ...]]:
    x = torch.randn(64, 8)
    return DataLoader(TensorDataset(x, (x[:, :3].sum(1) > 0).long()), batch_size=8)


def trainer(tmp_path, epochs: int):
    return lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    )


def test_trains_in_the_trainer(tmp_path, loader) -> None:
    model = Classifier()
    run = trainer(tmp_path, 8)
    run.fit(model, loader)
    optimizer = run.optimizers[0]
    assert isinstance(optimizer, RMDA)
    assert model.stages.state_dict()["position"] == 64
    assert optimizer.param_groups[0]["step"] == 48
    optimizer.settle_()
    seen = optimizer.read_out()
    assert 0 < seen.alive < seen.total == 14
    assert seen.alive == sum(int(p.any(0).sum()) for p in model.parameters() if p.ndim == 2)


def test_resumes_from_its_checkpoint(tmp_path, loader) -> None:
    whole, half, resumed = Classifier(), Classifier(), Classifier()
    half.load_state_dict(whole.state_dict())
    trainer(tmp_path, 6).fit(whole, loader)

    first = trainer(tmp_path, 3)
    first.fit(half, loader)
    first.save_checkpoint(tmp_path / "half.ckpt")
    trainer(tmp_path, 6).fit(resumed, loader, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert resumed.stages.state_dict() == whole.stages.state_dict()
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), resumed.parameters(), strict=True))
