"""Recipes: reading, overriding, and the sentence for each mistake."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from brainseg.preprocess import Preprocess
from brainseg.training.config import Recipe, RecipeError, Stage, read_recipe

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
SMALL = """
name = "small"
[model]
architecture = "unetpp"
width = 16
[[stages]]
size = 32
epochs = 2
batch = 4
[[stages]]
size = 64
epochs = 3
batch = 2
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def reading(path: Path, *overrides: str) -> str:
    """The sentence that reading ends in."""
    with pytest.raises(RecipeError) as caught:
        read_recipe(path, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_of_the_repository_is_valid(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    assert (path.parent / recipe.data.split).is_file()


def test_defaults_fill_what_a_recipe_leaves_out(small: Path) -> None:
    recipe = read_recipe(small)
    assert recipe.model.norm == "batch"
    assert recipe.preprocess == Preprocess(size=256, low=1.0, high=99.8)
    assert recipe.data.samples_per_epoch == 2000
    assert recipe.precision == "bf16"
    assert recipe == Recipe(name="small", model=recipe.model, stages=(Stage(32, 2, 4), Stage(64, 3, 2)))


def test_stages_follow_one_another(small: Path) -> None:
    recipe = read_recipe(small, ["data.samples_per_epoch=25", "accumulate=3"])
    assert recipe.epochs == 5
    assert [recipe.stage_of(epoch).size for epoch in range(5)] == [32, 32, 64, 64, 64]
    assert [recipe.steps_in(epoch) for epoch in range(5)] == [2, 2, 4, 4, 4]
    with pytest.raises(IndexError):
        recipe.stage_of(5)


def test_overrides_reach_tables_and_take_the_type_of_the_key(small: Path) -> None:
    recipe = read_recipe(
        small,
        [
            "optim.lr=1",
            "optim.schedule=plateau",
            'init="runs/other/weights"',
            "name = renamed",
            "loss.deep_supervision=true",
            "preprocess.size=64",
            "stages=[{size=16, epochs=1, batch=2}]",
            "seed=1",
            "seed=7",
        ],
    )
    assert recipe.optim.lr == 1.0
    assert isinstance(recipe.optim.lr, float)
    assert recipe.optim.schedule == "plateau"
    assert (recipe.init, recipe.name) == ("runs/other/weights", "renamed")
    assert recipe.loss.deep_supervision
    assert recipe.preprocess.size == 64
    assert recipe.stages == (Stage(16, 1, 2),)
    assert recipe.seed == 7, "the last one counts"


def test_an_override_changes_nothing_else(small: Path) -> None:
    before, after = asdict(read_recipe(small)), asdict(read_recipe(small, ["augment.rotate=3"]))
    assert after.pop("augment") == before.pop("augment") | {"rotate": 3.0}
    assert after == before


@pytest.mark.parametrize(
    ("override", "unknown", "meant"),
    [
        ("sed=1", "sed", "seed"),
        ("optim.learning_rat=1", "optim.learning_rat", "optim."),
        ("optim.shedule=cosine", "optim.shedule", "optim.schedule"),
        ("augment.rotation=3", "augment.rotation", "augment.rotate"),
        ("preprocess.sise=3", "preprocess.sise", "preprocess.size"),
        ("stages=[{sizes=16, epochs=1, batch=2}]", "stages[0].sizes", "stages[0].size"),
        ("lr=1", "lr", "optim.lr"),
        ("data.accumulate=2", "data.accumulate", "accumulate"),
        ("zzz=1", "zzz", ""),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(
    small: Path, override: str, unknown: str, meant: str
) -> None:
    assert f"unknown key {unknown}; did you mean {meant}" in reading(small, override)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("seed=1.5", "seed must be int, not 1.5"),
        ("seed=true", "seed must be int, not True"),
        ("optim.lr=fast", "optim.lr must be float, not 'fast'"),
        ("loss.deep_supervision=1", "loss.deep_supervision must be bool, not 1"),
        ("name=3", "name must be str, not 3"),
        ("optim.schedule=linear", "optim.schedule must be one of cosine, plateau, not 'linear'"),
        ("model.norm=layer", "model.norm must be one of batch, group"),
        ("loss.name=focal", "loss.name must be one of bce, dice, tversky, combined"),
        ("optim=3", "optim must be a table"),
        ("stages=3", "stages must be an array of tables"),
        ("stages=[3]", "stages[0] must be a table"),
        ("stages.size=3", "stages is not a table"),
        ("seed.more=3", "seed must be int"),
        ("optim.lr", "must read key=value"),
        ("stages=" + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("=3", "must read key=value"),
        ("seed=0x" + "f" * 5000, "seed must lie in 0..2,147,483,647"),
        ("seed=[0x" + "f" * 5000 + "]", "seed must be int, not"),
        ("name=" + "[" * 5000, "nested too deeply"),
        ("name=" + "[" * 80 + "]" * 80, "name must be str, not [["),
        ('name="a\\nb"', "name must be one line of at most 1,000 printable characters"),
        ("init=" + "x" * 2000, "init must be one line"),
        ("x" * 100_000 + "=1", "xxx…; did you mean"),
        ("a" + ".b" * 50_000 + "=1", "unknown key a"),
        ("optim=2020-01-01", "optim must be a table, not datetime.date"),
    ],
)
def test_wrong_types(small: Path, override: str, says: str) -> None:
    assert says in reading(small, override)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("stages=[]", "at least one stage"),
        ("stages=[{size=40, epochs=1, batch=2}]", "divisible by 16"),
        ("stages=[{size=0, epochs=1, batch=2}]", "stages[0].size must lie in 16..4,096"),
        ("stages=[{size=16, epochs=0, batch=2}]", "stages[0].epochs must lie in 1..1,000,000"),
        ("stages=[{size=16, epochs=1, batch=-2}]", "stages[0].batch must lie in 1..1,000,000"),
        ("data.samples_per_epoch=3", "data.samples_per_epoch must fill"),
        ("accumulate=0", "accumulate"),
        ("accumulate=1000", "data.samples_per_epoch must fill"),
        ("data.fold=-1", "data.fold must lie in 0..1,000,000"),
        (f"seed={10**30}", "seed must lie in 0..2,147,483,647"),
        (f"optim.lr={10**400}", "optim.lr must be float"),
        (f"seed={'7' * 5000}", "seed must be int"),
        ("model.width=100000", "model.width must lie in 1..1,024"),
        ("validate_every=0", "validate_every"),
        ("patience=0", "patience"),
        ("seed=-1", "seed"),
        ("data.tumour_fraction=1.1", "data.tumour_fraction"),
        ("augment.flip=2", "augment.flip"),
        ("augment.scale=1", "augment.scale"),
        ("augment.gamma=1", "augment.gamma"),
        ("augment.rotate=-5", "augment.rotate"),
        ("optim.ema=1", "optim.ema"),
        ("optim.lr=0", "optim.lr"),
        ("optim.lr=nan", "optim.lr"),
        ("optim.lr=inf", "optim.lr"),
        ("optim.clip=0", "optim.clip"),
        ("optim.weight_decay=-1", "optim.weight_decay"),
        ("model.dropout=1", "model.dropout"),
        ("model.width=0", "model.width"),
        ("model.architecture=vnet", "one of unet, attention_unet, unetpp, attention_unetpp, not 'vnet'"),
        ("preprocess.low=100", "size"),
        ("name=", "name"),
        ("name=../up", "name"),
        ("name=..", "name"),
    ],
)
def test_out_of_range(small: Path, override: str, says: str) -> None:
    text = reading(small, override)
    assert says in text
    assert str(small) in text


def test_rules_that_join_two_keys(small: Path) -> None:
    assert "divisible by 16" in reading(small, "model.norm=group", "model.width=8")
    assert "nested network (unetpp, attention_unetpp)" in reading(
        small, "model.architecture=unet", "loss.deep_supervision=true"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SMALL.replace('name = "small"', ""), "name is missing"),
        (SMALL.replace('architecture = "unetpp"', ""), "model.architecture is missing"),
        (SMALL.replace("size = 64", ""), "stages[1].size is missing"),
        ('name = "x"', "model is missing"),
        ("", "name is missing"),
        ("name = ", "not valid TOML"),
        ("seed = " + "7" * 5000, "not valid TOML"),
        ("a = " + "[" * 3000 + "]" * 3000, "not valid TOML"),
        ("a = " + "[" * 5000, "is not valid TOML: it is nested too deeply"),
        ("a = " + "1" * 5000, "is not valid TOML: it holds a number of thousands of digits"),
        ("a = 2021-02-30T00:00:00", "is not valid TOML"),
        ("#" * (2**20 + 1), "is not valid TOML: it holds more than 1 MB"),
    ],
)
def test_missing_keys_and_broken_files(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text)
    assert says in reading(path)


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    assert "cannot be read" in reading(tmp_path / "none.toml")
    assert "cannot be read" in reading(tmp_path)
    (tmp_path / "image.toml").write_bytes(b"\xff\xfe\x00")
    assert "not valid TOML" in reading(tmp_path / "image.toml")
