"""In the Trainer of Hugging Face."""

import pytest
import torch

from openwork.optim import RAMDA, ProximalOptimizer, Stages, regularize, unwrap
from openwork.penalties import GroupLasso

transformers = pytest.importorskip("transformers", reason="needs the dev extra: pip install 'openwork[dev]'")


class Sentences(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Random tokens, labelled by whether the first is small."""

    def __init__(self) -> None:
        self.tokens = torch.randint(0, 20, (32, 6), generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.tokens[i], "labels": (self.tokens[i, 0] < 10).long()}


def test_trains_in_the_trainer(tmp_path) -> None:
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=8,
    )
    model = transformers.BertForSequenceClassification(config)
    optimizer = RAMDA(regularize(model, GroupLasso(1e-3)), lr=0.005, averaging=0.5)
    stages = Stages(optimizer, [8])
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=16,
        per_device_train_batch_size=8,
        save_steps=8,
        lr_scheduler_type="constant",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
    )
    # A scheduler of its own would set the rate back after every milestone.
    constant = torch.optim.lr_scheduler.MultiplicativeLR(optimizer, lambda _: 1.0)
    trainer = transformers.Trainer(model, arguments, train_dataset=Sentences(), optimizers=(optimizer, constant))
    trainer.train()

    assert unwrap(trainer.optimizer) is optimizer
    assert isinstance(optimizer, ProximalOptimizer)
    assert stages.in_last_stage and stages.state_dict()["position"] == 16
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0005)
    assert optimizer.param_groups[0]["step"] == 8
    saved = torch.load(tmp_path / "checkpoint-8" / "optimizer.pt", weights_only=True)
    assert saved["param_groups"][0]["step"] == 8
    optimizer.settle_()
    seen = optimizer.read_out()
    assert 0 < seen.alive < seen.total
    names = optimizer.param_groups[0]["names"]
    assert not any("embeddings" in name for name in names)
