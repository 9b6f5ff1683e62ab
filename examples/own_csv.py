r"""From two tables of your own to a report: in Python, then by one command.

Run it with ``python examples/own_csv.py``. It draws 300 people and who knows whom into ``nodes.csv`` and
``edges.csv`` of a folder; ``--data`` takes a folder of yours instead. Results are in ``runs``.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from kgat.datasets import describe, read_graph
from kgat.experiments.compare import compare


def draw(folder, num_people=300):
    rng = np.random.default_rng(0)
    team = rng.integers(3, size=num_people)
    one, other = rng.integers(num_people, size=(2, 10 * num_people))
    # Colleagues know each other five times as often as others do.
    kept = (one != other) & (rng.random(one.size) < np.where(team[one] == team[other], 0.5, 0.1))
    people = {
        "id": [f"p{number:03d}" for number in range(num_people)],
        "age": rng.normal(30 + 5 * team, 8).round(),
        "job": rng.choice(["smith", "cook", "clerk"], num_people),
        "member": rng.random(num_people) < 0.5,
        "label": np.array(["red", "green", "blue"])[team],
    }
    people = pd.DataFrame(people)
    known = {"source": people.id[one[kept]].values, "target": people.id[other[kept]].values}
    folder.mkdir(parents=True)
    people.to_csv(folder / "nodes.csv", index=False)
    pd.DataFrame(known).to_csv(folder / "edges.csv", index=False)


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", type=Path, help="folder with nodes.csv and edges.csv (default: drawn people)")
parser.add_argument("--epochs", type=int, default=50)
args = parser.parse_args()

data = args.data or Path("runs/tables/people")
out = Path(f"runs/{data.name}-{args.epochs}-epochs")
if args.data is None and not data.exists():
    draw(data)

task = read_graph(data)
print(describe(task))
records = compare(
    task, ["gat", "rbf"], 3, out, overrides={"max_epochs": args.epochs}, rounds=0, figures=False
)
for record in records:
    if record["kind"] == "run":
        print(f"{record['model']}, seed {record['seed']}: test {task.metric} {record['test']:.3f}")

# What is there already is not trained again: the command adds a model and writes table, figures and report.
command = ["kgat", "compare", "--data", str(data), "--models", "gat,gcn,rbf", "--seeds", "3"]
command += ["--out", str(out), "--set", f"max_epochs={args.epochs}", "--rounds", "0"]
print("$", *command)
subprocess.run([sys.executable, "-m", *command], check=True)
