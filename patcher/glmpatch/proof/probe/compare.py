"""vLLM's numbers beside Transformers': figures that are judged elsewhere."""

from __future__ import annotations

from typing import Any

from .checkpoint import LOW, Yardstick
from .language import N_
from .outcome import CannotRun


def known(yardstick: Yardstick) -> dict[str, Any]:
    """What there is to say of the reference itself: its noise, and its largest number."""
    noise = _worst(yardstick.noisy, yardstick.reference, _everywhere(yardstick.reference))
    figures = {
        "precision": yardstick.precision,
        "noise": noise["distance"],
        "noise_series": noise["series"],
        "peak": max(float(each.abs().max()) for each in yardstick.reference),
    }
    if yardstick.precision in LOW:
        rms = [
            (noisy - right).pow(2).mean(-1).sqrt()
            for noisy, right in zip(yardstick.noisy, yardstick.reference)
        ]
        figures["noise_series"] = [each.tolist() for each in rms]
    return figures


def compare(numbers: Any, yardstick: Yardstick, asked: Any = None) -> dict[str, Any]:
    """vLLM's log-probabilities beside the reference.

    ``asked`` marks the entries that there are numbers for; all of them, if None. ``distance`` is
    the worst absolute difference, None where a number is not finite, ``equal`` how often the most
    likely token is the same. ``series`` is a number for each position, a list for each sequence:
    the worst difference, or in a low precision the root of the mean square over the vocabulary. Of
    a low precision there are ``statistics`` too.
    """
    there = _everywhere(yardstick.reference) if asked is None else asked
    figures = _worst(numbers, yardstick.reference, there)
    if figures["distance"] is not None and yardstick.precision in LOW:
        figures.update(_statistics(numbers, yardstick, there))
    return figures


def _everywhere(reference: Any) -> Any:
    import torch

    return [torch.ones_like(each, dtype=torch.bool) for each in reference]


def _worst(numbers: Any, reference: Any, there: Any) -> dict[str, Any]:
    import torch

    equal, total, finite = 0, 0, True
    series = []
    for mine, theirs, named in zip(numbers, reference, there):
        finite = finite and bool(torch.isfinite(mine[named]).all())
        away = (mine - theirs).abs().masked_fill(~named, 0.0)
        series.append(away.amax(-1).tolist())
        best = mine.masked_fill(~named, float("-inf")).argmax(-1)
        equal += int((best == theirs.argmax(-1)).sum())
        total += len(theirs)
    worst = max(value for each in series for value in each) if finite else None
    return {"distance": worst, "equal": equal, "tokens": total, "series": series if finite else []}


def _statistics(numbers: Any, yardstick: Yardstick, there: Any) -> dict[str, Any]:
    """Three figures that see what noise hides from the worst number.

    With e vLLM's difference and n Transformers' own from the reference: ``rms`` is the root of the
    mean square of e over that of n; ``position`` the largest such root over one position's
    vocabulary, over that of n; ``faults`` the share of each named fault in e, which is 0 for a
    right file and 1 for one with that fault.
    """
    import torch

    def stacked(values: Any) -> Any:
        return torch.cat([v.masked_fill(~named, 0.0) for v, named in zip(values, there)])

    reference = yardstick.reference
    error = stacked([mine - right for mine, right in zip(numbers, reference)])
    noise = stacked([noisy - right for noisy, right in zip(yardstick.noisy, reference)])
    count = torch.cat(list(there)).sum(-1).double()
    error_there, noise_there = error.pow(2).sum(-1) / count, noise.pow(2).sum(-1) / count
    sigma = float((noise.pow(2).sum() / count.sum()).sqrt())
    if not sigma:
        raise CannotRun(
            N_(
                "Transformers in {precision} is no other than in a higher precision",
                precision=yardstick.precision,
            ),
            N_("name another --precision"),
        )
    weight = (1 / (noise_there + noise_there.mean() / 4))[:, None]
    shares = {}
    for name, effect in yardstick.effects.items():
        pattern = stacked([each.double() for each in effect])
        size = float((weight * pattern.pow(2)).sum())
        if size:
            shares[name] = abs(float((weight * error * pattern).sum())) / size
    return {
        "sigma": sigma,
        "series": [each.tolist() for each in error_there.sqrt().split([len(r) for r in reference])],
        "statistics": {
            "rms": float((error.pow(2).sum() / count.sum()).sqrt()) / sigma,
            "position": float(error_there.max().sqrt()) / sigma,
            "faults": shares,
        },
    }
