r"""Handwritten digits read row by row: a transformer whose attention is any kernel.

    python examples/sequences.py --attention fourier
    python examples/sequences.py --attention rbf --position symmetric_product

``--attention`` takes ``fourier``, ``primal``, or the name of a kernel (``dot_product``, ``laplace``, ...).
"""

import argparse

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from kgat.models import SequenceClassifier


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--attention", default="rbf")
    parser.add_argument("--position", default="sum")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    digits = load_digits()
    x = torch.from_numpy(digits.images).float() / 16.0  # 8 rows are 8 tokens of 8 channels
    y = torch.from_numpy(digits.target).long()
    train, rest = train_test_split(torch.arange(len(y)), train_size=0.6, stratify=y, random_state=args.seed)
    val, test = train_test_split(rest, train_size=0.5, stratify=y[rest], random_state=args.seed)

    torch.manual_seed(args.seed)
    model = SequenceClassifier(10, in_channels=8, attention=args.attention, position=args.position)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

    def accuracy(part: torch.Tensor) -> float:
        model.eval()
        with torch.no_grad():
            return (model(x[part]).argmax(dim=-1) == y[part]).float().mean().item()

    best, kept = -1.0, model.state_dict()
    for epoch in range(1, args.epochs + 1):
        model.train()
        for batch in train[torch.randperm(len(train))].split(64):
            losses: list[torch.Tensor] = []  # the penalty of Primal-Attention
            loss = torch.nn.functional.cross_entropy(model(x[batch], losses=losses), y[batch])
            loss = torch.stack([loss, *losses]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found = accuracy(val)
        if found > best:
            best, kept = found, {name: tensor.clone() for name, tensor in model.state_dict().items()}
        print(f"epoch {epoch:3d}  loss {loss.item():.3f}  validation {found:.3f}")

    model.load_state_dict(kept)
    print(f"test accuracy {accuracy(test):.3f}, at the epoch that was best on the validation part")


if __name__ == "__main__":
    main()
