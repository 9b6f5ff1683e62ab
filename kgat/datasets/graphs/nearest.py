r"""Points as graphs, with edges to the nearest ones: tables of scikit-learn, simple features of series of the
UEA archive, and words of sentences. (Of places on a map scikit-learn brings no data.)"""

from functools import partial
from pathlib import Path

import numpy as np

from kgat.datasets import splits
from kgat.datasets.files import RawFile, raw_files, read_npz
from kgat.datasets.graph import Graph, neighbourhood
from kgat.datasets.sequences.sst2 import SOURCES as SENTENCES
from kgat.datasets.sequences.sst2 import sentences
from kgat.datasets.sequences.uea import UEA
from kgat.datasets.series import read_ts
from kgat.datasets.source import GraphSource


def _table(paths: list[Path], *, name: str) -> Graph:
    from sklearn import datasets

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return neighbourhood(x, y if y.dtype.kind == "i" else y[:, None].astype(np.float32))


def _places(paths: list[Path]) -> Graph:
    x, y = read_npz(paths[0], "X", "y")
    return neighbourhood(x.reshape(len(x), -1).astype(np.float64), y.astype(np.int64))


def _moments(paths: list[Path]) -> Graph:
    parts = [read_ts(path) for path in paths]
    x = np.stack([np.concatenate([x.mean(axis=0), x.std(axis=0)]) for part in parts for x in part.x])
    labels = np.array([label for part in parts for label in part.labels])
    return neighbourhood(x, np.unique(labels, return_inverse=True)[1])


def _words(paths: list[Path]) -> Graph:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.neighbors import kneighbors_graph

    parts = list(map(sentences, paths))
    rows = [row for part in parts for row in part]
    # The texts are split at spaces already, also of signs.
    words = TfidfVectorizer(token_pattern=r"\S+", min_df=2, sublinear_tf=True)
    x = words.fit_transform([text for text, _ in rows])
    edges = kneighbors_graph(x, n_neighbors=8, metric="cosine").tocoo()
    part = np.repeat(np.arange(3), list(map(len, parts)))
    y = np.array([int(label) for _, label in rows])
    return Graph(x, edges.row, edges.col, y, [("published", part == 0, part == 1, part == 2)])


EDGES = "standardised; edges to the 8 nearest"
UEA_SERIES = f"{UEA}; timeseriesclassification.com"
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
    GraphSource(
        name="PenDigits-nearest",
        read=_places,
        citation=UEA_SERIES,
        features=f"8 places of a pen, {EDGES}",
        files=(RawFile("seq/uea_npz/PenDigits.npz", None),),
        rule=partial(splits.per_class_train, train=20, val=500),
        needs=("sklearn",),
    ),
    GraphSource(
        name="JapaneseVowels-nearest",
        read=_moments,
        citation=UEA_SERIES,
        features=f"mean and standard deviation of 12 channels, {EDGES}",
        files=raw_files(
            "seq/uea/JapaneseVowels", None, [f"JapaneseVowels_{p}.ts" for p in ("TRAIN", "TEST")]
        ),
        rule=partial(splits.per_class_train, train=10, val=150),
        needs=("sklearn",),
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
