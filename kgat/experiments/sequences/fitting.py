r"""One model on one task of sequences: built, trained on the training part, chosen on the validation part."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kgat.datasets import SequenceTask
from kgat.datasets.sequence_task import Labelled, Padded, Pairs, Part, Stream
from kgat.datasets.vocabulary import BOS, EOS
from kgat.experiments import loop
from kgat.experiments.loop import Diverged, Epoch
from kgat.experiments.sequences.papers import OPTIMIZERS, Setting
from kgat.kernels import Kernel
from kgat.models import LanguageModel, SequenceClassifier, Translator
from kgat.nn import PrimalAttention, SegmentMemory

POOL = 50  # batches among which sequences are sorted by length

OnEpoch = Callable[[int, float], None]


def build(task: SequenceTask, attention: Mapping[str, Any], setting: Setting) -> torch.nn.Module:
    r"""Builds the model of a task.

    Series are classified as `"Primal-Attention" <https://arxiv.org/abs/2305.19798>`_ does it: learned places,
    GELU, and all tokens flattened, or as vision transformers classify images, by a token of the class;
    sentences and expressions by the mean of their tokens.

    Args:
        task (SequenceTask): The task.
        attention (dict): Arguments of :class:`~kgat.models.KernelTransformer`, see :func:`arguments`.
        setting (Setting): The sizes.

    Example:
        >>> from kgat.datasets import load_sequences
        >>> from kgat.experiments.sequences import arguments
        >>> task = load_sequences("ListOps", lengths=(5, 9), sizes=(20, 5, 5))
        >>> build(task, arguments("ListOps", {"kernel": "rbf"}, Setting()), Setting()).pooling
        'mean'
    """
    names = ("embed_dim", "num_heads", "num_layers", "feedforward_channels", "dropout", "norm_first")
    sizes: dict[str, Any] = {name: getattr(setting, name) for name in names}
    # Each is there where the kind of task needs it.
    words: Any = task.vocabulary
    target_words: Any = task.target_vocabulary
    classes: Any = task.num_classes
    if task.kind == "language_model":
        return LanguageModel(len(words), tied=setting.tied, **sizes, **attention)
    if task.kind == "translation":
        return Translator(len(words), len(target_words), tied=setting.tied, **sizes, **attention)
    learned = words is None or setting.learned_positions
    image = words is None and setting.pooling == "cls"
    if learned and attention.get("position") == "sum":
        sizes["position_kwargs"] = {"max_length": (task.max_len or 0) + image}
    if words is not None:
        return SequenceClassifier(classes, vocab_size=len(words), **sizes, **attention)
    scale = 1.0 if image else setting.embed_dim**0.5
    sizes.update(act="gelu", pooling=setting.pooling, max_len=task.max_len, input_scale=scale)
    return SequenceClassifier(classes, in_channels=task.in_channels, **sizes, **attention)


class Fit(NamedTuple):
    r"""What training found: the validation score of the kept epoch, its number, and the scores of all."""

    val: float
    best_epoch: int
    curve: list[float]
    seconds: float


def fit(
    model: torch.nn.Module,
    train: Part,
    val: Part,
    setting: Setting,
    *,
    generator: torch.Generator,
    device: str = "cpu",
    on_epoch: OnEpoch | None = None,
) -> Fit:
    r"""Trains a model; at the end it has the weights of the epoch that validated best.

    That is the epoch of the largest accuracy, of equal ones that of the smallest loss; for tokens it is that
    of the smallest perplexity, for translations too. Nothing here can see the test: it is not an argument.

    Args:
        model (torch.nn.Module): The model, on its device.
        train (Labelled or Stream or Pairs): What to train on.
        val (Labelled or Stream or Pairs): What chooses the epoch.
        setting (Setting): How to train.
        generator (torch.Generator): Draws the order of the sequences.
        device (str, optional): Where the model is. (default: :obj:`"cpu"`)
        on_epoch (callable, optional): Called with each epoch and its validation score.
            (default: :obj:`None`)

    Raises:
        Diverged: If a loss is not finite.
        ValueError: If the model has penalties of two kinds.
    """
    optimizer = OPTIMIZERS[setting.optimizer](
        model.parameters(),
        lr=setting.lr,
        betas=(0.9, setting.beta2),
        eps=setting.eps,
        weight_decay=setting.weight_decay,
    )
    # Batches of a language model differ by one between epochs; the last steps are at the end of the schedule.
    total = setting.epochs * sum(1 for _ in _with_memory(model, train, setting, torch.Generator()))
    if setting.steps is not None:
        total = min(total, setting.steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, total, setting))
    # KSVD losses are means over the batch; penalties of kernels belong to the data as a whole.
    primal = any(isinstance(module, PrimalAttention) for module in model.modules())
    if primal and any(isinstance(module, Kernel) and module.penalised for module in model.modules()):
        raise ValueError(
            "Expected penalties of one kind (got KSVD losses, which are means over a batch, beside those of "
            "a kernel, which belong to the data as a whole); take primal attention without such a kernel"
        )
    scale = 1.0 if primal else 1.0 / len(train)
    done = 0

    def step() -> float:
        nonlocal done
        model.train()
        last = 0.0
        for batch, memory in _with_memory(model, train, setting, generator):
            if setting.steps is not None and done == setting.steps:
                break
            done += 1
            optimizer.zero_grad()
            losses: list[Tensor] = []
            logits, y = answer(model, batch, device, losses, memory)
            loss = F.cross_entropy(logits, y, label_smoothing=setting.label_smoothing)
            if not math.isfinite(last := loss.item()):
                raise Diverged("training loss", last)
            torch.stack([loss, *(scale * penalty for penalty in losses)]).sum().backward()
            if setting.clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), setting.clip)
            optimizer.step()
            schedule.step()
        return last

    classes = isinstance(val, Labelled)

    def validate() -> tuple[float, float]:
        nats, accuracy = evaluate(model, val, setting, device)
        if not math.isfinite(nats):
            raise Diverged("validation loss", nats)
        return nats, accuracy if classes else -nats

    def score(epoch: Epoch) -> float:
        return epoch.score if classes else perplexity(epoch.val_loss)

    def stop(epoch: Epoch) -> bool:
        if on_epoch is not None:
            on_epoch(epoch.number, score(epoch))
        return done == setting.steps

    fitted = loop.fit(model, step, validate, epochs=setting.epochs, callbacks=[stop])
    curve = [score(epoch) for epoch in fitted.history]
    return Fit(score(fitted.best), fitted.best_epoch, curve, fitted.seconds)


def rate(step: int, total: int, setting: Setting) -> float:
    r"""Returns the share of the largest learning rate at a step, counted from 0.

    Example:
        >>> [rate(step, 10, Setting(warmup=4, schedule="linear")) for step in (0, 3, 4, 7)]
        [0.25, 1.0, 1.0, 0.5]
    """
    if step < setting.warmup:
        return (step + 1) / setting.warmup
    done = min(1.0, (step - setting.warmup) / max(1, total - setting.warmup))
    return {
        "constant": 1.0,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * done)),
        "linear": 1.0 - done,
        "inverse_sqrt": math.sqrt(max(1, setting.warmup) / (step + 1)),
    }[setting.schedule]


def batches(
    part: Part, setting: Setting, generator: torch.Generator | None = None, *, segments: bool = False
) -> Iterator[Labelled | Pairs | Tensor]:
    r"""Yields a part in batches, in random order if there is a generator.

    Sequences of about one length go together. A stream is cut into rows of :obj:`block` tokens and the one
    that follows, so that every token but the first is predicted once; in random order, the first cut is
    anywhere within a block. As :obj:`segments`, each row of a batch goes on where that of the batch before
    ended, and nothing else is random; texts of a batch of another size begin anew.
    """
    if isinstance(part, Stream):
        tokens, block = part.tokens, setting.block
        if len(tokens) < 2:
            raise ValueError(
                f"Expected a text of at least 2 tokens, to predict one from another (got {len(tokens)}); "
                f"take more of it, e.g. with a larger 'max_train'"
            )
        if generator is not None:
            tokens = tokens[int(torch.randint(min(block, len(tokens) - 1), (), generator=generator)) :]
        if segments:
            yield from _segments(tokens, block, setting.batch_size)
            return
        whole = (len(tokens) - 1) // block
        if whole > 0:
            rows = tokens.unfold(0, block + 1, block)
            order = torch.arange(whole) if generator is None else torch.randperm(whole, generator=generator)
            yield from (rows[index] for index in order.split(setting.batch_size))
        if len(rest := tokens[whole * block :]) > 1:
            yield rest.unsqueeze(0)
        return
    lengths = part.inputs.lengths if isinstance(part, Labelled) else part.target.lengths
    if generator is None:
        yield from (part.take(index) for index in lengths.argsort(stable=True).split(setting.batch_size))
        return
    order = torch.randperm(len(part), generator=generator)
    indices = []
    for pool in order.split(POOL * setting.batch_size):
        indices += pool[lengths[pool].argsort(stable=True)].split(setting.batch_size)
    for place in torch.randperm(len(indices), generator=generator).tolist():
        yield part.take(indices[place])


def _segments(tokens: Tensor, block: int, rows: int) -> Iterator[Tensor]:
    length = (len(tokens) - 1) // rows  # of each of as many texts; what is left is one more
    texts = tokens.unfold(0, length + 1, length)[:rows] if length > 0 else tokens.new_empty(0, 1)
    for part in (texts, tokens[rows * length :].unsqueeze(0)):
        yield from (part[:, i : i + block + 1] for i in range(0, part.size(1) - 1, block))


def _with_memory(
    model: torch.nn.Module, part: Part, setting: Setting, generator: torch.Generator | None = None
) -> Iterator[tuple[Labelled | Pairs | Tensor, list[SegmentMemory] | None]]:
    segments = isinstance(model, LanguageModel) and model.memory > 0
    memory, rows = None, 0
    for batch in batches(part, setting, generator, segments=segments):
        if segments and len(batch) != rows:
            memory, rows = model.empty_memory(), len(batch)  # type: ignore[operator]
        yield batch, memory


def answer(
    model: torch.nn.Module,
    batch: Labelled | Pairs | Tensor,
    device: str = "cpu",
    losses: list[Tensor] | None = None,
    memory: list[SegmentMemory] | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Returns the logits of a batch and what they should say, one row per sequence or per token.

    Shapes:
        - **logits:** :math:`(n, C)`, **y:** :math:`(n)`
    """
    if isinstance(batch, Labelled):
        logits = model(batch.inputs.x.to(device), _padding(batch.inputs, device), losses=losses)
        return logits, batch.y.to(device)
    if isinstance(batch, Tensor):
        rows, kept = batch.to(device), {} if memory is None else {"memory": memory}  # few models take one
        return model(rows[:, :-1], losses=losses, **kept).flatten(0, 1), rows[:, 1:].flatten()
    target, shifted = batch.target.x.to(device), Padded(batch.target.x[:, :-1], batch.target.lengths - 1)
    paddings = (_padding(batch.source, device), _padding(shifted, device))
    logits = model(batch.source.x.to(device), target[:, :-1], *paddings, losses=losses)
    seen = ~shifted.padding.to(device)
    return logits[seen], target[:, 1:][seen]


def _padding(padded: Padded, device: str) -> Tensor | None:
    # No mask where nothing is masked: attention has shorter ways then.
    return None if int(padded.lengths.min()) == padded.x.size(1) else padded.padding.to(device)


@torch.no_grad()
def evaluate(
    model: torch.nn.Module, part: Part, setting: Setting, device: str = "cpu"
) -> tuple[float, float]:
    r"""Returns the mean negative log-likelihood, per sequence or per token, and the accuracy."""
    model.eval()
    nats, hits, count = 0.0, 0, 0
    for batch, memory in _with_memory(model, part, setting):
        logits, y = answer(model, batch, device, memory=memory)
        nats += float(F.cross_entropy(logits.float(), y, reduction="sum"))
        hits += int((logits.argmax(-1) == y).sum())
        count += len(y)
    return nats / count, hits / count


def bleu(model: torch.nn.Module, task: SequenceTask, part: Pairs, setting: Setting, device: str) -> float:
    r"""Returns the BLEU of a model's translations, by :obj:`sacrebleu`, on the tokens of the data set."""
    import sacrebleu

    words: Any = task.target_vocabulary
    texts: list[str] = [""] * len(part)
    longest = int(task.train.target.lengths.max())
    for index in part.source.lengths.argsort(stable=True).split(setting.batch_size):
        source = part.source.take(index)
        translations = model.translate(  # type: ignore[operator]
            source.x.to(device),
            bos=words.id(BOS),
            eos=words.id(EOS),
            max_len=longest,
            source_padding=_padding(source, device),
            beam=setting.beam,
        )
        for place, ids in zip(index.tolist(), translations, strict=True):
            texts[place] = words.decode(ids)
    # The texts are tokens already; 'force' says that this is meant.
    return float(sacrebleu.corpus_bleu(texts, [list(part.references)], tokenize="none", force=True).score)


def perplexity(nats: float) -> float:
    r"""Returns the perplexity of a mean negative log-likelihood."""
    return math.exp(min(nats, 700.0))  # the largest that is still a number
