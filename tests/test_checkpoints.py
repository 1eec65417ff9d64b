"""Which checkpoints become models, by plan and by folder."""

from __future__ import annotations

import pytest

from pipeline.checkpoints import exported_steps, in_folder
from pipeline.recipe import ExportSpec, ModelSpec
from pipeline.training.spec import TrainSpec


def steps(checkpoints, **train):
    return exported_steps(ExportSpec(checkpoints=checkpoints), TrainSpec(**{"save_steps": 50, **train}))


def test_all_are_those_before_the_last():
    assert steps("all", max_steps=140, save_total_limit=3) == ((50, 100), [])
    assert steps("all", max_steps=100) == ((50,), [])  # the last step's is `tuned`
    assert steps("all", max_steps=20) == ((), [])
    assert steps("last", max_steps=140) == ((), [])


def test_chosen_ones_come_in_order_and_once():
    assert steps((100, 50, 100), max_steps=140, save_total_limit=3) == ((50, 100), [])
    assert steps((50,), epochs=2) == ((50,), [])


@pytest.mark.parametrize(
    ("checkpoints", "train", "words"),
    [
        ("all", {"epochs": 1}, "train.max_steps has to be given"),
        ((60,), {"max_steps": 140}, "60 is no checkpoint: they come every 50 steps"),
        ((0,), {"max_steps": 140}, "0 is no checkpoint"),
        ((150,), {"max_steps": 150}, "before 150 (train.max_steps), the last one"),
        ("all", {"max_steps": 140}, "it has to be at least 3"),
        # Of 50, 100, 150, 200 the first is still there at the end only if all four are kept.
        ((50,), {"max_steps": 200}, "it has to be at least 4"),
        ((50, 150), {"epochs": 1}, "it has to be at least 4"),
    ],
)
def test_what_will_not_be_there_is_refused(checkpoints, train, words):
    _, problems = steps(checkpoints, **train)
    assert len(problems) == 1
    assert words in problems[0]


def chosen(checkpoint, checkpoints="last", *, validates=True, **train):
    spec = TrainSpec(**{"save_steps": 50, "eval_steps": 50, **train})
    return exported_steps(ExportSpec(checkpoint=checkpoint, checkpoints=checkpoints), spec, validates=validates)


def test_one_step_and_the_best_can_be_tuned():
    assert chosen(100, max_steps=140) == ((), [])
    assert chosen(140, max_steps=140) == ((), [])  # the last one by its number
    assert chosen(100, epochs=2) == ((), [])
    assert chosen("best", max_steps=140) == ((), [])
    assert chosen("best", max_steps=140, save_steps=25, eval_steps=50) == ((), [])
    assert chosen("best", epochs=1, save_total_limit=1) == ((), [])  # the trainer never removes it


def test_a_step_that_is_tuned_is_not_merged_a_second_time():
    assert chosen(50, "all", max_steps=140, save_total_limit=3) == ((100,), [])
    assert "50 is `tuned` already" in chosen(50, (50, 100), max_steps=140, save_total_limit=3)[1][0]


@pytest.mark.parametrize(
    ("checkpoint", "settings", "words"),
    [
        ("best", {"validates": False}, "data.val_fraction above 0"),
        ("best", {"eval_steps": 20}, "train.eval_steps 20 has to be a multiple of train.save_steps 50"),
        ("best", {"extra_args": {"metric_for_best_model": "token_acc"}}, "the trainer keeps the best by that"),
        (60, {"max_steps": 140}, "export.checkpoint: 60 is no checkpoint: they come every 50 steps"),
        (150, {"max_steps": 140}, "up to 140 (train.max_steps)"),
        (50, {"max_steps": 200}, "export.checkpoint: train.save_total_limit 2 would remove"),
        (50, {"max_steps": 200, "save_total_limit": 3}, "it has to be at least 4"),
    ],
)
def test_a_choice_that_will_not_be_there_is_refused(checkpoint, settings, words):
    _, problems = chosen(checkpoint, **settings)
    assert len(problems) == 1
    assert words in problems[0]


def test_a_folder_of_models(tmp_path):
    for name in ("step-1000", "step-200", "checkpoint-30", "logs", "step-x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    models, problems = in_folder(ModelSpec(path=tmp_path, name="smol", checkpoints="all"))
    assert problems == []
    assert [model.label for model in models] == ["smol-step-30", "smol-step-200", "smol-step-1000"]
    assert [model.path.name for model in models if model.path] == ["checkpoint-30", "step-200", "step-1000"]
    assert all(model.checkpoints is None for model in models)


def test_a_folder_without_models(tmp_path):
    model = ModelSpec(path=tmp_path, checkpoints="all")
    assert "holds no folder checkpoint-<step>" in in_folder(model)[1][0]
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-5" / "adapter_config.json").write_text("{}")
    assert "export.checkpoints: all" in in_folder(model)[1][0]
    assert "holds no folder" in in_folder(ModelSpec(path=tmp_path / "absent", checkpoints="all"))[1][0]
