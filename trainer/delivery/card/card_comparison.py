"""The section of a model card on the comparison that chose the balancing."""

from typing import Any

from trainer.delivery.card.card_tables import as_text, markdown_table
from trainer.display.figure_words import TITLES, baseline_words, by_metric, spread_words
from trainer.errors import listing
from trainer.run_folder.finished_comparison import Settings


def comparison_section(result: dict[str, Any], config: dict[str, Any]) -> str:
    """Say which strategies were compared, and whether this run follows the chosen one.

    Args:
        result: comparison.json, as `finished_comparison.read_comparison` returns it.
        config: the resolved config of the run.
    """
    compared = result["validation"]
    metric, baseline = TITLES[compared["metric"]], as_text(compared["baseline"])
    headings = ["strategy", metric, f"less {baseline} [95 % interval]", "reliable"]
    table = markdown_table(headings, [_line(compared, name) for name in by_metric(compared)])
    reliable = "Reliable: p below 0.05, adjusted for the number of strategies (Holm)"
    reliable += ", for these trainings alone." if compared["num_seeds"] == 1 else "."
    follows = f"{reliable} {_follows(result, config)}"
    return "\n\n".join([as_text(result["recommendation"]), _procedure(result), table, follows])


def _line(compared: dict[str, Any], name: str) -> list[str]:
    """Return the line of a strategy in the table."""
    strategy = compared["strategies"][name]
    against = strategy["against_baseline"]
    is_reliable = "" if against is None else "yes" if against["is_reliable"] else "no"
    spread = spread_words(strategy["figures"][compared["metric"]])
    return [as_text(name), spread, baseline_words(against), is_reliable]


def _procedure(result: dict[str, Any]) -> str:
    """Say how the strategies were trained and evaluated."""
    compared, winner = result["validation"], result["winner"]
    tested = list(dict.fromkeys((winner, compared["baseline"])))
    seeds = f"seed{'s' if len(result['seeds']) > 1 else ''} {', '.join(map(str, result['seeds']))}"
    words = [
        f"Every strategy was trained with {seeds} and the same budget"
        f" ({as_text(result['budget']['words'])}), and evaluated on the same"
        f" {compared['num_rows']:,} validation rows.",
        "The choice used validation rows only;"
        + (
            f" the test rows were then used once, by {as_text(' and '.join(tested))}."
            if result["test"]
            else " no test rows were used."
        ),
    ]
    if earlier := [name for name in result["tested"] if name not in tested]:
        words.append(f"An earlier conclusion also used them, by {as_text(listing(earlier))}.")
    if result["quick"]:
        words.append("Heads on the frozen encoder decided which strategies were compared.")
    if tune := result.get("tune"):
        words.append(
            f"Every strategy tried {len(tune['settings'])} settings and took the one that was best"
            f" on the selection rows. {as_text(tune['words'])}"
        )
    if selection := result.get("selection"):
        words.append(f"Selection: {as_text(selection['words'])}.")
    if result["failed"]:
        words.append(f"Failed: {as_text(listing(result['failed']))}.")
    return " ".join(words)


def _follows(result: dict[str, Any], config: dict[str, Any]) -> str:
    """Say whether the run has the settings of the chosen strategy."""
    winner = result["winner"]
    advised = Settings.model_validate(result["overrides"].get(winner, {})).flat()
    advised |= {"model.name": result["model"], "model.mode": result["mode"]}
    ours = Settings.model_validate({key: config[key] for key in config if key != "training"}).flat()
    ours |= {f"training.{key}": value for key, value in config.get("training", {}).items()}
    ours |= {f"model.{key}": value for key, value in config["model"].items()}
    unlike = [key for key, value in advised.items() if ours.get(key) != value]
    if not unlike:
        return f"This model follows the strategy {as_text(winner)}."
    differ = f"{as_text(listing(unlike))} differ."
    return f"This model does not follow the strategy {as_text(winner)}: {differ}"
