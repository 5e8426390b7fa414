"""A LightningModule on in-distribution batches, stopped in the middle of an epoch and resumed where it was."""

import lightning
import torch
from small_store import small_store
from torch import nn
from torch.nn import functional

import ecgcohorts as ec
from ecgcohorts.loading.torch import TorchBatch, TorchBatches


class Contrast(lightning.LightningModule):
    """Two recordings of a patient attract, those of the others in the batch repel."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv1d(8, 32, 25, stride=10), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())

    def training_step(self, batch: TorchBatch, step: int) -> torch.Tensor:
        """batch: what TorchBatches hands out, moved to the device by Lightning as it stands."""
        first, second = (functional.normalize(self.encoder(view)) for view in batch.millivolts().unbind(dim=1))
        loss = functional.cross_entropy(first @ second.T / 0.1, torch.arange(len(first), device=self.device))
        print(f"epoch {batch.plan.epoch} step {batch.plan.step}, {batch.plan.cohort}: {loss.item():.3f}")
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def trained(steps: int, resume: str | None = None) -> lightning.Trainer:
    """A run of so many steps in all, from its start or from a checkpoint. All ranks plan the same batches."""
    store = ec.open(small_store())
    sampler = ec.InDistributionBatchSampler(store.index, pairs=4, seed=0)
    batches = TorchBatches(ec.Loader(store, sampler, window=2800))
    lightning.seed_everything(0, verbose=False)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = lightning.Trainer(max_steps=steps, accelerator="cpu", **quiet)
    trainer.fit(Contrast(), batches, ckpt_path=resume)
    return trainer


trained(6).save_checkpoint("run.ckpt")
trained(12, resume="run.ckpt")
