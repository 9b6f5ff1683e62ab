r"""Learn from the past alone: neighbours are sampled among edges that are not later than the question.

Run it with ``python examples/temporal.py``. It draws who bought in which shop when. A shop changes what it
sells, so that its last buyers tell what that is now; ``--strategy uniform`` asks buyers of all earlier days.
"""

import argparse

import torch
import torch.nn.functional as F
from torch_geometric.data import Data

from kgat import KernelGAT
from kgat.loader import NeighborLoader

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument(
    "--strategy", default="last", help="last: the latest neighbours; uniform: any earlier ones"
)
parser.add_argument("--epochs", type=int, default=20)
args = parser.parse_args()

torch.manual_seed(0)
SHOPS, BUYERS, EVENTS, DAYS, CLASSES = 100, 300, 6000, 365, 3
before, after = torch.randint(CLASSES, (2, SHOPS))
change = torch.randint(DAYS, (SHOPS,))


def kind(shop, day):
    return torch.where(day < change[shop], before[shop], after[shop])


# Nodes are shops, then buyers. Three of four purchases are by a buyer who likes what the shop sells that day.
likes = torch.arange(BUYERS) % CLASSES
shop, day = torch.randint(SHOPS, (EVENTS,)), torch.randint(DAYS, (EVENTS,))
liked = torch.where(torch.rand(EVENTS) < 0.75, kind(shop, day), torch.randint(CLASSES, (EVENTS,)))
buyer = liked + CLASSES * torch.randint(BUYERS // CLASSES, (EVENTS,))
x = torch.cat([torch.zeros(SHOPS, CLASSES), F.one_hot(likes, CLASSES).float()])
data = Data(x=x, edge_index=torch.stack([SHOPS + buyer, shop]), day=day)

# The question: what does a shop sell on a day? The first eight months are for training, the rest for testing.
asked, when = torch.randint(SHOPS, (2000,)), torch.randint(30, DAYS, (2000,))
answer, past = kind(asked, when), when < 240


def questions(which, **options):
    return NeighborLoader(
        *(data, [10]),
        input_nodes=asked[which],
        input_time=when[which],
        time_attr="day",
        temporal_strategy=args.strategy,
        batch_size=200,
        **options,
    )


train, test = questions(past, shuffle=True, seed=0), questions(~past, seed=0)
model = KernelGAT(CLASSES, 32, 1, CLASSES, heads=4, kernel="rbf")
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for epoch in range(1, args.epochs + 1):
    total = 0.0
    for batch in train:
        optimizer.zero_grad()
        out = model(batch.x, batch.edge_index)[
            : batch.batch_size
        ]  # the shops that are asked about come first
        loss = F.cross_entropy(out, answer[past][batch.input_id])
        loss.backward()
        optimizer.step()
        total += loss.item() * batch.batch_size
    if epoch % 5 == 0 or epoch == args.epochs:
        print(f"epoch {epoch:3d}  loss {total / int(past.sum()):.3f}")

model.eval()
right, latest = 0, DAYS
with torch.no_grad():
    for batch in test:
        out = model(batch.x, batch.edge_index)[: batch.batch_size]
        right += int((out.argmax(dim=1) == answer[~past][batch.input_id]).sum())
        question = batch.batch[batch.edge_index[1]]  # of each edge: every question has a tree of its own
        latest = min(latest, int((batch.seed_time[question] - batch.day).min()))
print(f"test accuracy {right / int((~past).sum()):.3f} with {args.strategy} neighbours")
print(f"the latest edge that was seen is {latest} days before its question: below 0 would be after it")
