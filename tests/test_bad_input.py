"""Bad input ends in one clear message and exit code 2, with nothing half-written."""

import json
import shutil

import numpy as np
import pytest
from model_folders import pickled

from trainer.cli.training import train_command


@pytest.fixture
def fails(config_file, capsys, tmp_path):
    """Function (*overrides, **sections) -> message of a run that must fail.

    It exits with code 2 and leaves no run folder.
    """

    def run(*overrides, config=None, check=False, **sections):
        with pytest.raises(SystemExit) as stopped:
            train_command(
                config=config or config_file(**sections),
                set_=list(overrides),
                resume="auto",
                check=check,
            )
        assert stopped.value.code == 2
        message = capsys.readouterr().err
        assert "Traceback" not in message
        assert not (tmp_path / "runs").exists()
        return message

    return run


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def rows(**counts):
    return "".join(
        f"text {label} {n},{label}\n" for label, count in counts.items() for n in range(count)
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("text,sentiment\n", "holds no rows"),
        ("text,sentiment\n" + rows(a=20), "one class only, 'a'"),
        (
            "text,sentiment\n" + rows(a=2, b=1),
            "no row is left for validation and test, since every class has fewer rows",
        ),
        (
            "text,sentiment\n" + ",a\n" * 3 + "nan,b\n",
            "no row is left of 4 after cleaning: 4 empty text",
        ),
        ("body,sentiment\n" + rows(a=20, b=9), "no column 'text'; found: body, sentiment"),
        (rows(a=20, b=9), "If the file has no header line, set data.column_names"),
        (
            "text,sentiment\n" + rows(a=20, b=9) + "x,b,c\n",
            (
                "rows.csv:31: 3 cells, expected 2 (1 bad in all). Fix the file, or set "
                "data.on_bad_rows: skip"
            ),
        ),
    ],
)
def test_broken_data_files_are_told_before_a_model_is_loaded(fails, tmp_path, content, words):
    source = write(tmp_path / "rows.csv", content)
    assert words in fails(data={"source": source}, model={"name": str(tmp_path / "no/such/model")})


def test_broken_json_line_is_named(fails, tmp_path):
    lines = [json.dumps({"text": f"text {n}", "sentiment": "ab"[n % 2]}) for n in range(20)]
    lines[6] = '{"text": "cut off'
    source = write(tmp_path / "rows.jsonl", "\n".join(lines))
    assert f"{source}:7: broken JSON" in fails(data={"source": source})


def test_label_of_validation_that_train_lacks_is_named(fails, tmp_path):
    train = write(tmp_path / "train.csv", "text,sentiment\n" + rows(a=9, b=9))
    validation = write(tmp_path / "validation.csv", "text,sentiment\n" + "x1,a\nx2,c\n")
    message = fails(
        data={"source": ..., "train": train, "validation": validation},
        split={"train": ..., "validation": ..., "test": ...},
    )
    assert (
        "split" in message
    )  # an empty split section fills with its defaults and contradicts data.validation
    config = {
        "data": {"train": train, "validation": validation, "label_column": "sentiment"},
        "model": {"name": "x/y"},
    }
    config["run"] = {"output_dir": str(tmp_path / "runs")}
    path = write(tmp_path / "given.yaml", json.dumps(config))
    assert "data.validation: holds c, which the training rows lack" in fails(config=path)


def test_missing_file_names_the_nearest_one(fails, tmp_path):
    write(tmp_path / "tweets.csv", "text,sentiment\n")
    assert "Did you mean 'tweets.csv'?" in fails(data={"source": str(tmp_path / "tweet.csv")})


def test_unreadable_config_and_every_config_fault_are_told(fails, tmp_path):
    assert "cannot be read (No such file or directory)" in fails(config=str(tmp_path / "none.yaml"))
    message = fails("training.lerning_rate=3", "balance.method=oversmaple")
    assert "Did you mean 'learning_rate'?" in message
    assert "Did you mean 'oversample'?" in message


def test_model_that_does_not_exist_is_told(fails, tmp_path):
    assert "does not exist" in fails(model={"name": str(tmp_path / "models/bert")})
    (tmp_path / "folder").mkdir()
    assert "holds no config.json" in fails(model={"name": str(tmp_path / "folder")})


def test_model_that_is_not_for_text_is_told(fails, tmp_path):
    from transformers import ViTConfig

    ViTConfig().save_pretrained(tmp_path / "vit")
    assert "is of type vit, which Transformers cannot use for text classification" in fails(
        model={"name": str(tmp_path / "vit")}
    )


def test_max_length_beyond_the_model_is_told(fails):
    assert "model.max_length is 513, but" in fails("model.max_length=513")
    assert "reads at most 512 tokens" in fails("model.max_length=513", check=True)


def test_pickled_weights_are_not_loaded(fails, tiny_model, tmp_path):
    folder = pickled(tiny_model, tmp_path / "pickled")
    words = (
        f"has only pickled weights (pytorch_model.bin). Such a file can run code when it is "
        f"loaded, so it is not loaded. Convert it once: equipoise convert {folder}"
    )
    assert f"{words} Or set model.convert_weights: true." in fails(
        model={"name": str(folder)}, check=True
    )


def test_combination_that_transformers_refuses_is_told_in_its_words(fails):
    assert "requires non-zero --logging_steps" in fails(
        "training.logging_strategy=steps", "training.logging_steps=0"
    )


def test_best_model_without_evaluations_is_told(fails):
    message = fails("training.eval_strategy=no", "training.load_best_model_at_end=true")
    assert (
        "load_best_model_at_end is true, but eval_strategy is 'no'. Set eval_strategy to epoch or"
        " steps" in message
    )


def test_weight_for_an_unknown_label_is_told(fails):
    assert "loss.class_weights names sad; labels in the data: negative, neutral, positive" in fails(
        "loss.class_weights={sad: 2}"
    )


def test_loss_of_several_labels_needs_several_labels(fails):
    assert (
        "loss.name is 'asymmetric', which needs multi-label data; with one label a row known:"
        " balanced_softmax, cross_entropy, focal, logit_adjusted" in fails("loss.name=asymmetric")
    )


def test_unwritable_output_folder_is_told(fails, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written (Not a directory" in fails(
        run={"output_dir": str(tmp_path / "file/runs")}
    )


def test_folder_that_holds_other_files_is_not_touched(config_file, capsys, tmp_path):
    folder = tmp_path / "runs/run"
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("precious")
    with pytest.raises(SystemExit):
        train_command(
            config=config_file(run={"overwrite": True}), set_=[], resume="auto", check=False
        )
    assert "holds files but no run" in capsys.readouterr().err
    assert [p.name for p in folder.iterdir()] == ["thesis.txt"]


def test_loss_that_is_not_a_number_stops_the_run_and_names_the_last_good_checkpoint(
    config_file, capsys, tmp_path
):
    # float32 overflows in the second epoch: a warm-up keeps the first one sane
    config = config_file(
        training={
            "num_train_epochs": 3,
            "learning_rate": 1e30,
            "warmup_steps": 0,
            "optim": "sgd",
            "max_grad_norm": 0.0,
        }
    )
    with pytest.raises(SystemExit) as stopped:
        train_command(config=config, set_=[], resume="auto", check=False)
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert "loss is nan at step" in message or "loss is inf at step" in message
    assert "no checkpoint was saved before" in message
    assert not (tmp_path / "runs/run/metrics.json").exists()


def test_check_writes_nothing_and_says_so(config_file, capsys, tmp_path):
    train_command(config=config_file(), set_=[], resume="auto", check=True)
    assert "config, all 240 rows and model are in order" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_ten_megabyte_text_is_trained_on_like_any_other(config_file, tweets, tmp_path):
    source = tmp_path / "long.csv"
    with tweets.open(encoding="utf-8") as file:
        source.write_text(file.read() + "word " * 2_000_000 + ",positive\n", encoding="utf-8")
    train_command(
        config=config_file(data={"source": str(source)}),
        set_=["training.max_steps=2"],
        resume="auto",
        check=False,
    )
    assert np.isfinite(
        json.loads((tmp_path / "runs/run/metrics.json").read_text())["validation"]["loss"]
    )


def test_skipped_rows_are_kept_in_a_file(config_file, tweets, tmp_path):
    source = tmp_path / "ragged.csv"
    with tweets.open(encoding="utf-8") as file:
        source.write_text(file.read() + "one,two,three\n", encoding="utf-8")
    train_command(
        config=config_file(data={"source": str(source), "on_bad_rows": "skip"}),
        set_=["training.max_steps=2"],
        resume="auto",
        check=False,
    )
    lines = [
        json.loads(line)
        for line in (tmp_path / "runs/run/dropped.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [line["content"] for line in lines if line["row"] is None] == ["one,two,three"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "training.learning_rate=-1.0",
            "training.learning_rate is -1.0; needed: greater than or equal to 0",
        ),
        ("training.per_device_train_batch_size=0", "needed: greater than or equal to 1"),
        ("training.gradient_accumulation_steps=0", "needed: greater than or equal to 1"),
        ("training.label_smoothing_factor=1.5", "needed: less than 1"),
        ("training.num_train_epochs=0", "needed: greater than 0"),
        ("training.save_total_limit=1", "needed: greater than or equal to 2"),
        ("training.metric_for_best_model=macro_f2", "Did you mean 'macro_f1'?"),
        ("training.bf16_full_eval=true", "results are computed in float32"),
        ("training.optim_args=foo", "training: optim"),
        ("training.lr_scheduler_kwargs={a: 1}", "lr_scheduler_type"),
    ],
)
def test_training_values_out_of_range_are_told_before_a_run_is_touched(fails, override, words):
    assert words in fails(override)


def test_dropping_every_row_is_told(fails):
    message = fails(
        "training.dataloader_drop_last=true", "training.per_device_train_batch_size=1000"
    )
    assert "an epoch holds no whole step" in message


def test_model_without_tokenizer_files_or_with_truncated_weights_is_told(
    fails, tiny_model, tmp_path
):
    bare = tmp_path / "bare"
    shutil.copytree(tiny_model, bare)
    for path in bare.glob("*token*"):
        path.unlink()
    (bare / "vocab.txt").unlink(missing_ok=True)
    message = fails(model={"name": str(bare)})
    assert "knows no words" in message or "cannot be loaded" in message
    cut = tmp_path / "cut"
    shutil.copytree(tiny_model, cut)
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "cannot be loaded" in fails(model={"name": str(cut)}, check=True)
    assert "cannot be loaded" in fails(model={"name": str(cut)})


def test_group_in_two_given_files_is_named(fails, tmp_path):
    train = write(
        tmp_path / "train.csv",
        "text,label,author\n" + "".join(f"t{n},{'ab'[n % 2]},author {n % 3}\n" for n in range(18)),
    )
    validation = write(
        tmp_path / "validation.csv", "text,label,author\nv1,a,author 1\nv2,b,someone\n"
    )
    config = {
        "data": {"train": train, "validation": validation, "group_column": "author"},
        "model": {"name": "x/y"},
    }
    path = write(
        tmp_path / "given.yaml",
        json.dumps(config | {"run": {"output_dir": str(tmp_path / "runs")}}),
    )
    assert "group author 1 is in train and in validation" in fails(config=path)


def test_pool_with_a_class_too_small_to_split_names_that_class(fails, tmp_path):
    source = write(tmp_path / "rows.csv", "text,sentiment\n" + rows(a=20, b=9, c=1))
    message = fails(
        "balance.scope=all",
        data={"source": source},
        split={"train": 0.8, "validation": 0.2, "test": ..., "rare_classes": "error"},
    )
    assert "label 'c' has 1 row; 2 stratified splits need 2" in message


def test_label_names_of_any_kind_are_trained_on_and_shown(config_file, tmp_path):
    names = ["[red]", "[/]", "$a_{$", "pipe|and\nbreak", "ünïcödé 漢字", "row"]
    source = tmp_path / "odd.jsonl"
    lines = [
        json.dumps({"text": f"text number {n} of {n % 6}", "sentiment": names[n % 6]})
        for n in range(120)
    ]
    source.write_text("\n".join(lines), encoding="utf-8")
    train_command(
        config=config_file(data={"source": str(source)}),
        set_=["training.max_steps=2"],
        resume="auto",
        check=False,
    )
    metrics = json.loads((tmp_path / "runs/run/metrics.json").read_text(encoding="utf-8"))
    assert sorted(metrics["test"]["labels"]) == sorted(names)
    card = (tmp_path / "runs/run/README.md").read_text(encoding="utf-8")
    assert "| pipe\\|and break |" in card
