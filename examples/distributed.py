r"""Train on one graph in several processes: the mean of their gradients is that of the whole batch.

Run it with ``torchrun --nproc-per-node 2 examples/distributed.py``. The graph lies in memory-mapped files,
which the processes of a machine share. ``kgat train`` does the same under torchrun.
"""

import argparse
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from kgat import KernelGAT
from kgat.datasets import load, load_mapped, save_mapped
from kgat.experiments.distributed import is_first, joined, one_after_another, rank, world_size
from kgat.loader import NeighborLoader

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "kgat-digits-mapped")
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--batch-size", type=int, default=256, help="nodes of all processes together")
args = parser.parse_args()

with joined("cpu"):  # one process alone, without torchrun
    with one_after_another():  # the first writes, all others find it written
        if not args.folder.exists():
            save_mapped(args.folder, load("digits"))
        task = load_mapped(args.folder)
    data, split = task.data, task.split(0)
    nodes = split.train.nonzero().view(-1)
    nodes = nodes[: len(nodes) // world_size() * world_size()]  # equally many for each process
    loader = NeighborLoader(
        data,
        [10, 5],
        input_nodes=nodes[rank() :: world_size()],
        batch_size=args.batch_size // world_size(),
        shuffle=True,
        seed=rank(),
    )
    torch.manual_seed(0)  # the same weights in all processes
    model = KernelGAT(data.num_features, 64, 2, task.num_classes, heads=8, out_heads=1, kernel="rbf")
    parallel = DistributedDataParallel(model) if world_size() > 1 else model
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(1, args.epochs + 1):
        model.train()
        for batch in loader:
            optimizer.zero_grad()
            out = parallel(batch.x, batch.edge_index)[: batch.batch_size]
            F.cross_entropy(out, batch.y[: batch.batch_size]).backward()
            optimizer.step()
        if is_first():
            model.eval()
            with torch.no_grad():
                out = model.inference(data.x, data.edge_index)
            print(f"epoch {epoch:3d}  val {task.score(out, split, 'val'):.3f}")
