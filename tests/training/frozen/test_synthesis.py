import numpy as np
import pytest

from trainer.errors import DataError
from trainer.training.frozen.synthesis import SYNTHESISERS, refuse_few_rows, synthesise

COUNTS = (60, 25, 12)


@pytest.fixture
def blobs():
    """(features, label ids, row keys) of three classes that overlap."""
    generator = np.random.default_rng(0)
    label_ids = np.repeat(range(3), COUNTS)
    features = (generator.normal(size=(len(label_ids), 4)) + 0.5 * label_ids[:, None]).astype(
        np.float32
    )
    return features, label_ids, generator.permutation(len(label_ids)).astype(np.uint64)


def make(method, blobs, seed=7, neighbours=5):
    return synthesise(method, *blobs, neighbours=neighbours, generator=np.random.default_rng(seed))


@pytest.mark.parametrize("method", SYNTHESISERS)
def test_same_seed_gives_the_same_rows_whatever_their_order_and_another_seed_others(method, blobs):
    features, label_ids = make(method, blobs)
    shuffle = np.random.default_rng(1).permutation(len(blobs[1]))
    again, again_ids = make(method, [part[shuffle] for part in blobs])
    assert (features == again).all()
    assert (label_ids == again_ids).all()
    assert not np.array_equal(
        make(method, blobs, seed=8)[0][len(blobs[1]) :], features[len(blobs[1]) :]
    )


@pytest.mark.parametrize("method", SYNTHESISERS)
def test_real_rows_stay_and_synthetic_ones_lie_within_their_class(method, blobs):
    features, label_ids = make(method, blobs)
    num_real = sum(COUNTS)
    assert sorted(map(tuple, features[:num_real])) == sorted(map(tuple, blobs[0]))
    for c in range(1, 3):  # a point between two others lies in the box around them
        real, made = blobs[0][blobs[1] == c], features[num_real:][label_ids[num_real:] == c]
        assert len(made)
        assert (made >= real.min(axis=0) - 1e-6).all()
        assert (made <= real.max(axis=0) + 1e-6).all()


def test_counts_are_those_of_imbalanced_learn(blobs):
    from imblearn.over_sampling import ADASYN, SMOTE, BorderlineSMOTE

    order = np.argsort(blobs[2])
    seed = int(np.random.default_rng(7).integers(2**31))
    samplers = {
        "smote": SMOTE(random_state=seed),
        "borderline_smote": BorderlineSMOTE(random_state=seed),
        "adasyn": ADASYN(random_state=seed),
    }
    for method, sampler in samplers.items():
        expected = sampler.fit_resample(blobs[0][order], blobs[1][order])[1]
        assert np.bincount(make(method, blobs)[1]).tolist() == np.bincount(expected).tolist()
    assert np.bincount(make("smote", blobs)[1]).tolist() == [60, 60, 60]


@pytest.mark.parametrize("method", SYNTHESISERS)
def test_balanced_rows_are_left_as_they_are(method, blobs):
    balanced = [part[np.r_[0:12, 60:72, 85:97]] for part in blobs]
    assert len(make(method, balanced)[1]) == 36


def test_class_with_fewer_rows_than_neighbours_is_named_with_its_count():
    labels = ["common", "rare", "single"]
    with pytest.raises(
        DataError,
        match=(
            r"smote: label 'rare' has 5 training row\(s\); 5 neighbours need 6\. Set "
            r"balance\.neighbours: 4 or less"
        ),
    ):
        refuse_few_rows("smote", np.array([9, 5, 9]), labels, 5)
    with pytest.raises(
        DataError,
        match=(
            r"label 'single' has 1 training row\(s\); 1 neighbours need 2\. Add rows, or "
            r"list it in data\.drop_labels"
        ),
    ):
        refuse_few_rows("smote", np.array([9, 5, 1]), labels, 1)
    refuse_few_rows("smote", np.array([5, 5, 5]), labels, 5)  # nothing to fill up
    refuse_few_rows("smote", np.array([9, 6, 6]), labels, 5)


def test_adasyn_on_a_class_apart_from_all_others_is_told(blobs):
    apart = blobs[0].copy()
    apart[blobs[1] == 2] += 100
    with pytest.raises(
        DataError,
        match=(
            r"balance\.method adasyn: imbalanced-learn cannot use these rows: Not any "
            r"neigbours .* Set balance\.method: smote"
        ),
    ):
        make("adasyn", [apart, *blobs[1:]])
