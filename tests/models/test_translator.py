import functools
import itertools

import pytest
import torch

from kgat.models import Translator

S, V, B, M, N = 6, 4, 3, 5, 3
BOS, EOS = 0, 1
PADDING = torch.arange(M) >= torch.tensor([5, 2, 0]).unsqueeze(1)
VARIANTS = {
    "rbf sum": {"kernel": "rbf", "position": "sum"},
    "symmetric": {"kernel": "rbf", "position": "symmetric", "cross_position": "symmetric"},
    "table": {"attention": "fourier", "position": "table-S"},
    "primal": {"attention": "primal", "attention_kwargs": {"rank": 2}, "position": "sum"},
}


def build(variant="rbf sum", seed=1, **kwargs):
    torch.manual_seed(seed)
    model = Translator(S, V, 12, 3, 1, dropout=0.0, **VARIANTS[variant], **kwargs).double()
    for p in model.parameters():
        if p.dim() > 1:
            p.data *= 2.0  # so that translations differ, and depend on what was said before
    return model


def source():
    return torch.randint(S, (B, M), generator=torch.Generator().manual_seed(1))


def log_probability(model, tokens, padding, sentence):
    target = torch.tensor([[BOS, *sentence]])
    logits = model(tokens, target[:, :-1], padding)[0]
    return logits.log_softmax(dim=-1)[range(len(sentence)), sentence].sum().item()


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_translation_takes_the_likeliest_token(variant, seed):
    model = build(variant, seed).train()
    for rows in (source(), source().flip(1)):
        expected = []
        for tokens, padding in zip(rows, PADDING, strict=True):
            target = [BOS]
            while len(target) <= 6 and target[-1] != EOS:
                logits = model(tokens[None], torch.tensor([target]), padding[None])
                target.append(logits[0, -1].argmax().item())
            expected.append([token for token in target[1:] if token != EOS])
        assert model.translate(rows, BOS, EOS, 6, PADDING) == expected
    assert model.training


@functools.cache
def scored(variant, seed, length):
    r"""The log-probability of each translation of each source."""
    model = build(variant, seed)
    others = [token for token in range(V) if token != EOS]
    sentences = [
        (*words, EOS) for size in range(length) for words in itertools.product(others, repeat=size)
    ] + list(itertools.product(others, repeat=length))
    return [
        {sentence: log_probability(model, tokens[None], padding[None], sentence) for sentence in sentences}
        for tokens, padding in zip(source(), PADDING, strict=True)
    ]


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("variant", ["table", "symmetric", "primal"])
def test_a_wide_beam_finds_the_best_of_all(variant, seed, length_penalty):
    model, length = build(variant, seed), 3
    expected = []
    for scores in scored(variant, seed, length):
        best = max(scores, key=lambda sentence: scores[sentence] / len(sentence) ** length_penalty)
        expected.append([token for token in best if token != EOS])
    found = model.translate(
        source(), BOS, EOS, length, PADDING, beam=V**length, length_penalty=length_penalty
    )
    assert found == expected


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("variant", ["table", "symmetric"])
def test_a_beam_equals_a_search_in_plain_lists(variant, seed):
    model, beam, length = build(variant, seed), 3, 5
    for tokens, padding, found in zip(
        source(), PADDING, model.translate(source(), BOS, EOS, length, PADDING, beam=beam), strict=True
    ):
        kept = [(0.0, ())]
        for _ in range(length):
            ways = []
            for score, sentence in kept:
                if sentence[-1:] == (EOS,):
                    ways.append((score, sentence))
                    continue
                logits = model(tokens[None], torch.tensor([[BOS, *sentence]]), padding[None])[0, -1]
                logits = logits.log_softmax(dim=-1).tolist()
                ways += [(score + logits[token], (*sentence, token)) for token in range(V)]
            kept = sorted(ways, reverse=True)[:beam]
        best = max(kept, key=lambda way: way[0] / len(way[1]))[1]
        assert found == [token for token in best if token != EOS]


@pytest.mark.parametrize("variant", ["rbf sum", "symmetric", "table"])
def test_a_beam_takes_its_past_along(variant):
    # The tokens of a beam change places from step to step: what is cached of them must follow.
    model, rows = build(variant), torch.randint(S, (40, M))
    found = model.translate(rows, BOS, EOS, 8, beam=4)
    model.transformer.empty_cache = lambda: None
    assert found == model.translate(rows, BOS, EOS, 8, beam=4)
    assert len(set(map(tuple, found))) > 4


def test_padding_has_no_influence():
    model = build("symmetric")
    target, padding = torch.randint(V, (B, N)), torch.arange(N) >= torch.tensor([3, 2, 1]).unsqueeze(1)
    out = model(source(), target, PADDING, padding)
    changed = model(source().masked_fill(PADDING, -7), target.masked_fill(padding, -7), PADDING, padding)
    assert out.isfinite().all()
    torch.testing.assert_close(changed[~padding], out[~padding])
    torch.testing.assert_close(model(source()[1:2, :2], target[1:2, :2]), out[1:2, :2])


def test_targets_see_no_later_ones():
    model = build("table")
    target = torch.randint(V, (B, N))
    changed = target.clone()
    changed[:, 2] = (changed[:, 2] + 1) % V
    torch.testing.assert_close(model(source(), changed)[:, :2], model(source(), target)[:, :2])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("tied", [False, True])
def test_every_parameter_has_a_gradient(variant, tied):
    model, losses = build(variant, tied=tied), []
    out = model(source(), torch.randint(V, (B, N)), PADDING, losses=losses)
    assert len(losses) == (2 if variant == "primal" else 0)
    (out.square().sum() + sum(losses)).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_sizes():
    model = build()
    assert len(model.transformer.encoder) == len(model.transformer.decoder) == 1
    assert len(Translator(S, V, num_layers=1, decoder_layers=3).transformer.decoder) == 3
    assert model.translate(source()[:0], BOS, EOS, 3, beam=2) == []
    assert len(model.translate(source()[:, :0], BOS, EOS, 3, beam=2)) == B
    with pytest.raises(ValueError, match="'decoder_layers' of at least 1"):
        Translator(S, V, decoder_layers=0)
    with pytest.raises(ValueError, match=r"whole 'beam' of at least 1 \(got 0\); give an int"):
        model.translate(source(), BOS, EOS, 3, beam=0)
