"""One contract over the entries of all tables: rows, losses, weights, decisions, votes."""

from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch

from trainer.config.config import Config, check_config
from trainer.config.sections.balancing import DecisionSection, EnsembleSection
from trainer.config.yaml_source import YamlSource
from trainer.data.balancing.balance import METHODS, plan_balance
from trainer.data.balancing.weights import WEIGHTINGS
from trainer.data.prepare import weights_over
from trainer.delivery.card.card_words import decision_words
from trainer.errors import ConfigError
from trainer.evaluation.decisions.cross_fitting import fit_and_cross_fit
from trainer.evaluation.decisions.label_thresholds import LABEL_OBJECTIVES
from trainer.evaluation.decisions.thresholds import THRESHOLDS
from trainer.evaluation.decisions.vote import COMBINERS
from trainer.runs.run_decision import decision_plan, is_prior_approximate
from trainer.training.frozen.synthesis import SYNTHESISERS, synthesise
from trainer.training.losses.one_label import LOSSES, loss_options
from trainer.training.losses.step_loss import step_loss

LABELS = ["a", "b", "c"]
COUNTS = [80, 40, 25]
DECISIONS = [*THRESHOLDS, "cost"]


def checked(method="none", loss="cross_entropy", weighting="none", by=None, **decision) -> Config:
    values = {
        "model": {"name": "some/model", "mode": "head" if method in SYNTHESISERS else "full"},
        "data": {"source": "rows.csv"},
        "balance": {"method": method, "by": by},
        "loss": {"name": loss, "class_weights": weighting},
        "decision": decision,
    }
    return check_config(YamlSource("test", values))


def rows():
    """(features, label ids, row keys) of classes that overlap."""
    generator = np.random.default_rng(0)
    label_ids = generator.permutation(np.repeat(np.arange(3), COUNTS))
    return (
        generator.normal(label_ids[:, None], 1.0, (len(label_ids), 4)).astype(np.float32),
        label_ids,
        np.arange(len(label_ids), dtype=np.uint64),
    )


def test_the_config_offers_exactly_the_entries_of_the_tables():
    def choices(section, key):
        return {
            choice
            for part in get_args(section.model_fields[key].annotation)
            for choice in (get_args(part) or (part,))
        } - {type(None)}

    assert choices(DecisionSection, "thresholds") == {*DECISIONS, *LABEL_OBJECTIVES}
    assert choices(EnsembleSection, "combine") == set(COMBINERS)


@pytest.mark.filterwarnings("ignore:balance. some rows")
@pytest.mark.parametrize("weighting", [*WEIGHTINGS, {"c": 4.0}], ids=str)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("method", [*METHODS, *SYNTHESISERS])
def test_every_method_loss_and_weighting_give_a_loss_a_gradient_and_a_decision(
    method, loss, weighting
):
    prior = {} if loss == "focal" else {"prior": "natural"}
    config = checked(method, loss, weighting, temperature=True, thresholds="f1", **prior)
    features, label_ids, keys = rows()
    plan = plan_balance(
        label_ids,
        keys,
        labels=LABELS,
        method=config.balance.row_method,
        parameter=config.balance.parameter,
        seed=1,
    )
    drawn = plan.positions()
    features, drawn_ids, counts = features[drawn], label_ids[drawn], plan.counts_C
    if method in SYNTHESISERS:
        generator = np.random.default_rng(1)
        features, drawn_ids = synthesise(
            method,
            features,
            drawn_ids,
            keys[drawn],
            neighbours=config.balance.neighbours,
            generator=generator,
        )
        counts = np.bincount(drawn_ids)
        assert counts.min() > 25
    weights = weights_over(counts, config.loss, LABELS)
    compute = step_loss(
        LOSSES[config.loss.name],
        torch.as_tensor(weights),
        loss_options(config.loss.name, config.loss.settings, counts),
    )
    logits = torch.tensor(features[:, :3], requires_grad=True)
    value = compute(
        SimpleNamespace(logits=logits),
        torch.as_tensor(drawn_ids),
        num_items_in_batch=len(drawn_ids),
    )
    value.backward()
    assert value.item() > 0
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().sum() > 0

    data = SimpleNamespace(
        is_multi_label=False,
        labels=LABELS,
        class_weights_C=weights,
        summary=SimpleNamespace(counts={"drawn": counts}, natural_C=np.array(COUNTS)),
    )
    fitted = decision_plan(config, data)
    decision, (log_p, predicted) = fit_and_cross_fit(
        rows()[0][:, :3], label_ids, np.ones(len(label_ids)), fitted, seed=1
    )
    np.testing.assert_allclose(np.exp(log_p).sum(axis=1), 1)
    assert set(predicted.tolist()) <= {0, 1, 2}
    assert decision.thresholds_C.sum() == pytest.approx(1)
    assert (decision.thresholds_C > 0).all()
    if prior:
        assert np.exp(fitted.log_target_C).tolist() == pytest.approx(np.array(COUNTS) / sum(COUNTS))
        assert np.exp(fitted.log_q_C).sum() == pytest.approx(1)


@pytest.mark.parametrize("name", DECISIONS)
def test_every_decision_is_the_same_again_and_in_any_order_of_rows(name):
    costs = {"costs": {"c": {"a": 5.0}}} if name == "cost" else {}
    plan = decision_plan(
        checked(thresholds=name, **costs),
        SimpleNamespace(
            is_multi_label=False,
            labels=LABELS,
            class_weights_C=np.ones(3),
            summary=SimpleNamespace(counts={"drawn": np.array(COUNTS)}, natural_C=np.array(COUNTS)),
        ),
    )
    logits, label_ids, _ = rows()
    order = np.random.default_rng(2).permutation(len(label_ids))
    first, again, turned = (
        fit_and_cross_fit(logits[i, :3], label_ids[i], np.ones(len(i)), plan, seed=3)[0].figures(
            LABELS
        )
        for i in (np.arange(len(order)),) * 2 + (order,)
    )
    assert first == again
    assert first.keys() == turned.keys()
    assert first.get("thresholds", {}) == pytest.approx(turned.get("thresholds", {}))


@pytest.mark.parametrize("method", SYNTHESISERS)
def test_synthetic_embeddings_with_another_mode_are_refused(method):
    with pytest.raises(
        ConfigError,
        match=(
            rf"balance.method {method} makes new embeddings, never text, so it needs model.mode:"
            r" head; model.mode is 'full'"
        ),
    ):
        check_config(
            YamlSource(
                "test",
                {
                    "model": {"name": "m"},
                    "data": {"source": "rows.csv"},
                    "balance": {"method": method},
                },
            )
        )


@pytest.mark.parametrize("by", [None, "site"])
@pytest.mark.parametrize(
    "method", [name for name in (*METHODS, *SYNTHESISERS) if name != "class_balanced_batches"]
)
def test_prior_is_approximate_where_balancing_changes_the_rows_of_a_class(method, by):
    config = checked(method, by=by)
    data = SimpleNamespace(is_multi_label=False, splits=SimpleNamespace(synthetic=[]))
    assert is_prior_approximate(config, data) == (
        method in SYNTHESISERS or (by is not None and method != "none")
    )
    data.splits.synthetic = [7]
    assert is_prior_approximate(config, data)


@pytest.mark.parametrize("name", COMBINERS)
def test_every_vote_follows_models_that_agree(name):
    p = np.random.default_rng(0).dirichlet([1, 1, 1], size=30)
    assert (
        COMBINERS[name](np.stack([p] * 3), np.stack([p.argmax(axis=1)] * 3)).tolist()
        == p.argmax(axis=1).tolist()
    )


def test_card_says_where_corrected_scores_stand_and_nothing_of_them_where_there_are_none():
    decided = {
        "temperature": 1.0,
        "folded_into_weights": False,
        "thresholds": {"a": 0.3, "b": 0.7},
        "neutral": [],
    }
    assert "no bias" not in decision_words(decided)
    assert (
        "the last layer has no bias: the plain `pipeline()` does not apply it."
        in decision_words(decided | {"temperature": 2.0})
    )
    assert "The weights contain this" in decision_words(
        decided | {"temperature": 2.0, "folded_into_weights": True}
    )


def test_labels_of_costs_are_spelt_as_data_files_spell_them():
    config = checked(thresholds="cost", costs={2: {0: 5.0}, True: {False: 2}})
    assert config.decision.costs == {"2": {"0": 5.0}, "true": {"false": 2.0}}
    assert check_config(YamlSource("test", config.to_dict())) == config


def test_seeds_of_members_stay_seeds():
    values = {
        "model": {"name": "m"},
        "data": {"source": "rows.csv"},
        "run": {"seed": 2**32 - 1},
        "ensemble": {"size": 3, "member": 2},
    }
    assert check_config(YamlSource("test", values)).member_seed == 0


@pytest.mark.parametrize("balance", [{}, {"method": "undersample", "scope": "all"}], ids=str)
def test_seeds_that_would_give_equal_members_are_refused(balance):
    values = {
        "model": {"name": "m", "mode": "head"},
        "data": {"source": "rows.csv"},
        "balance": balance,
        "ensemble": {"size": 2},
    }
    with pytest.raises(
        ConfigError,
        match=(
            r"ensemble.kind: seeds with model.mode: head: members that see the same rows are"
            r" equal; set kind: folds, or method"
        ),
    ):
        check_config(YamlSource("test", values))
    check_config(YamlSource("test", values | {"balance": {"method": "undersample"}}))
    if not balance:
        check_config(YamlSource("test", values | {"ensemble": {"size": 2, "kind": "folds"}}))
