r"""Train with Lightning: the model is a LightningModule, the loaders are those of ``kgat.loader``.

Run it with ``python examples/lightning_module.py`` after ``pip install '.[lightning]'``: kgat itself does not
need Lightning.
"""

import argparse

import lightning
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint

from kgat import KernelGAT
from kgat.datasets import load
from kgat.loader import NeighborLoader


class Classifier(lightning.LightningModule):
    def __init__(self, in_channels, num_classes):
        super().__init__()
        self.model = KernelGAT(in_channels, 64, 2, num_classes, heads=8, out_heads=1, act="elu", kernel="rbf")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.005)

    def step(self, batch, part):
        out = self.model(batch.x, batch.edge_index)[: batch.batch_size]  # what was asked for comes first
        y = batch.y[: batch.batch_size]
        loss = F.cross_entropy(out, y)
        accuracy = (out.argmax(dim=1) == y).float().mean()
        logged = {f"{part}_loss": loss, f"{part}_accuracy": accuracy}
        self.log_dict(logged, prog_bar=True, batch_size=batch.batch_size, on_step=False, on_epoch=True)
        return loss

    def training_step(self, batch):
        return self.step(batch, "train")

    def validation_step(self, batch):
        self.step(batch, "val")

    def test_step(self, batch):
        self.step(batch, "test")


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--dataset", default="digits")
parser.add_argument("--root", help="folder of the data sets (default: KGAT_DATA, else the user's cache)")
parser.add_argument("--epochs", type=int, default=10)
args = parser.parse_args()

lightning.seed_everything(0, verbose=False)
task = load(args.dataset, args.root)
data, split = task.data, task.split(0)
train = NeighborLoader(data, [10, 5], input_nodes=split.train, batch_size=128, shuffle=True, seed=0)
val, test = (  # all neighbours where a model is judged
    NeighborLoader(data, [-1, -1], input_nodes=nodes, batch_size=512) for nodes in (split.val, split.test)
)
best = ModelCheckpoint(monitor="val_accuracy", mode="max")
trainer = lightning.Trainer(
    max_epochs=args.epochs, callbacks=[best], logger=False, default_root_dir="runs/lightning"
)
trainer.fit(Classifier(data.num_features, task.num_classes), train, val)
trainer.test(dataloaders=test, ckpt_path="best")
