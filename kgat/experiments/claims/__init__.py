r"""What five papers claim, each judged by records that one command makes and another draws.

- :mod:`~kgat.experiments.claims.claim`: the claims of ``claims.toml``, and their training;
- :mod:`~kgat.experiments.claims.approximation` and :mod:`~kgat.experiments.claims.density`: what is measured
  without training;
- :mod:`~kgat.experiments.claims.page`: figures and sentences.
"""

from kgat.experiments.claims.claim import CLAIMS, Claim, lines, resolve_claim, train
from kgat.experiments.claims.page import figures, text

__all__ = ["CLAIMS", "Claim", "figures", "lines", "resolve_claim", "text", "train"]
