import numpy as np
import pytest

from trainer.evaluation.decisions.vote import COMBINERS

P = np.array([[[0.9, 0.1, 0.0]], [[0.4, 0.6, 0.0]], [[0.45, 0.55, 0.0]]])  # three models, one row


def test_majority_counts_votes_and_mean_counts_probability():
    votes = P.argmax(axis=2)
    assert COMBINERS["majority"](P, votes).tolist() == [1]
    assert COMBINERS["mean"](P, votes).tolist() == [0]


def test_tie_of_votes_goes_to_the_larger_mean_probability_of_those_tied():
    p = np.array([[[0.5, 0.3, 0.2]], [[0.1, 0.6, 0.3]]])
    assert COMBINERS["majority"](p, np.array([[0], [2]])).tolist() == [
        0
    ]  # class 1 has most probability and no vote
    assert COMBINERS["majority"](p, np.array([[2], [1]])).tolist() == [1]


@pytest.mark.parametrize("name", COMBINERS)
def test_one_model_decides_alone_and_the_order_of_models_has_no_say(name):
    generator = np.random.default_rng(0)
    p = generator.dirichlet([1, 1, 1], size=(5, 40))
    predicted = p.argmax(axis=2)
    assert COMBINERS[name](p[:1], predicted[:1]).tolist() == predicted[0].tolist()
    assert (
        COMBINERS[name](p[::-1], predicted[::-1]).tolist() == COMBINERS[name](p, predicted).tolist()
    )
