r"""Points as graphs, with edges to the nearest ones: tables of scikit-learn, series of the UEA and UCR
archives, and words of sentences. (Of places on a map scikit-learn brings no data.)"""

from functools import partial
from pathlib import Path

import numpy as np

from kgat.datasets import splits
from kgat.datasets.files import read_npz
from kgat.datasets.graph import Graph, neighbourhood
from kgat.datasets.nearest import nearest
from kgat.datasets.sequences.sst2 import SOURCES as SENTENCES
from kgat.datasets.sequences.sst2 import sentences
from kgat.datasets.sequences.uea import UCR, UEA, UNIVARIATE, of_series, packed
from kgat.datasets.series import read_ts
from kgat.datasets.source import GraphSource


def _table(paths: list[Path], *, name: str) -> Graph:
    from sklearn import datasets

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return neighbourhood(x, y if y.dtype.kind == "i" else y[:, None].astype(np.float32))


def _series(paths: list[Path]) -> Graph:
    r"""Series are compared value by value where all are of one length, else by their moments."""
    if paths[0].suffix == ".npz":
        series, labels = read_npz(paths[0], "X", "y")
    else:
        parts = [read_ts(path) for path in paths]
        series = [x for part in parts for x in part.x]
        labels = np.array([label for part in parts for label in part.labels])
    values = [np.asarray(x, dtype=np.float64) for x in series]
    if len({x.shape for x in values}) == 1:
        points = [x.ravel() for x in values]
    else:
        points = [np.concatenate([x.mean(axis=0), x.std(axis=0)]) for x in values]
    return neighbourhood(np.stack(points), np.unique(labels, return_inverse=True)[1])


def _words(paths: list[Path]) -> Graph:
    from sklearn.feature_extraction.text import TfidfVectorizer

    files = list(map(sentences, paths))
    rows = [row for file in files for row in file]
    # The texts are split at spaces already, also of signs.
    words = TfidfVectorizer(token_pattern=r"\S+", min_df=2, sublinear_tf=True)
    x = words.fit_transform([text for text, _ in rows])
    y = np.array([int(label) for _, label in rows])
    part = np.repeat(np.arange(3), list(map(len, files)))
    col = nearest(x, NEIGHBOURS, metric="cosine").ravel()
    row = np.arange(len(rows)).repeat(NEIGHBOURS)
    return Graph(x, row, col, y, [("published", part == 0, part == 1, part == 2)])


NEIGHBOURS = 8
EDGES = f"standardised; edges to the {NEIGHBOURS} nearest"
SOURCES = [
    *(
        GraphSource(
            name=name,
            read=partial(_table, name=name),
            citation=f"{paper}; inside scikit-learn, CC BY 4.0",
            features=f"{features}, {EDGES}",
            rule=rule,
            metric=metric,
            needs=("sklearn",),
        )
        for name, paper, features, rule, metric in (
            (
                "wine",
                "Aeberhard and Forina, Wine (1992)",
                "13 chemical measures",
                partial(splits.per_class_train, train=10, val=40),
                "accuracy",
            ),
            (
                "breast_cancer",
                "Wolberg et al., Breast Cancer Wisconsin, Diagnostic (1993)",
                "30 measures of cell nuclei",
                partial(splits.per_class_train, train=20, val=100),
                "accuracy",
            ),
            (
                "diabetes",
                "Efron et al., Least Angle Regression (2004)",
                "10 measures of patients, whose disease after a year is predicted",
                partial(splits.shares, train=0.5, val=0.25),
                "rmse",
            ),
        )
    ),
    *(
        GraphSource(
            name=f"{name}-nearest",
            read=_series,
            citation=f"{UCR if name in UNIVARIATE else UEA}; timeseriesclassification.com",
            features=f"{features}, {EDGES}",
            files=of_series(name),
            instead=packed(name),
            rule=partial(splits.per_class_train, train=train, val=val),
            needs=("sklearn",),
        )
        for name, features, train, val in (
            ("PenDigits", "8 places of a pen", 20, 500),
            ("JapaneseVowels", "mean and standard deviation of 12 channels", 10, 150),
            ("ERing", "4 electrodes at 65 times", 10, 75),
            ("RacketSports", "6 channels of a watch at 30 times", 10, 75),
            ("Libras", "45 places of a hand", 10, 90),
            ("UWaveGestureLibrary", "3 accelerations at 315 times", 10, 110),
            ("OSULeaf", "427 distances of an outline", 10, 110),
            ("Handwriting", "3 accelerations at 152 times", 10, 250),
            ("ItalyPowerDemand", "power at 24 hours", 10, 250),
            ("Epilepsy", "3 accelerations at 206 times", 10, 70),
            ("ArrowHead", "251 distances of an outline", 10, 50),
            ("GunPoint", "place of a hand at 150 times", 10, 50),
            ("ACSF1", "power at 1460 times", 10, 50),
        )
    ),
    GraphSource(
        name="SST2-nearest",
        read=_words,
        citation=SENTENCES[0].citation,
        features="TF-IDF of words that occur in two sentences or more, of any part; edges to the 8 nearest "
        "by cosine",
        files=SENTENCES[0].files,
        needs=("sklearn", "scipy"),
    ),
]
