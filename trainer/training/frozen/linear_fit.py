"""Fit a linear layer by L-BFGS over all rows at once. Legend: N rows, H features, C classes."""

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor

from trainer.launch import stopping
from trainer.progress import progress_bar

MAX_ITERATIONS = 1000
LEAST_GRADIENT = {False: 1e-6, True: 1e-4}
"""{whether a row may have several labels: largest entry of the gradient at which a fit ends}.

With several labels, the fits of all labels share each step, and 1e-6 takes three times as long on
90 labels. 1e-4 is the default of scikit-learn's LogisticRegression, which fits each label alone.
"""


def fit_linear(
    features_NH: Tensor,
    targets: Tensor,
    loss: Callable[..., Tensor],
    weight_CH: Tensor,
    bias_C: Tensor | None,
    *,
    l2: float,
    max_iterations: int = MAX_ITERATIONS,
) -> tuple[float, int]:
    """Minimise mean loss + l2 / 2 |weight|^2, and change the given weight and bias in place.

    Args:
        features_NH: the rows.
        targets: their label ids (N,), or which labels they have (N, C).
        loss: function (outputs with .logits, targets, number of rows) -> mean loss of a row, see
            `step_loss`.
        weight_CH, bias_C: start of the search.
        l2: strength of the penalty, which leaves the bias out, as in scikit-learn.
        max_iterations: most iterations of L-BFGS.
    Returns:
        The mean loss of a row without the penalty, in nats, and the iterations of L-BFGS.
    Raises:
        Stopped: a stop signal arrived.
    """
    parameters = [weight_CH] if bias_C is None else [weight_CH, bias_C]
    for parameter in parameters:
        parameter.requires_grad_()
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=max_iterations,
        max_eval=4 * max_iterations,
        tolerance_grad=LEAST_GRADIENT[targets.ndim > 1],
        tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )

    def mean_loss() -> Tensor:
        logits_NC = torch.nn.functional.linear(features_NH, weight_CH, bias_C)
        return loss(SimpleNamespace(logits=logits_NC), targets, len(targets))

    def objective() -> Tensor:
        stopping.stop_if_received("while the final layer was fitted")
        optimizer.zero_grad()
        value = mean_loss() + l2 / 2 * weight_CH.square().sum()
        value.backward()
        bar.update()
        return value

    with progress_bar(desc=f"Fitting, L2 {l2:g}", unit=" evaluations", delay=2) as bar:
        optimizer.step(objective)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return mean_loss().item(), int(optimizer.state[weight_CH]["n_iter"])
