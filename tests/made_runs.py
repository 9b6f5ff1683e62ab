from kgat.experiments.config import Config


def make_run(model, seed, test, val=0.5, dataset="made", split=None, **config):
    return {
        "kind": "run",
        "key": f"{dataset}-{model}-{seed}",
        "dataset": dataset,
        "model": model,
        "seed": seed,
        "split": f"random-{seed}" if split is None else split,
        "config": Config.of(dataset, model, seed, config).as_dict(),
        "metric": "accuracy",
        "train": 1.0,
        "val": val,
        "test": test,
        "parameters": 1000 + len(model),
        "versions": {"torch": "2.13.0", "torch_geometric": "2.8.1"},
    }


def make_cost(dataset="made", contended=False, **ratios):
    entries = {
        model: {
            "seconds_ratio": [time, 0.9 * time, 1.1 * time],
            "memory_ratio": memory,
            "contended": contended and model != "gat",
        }
        for model, (time, memory) in {"gat": (1.0, 1.0), **ratios}.items()
    }
    return {"kind": "cost", "dataset": dataset, "baseline": "gat", "models": entries}
