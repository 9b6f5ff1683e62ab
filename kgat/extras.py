r"""Packages that only a part of kgat needs, and the extra of the installation that brings each."""

from importlib.util import find_spec

__all__ = ["require"]

# The name that is imported, that of the distribution, and the extra.
_PACKAGES = {
    "matplotlib": ("matplotlib", "experiments"),
    "networkx": ("networkx", "experiments"),
    "rich": ("rich", "experiments"),
    "scipy": ("scipy", "experiments"),
    "sklearn": ("scikit-learn", "experiments"),
    "typer": ("typer", "experiments"),
    "pandas": ("pandas", "experiments"),
    "pyarrow": ("pyarrow", "parquet"),
    "tensorboard": ("tensorboard", "log"),
    "wandb": ("wandb", "log"),
    "tokenizers": ("tokenizers", "sequences"),
    "optuna": ("optuna", "tuning"),
}


def require(purpose: str, *packages: str) -> None:
    r"""Refuses what packages are missing for, with the command that installs them.

    Args:
        purpose (str): What they are for, as in "to read 'digits'".
        *packages (str): The names by which they are imported.

    Raises:
        ImportError: If one of them is not installed.

    Example:
        >>> require("to sort numbers", "numpy")
    """
    for name in packages:
        if find_spec(name) is None:
            package, extra = _PACKAGES.get(name, (name, ""))
            install = f"'kgat[{extra}]'" if extra else package
            raise ImportError(
                f"Expected the package '{package}' {purpose} (got none); run: pip install {install}"
            )
