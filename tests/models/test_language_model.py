from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from kgat.models import LanguageModel
from kgat.models.decoding import evaluating

V, B, N = 7, 3, 6
VARIANTS = {
    "rbf sum": {"kernel": "rbf", "position": "sum"},
    "fourier txl": {"attention": "fourier", "position": "txl"},
    "grouped symmetric": {"position": "symmetric", "attention_kwargs": {"num_kv_heads": 1}},
    "primal": {"attention": "primal", "attention_kwargs": {"rank": 2}},
    "primal last": {"attention": ["rbf", "primal"], "position": "sum"},
}


def build(variant="rbf sum", **kwargs):
    torch.manual_seed(0)
    return LanguageModel(V, 12, 3, 2, dropout=0.0, **VARIANTS[variant], **kwargs).double()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("tied", [False, True])
def test_tokens_see_no_later_ones(variant, tied):
    model = build(variant, tied=tied, norm_first=tied)
    tokens = torch.randint(V, (B, N))
    changed = tokens.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % V
    torch.testing.assert_close(model(changed)[:, :4], model(tokens)[:, :4])
    assert not torch.allclose(model(changed)[:, 4], model(tokens)[:, 4])


@pytest.mark.parametrize("variant", VARIANTS)
def test_generation_equals_the_whole_each_time(variant):
    model = build(variant).train()
    tokens = torch.randint(V, (B, 2))
    expected = tokens
    for _ in range(5):
        expected = torch.cat([expected, model(expected)[:, -1:].argmax(dim=-1)], dim=1)
    found = model.generate(tokens, steps=5)
    assert torch.equal(found, expected)
    assert torch.equal(model.generate(tokens, steps=0), tokens)
    assert model.training


def test_generation_feeds_one_token_at_a_time():
    model, seen = build(), []
    model.embed.register_forward_hook(lambda module, args, out: seen.append(args[0].size(1)))
    model.generate(torch.randint(V, (B, 3)), steps=4)
    assert seen == [3, 1, 1, 1]


def test_generation_draws():
    model = build()
    tokens = torch.randint(V, (1, 2)).repeat(4000, 1)
    torch.manual_seed(3)
    drawn = model.generate(tokens, 1, temperature=0.5, generator=torch.Generator().manual_seed(1))[:, -1]
    again = model.generate(tokens, 1, temperature=0.5, generator=torch.Generator().manual_seed(1))[:, -1]
    assert torch.equal(drawn, again)
    share = drawn.bincount(minlength=V) / 4000
    wanted = (model(tokens[:1])[0, -1] / 0.5).softmax(dim=-1)
    torch.testing.assert_close(share.double(), wanted, rtol=0.0, atol=0.04)
    with pytest.raises(ValueError, match=r"'temperature' of at least 0 \(got -1.0\)"):
        model.generate(tokens, 1, temperature=-1.0)
    with pytest.raises(ValueError, match=r"N of at least 1 \(got \[2, 0\]\)"):
        model.generate(tokens[:2, :0], 1)
    with pytest.raises(ValueError, match=r"'temperature' of at least 0 \(got nan\)"):
        model.generate(tokens, 1, temperature=float("nan"))
    with pytest.raises(ValueError, match=r"'steps' of at least 0 \(got -1\)"):
        model.generate(tokens, -1)


def test_tied_embedding():
    model = build(tied=True)
    tokens = torch.randint(V, (B, N))
    h = model.transformer(model.embed(tokens))
    torch.testing.assert_close(model(tokens), h @ model.embed.weight.t())
    assert sum(p.shape == (V, 12) for p in model.parameters()) == 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_has_a_gradient(variant):
    model, losses = build(variant), []
    loss = model(torch.randint(V, (B, N)), losses).square().sum() + sum(losses)
    assert len(losses) == {"primal": 2, "primal last": 1}.get(variant, 0)
    loss.backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_without_tokens():
    assert build()(torch.empty(B, 0, dtype=torch.long)).shape == (B, 0, V)


def test_it_learns_a_sentence():
    torch.manual_seed(0)
    tokens = torch.tensor([[0, 3, 1, 4, 1, 5, 2, 6, 5, 3, 5]])
    model = LanguageModel(V, 16, 2, dropout=0.0, kernel="rbf", position="symmetric", tied=True)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(tokens[:, :-1])[0], tokens[0, 1:]).backward()
        optimizer.step()
    assert torch.equal(model.generate(tokens[:, :1], steps=10), tokens)


def test_threads_decode_with_one_model():
    torch.manual_seed(0)
    model = LanguageModel(10, embed_dim=12, num_heads=3, dropout=0.5, kernel="rbf", position="rope")
    model.transformer.encoder[1].eval()
    given = [torch.randint(10, (2, n)) for n in (2, 5, 1, 3)]
    wanted = [model.generate(tokens, steps=4 * len(tokens[0])) for tokens in given]
    for _ in range(5):
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda tokens: model.generate(tokens, steps=4 * len(tokens[0])), given))
        assert all(map(torch.equal, found, wanted))
        assert model.training
        assert model.transformer.encoder[0].training
        assert not model.transformer.encoder[1].training


def test_the_last_to_end_puts_a_model_back():
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout().eval())
    first, second = evaluating(model), evaluating(model)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not model[0].training
    second.__exit__(None, None, None)
    assert model[0].training
    assert not model[1].training


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("variant", ["fourier txl", "grouped symmetric"])
def test_segments_with_a_memory_of_all_are_the_whole_text(variant, norm_first):
    model = build(variant, memory=N, norm_first=norm_first)
    tokens, memory = torch.randint(V, (B, N)), model.empty_memory()
    found = [model(segment, memory=memory) for segment in tokens.split([1, 3, 2], dim=1)]
    torch.testing.assert_close(torch.cat(found, dim=1), model(tokens))
    assert [kept.states.size(1) for kept in memory] == [N, N]
    assert not any(kept.states.requires_grad for kept in memory)


def test_what_a_memory_lost_is_not_seen():
    model = build("fourier txl", memory=2)
    first = torch.randint(V, (2, B, 4))
    first[1, :, 2:] = first[0, :, 2:]
    second, found = torch.randint(V, (B, 3)), []
    for segment in first:
        memory = model.empty_memory()
        model(segment, memory=memory)
        memory[1].states = None  # the second layer's states have seen the whole segment
        found.append(model(second, memory=memory))
    torch.testing.assert_close(*found)
    assert not torch.allclose(found[0], model(second))


def test_memory_is_asked_for():
    model = build()
    assert model.empty_memory() is None
    with pytest.raises(
        ValueError, match=r"KernelAttention in all layers with a memory \(got PrimalAttention\)"
    ):
        build("primal last", memory=3)
    with pytest.raises(ValueError, match=r"whole 'memory' of at least 0 \(got -1\)"):
        build(memory=-1)
    model = build("fourier txl", memory=2)
    memory, tokens = model.empty_memory(), torch.randint(V, (B, N))
    model(tokens, memory=memory)
    with pytest.raises(
        ValueError, match=rf"shape \[B={B}, N, F=12\] .*begin other texts with an empty memory"
    ):
        model(tokens[:2], memory=memory)
    for given in ({"padding_mask": torch.zeros(B, N, dtype=torch.bool)}, {"causal": False}):
        with pytest.raises(ValueError, match="beside a memory"):
            model.transformer.encode(torch.randn(B, N, 12).double(), memory=model.empty_memory(), **given)
    with pytest.raises(ValueError, match="a cache"):
        model(tokens, cache=model.transformer.empty_cache(), memory=model.empty_memory())


def test_no_temperature_is_too_small():
    torch.manual_seed(0)
    model, start = LanguageModel(20, 8, num_heads=2, num_layers=1), torch.zeros(1, 1, dtype=torch.long)
    greedy = model.generate(start, 6, temperature=0.0)
    for temperature in (1e-40, 1e-300):
        assert torch.equal(model.generate(start, 6, temperature=temperature), greedy)
