r"""Train on one graph in several processes: torchrun --nproc-per-node 2 examples/distributed.py [FOLDER]

The graph lies in memory-mapped files, which the processes of a machine share. Each batch of all processes
together has BATCH nodes, and gradients are those of its mean. kgat train does the same under torchrun.
"""

import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from kgat import KernelGAT
from kgat.datasets import load, load_mapped, save_mapped
from kgat.experiments.distributed import agreed, is_first, joined, one_after_another, rank, world_size
from kgat.loader import NeighborLoader

EPOCHS, BATCH = 5, 256


def main(folder: str | None = None) -> None:
    with joined("cpu"):
        place = Path(agreed(folder or f"{tempfile.mkdtemp()}/digits"))
        with one_after_another():
            if not place.exists():
                save_mapped(place, load("digits"))
            task = load_mapped(place)
        data, split = task.data, task.split(seed=0)
        nodes = split.train.nonzero().view(-1)
        nodes = nodes[: len(nodes) // world_size() * world_size()]  # equally many for each process
        loader = NeighborLoader(
            data,
            [10, 5],
            input_nodes=nodes[rank() :: world_size()],
            batch_size=BATCH // world_size(),
            shuffle=True,
            seed=rank(),
        )
        torch.manual_seed(0)
        model = KernelGAT(data.num_features, 64, 2, task.num_classes, heads=8, out_heads=1, kernel="rbf")
        parallel = DistributedDataParallel(model) if world_size() > 1 else model
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for epoch in range(EPOCHS):
            parallel.train()
            for batch in loader:
                optimizer.zero_grad()
                out = parallel(batch.x, batch.edge_index)[: batch.batch_size]
                F.cross_entropy(out, batch.y[: batch.batch_size]).backward()
                optimizer.step()
            if is_first():
                model.eval()
                with torch.no_grad():
                    output = model.inference(data.x, data.edge_index)
                print(f"epoch {epoch + 1}: accuracy on validation {task.score(output, split, 'val'):.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
