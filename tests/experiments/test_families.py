import pytest
from torch_geometric.nn import GraphSAGE

from kgat.cli.options import listed
from kgat.experiments.families import FAMILIES, Family, families


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ("gat", [Family("gat", ("gat",))]),
        (["gat", "GAT", "kernel{RBF, rbf[lengthscale=2],dot}"], [
            Family("gat", ("gat",)), Family("kernel", ("rbf", "rbf[lengthscale=2.0]", "dot")),
        ]),
        ({"similar": ["rbf", "laplace"], "gat": "gat"}, [
            Family("similar", ("rbf", "laplace")), Family("gat", ("gat",)),
        ]),
        ({"mine": "any{gcn,rbf*l2@separate}"}, [Family("mine", ("gcn", "rbf*l2@separate"))]),
    ],
)  # fmt: skip
def test_families_by_name(models, expected):
    found, own = families(models)
    assert [(f.name, len(f.members), f.is_single) for f in found] == [
        (f.name, len(f.members), f.is_single) for f in expected
    ]
    assert own == {}


def test_kernel_alone_is_a_family_of_what_tables_have():
    (family,), _ = families(["Kernel"])
    assert family == Family("kernel", FAMILIES["kernel"])


def test_a_family_may_have_factories():
    (family,), own = families({"mean": [GraphSAGE, "sage"]})
    assert family.members == ("torch_geometric.nn.models.basic_gnn:GraphSAGE", "sage")
    assert list(own) == [family.members[0]]


def test_commas_in_braces_part_no_models():
    names = "gat,kernel{rbf[lengthscale=2],dot},spectral[num_features=4,draws=2],mlp"
    assert listed(names) == [
        "gat",
        "kernel{rbf[lengthscale=2],dot}",
        "spectral[num_features=4,draws=2]",
        "mlp",
    ]


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ("kernel{rbf}", r"at least two models in the family 'kernel' .got 1."),
        ("kernel{}", r"at least two models .*got 0"),
        ("kernel{rbf,RBF}", r"at least two models .*got 1"),
        ("gat{rbf,dot}", r"a name of its own for a family .got 'gat'."),
        ({"my kernels": ["rbf", "dot"]}, r"a name of its own for a family .got 'my kernels'."),
        (["kernel", "kernel{rbf,dot}"], r"one family of a name .got two of 'kernel'."),
        ("kernel{rbf,nope}", r"the name of a model .got 'nope'."),
        (["kernel{rbf,dot"], r"the name of a model"),
    ],
)
def test_what_is_no_family(models, message):
    with pytest.raises(ValueError, match=f"Expected {message}"):
        families(models)
