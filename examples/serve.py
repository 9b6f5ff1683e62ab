r"""Serve a model that ``export.py`` wrote: a process that needs torch alone, not kgat, not PyG.

Run it with ``python examples/serve.py FOLDER``. Each line it reads is a question in JSON: features of new
nodes, and edges (source, target), where a new node is counted on from the known ones. Each line it writes is
the answer: a class and its probability for each new node.
"""

import json
import sys
from pathlib import Path

import torch

folder = Path(sys.argv[1])
program = torch.export.load(folder / "model.pt2").module()
known = torch.load(folder / "known.pt", weights_only=True)

for line in sys.stdin:
    question = json.loads(line)
    x = torch.cat([known["x"], torch.tensor(question["x"])])
    edge_index = torch.cat(
        [known["edge_index"], torch.tensor(question["edges"], dtype=torch.long).view(-1, 2).t()], dim=1
    )
    chances = program(x, edge_index)[len(known["x"]) :]
    best = chances.max(dim=1)
    answers = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    print(json.dumps([[known["classes"][number], chance] for number, chance in answers]), flush=True)
