"""Compare from Python: `compare` takes a config and returns the finished comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config.config import Config, load_config
from trainer.run_folder.finished_comparison import read_comparison
from trainer.runs.run_result import keeping_threads

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class ComparisonResult:
    """A finished comparison. In Jupyter it shows itself as a table.

    Attributes:
        folder: `<output_dir>/<name>-compare`, with the page comparison.html and winner.yaml, the
            config of the recommended strategy.

    Example:
        >>> ComparisonResult("runs/tweets-compare").folder.name  # a comparison of an earlier day
        'tweets-compare'
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))  # a str is fine as well

    @cached_property
    def results(self) -> dict[str, Any]:
        """All of comparison.json, with a sentence that recommends a strategy.

        Raises:
            RunError: the folder holds no finished comparison.

        Example:
            >>> ComparisonResult("runs/tweets-compare").results["winner"]
            'none'
        """
        return read_comparison(self.folder)

    @cached_property
    def strategies(self) -> "DataFrame":
        """The table of the strategies, best first: mean of the metric and difference from `none`.

        `low` and `high` are the ends of the 95 % interval of the difference; `p` is adjusted.

        Example:
            >>> sorted(ComparisonResult("runs/tweets-compare").strategies.index)
            ['none', 'none + thresholds', 'undersample', 'undersample + thresholds']
        """
        import pandas as pd

        from trainer.display.figure_words import TITLES, by_metric

        compared = self.results["validation"]
        rows = {}
        for name in by_metric(compared):
            found = compared["strategies"][name]
            against = found["against_baseline"] or {}
            rows[name] = {
                TITLES[compared["metric"]]: found["figures"][compared["metric"]]["mean"],
                **{key: against.get(key) for key in ("difference", "low", "high")},
                "p": against.get("p_holm"),
            }
        return pd.DataFrame.from_dict(rows, orient="index").astype(float)

    def _repr_html_(self) -> str:
        """Return the recommendation and the table for Jupyter; pandas escapes names."""
        words = f"<b>{escape(str(self.folder))}</b><br>{escape(self.results['recommendation'])}"
        return f"<p>{words}</p>\n{self.strategies.round(3).to_html(border=0, na_rep='')}"


def compare(
    config: Config | Mapping[str, Any] | str | Path,
    overrides: Sequence[str] = (),
    *,
    resume: str = "auto",
) -> ComparisonResult:
    """Train strategies under the same conditions, as `equipoise compare` does.

    Args:
        config: a YAML file, its values as a dict, or a Config; the section `compare` names the
            strategies.
        overrides: `section.key=value` settings on top.
        resume: `auto` keeps trainings of the same config and data; `never` discards them.
    Returns:
        The finished comparison.
    Raises:
        ConfigError: with all faults of the config.
        TrainerError: unusable data or model, an existing other comparison, or a baseline that
            fails.

    Example:
        >>> values = {  # model and tweets are paths
        ...     "model": {"name": model, "max_length": 16, "mode": "head"},
        ...     "data": {"source": tweets, "text_column": "text", "label_column": "sentiment"},
        ...     "compare": {"strategies": ["undersample"], "seeds": 2},
        ...     "run": {"output_dir": "runs", "name": "tweets"},
        ... }
        >>> result = compare(values)
        Read ...
        >>> result.folder.name
        'tweets-compare'
    """
    checked = load_config(config, overrides)
    from trainer.comparison import compare as comparison

    with keeping_threads():
        return ComparisonResult(comparison.compare(checked, resume=resume))
