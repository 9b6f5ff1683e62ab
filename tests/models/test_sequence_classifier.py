import pytest
import torch

from kgat.models import SequenceClassifier

B, N, C = 3, 6, 4
LENGTHS = torch.tensor([6, 2, 0])
PADDING = torch.arange(N) >= LENGTHS.unsqueeze(1)
POOLINGS = ["mean", "last", "cls", "flatten"]


def build(pooling="mean", **kwargs):
    torch.manual_seed(0)
    kwargs = {"in_channels": C} | kwargs
    kwargs |= {"embed_dim": 12, "num_heads": 3, "dropout": 0.0, "pooling": pooling}
    return SequenceClassifier(5, **kwargs, max_len=N + 1).double()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("attention", ["rbf", "primal"])
def test_padding_has_no_influence(attention, pooling):
    model = build(pooling, attention=attention, position="sum", norm_first=attention == "rbf")
    x = torch.randn(B, N, C, dtype=torch.float64)
    out = model(x, PADDING)
    assert out.shape == (B, 5)
    assert out.isfinite().all()
    changed = x.masked_fill(PADDING.unsqueeze(-1), torch.nan)
    torch.testing.assert_close(model(changed, PADDING), out)
    torch.testing.assert_close(model(x[1:2, :2]), out[1:2])
    torch.testing.assert_close(model(x[2:, :0]), out[2:])  # nothing is as good as only padding
    out.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_pooling():
    x = torch.randn(B, N, C, dtype=torch.float64)
    h, bias = torch.randn(B, N, 12, dtype=torch.float64), torch.randn(B, 1, 12, dtype=torch.float64)
    for pooling in POOLINGS:
        model = build(pooling, act="gelu")
        given = torch.cat([bias, h], dim=1) if pooling == "cls" else h
        model.transformer.encode = lambda x, *args, given=given, **kwargs: given
        pooled = {
            "mean": torch.stack([h[0].mean(0), h[1, :2].mean(0), torch.zeros(12)]),
            "last": torch.stack([h[0, 5], h[1, 1], torch.zeros(12)]),
            "cls": bias[:, 0],
            "flatten": torch.nn.functional.gelu(
                torch.nn.functional.pad(h.masked_fill(PADDING.unsqueeze(-1), 0.0), (0, 0, 0, 1)).flatten(1)
            ),
        }[pooling]
        torch.testing.assert_close(model(x, PADDING), model.out(pooled))


def test_places_in_a_sequence_may_have_gaps():
    model = build("last", kernel="rbf")
    x = torch.randn(1, N, C, dtype=torch.float64)
    gaps = torch.tensor([[True, False, True, False, False, True]])
    torch.testing.assert_close(model(x, gaps), model(x[:, [1, 3, 4]]))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_longer_sequences_are_cut(pooling):
    model = build(pooling)
    x = torch.randn(B, N + 4, C, dtype=torch.float64)
    padding = torch.zeros(B, N + 4, dtype=torch.bool)
    torch.testing.assert_close(model(x, padding), model(x[:, : N + 1]))


def test_tokens():
    model = build(in_channels=None, vocab_size=7, kernel="rbf", position="txl")
    tokens = torch.randint(7, (B, N))
    out = model(tokens, PADDING)
    torch.testing.assert_close(model(tokens.masked_fill(PADDING, -1), PADDING), out)
    torch.testing.assert_close(model.embed(tokens).var(), torch.tensor(1.0).double(), rtol=0.4, atol=0.0)


def test_input_scale():
    x = torch.randn(B, N, C, dtype=torch.float64)
    scaled, plain = build(input_scale=3.0), build()
    plain.embed.load_state_dict({name: 3.0 * p for name, p in scaled.embed.state_dict().items()})
    torch.testing.assert_close(scaled(x), plain(x))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_parameter_has_a_gradient(pooling):
    model, losses = build(pooling, attention=["rbf", "primal"]), []
    assert model.penalised
    out = model(torch.randn(B, N, C, dtype=torch.float64), PADDING, losses)
    assert len(losses) == 1
    (out.square().sum() + losses[0]).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_compiles_whole():
    model = build(kernel="rbf", position="sum")
    x = torch.randn(B, N, C, dtype=torch.float64)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, PADDING), model(x, PADDING))


def test_it_learns_what_order_decides():
    torch.manual_seed(0)
    x = torch.randn(128, 8, 1)
    y = (x[:, 0, 0] > x[:, 7, 0]).long()
    model = SequenceClassifier(2, in_channels=1, embed_dim=16, dropout=0.0, kernel="rbf", position="sum")
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(150):  # at 1.0 after 80, whatever the seed
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    assert (model(x).argmax(dim=1) == y).float().mean() > 0.95


@pytest.mark.parametrize("padded", [False, True])
def test_the_mean_of_many_tokens_in_half_precision(padded):
    model = SequenceClassifier(2, 1, embed_dim=4, num_heads=1)
    mask = torch.zeros(1, 70_000, dtype=torch.bool) if padded else None
    h = torch.full((1, 70_000, 4), 1.5, dtype=torch.half)  # whose sum is more than half precision holds
    torch.testing.assert_close(model._pooled(h, mask), h[:, 0])


def test_errors():
    with pytest.raises(ValueError, match=r"one of 'in_channels' and 'vocab_size' \(got None and None\)"):
        SequenceClassifier(2)
    with pytest.raises(ValueError, match=r"one of 'in_channels' and 'vocab_size' \(got 1 and 2\)"):
        SequenceClassifier(2, 1, 2)
    with pytest.raises(ValueError, match=r"'pooling' as one of 'mean', .*got 'max'"):
        SequenceClassifier(2, 1, pooling="max")
    with pytest.raises(ValueError, match="Expected 'max_len'"):
        SequenceClassifier(2, 1, pooling="flatten")
    with pytest.raises(TypeError, match="decoder_layers"):
        SequenceClassifier(2, 1, decoder_layers=1)
    with pytest.raises(ValueError, match=r"'x' of shape \[B, N, 4\]"):
        build()(torch.randn(N, C).double())
    with pytest.raises(ValueError, match=r"and \[3, 5\]"):
        build()(torch.randn(B, N, C).double(), PADDING[:, :5])
    with pytest.raises(ValueError, match=r"'x' of shape \[B, N, 4\] .*got \[3, 7, 5\]"):
        build()(torch.randn(3, 7, 5).double())


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_nested_tensors_are_padded_ones(pooling, layout):
    model = build(pooling, position="sum", kernel="rbf")
    x = torch.randn(B, N, C, dtype=torch.float64)
    nested = torch.nested.as_nested_tensor(
        [row[:n] for row, n in zip(x, LENGTHS.tolist(), strict=True)], layout=layout
    )
    torch.testing.assert_close(model(nested), model(x, PADDING))
    words = build(pooling, in_channels=None, vocab_size=9, attention="primal")
    tokens = torch.randint(9, (B, N))
    nested = torch.nested.as_nested_tensor(
        [row[:n] for row, n in zip(tokens, LENGTHS.tolist(), strict=True)], layout=layout
    )
    torch.testing.assert_close(words(nested), words(tokens, PADDING))
    empty = torch.nested.as_nested_tensor([torch.zeros(0, C, dtype=torch.float64)] * 2, layout=layout)
    torch.testing.assert_close(model(empty), model(torch.zeros(2, 0, C, dtype=torch.float64)))
    with pytest.raises(ValueError, match="no 'padding_mask' beside nested tensors"):
        model(empty, PADDING)


def test_a_nested_tensor_of_no_sequence():
    for pooling in POOLINGS:
        assert build(pooling)(torch.nested.nested_tensor([], dtype=torch.float64)).shape == (0, 5)


def test_a_class_token_that_sees_no_other_is_refused():
    with pytest.raises(ValueError, match="Expected causal=False for pooling='cls'"):
        SequenceClassifier(5, 3, pooling="cls", causal=True)
