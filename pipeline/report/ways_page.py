"""What the page on one benchmark in several implementations shows: the shapes alone, made by ways.py."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from pipeline.paired import SIGNIFICANT_P


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Way(Frozen):
    """An implementation, and one of its metrics: a column."""

    harness: str
    name: str
    """mmlu_original, mmlu_helm, mmlu_harness_2023, or the harness's own mmlu."""
    metric: str
    source: str
    rule: str


class Standing(Frozen):
    """A model's score by one way."""

    way: int
    """Its place in `WaysPage.ways`."""
    model: str
    value: float
    stderr: float | None
    n: int
    rank: int
    """From 1, among the models; models with equal scores share the better rank."""


class Flip(Frozen):
    """Two models whose order is one by the first way, and the other by the second."""

    ways: tuple[int, int]
    models: tuple[str, str]
    """First the one that is ahead by the first way."""
    by_first: tuple[float, float]
    """Scores of the two models, in that order."""
    by_second: tuple[float, float]
    p_values: tuple[float | None, float | None]
    """By each way: of the two models on the same items (`paired.paired_statistics`); None where there are none."""

    @property
    def sure(self) -> bool:
        """Both differences are more than chance would make of them, one time in twenty."""
        return all(p is not None and p < SIGNIFICANT_P for p in self.p_values)


class Lenience(Frozen):
    """How often the likeliest token is none of the four letters, where only letters are compared."""

    harness: str
    name: str
    model: str
    share: float
    n: int


class Orders(Frozen):
    """Scores under several orders of the same examples."""

    way: int
    model: str
    values: dict[str, float]
    """`file` or the seed -> score."""
    spread: float
    """Largest less smallest."""
    stdev: float
    n: int


class Rendered(Frozen):
    """The one question as an implementation asks it."""

    harness: str
    name: str
    rule: str
    prompt: str
    target: str
    answers: dict[str, str]
    """Model -> what counted as its answer; its whole text where it wrote one of which nothing could be made out."""
    right: dict[str, bool]


class WaysPage(Frozen):
    models: list[str]
    ways: list[Way]
    standings: list[Standing]
    flips: list[Flip]
    none_of_letters: list[Lenience]
    orders: list[Orders]
    question: str
    rendered: list[Rendered]
